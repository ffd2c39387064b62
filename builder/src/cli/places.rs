//! Where a build writes. It is looked at before the build begins: whoever named a directory that is
//! missing need not wait for that word until all steps have run.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use super::args::BuildArgs;
use crate::export::{Destination, Output};

/// Why nothing can be written there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("cannot write {flag}: `{path}` is a directory, name a file")]
    IsDirectory { flag: String, path: PathBuf },
    #[error("cannot write {flag}: `{path}` is not a directory")]
    NotADirectory { flag: String, path: PathBuf },
    #[error("cannot write {flag}: the directory `{path}` is missing, make it first")]
    Missing { flag: String, path: PathBuf },
    #[error("cannot write {flag}: `{path}`: {source}")]
    NotWritable { flag: String, path: PathBuf, source: io::Error },
    #[error("{first} and {second} would both write `{path}`: name another place for one of them")]
    Twice { first: String, second: String, path: PathBuf },
}

/// A place that something is written to.
struct Place<'a> {
    /// What names it on the command line.
    flag: String,
    path: &'a Path,
    is_directory: bool,
    /// Whether the directories above it are made.
    makes_way: bool,
}

/// Refuses what could not be written at the end, and what would be written twice.
pub(crate) fn check(args: &BuildArgs, outputs: &[Output]) -> Result<(), PlaceError> {
    let files = [("--iidfile", &args.iidfile), ("--metadata-file", &args.metadata_file)];
    let files = files.into_iter().filter_map(|(flag, path)| {
        let (flag, path) = (flag.to_owned(), path.as_deref()?);
        Some(Place { flag, path, is_directory: false, makes_way: false })
    });
    let places: Vec<_> = files.chain(outputs.iter().filter_map(Place::of)).collect();
    let mut seen: Vec<(PathBuf, &Place<'_>)> = vec![];
    for place in &places {
        place.check()?;
        let path = resolved(place.path);
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == path)
            && !is_device(&path)
        {
            let (first, second) = (first.flag.clone(), place.flag.clone());
            return Err(PlaceError::Twice { first, second, path });
        }
        seen.push((path, place));
    }
    Ok(())
}

impl<'a> Place<'a> {
    fn of(output: &'a Output) -> Option<Self> {
        let flag = format!("-o type={}", output.kind());
        let (path, is_directory) = match output {
            Output::Local { dest } => (dest, true),
            Output::Tar { dest: Destination::Path(path) } => (path, false),
            Output::OciLayout(archive) | Output::DockerArchive(archive) => match &archive.dest {
                Destination::Path(path) => (path, !archive.tar),
                Destination::Stdout => return None,
            },
            Output::Tar { dest: Destination::Stdout }
            | Output::Store(_)
            | Output::CacheOnly
            | Output::Load(_)
            | Output::Registry(_) => return None,
        };
        Some(Self { flag, path, is_directory, makes_way: true })
    }

    fn check(&self) -> Result<(), PlaceError> {
        match fs::metadata(self.path) {
            Ok(found) if found.is_dir() && self.is_directory => self.check_directory(self.path),
            Ok(found) if found.is_dir() => {
                Err(PlaceError::IsDirectory { flag: self.flag.clone(), path: self.path.to_owned() })
            }
            Ok(_) if self.is_directory => Err(self.no_directory(self.path)),
            // It is written to as it is.
            Ok(found) if !found.is_file() => self.demand(self.path, Access::WRITE_OK),
            Ok(_) | Err(_) => self.check_way(),
        }
    }

    /// Looks at the directory in which it is made.
    fn check_way(&self) -> Result<(), PlaceError> {
        let mut above = parent(self.path);
        while self.makes_way && fs::symlink_metadata(above).is_err_and(|error| is_missing(&error)) {
            let next = parent(above);
            if next == above {
                break;
            }
            above = next;
        }
        self.check_directory(above)
    }

    fn check_directory(&self, directory: &Path) -> Result<(), PlaceError> {
        let (flag, path) = (self.flag.clone(), directory.to_owned());
        match fs::metadata(directory) {
            Ok(found) if found.is_dir() => {
                self.demand(directory, Access::WRITE_OK | Access::EXEC_OK)
            }
            Ok(_) => Err(self.no_directory(directory)),
            Err(error) if is_missing(&error) => Err(PlaceError::Missing { flag, path }),
            Err(source) => Err(PlaceError::NotWritable { flag, path, source }),
        }
    }

    fn demand(&self, path: &Path, access: Access) -> Result<(), PlaceError> {
        rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).map_err(|error| {
            let (flag, path) = (self.flag.clone(), path.to_owned());
            PlaceError::NotWritable { flag, path, source: error.into() }
        })
    }

    fn no_directory(&self, path: &Path) -> PlaceError {
        PlaceError::NotADirectory { flag: self.flag.clone(), path: path.to_owned() }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// The path by which two names of one place are known to be the same.
fn resolved(path: &Path) -> PathBuf {
    let whole = || path.canonicalize().ok();
    let by_parent = || Some(parent(path).canonicalize().ok()?.join(path.file_name()?));
    let absolute = || std::path::absolute(path).ok();
    whole().or_else(by_parent).or_else(absolute).unwrap_or_else(|| path.to_owned())
}

/// Whether it takes whatever is written, by however many.
fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(path: &Path, is_directory: bool, makes_way: bool) -> String {
        let place = Place { flag: "-o".to_owned(), path, is_directory, makes_way };
        place.check().map_or_else(|error| error.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn what_could_not_be_written_at_the_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        for (name, is_directory, makes_way, want) in [
            ("new", false, false, "good"),
            ("file", false, false, "good"),
            ("missing/new", false, false, "is missing"),
            ("missing/new", false, true, "good"),
            ("a/b/c", true, true, "good"),
            ("", false, true, "is a directory"),
            ("", true, true, "good"),
            ("file", true, true, "is not a directory"),
            ("file/new", false, false, "is not a directory"),
            ("file/a/b", true, true, "Not a directory"),
        ] {
            let said = judge(&path(name), is_directory, makes_way);
            assert!(said.contains(want), "{name}: {said}");
        }
        assert_eq!(judge(Path::new("/dev/null"), false, false), "good");
        assert_eq!(judge(Path::new("new-file-here"), false, false), "good");
    }
}
