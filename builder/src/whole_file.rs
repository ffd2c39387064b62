//! Files that appear whole or not at all: they grow beside their place and are moved there.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::stop::Patient;

/// A file that grows. Dropped before [`finish`](Self::finish), it leaves nothing.
#[derive(Debug)]
pub(crate) struct WholeFile {
    file: Form,
    path: PathBuf,
    /// Nothing where the file is written in its place.
    temporary: Option<PathBuf>,
}

#[derive(Debug)]
enum Form {
    Grows(File),
    Special(Patient),
}

impl WholeFile {
    /// Starts the file at `path`. What is there and no regular file, such as `/dev/null` or a pipe,
    /// is written to as it is, until `stop` is cancelled.
    pub(crate) fn create(path: &Path, stop: &CancellationToken) -> io::Result<Self> {
        let path = path.to_owned();
        if is_special(&path) {
            let file = Form::Special(Patient::open(&path, stop)?);
            return Ok(Self { file, path, temporary: None });
        }
        loop {
            let temporary = beside(&path);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => {
                    let file = Form::Grows(created?);
                    return Ok(Self { file, path, temporary: Some(temporary) });
                }
            }
        }
    }

    /// Puts the file in its place.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if let Some(temporary) = &self.temporary {
            std::fs::rename(temporary, &self.path)?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Form::Grows(file) => file.write(bytes),
            Form::Special(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.file {
            Form::Grows(file) => file.flush(),
            Form::Special(file) => file.flush(),
        }
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _nothing_to_remove = std::fs::remove_file(temporary);
        }
    }
}

/// Whether something is at `path` that a file must not take the place of.
pub(crate) fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// A name beside `path`. It does not hold the file's own, which may be as long as a name can be,
/// and another one each time: processes in other namespaces may have our ID.
fn beside(path: &Path) -> PathBuf {
    let directory = path.parent().unwrap_or(Path::new(""));
    directory.join(format!(".rbuild-{:016x}", RandomState::new().hash_one(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(path: &Path) -> WholeFile {
        WholeFile::create(path, &CancellationToken::new()).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_that_grow_side_by_side_do_not_meet() {
        let directory = tempfile::tempdir().unwrap();
        let longest = "x".repeat(255);
        let paths = ["id.web", "id.app", "id", &longest].map(|name| directory.path().join(name));
        let mut files: Vec<_> = paths.iter().chain(&paths[..1]).map(|path| create(path)).collect();
        for (number, file) in files.iter_mut().enumerate() {
            write!(file, "{number}").unwrap();
        }
        assert_eq!(names(directory.path()).len(), 5);
        files.into_iter().for_each(|file| file.finish().unwrap());
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
        assert_eq!(paths.each_ref().map(read), ["4", "1", "2", "3"]);
        assert_eq!(names(directory.path()), ["id", "id.app", "id.web", &longest]);
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        std::fs::write(&path, "old").unwrap();
        write!(create(&path), "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(directory.path()), ["id"]);
    }
}
