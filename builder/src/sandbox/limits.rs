//! Resource limits of a command (`--ulimit`), and the one that rbuild lifts for itself.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::SandboxError;
use super::error::OrCannot;

/// A limit whose name is known; `None` is no limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Limit {
    name: String,
    soft: Option<u64>,
    hard: Option<u64>,
}

impl Limit {
    /// Takes a limit as the user wrote it; -1 is none.
    pub(super) fn parse((name, soft, hard): &(String, i64, i64)) -> Result<Self, SandboxError> {
        resource(name)?;
        let value = |number: i64| u64::try_from(number).ok();
        Ok(Self { name: name.clone(), soft: value(*soft), hard: value(*hard) })
    }

    /// How many files this process may have open.
    pub(super) fn open_files() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        Self { name: "nofile".to_owned(), soft: current, hard: maximum }
    }

    /// Sets it on this process.
    pub(super) fn apply(&self) -> Result<(), SandboxError> {
        let limit = Rlimit { current: self.soft, maximum: self.hard };
        setrlimit(resource(&self.name)?, limit)
            .or_cannot_with(|| format!("set ulimit {}={}", self.name, self.values()))
    }

    fn values(&self) -> String {
        let text = |value: Option<u64>| value.map_or("-1".to_owned(), |number| number.to_string());
        format!("{}:{}", text(self.soft), text(self.hard))
    }
}

/// Lets this process have as many files open as it may ever have: a walk holds one for each
/// directory on its way down. Returns the limit that it had, which is what commands expect.
pub(super) fn raise_open_files() -> Limit {
    let had = Limit::open_files();
    // Where that is forbidden, the walks of deep trees tell it.
    let _forbidden = Limit { soft: had.hard, ..had.clone() }.apply();
    had
}

fn resource(name: &str) -> Result<Resource, SandboxError> {
    Ok(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        unknown => return Err(SandboxError::UnknownUlimit(unknown.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_nobody_knows_is_refused() {
        let error = Limit::parse(&("nofiles".to_owned(), 1, 1)).unwrap_err();
        assert_eq!(error.to_string(), "unknown ulimit \"nofiles\"");
    }

    #[test]
    fn minus_one_is_no_limit() {
        let limit = Limit::parse(&("core".to_owned(), 0, -1)).unwrap();
        assert_eq!(limit.values(), "0:-1");
    }
}
