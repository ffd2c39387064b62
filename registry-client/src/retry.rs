//! What is temporary, and how long to wait before the next try.
//!
//! A refused connection, an unknown host name or a bad certificate do not mend themselves within
//! seconds, and the user should hear of them at once; a connection that broke in use, a server that
//! is busy or being restarted are worth another try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::Error;

/// How often and after which pauses a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often it is tried in all; at least once.
    pub tries: u32,
    /// The pause after the first failure, doubled after each further one. A random part of up to a
    /// half is taken off, so that many clients do not come back at once.
    pub first_wait: Duration,
    /// The longest pause, also where the server asks for more.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let (first_wait, longest_wait) = (Duration::from_secs(1), Duration::from_secs(30));
        Self { tries: 4, first_wait, longest_wait }
    }
}

impl RetryPolicy {
    /// The pause after the `failures`th failure in a row, with `luck` between 0 and 1.
    fn wait(&self, failures: u32, asked: Option<Duration>, luck: f64) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << (failures - 1).min(16));
        let jittered = doubled.mul_f64(1.0 - luck / 2.0);
        asked.unwrap_or(jittered).min(self.longest_wait)
    }
}

/// Counts the tries of one request.
#[derive(Debug)]
pub struct Tries {
    policy: RetryPolicy,
    failures: u32,
}

impl Tries {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Only one try: somebody else will be asked next.
    pub(crate) fn once() -> Self {
        Self::new(RetryPolicy { tries: 1, ..RetryPolicy::default() })
    }

    /// Forgets the failures, because something has been achieved since.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits for the next try, or gives `error` back if there shall be none.
    pub async fn again(&mut self, mut error: Error) -> Result<(), Error> {
        self.failures += 1;
        if self.failures >= self.policy.tries || !is_temporary(&error) {
            if let Error::Refused(answer) = &mut error {
                answer.tries = self.failures;
            }
            return Err(error);
        }
        let asked = error.answer().and_then(|answer| answer.retry_after);
        tokio::time::sleep(self.policy.wait(self.failures, asked, luck())).await;
        Ok(())
    }
}

/// A number between 0 and 1. Each `RandomState` has other keys: enough to spread clients.
fn luck() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

/// Whether the same request may succeed in a moment.
fn is_temporary(error: &Error) -> bool {
    match error {
        Error::Refused(answer) => {
            matches!(answer.status, 408 | 429 | 500..=599) && !matches!(answer.status, 501 | 505)
        }
        Error::Unreachable { obstacle, .. } => obstacle.is_temporary(),
        Error::Broken { .. } | Error::Stalled { .. } | Error::TooSlow { .. } => true,
        Error::NotFound(_)
        | Error::Unauthorized(_)
        | Error::Digest { .. }
        | Error::Size { .. }
        | Error::TooBig { .. }
        | Error::Manifest { .. }
        | Error::Protocol { .. }
        | Error::Realm { .. }
        | Error::Credentials { .. }
        | Error::Blocked { .. }
        | Error::NeverAsked { .. }
        | Error::Address(_)
        | Error::NoUrl(_)
        | Error::Read { .. }
        | Error::Setup(_)
        | Error::Hosts { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_the_servers_wish_is_capped() {
        let policy = RetryPolicy::default();
        let seconds = |failures, asked: Option<u64>, luck| {
            policy.wait(failures, asked.map(Duration::from_secs), luck).as_secs_f64()
        };
        assert_eq!([1, 2, 3].map(|failures| seconds(failures, None, 0.0)), [1.0, 2.0, 4.0]);
        assert_eq!(seconds(1, None, 1.0), 0.5);
        assert_eq!(seconds(1, Some(7), 0.3), 7.0);
        assert_eq!(seconds(1, Some(86_400), 0.3), 30.0);
        assert_eq!(seconds(40, None, 0.0), 30.0);
    }

    #[test]
    fn luck_is_not_always_the_same() {
        let (first, second) = (luck(), luck());
        assert!((0.0..=1.0).contains(&first) && first != second);
    }
}
