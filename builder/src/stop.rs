//! Ends work that blocks a thread, once nobody wants the result any more.
//!
//! Such work asks at every file and every block whether it is to go on, and fails with `ECANCELED`
//! if not. Nobody is shown that error: who stopped the work knows that.

use std::io::{self, Read, Write};

use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

/// Fails once `stop` is cancelled.
pub(crate) fn go_on(stop: &CancellationToken) -> rustix::io::Result<()> {
    // Not `EINTR`: whoever sees that tries again.
    if stop.is_cancelled() { Err(Errno::CANCELED) } else { Ok(()) }
}

/// Reads or writes until its token is cancelled; then every call is an error.
#[derive(Debug)]
pub(crate) struct Stoppable<T> {
    inner: T,
    stop: CancellationToken,
}

impl<T> Stoppable<T> {
    pub(crate) fn new(inner: T, stop: &CancellationToken) -> Self {
        Self { inner, stop: stop.clone() }
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: Read> Read for Stoppable<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        go_on(&self.stop)?;
        self.inner.read(buffer)
    }
}

impl<T: Write> Write for Stoppable<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        go_on(&self.stop)?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        go_on(&self.stop)?;
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_after_the_stop() {
        let stop = CancellationToken::new();
        let mut out = Stoppable::new(vec![], &stop);
        out.write_all(b"a").unwrap();
        stop.cancel();
        assert!(out.write_all(b"b").is_err());
        assert_eq!(out.into_inner(), b"a");
    }
}
