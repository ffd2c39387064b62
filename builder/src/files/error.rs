//! Why files could not be found, digested, copied or made.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::missing::Missing;
use crate::archive::shown_name;
use crate::owners::MissingId;

/// Why files could not be found, digested, copied or made. Paths are those of the tree concerned.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A source is not there, or not to be seen.
    #[error("{0}")]
    NotFound(Box<Missing>),
    /// A file became another one between the digest that its cache key holds and its copy.
    #[error("`{}` changed while it was copied", shown(.path))]
    Changed {
        /// Its path in the build context.
        path: PathBuf,
    },
    /// A pattern that cannot be read.
    #[error("syntax error in pattern `{pattern}`")]
    Pattern {
        /// As it was written.
        pattern: String,
    },
    /// A `--chmod` that cannot be read.
    #[error("invalid mode `{mode}`: it should be octal, between 0 and 07777, or like `u=rwX,go-w`")]
    Mode {
        /// As it was written.
        mode: String,
    },
    /// Links lead to links without end.
    #[error("too many links in `{}`", shown(.path))]
    TooManyLinks {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A directory should be where something else is.
    #[error("mkdir {}: not a directory", shown(.path))]
    NotADirectory {
        /// What is no directory.
        path: PathBuf,
    },
    /// A file should replace a directory.
    #[error("cannot replace to directory {} with file", shown(.path))]
    FileOverDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A directory should be merged into something that is none.
    #[error("cannot copy to non-directory: {}{}", shown(.path), to_target(.target.as_deref()))]
    DirectoryOverFile {
        /// What is no directory.
        path: PathBuf,
        /// Where it leads, if it is a link.
        target: Option<PathBuf>,
    },
    /// A user or group name for a filesystem that has nothing in it yet.
    #[error("cannot look up the owner `{name}` in an empty filesystem")]
    NobodyThere {
        /// The user or group.
        name: String,
    },
    /// An owner that this user can't give to files.
    #[error("cannot set the owner")]
    MissingId(#[source] MissingId),
    /// A file that must be small and regular is not: `/etc/passwd` read from an image.
    #[error("cannot read `{}`: it is {what}", shown(.path))]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An archive that could not be unpacked.
    #[error("cannot unpack `{}`{}", shown(.archive), in_entry(.entry.as_deref()))]
    Archive {
        /// The archive's path in its source.
        archive: PathBuf,
        /// The entry that it was about.
        entry: Option<PathBuf>,
        /// The cause.
        source: io::Error,
    },
    /// The operating system refused something.
    #[error("cannot {action} `{}`", shown(.path))]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn shown(path: &Path) -> String {
    shown_name(path.as_os_str().as_bytes())
}

fn to_target(target: Option<&Path>) -> String {
    target.map(|target| format!(" (a link to `{}`)", target.display())).unwrap_or_default()
}

fn in_entry(entry: Option<&Path>) -> String {
    entry.map(|entry| format!(": entry `{}`", shown(entry))).unwrap_or_default()
}

impl FilesError {
    /// What the user can do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotFound(missing) => missing.help(),
            Self::Changed { .. } => {
                Some("build again when nothing writes to it any more".to_owned())
            }
            Self::NobodyThere { .. } => Some("give the owner as a number".to_owned()),
            Self::DirectoryOverFile { path, target: Some(target) } => Some(format!(
                "COPY follows no link inside of a tree: copy what belongs there in an instruction \
                 of its own, with {} as the destination",
                path.parent().unwrap_or(path).join(target).display()
            )),
            Self::DirectoryOverFile { target: None, .. } | Self::FileOverDirectory { .. } => {
                Some("remove it in a step before, or choose another destination".to_owned())
            }
            Self::Pattern { .. }
            | Self::MissingId(_)
            | Self::Mode { .. }
            | Self::TooManyLinks { .. }
            | Self::NotADirectory { .. }
            | Self::Unfit { .. }
            | Self::Archive { .. }
            | Self::Io { .. } => None,
        }
    }
}

/// Says on what an operating system call was attempted.
pub(crate) trait Attempt<T> {
    /// Turns its error into one that names `action` and `path`.
    fn attempt(self, action: &'static str, path: &Path) -> Result<T, FilesError>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, action: &'static str, path: &Path) -> Result<T, FilesError> {
        self.map_err(|source| FilesError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}
