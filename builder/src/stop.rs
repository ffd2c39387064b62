//! Ends reading and writing that blocks a thread, once nobody wants the result any more.

use std::io::{self, Read, Write};

use tokio_util::sync::CancellationToken;

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

    fn check(&self) -> io::Result<()> {
        // Not `Interrupted`: whoever sees that tries again.
        if self.stop.is_cancelled() { Err(io::Error::other("stopped")) } else { Ok(()) }
    }
}

impl<T: Read> Read for Stoppable<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.read(buffer)
    }
}

impl<T: Write> Write for Stoppable<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
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
