//! Build contexts: a directory, what its `.dockerignore` hides, and its Dockerfile.
//!
//! A local context is read in place; one that comes from elsewhere is [`received`] first. Its ignore file and its Dockerfile are looked for within the
//! directory that they are in: one that is a link to somewhere else on the host is not read.

pub mod received;

use std::io;
use std::path::{Path, PathBuf};

use cache::{CacheError, RunDir};
use frontend::ignore::{Ignore, IgnoreError};
use tokio_util::sync::CancellationToken;

use crate::files::{FilesError, Root, Source};

/// A directory that COPY, ADD and bind mounts take files from.
#[derive(Debug)]
pub struct BuildContext {
    root: Root,
    path: PathBuf,
    label: String,
    ignore: Option<Ignore>,
    keep_owner: bool,
    time: Option<i64>,
    /// Where it was unpacked.
    _run_dir: Option<RunDir>,
}

/// A Dockerfile that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileText {
    /// Where it is: as it was asked for, or as its default name was found.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// Why a context or its Dockerfile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory cannot be opened.
    #[error("cannot open the build context `{}`", .path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no Dockerfile.
    #[error("failed to read dockerfile: open {}: no such file or directory", .path.display())]
    NoDockerfile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// An ignore file has a line that makes no sense.
    #[error("cannot use `{name}`")]
    Ignore {
        /// The file's name.
        name: String,
        /// What is wrong with it.
        source: IgnoreError,
    },
    /// A file in it cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl ContextError {
    /// What the user can do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoDockerfile { path } => {
                Some(format!("make `{}`, or name another file with -f", path.display()))
            }
            Self::Files(error) => error.help(),
            Self::Open { .. } | Self::Ignore { .. } | Self::Cache(_) => None,
        }
    }
}

impl BuildContext {
    /// Opens the directory `dir`. With a Dockerfile, an ignore file that is called like it and lies
    /// beside it is used instead of the context's own.
    pub fn open(dir: &Path, dockerfile: Option<&Path>) -> Result<Self, ContextError> {
        let root = open(dir)?;
        let beside = dockerfile.map(ignore_beside).transpose()?.flatten();
        let ignore = match beside {
            Some(ignore) => Some(ignore),
            None => read_ignore(&root, Path::new(".dockerignore"))?,
        };
        let ignore = ignore.filter(|ignore| !ignore.is_empty());
        let path = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let label = format!("the build context `{}`", dir.display());
        Ok(Self { root, path, label, ignore, keep_owner: false, time: None, _run_dir: None })
    }

    /// Takes a directory that was made for this build, such as a checkout; nothing in it is hidden.
    pub fn whole(root: Root, label: impl Into<String>) -> Self {
        let (path, label) = (PathBuf::new(), label.into());
        Self { root, path, label, ignore: None, keep_owner: false, time: None, _run_dir: None }
    }

    /// Takes a checkout in `run_dir`; nothing in it is hidden.
    pub fn checked_out(root: Root, label: String, run_dir: RunDir) -> Self {
        Self { _run_dir: Some(run_dir), ..Self::whole(root, label) }
    }

    /// Notes when it was made, in seconds since 1970.
    pub fn made_at(self, time: i64) -> Self {
        Self { time: Some(time), ..self }
    }

    /// When it was made, if it is a commit or a download: seconds since 1970.
    pub fn time(&self) -> Option<i64> {
        self.time
    }

    /// Takes the directory of an archive that was unpacked into `run_dir`; its owners count.
    fn unpacked(root: Root, label: String, run_dir: RunDir) -> Self {
        Self { keep_owner: true, _run_dir: Some(run_dir), ..Self::whole(root, label) }
    }

    /// The directory.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Its path: what the digests of its files are remembered by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What hides files of it.
    pub fn ignore(&self) -> Option<&Ignore> {
        self.ignore.as_ref()
    }

    /// Whether `path` is a directory, and not hidden.
    pub fn has_directory(&self, path: &Path) -> bool {
        let hidden = path.to_str().zip(self.ignore.as_ref()).is_some_and(|(p, i)| i.excludes(p));
        !hidden && matches!(self.root.file_type(path), Ok(Some(kind)) if kind.is_dir())
    }

    /// Reads the Dockerfile at `path` in it. No link leads out of the context, as it must be where
    /// the context is somebody else's: a checkout or an archive.
    pub fn read_dockerfile(&self, path: &Path) -> Result<DockerfileText, ContextError> {
        find_dockerfile(&self.root, path, path)
    }

    /// It as a source of files, which are all root's unless it was an archive. It is read until
    /// `stop` is cancelled.
    pub fn source<'a>(&'a self, stop: &'a CancellationToken) -> Source<'a> {
        Source {
            root: &self.root,
            label: &self.label,
            ignore: self.ignore.as_ref(),
            keep_owner: self.keep_owner,
            stop,
        }
    }
}

/// Reads the Dockerfile `path` of the host; a link is followed within the directory it is in. One
/// that is called `Dockerfile` may also be called `dockerfile`.
pub fn read_dockerfile(path: &Path) -> Result<DockerfileText, ContextError> {
    let missing = || ContextError::NoDockerfile { path: path.to_owned() };
    let name = path.file_name().ok_or_else(missing)?;
    let root = Root::open(directory_of(path)).map_err(|_| missing())?;
    find_dockerfile(&root, Path::new(name), path)
}

/// Reads the Dockerfile `path` of `root`, which people know as `shown`.
fn find_dockerfile(root: &Root, path: &Path, shown: &Path) -> Result<DockerfileText, ContextError> {
    if let Some(found) = read_text(root, path, shown)? {
        return Ok(found);
    }
    let lower = |path: &Path| path.with_file_name("dockerfile");
    let found = match path.file_name() {
        Some(name) if name == "Dockerfile" => read_text(root, &lower(path), &lower(shown))?,
        Some(_) | None => None,
    };
    found.ok_or_else(|| ContextError::NoDockerfile { path: shown.to_owned() })
}

fn read_text(
    root: &Root,
    name: &Path,
    path: &Path,
) -> Result<Option<DockerfileText>, ContextError> {
    let Some(bytes) = root.read_small(name)? else { return Ok(None) };
    Ok(Some(DockerfileText { path: path.to_owned(), text: text_of(&bytes) }))
}

/// The text of a Dockerfile. A byte that is no part of a character becomes U+FFFD, as it would where
/// the image's config is written; in a comment it does no harm.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

fn open(dir: &Path) -> Result<Root, ContextError> {
    Root::open(dir).map_err(|source| ContextError::Open { path: dir.to_owned(), source })
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// The ignore file `<dockerfile>.dockerignore`, if there is one.
fn ignore_beside(dockerfile: &Path) -> Result<Option<Ignore>, ContextError> {
    let Some(name) = dockerfile.file_name() else { return Ok(None) };
    let Ok(root) = Root::open(directory_of(dockerfile)) else { return Ok(None) };
    let mut name = name.to_owned();
    name.push(".dockerignore");
    read_ignore(&root, Path::new(&name))
}

fn read_ignore(root: &Root, path: &Path) -> Result<Option<Ignore>, ContextError> {
    let Some(bytes) = root.read_small(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let name = || path.display().to_string();
    Ignore::parse(&text).map(Some).map_err(|source| ContextError::Ignore { name: name(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Tree;

    fn context(tree: &Tree, dockerfile: Option<&str>) -> Result<BuildContext, ContextError> {
        let dockerfile = dockerfile.map(|dockerfile| tree.at(dockerfile));
        BuildContext::open(&tree.at(""), dockerfile.as_deref())
    }

    fn hides(tree: &Tree, dockerfile: Option<&str>, path: &str) -> bool {
        let context = context(tree, dockerfile).unwrap();
        context.ignore().is_some_and(|ignore| ignore.excludes(path))
    }

    #[test]
    fn the_ignore_file_beside_the_dockerfile_replaces_the_contexts() {
        let tree = Tree::new()
            .file(".dockerignore", "a\n")
            .file("sub/web.dockerfile.dockerignore", "\u{feff}b\n");
        assert!(hides(&tree, None, "a"));
        assert!(hides(&tree, Some("Dockerfile"), "a"));
        assert!(!hides(&tree, Some("sub/web.dockerfile"), "a"));
        assert!(hides(&tree, Some("sub/web.dockerfile"), "b"));
    }

    #[test]
    fn an_ignore_file_that_leads_out_of_the_context_is_not_read() {
        let host = Tree::new().file("secret", "a\n").file("fifo-instead", "");
        let tree = Tree::new().link(".dockerignore", host.at("secret").to_str().unwrap());
        assert!(!hides(&tree, None, "a"));
        let tree = Tree::new().file("inside", "a\n").link(".dockerignore", "../../inside");
        assert!(hides(&tree, None, "a"));
    }

    #[test]
    fn an_ignore_file_that_would_hang_or_makes_no_sense_is_an_error() {
        let fifo = context(&Tree::new().fifo(".dockerignore"), None).unwrap_err();
        assert!(matches!(fifo, ContextError::Files(FilesError::Unfit { .. })));
        let bad = context(&Tree::new().file(".dockerignore", "!\n"), None).unwrap_err();
        assert!(matches!(bad, ContextError::Ignore { .. }));
    }

    #[test]
    fn a_context_that_is_not_there_is_named() {
        let error = BuildContext::open(Path::new("/no/such/dir"), None).unwrap_err();
        assert_eq!(error.to_string(), "cannot open the build context `/no/such/dir`");
    }

    #[test]
    fn a_dockerfile_may_be_in_lower_case_if_it_has_the_default_name() {
        let tree = Tree::new().file("dockerfile", "FROM a").file("web.Dockerfile", "FROM b");
        let found = read_dockerfile(&tree.at("Dockerfile")).unwrap();
        assert_eq!((found.path, found.text.as_str()), (tree.at("dockerfile"), "FROM a"));
        assert_eq!(read_dockerfile(&tree.at("web.Dockerfile")).unwrap().text, "FROM b");
        assert!(read_dockerfile(&tree.at("Web.dockerfile")).is_err());
    }

    #[test]
    fn a_dockerfile_of_somebody_elses_context_cannot_be_read_from_the_host() {
        let host = Tree::new().file("Dockerfile", "FROM host");
        let tree =
            Tree::new().link("sub", host.at("").to_str().unwrap()).file("d/Dockerfile", "in");
        let context = BuildContext::whole(tree.root(), "the checkout");
        let read = |path: &str| context.read_dockerfile(Path::new(path));
        assert!(matches!(read("sub/Dockerfile"), Err(ContextError::NoDockerfile { .. })));
        assert_eq!(read("d/Dockerfile").unwrap().text, "in");
        assert_eq!(read("../d/Dockerfile").unwrap().text, "in");
    }

    #[test]
    fn a_dockerfile_may_be_a_link_but_not_to_the_outside() {
        let tree = Tree::new().file("ctx/real", "FROM a").link("ctx/Dockerfile", "real");
        assert_eq!(read_dockerfile(&tree.at("ctx/Dockerfile")).unwrap().text, "FROM a");
        let tree = Tree::new().file("secret", "FROM a").link("ctx/Dockerfile", "../secret");
        let error = read_dockerfile(&tree.at("ctx/Dockerfile")).unwrap_err();
        assert!(matches!(error, ContextError::NoDockerfile { .. }));
        assert!(error.to_string().starts_with("failed to read dockerfile: open "));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_one_by_one() {
        assert_eq!(text_of("ENV A=ä\n".as_bytes()), "ENV A=ä\n");
        assert_eq!(text_of(b"A=\xff\xe2\x82 b"), "A=\u{fffd}\u{fffd}\u{fffd} b");
    }
}
