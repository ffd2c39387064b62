//! Files that someone else made: read if they are files, and no further than is wanted of them.
//!
//! A pipe, or a link to a device, in their place would have the reader wait or read for ever.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens a regular file, and says how large it is; links are followed.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok((file, metadata.len()))
}

/// Opens a file that must have `size` bytes.
pub(crate) fn open_sized(path: &Path, size: u64) -> io::Result<File> {
    let (file, found) = open(path)?;
    if found == size {
        return Ok(file);
    }
    let error = format!("it has {found} bytes, and its descriptor says {size}");
    Err(io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a document.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    /// What registries are asked for is as large.
    const MOST: u64 = 32 << 20;
    let (file, size) = open(path)?;
    let mut bytes = vec![];
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= MOST {
        return Ok(bytes);
    }
    let error = format!("it has {size} bytes, and no document has more than {MOST}");
    Err(io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9cdf64294 of BuildKit: a pipe in place of a file was read, and one without an end.
    #[test]
    fn what_is_no_file_or_of_another_size_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), kind, mode, 0).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        for name in ["pipe", "zero", "."] {
            assert!(open(&path(name)).is_err() && read(&path(name)).is_err(), "{name}");
        }
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert_eq!(read(&path("link")).unwrap(), b"text");
        assert!(open_sized(&path("file"), 4).is_ok());
        let error = open_sized(&path("file"), 2).unwrap_err();
        assert_eq!(error.to_string(), "it has 4 bytes, and its descriptor says 2");
        File::create(path("large")).unwrap().set_len((32 << 20) + 1).unwrap();
        assert!(read(&path("large")).unwrap_err().to_string().contains("no document"));
    }
}
