//! Reads the standard output and error of another process as they come.

use std::io::{PipeWriter, pipe};
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::SandboxError;
use super::error::OrCannot;

/// What one read takes: a pipe's usual capacity.
const BUFFER: usize = 64 << 10;

/// The near ends of two pipes.
pub(super) struct Streams {
    stdout: Stream,
    stderr: Stream,
    /// Which of two that have something goes first: the one that was not read last.
    stderr_is_next: bool,
}

struct Stream {
    pipe: Option<Receiver>,
    buffer: Vec<u8>,
}

/// The far ends, for the other process.
pub(super) struct FarEnds {
    pub(super) stdout: PipeWriter,
    pub(super) stderr: PipeWriter,
}

impl Streams {
    /// Makes both pipes. Must be called inside a runtime.
    pub(super) fn new() -> Result<(Self, FarEnds), SandboxError> {
        let (stdout, far_stdout) = Stream::new()?;
        let (stderr, far_stderr) = Stream::new()?;
        let near = Self { stdout, stderr, stderr_is_next: false };
        Ok((near, FarEnds { stdout: far_stdout, stderr: far_stderr }))
    }

    /// Waits for the next bytes and says whether they are from standard error; when both streams
    /// have ended, waits for ever. What a command writes to both at once comes from standard output
    /// first. Nothing is lost if the wait is abandoned.
    pub(super) async fn next(&mut self) -> (bool, &[u8]) {
        let (stderr, length) = if self.stderr_is_next {
            tokio::select! {
                biased;
                length = self.stderr.read() => (true, length),
                length = self.stdout.read() => (false, length),
            }
        } else {
            tokio::select! {
                biased;
                length = self.stdout.read() => (false, length),
                length = self.stderr.read() => (true, length),
            }
        };
        self.stderr_is_next = !stderr;
        let stream = if stderr { &self.stderr } else { &self.stdout };
        (stderr, &stream.buffer[..length])
    }

    /// Takes what is left once the other process has ended, without waiting: a process that
    /// inherited a pipe may hold it open for ever.
    pub(super) fn drain(self, mut output: impl FnMut(bool, &[u8])) {
        self.stdout.drain(|bytes| output(false, bytes));
        self.stderr.drain(|bytes| output(true, bytes));
    }
}

impl Stream {
    fn new() -> Result<(Self, PipeWriter), SandboxError> {
        let (near, far) = pipe().or_cannot("make a pipe")?;
        let pipe = Receiver::from_owned_fd(OwnedFd::from(near)).or_cannot("watch a pipe")?;
        Ok((Self { pipe: Some(pipe), buffer: vec![0; BUFFER] }, far))
    }

    async fn read(&mut self) -> usize {
        loop {
            let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
            match pipe.read(&mut self.buffer).await {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(length) => return length,
            }
        }
    }

    fn drain(mut self, mut output: impl FnMut(&[u8])) {
        // The runtime may not know yet that a pipe can be read, so it is not asked.
        let pipe = self.pipe.and_then(|pipe| pipe.into_nonblocking_fd().ok());
        let Some(pipe) = pipe else { return };
        loop {
            match rustix::io::read(&pipe, &mut self.buffer) {
                Err(rustix::io::Errno::INTR) => (),
                Ok(0) | Err(_) => return,
                Ok(length) => output(&self.buffer[..length]),
            }
        }
    }
}
