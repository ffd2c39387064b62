//! Ends work that blocks a thread, once nobody wants the result any more.
//!
//! Such work asks at every file and every block whether it is to go on, and fails with `ECANCELED`
//! if not. Nobody is shown that error: who stopped the work knows that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
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

/// How long a stop may go unnoticed.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Waits until `file` can be read or written, or until `stop` is cancelled.
pub(crate) fn wait_for(
    file: impl AsFd,
    wanted: PollFlags,
    stop: &CancellationToken,
) -> io::Result<()> {
    loop {
        go_on(stop)?;
        let mut ready = [PollFd::new(&file, wanted)];
        match rustix::event::poll(&mut ready, Some(&PATIENCE)) {
            Ok(0) | Err(Errno::INTR) => {}
            // What is wrong with it the call itself tells better.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

/// Writes to what may have no reader, or one that has stopped, until its token is cancelled.
#[derive(Debug)]
pub(crate) struct Patient {
    file: File,
    /// Whether a write may wait for a reader.
    waits: bool,
    stop: CancellationToken,
}

impl Patient {
    /// Opens what is at `path` and no regular file; a pipe once it has a reader.
    pub(crate) fn open(path: &Path, stop: &CancellationToken) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let is_pipe = || fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        loop {
            go_on(stop)?;
            match options.open(path) {
                Err(error) if is(&error, Errno::NXIO) && is_pipe() => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                opened => return Ok(Self { file: opened?, waits: true, stop: stop.clone() }),
            }
        }
    }

    /// Takes standard output.
    pub(crate) fn stdout(stop: &CancellationToken) -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let waits = !file.metadata()?.is_file();
        Ok(Self { file, waits, stop: stop.clone() })
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        /// So much fits into a pipe that can be written to.
        const AT_ONCE: usize = libc::PIPE_BUF;
        if !self.waits {
            go_on(&self.stop)?;
            return self.file.write(bytes);
        }
        let some = &bytes[..bytes.len().min(AT_ONCE)];
        loop {
            wait_for(&self.file, PollFlags::OUT, &self.stop)?;
            match self.file.write(some) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
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

    #[test]
    fn a_pipe_that_nothing_reads_is_left_at_the_stop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let in_a_moment = |stop: &CancellationToken| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                stop.cancel();
            });
        };
        let stop = CancellationToken::new();
        in_a_moment(&stop);
        let unread = Patient::open(&path, &stop).unwrap_err();
        assert!(is(&unread, Errno::CANCELED), "{unread}");

        // A reader that reads nothing.
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let mut reader = File::from(rustix::fs::open(&path, flags, mode).unwrap());
        let stop = CancellationToken::new();
        let mut writer = Patient::open(&path, &stop).unwrap();
        in_a_moment(&stop);
        let full = writer.write_all(&vec![7; 1 << 20]).unwrap_err();
        assert!(is(&full, Errno::CANCELED), "{full}");
        let mut some = [0; 100_000];
        assert!(reader.read(&mut some).unwrap() >= 4096, "what fits is written");
    }
}
