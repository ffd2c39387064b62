//! Build contexts: a directory, what its `.dockerignore` hides, and its Dockerfile.
//!
//! A local context is read in place; one that comes from elsewhere is [`received`] first. Its ignore file and its Dockerfile are looked for within the
//! directory that they are in: one that is a link to somewhere else on the host is not read.

pub mod received;

use std::io;
use std::path::{Path, PathBuf};

use cache::{CacheError, RunDir};
use frontend::ignore::{Ignore, IgnoreError};
use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use crate::files::{FilesError, Root, Source};

/// A directory that COPY, ADD and bind mounts take files from.
#[derive(Debug)]
pub struct BuildContext {
    root: Root,
    path: PathBuf,
    label: String,
    ignore: Option<Ignore>,
    /// Why an ignore file that is there hides nothing.
    unread_ignore: Option<String>,
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
    /// The ignore file that was named can't be read.
    #[error("cannot read the ignore file `{path}`")]
    IgnoreFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
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
            Self::NoDockerfile { path } => Some(format!(
                "create `{}`, or name another file with -f, from the directory where you are",
                path.display()
            )),
            Self::Files(error) => error.help(),
            Self::Open { .. } | Self::Ignore { .. } | Self::IgnoreFile { .. } | Self::Cache(_) => {
                None
            }
        }
    }
}

impl BuildContext {
    /// Opens the directory `dir`. With a Dockerfile, an ignore file that is called like it and lies
    /// beside it is used instead of the context's own.
    pub fn open(dir: &Path, dockerfile: Option<&Path>) -> Result<Self, ContextError> {
        let root = open(dir)?;
        let found = match dockerfile.map(ignore_beside).transpose()?.flatten() {
            Some(found) => found,
            None => read_ignore(&root, Path::new(".dockerignore"))?.unwrap_or_default(),
        };
        let shown = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let label = format!("the build context `{}`", shown.display());
        let path = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let IgnoreFile { patterns, unread } = found;
        let ignore = patterns.filter(|ignore| !ignore.is_empty());
        Ok(Self { path, ignore, unread_ignore: unread, ..Self::whole(root, label) })
    }

    /// Has the file `path` of the host say what is hidden, and no other.
    pub fn ignoring(mut self, path: &Path) -> Result<Self, ContextError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ContextError::IgnoreFile { path: path.to_owned(), source })?;
        let patterns = Ignore::parse(&text)
            .map_err(|source| ContextError::Ignore { name: path.display().to_string(), source })?;
        self.ignore = (!patterns.is_empty()).then_some(patterns);
        self.unread_ignore = None;
        Ok(self)
    }

    /// Why an ignore file that is there hides nothing; most often there is no reason to say so.
    pub fn unread_ignore(&self) -> Option<&str> {
        self.unread_ignore.as_deref()
    }

    /// Takes a directory that was made for this build, such as a checkout; nothing in it is hidden.
    pub fn whole(root: Root, label: impl Into<String>) -> Self {
        let (path, label) = (PathBuf::new(), label.into());
        Self {
            root,
            path,
            label,
            ignore: None,
            unread_ignore: None,
            keep_owner: false,
            time: None,
            _run_dir: None,
        }
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

/// Reads the Dockerfile `path` of the host; a link is followed within the directory it is in, within
/// the directory `context`, and to what is called like a Dockerfile. One that is called `Dockerfile`
/// may also be called `dockerfile`.
pub fn read_dockerfile(
    path: &Path,
    context: Option<&Path>,
) -> Result<DockerfileText, ContextError> {
    let missing = || ContextError::NoDockerfile { path: path.to_owned() };
    let name = path.file_name().ok_or_else(missing)?;
    if let Some(found) = linked_dockerfile(path, context)? {
        return Ok(found);
    }
    let root = Root::open(directory_of(path)).map_err(|_| missing())?;
    find_dockerfile(&root, Path::new(name), path)
}

/// What the Dockerfile `path` of the host is a link to, if it is one that may be followed: a clone
/// must not make its user's build show what another file of this machine says (CVE-2026-44517).
fn linked_dockerfile(
    path: &Path,
    context: Option<&Path>,
) -> Result<Option<DockerfileText>, ContextError> {
    if !path.is_symlink() {
        return Ok(None);
    }
    let Ok(target) = path.canonicalize() else { return Ok(None) };
    let (Some(above), Some(name)) = (target.parent(), target.file_name()) else { return Ok(None) };
    let context = context.and_then(|context| context.canonicalize().ok());
    let is_within = context.is_some_and(|context| target.starts_with(context));
    let is_named_so = name.to_string_lossy().to_lowercase().contains("dockerfile");
    if !is_within && !is_named_so {
        return Ok(None);
    }
    let Ok(root) = Root::open(above) else { return Ok(None) };
    read_text(&root, Path::new(name), path)
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

/// What an ignore file says.
#[derive(Debug, Default)]
struct IgnoreFile {
    patterns: Option<Ignore>,
    /// Why it says nothing.
    unread: Option<String>,
}

/// The ignore file `<dockerfile>.dockerignore`, if there is one.
fn ignore_beside(dockerfile: &Path) -> Result<Option<IgnoreFile>, ContextError> {
    let Some(name) = dockerfile.file_name() else { return Ok(None) };
    let Ok(root) = Root::open(directory_of(dockerfile)) else { return Ok(None) };
    let mut name = name.to_owned();
    name.push(".dockerignore");
    read_ignore(&root, Path::new(&name))
}

/// Reads the ignore file `path`. A directory of that name hides nothing, as elsewhere, and neither
/// does a link to what is not in the context; both are told, as more gets into images by it.
fn read_ignore(root: &Root, path: &Path) -> Result<Option<IgnoreFile>, ContextError> {
    let name = path.display();
    let unread = |what: &str| {
        let unread = Some(format!("`{name}` {what}, so it is not used"));
        Ok(Some(IgnoreFile { patterns: None, unread }))
    };
    if root.file_type(path)?.is_some_and(FileType::is_dir) {
        return unread("is a directory");
    }
    let Some(bytes) = root.read_small(path)? else {
        return match rustix::fs::readlinkat(root.dir(), path, vec![]) {
            Ok(_) => unread("is a link to nothing in the context"),
            Err(_) => Ok(None),
        };
    };
    let patterns = Ignore::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|source| ContextError::Ignore { name: name.to_string(), source })?;
    Ok(Some(IgnoreFile { patterns: Some(patterns), unread: None }))
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
        let found = read_dockerfile(&tree.at("Dockerfile"), None).unwrap();
        assert_eq!((found.path, found.text.as_str()), (tree.at("dockerfile"), "FROM a"));
        assert_eq!(read_dockerfile(&tree.at("web.Dockerfile"), None).unwrap().text, "FROM b");
        assert!(read_dockerfile(&tree.at("Web.dockerfile"), None).is_err());
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
        assert_eq!(read_dockerfile(&tree.at("ctx/Dockerfile"), None).unwrap().text, "FROM a");
        let tree = Tree::new().file("secret", "FROM a").link("ctx/Dockerfile", "../secret");
        let error = read_dockerfile(&tree.at("ctx/Dockerfile"), None).unwrap_err();
        assert!(matches!(error, ContextError::NoDockerfile { .. }));
        assert!(error.to_string().starts_with("failed to read dockerfile: open "));
    }

    /// Issue 9, 2: `-f svc/Dockerfile`, which is a link to the one above. The counterpart is
    /// CVE-2026-44517 (GHSA-49p4-px3h-rq49): no other file of the host is read by such a link.
    #[test]
    fn a_dockerfile_may_be_a_link_into_the_context_or_to_another_dockerfile() {
        let tree = Tree::new()
            .file("ctx/Dockerfile", "FROM a")
            .file("ctx/common", "FROM b")
            .link("ctx/svc/Dockerfile", "../Dockerfile")
            .link("ctx/svc/web", "../common")
            .link("ctx/out/Dockerfile", "../../secret")
            .file("secret", "FROM s");
        let read = |path: &str, context: &str| {
            read_dockerfile(&tree.at(path), Some(&tree.at(context))).map(|found| found.text)
        };
        assert_eq!(read("ctx/svc/Dockerfile", "ctx").unwrap(), "FROM a");
        assert_eq!(read("ctx/svc/Dockerfile", "ctx/svc").unwrap(), "FROM a");
        assert_eq!(read("ctx/svc/web", "ctx").unwrap(), "FROM b");
        assert!(read("ctx/svc/web", "ctx/svc").is_err());
        assert!(read("ctx/out/Dockerfile", "ctx").is_err());
        let context = BuildContext::whole(tree.root(), "the checkout");
        assert!(context.read_dockerfile(Path::new("ctx/out/Dockerfile")).is_ok());
        let context = BuildContext::whole(Root::open(&tree.at("ctx")).unwrap(), "the checkout");
        assert!(context.read_dockerfile(Path::new("out/Dockerfile")).is_err());
    }

    /// Issue 9, 2, and CVE-2022-4122 (GHSA-4crw-w8pw-2hmf): a link is followed within the context
    /// alone.
    #[test]
    fn an_ignore_file_that_can_hide_nothing_is_told() {
        let host = Tree::new().file("secret", "a\n");
        let unread = |tree: &Tree, dockerfile: Option<&str>| {
            let context = context(tree, dockerfile).unwrap();
            assert!(context.ignore().is_none());
            context.unread_ignore().unwrap_or_default().to_owned()
        };
        let directory = Tree::new().file(".dockerignore/a", "");
        assert_eq!(unread(&directory, None), "`.dockerignore` is a directory, so it is not used");
        let beside = Tree::new().file(".dockerignore", "a").dir("Dockerfile.dockerignore", 0o755);
        assert!(unread(&beside, Some("Dockerfile")).contains("`Dockerfile.dockerignore` is a dir"));
        for target in [host.at("secret").to_str().unwrap(), "nothing", "../../secret"] {
            let told = unread(&Tree::new().link(".dockerignore", target), None);
            assert!(told.contains("is a link to nothing in the context"), "{target}: {told}");
        }
        assert_eq!(unread(&Tree::new(), None), "");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_one_by_one() {
        assert_eq!(text_of("ENV A=ä\n".as_bytes()), "ENV A=ä\n");
        assert_eq!(text_of(b"A=\xff\xe2\x82 b"), "A=\u{fffd}\u{fffd}\u{fffd} b");
    }
}
