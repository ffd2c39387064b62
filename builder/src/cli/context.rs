//! `PATH | URL | -` and `-f`: where a build's files and its Dockerfile come from.

use std::io::{self, Read};
use std::path::Path;

use frontend::{GitSource, RemoteUrl, Source};
use rustix::event::PollFlags;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::args::BuildArgs;
use super::build::UsageError;
use crate::context::received::{self, Received};
use crate::context::{self, BuildContext, ContextError, DockerfileText};
use crate::download::Downloader;
use crate::files::Root;
use crate::git::{self, Git, GitError};
use crate::stop::{self, Stoppable};
use crate::worker;

const DEFAULT_NAME: &str = "Dockerfile";
const STDIN: &str = "-";
/// What podman's users call a Dockerfile.
pub(super) const CONTAINERFILE: &str = "Containerfile";

/// Where the context is.
enum Place<'a> {
    Stdin,
    Directory(&'a Path),
    Url(RemoteUrl),
    Git(GitSource),
}

/// Gets what is not on this machine.
pub(crate) struct Remote<'a> {
    /// Downloads it.
    pub(crate) downloads: Downloader,
    /// Checks repositories out.
    pub(crate) git: Git,
    /// Waits for that.
    pub(crate) runtime: &'a Handle,
    /// Cancelled when nobody wants it any more.
    pub(crate) stop: &'a CancellationToken,
}

/// Standard input, until `stop` is cancelled.
struct Stdin<'a> {
    stop: &'a CancellationToken,
}

impl Read for Stdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        stop::wait_for(&stdin, PollFlags::IN, self.stop)?;
        Ok(rustix::io::read(&stdin, buffer)?)
    }
}

/// Refuses what can't be a context, without reading it.
pub(crate) fn check(context: &str, file: Option<&str>) -> Result<(), UsageError> {
    match Place::of(context)? {
        Place::Stdin if file == Some(STDIN) => Err(UsageError::StdinTwice),
        Place::Stdin | Place::Directory(_) | Place::Url(_) | Place::Git(_) => Ok(()),
    }
}

/// Why a path that is no directory can't be a context.
fn not_a_context(text: &str) -> UsageError {
    let path = Path::new(text);
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_dockerfile = name.contains("dockerfile") || name.contains("containerfile");
    match (path.exists(), is_dockerfile) {
        (false, _) => UsageError::NoContext(text.to_owned()),
        (true, true) => UsageError::ContextIsDockerfile(text.to_owned()),
        (true, false) => UsageError::ContextIsFile(text.to_owned()),
    }
}

/// Reads the context and the Dockerfile that the command line names.
pub(crate) fn read(
    args: &BuildArgs,
    remote: &Remote<'_>,
) -> Result<(Source, BuildContext), UsageError> {
    let file = args.file.as_deref();
    let place = Place::of(&args.context)?;
    if args.others.ignorefile.is_some() && !matches!(place, Place::Directory(_)) {
        return Err(UsageError::IgnoreFile);
    }
    match place {
        Place::Stdin => from_stdin(file, remote),
        Place::Directory(directory) => {
            let (dockerfile, context) = from_directory(directory, file, remote)?;
            Ok(match &args.others.ignorefile {
                Some(path) => (dockerfile, context.ignoring(path)?),
                None => (dockerfile, context),
            })
        }
        Place::Url(url) => from_url(&url, file, remote),
        Place::Git(mut source) => {
            source.keep_git_dir = source.keep_git_dir.or(Some(keeps_git_dir(args)));
            from_git(&source, file, remote)
        }
    }
}

/// The repository that a context is, if it is one.
pub(crate) fn repository(context: &str) -> Option<RemoteUrl> {
    match Place::of(context) {
        Ok(Place::Git(source)) => Some(source.remote),
        Ok(Place::Stdin | Place::Directory(_) | Place::Url(_)) | Err(_) => None,
    }
}

impl<'a> Place<'a> {
    fn of(text: &'a str) -> Result<Self, UsageError> {
        if text == STDIN {
            Ok(Self::Stdin)
        } else if Path::new(text).is_dir() {
            Ok(Self::Directory(Path::new(text)))
        } else if frontend::is_git(text) {
            Ok(Self::Git(GitSource::parse(text).map_err(UsageError::GitContext)?))
        } else if text.starts_with("github.com/") {
            let source = GitSource::parse(&format!("https://{text}"));
            Ok(Self::Git(source.map_err(UsageError::GitContext)?))
        } else if frontend::is_url(text) {
            Ok(Self::Url(text.into()))
        } else {
            Err(not_a_context(text))
        }
    }
}

fn from_stdin(
    file: Option<&str>,
    remote: &Remote<'_>,
) -> Result<(Source, BuildContext), UsageError> {
    if file == Some(STDIN) {
        return Err(UsageError::StdinTwice);
    }
    let cache = &remote.downloads.cache;
    match received::receive(cache, "standard input", Stdin { stop: remote.stop }, remote.stop)? {
        Received::Context(context) => {
            let read = |path: &Path| context.read_dockerfile(path);
            let found = by_default(file, Path::new(""), &read)?;
            Ok((named(file, found), context))
        }
        Received::Dockerfile(_) if file.is_some() => Err(UsageError::DockerfileTwice),
        Received::Dockerfile(text) => {
            Ok((Source::new(DEFAULT_NAME, text), received::empty(cache)?))
        }
    }
}

fn from_directory(
    directory: &Path,
    file: Option<&str>,
    remote: &Remote<'_>,
) -> Result<(Source, BuildContext), UsageError> {
    if let Some(dockerfile) = dockerfile_from_elsewhere(file, remote)? {
        return Ok((dockerfile, BuildContext::open(directory, None)?));
    }
    let read = |path: &Path| context::read_dockerfile(path, Some(directory));
    let found = by_default(file, directory, &read)?;
    let context = BuildContext::open(directory, Some(&found.path))?;
    Ok((named(file, found), context))
}

fn from_url(
    url: &RemoteUrl,
    file: Option<&str>,
    remote: &Remote<'_>,
) -> Result<(Source, BuildContext), UsageError> {
    let context = match remote.receive(url)? {
        Received::Context(context) => context,
        Received::Dockerfile(text) => {
            return Ok((
                Source::new(DEFAULT_NAME, text),
                received::empty(&remote.downloads.cache)?,
            ));
        }
    };
    with_dockerfile(context, file, remote)
}

/// What `--build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR=1` asks for.
fn keeps_git_dir(args: &BuildArgs) -> bool {
    let mut pairs = args.build_arg.iter().filter_map(|pair| pair.split_once('='));
    pairs.any(|(name, value)| {
        let is_true = matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
        name == "BUILDKIT_CONTEXT_KEEP_GIT_DIR" && is_true
    })
}

fn from_git(
    source: &GitSource,
    file: Option<&str>,
    remote: &Remote<'_>,
) -> Result<(Source, BuildContext), UsageError> {
    let fetched = remote.stop.run_until_cancelled(remote.check_out(source));
    let context = remote.runtime.block_on(fetched).ok_or(UsageError::Stopped)??;
    with_dockerfile(context, file, remote)
}

/// The Dockerfile of a context that is not a directory of this machine.
fn with_dockerfile(
    context: BuildContext,
    file: Option<&str>,
    remote: &Remote<'_>,
) -> Result<(Source, BuildContext), UsageError> {
    if let Some(dockerfile) = dockerfile_from_elsewhere(file, remote)? {
        return Ok((dockerfile, context));
    }
    let path = Path::new(file.unwrap_or(DEFAULT_NAME));
    // Who writes the whole path means a file of this machine.
    let found = match path.is_absolute() {
        true => context::read_dockerfile(path, None)?,
        false => by_default(file, Path::new(""), &|path: &Path| context.read_dockerfile(path))?,
    };
    Ok((named(file, found), context))
}

/// The Dockerfile that is named, else `Dockerfile` in `directory`, else `Containerfile` there.
fn by_default(
    file: Option<&str>,
    directory: &Path,
    read: &dyn Fn(&Path) -> Result<DockerfileText, ContextError>,
) -> Result<DockerfileText, ContextError> {
    if let Some(file) = file {
        return read(Path::new(file));
    }
    match read(&directory.join(DEFAULT_NAME)) {
        Err(missing @ ContextError::NoDockerfile { .. }) => {
            match read(&directory.join(CONTAINERFILE)) {
                Err(ContextError::NoDockerfile { .. }) => Err(missing),
                found => found,
            }
        }
        found => found,
    }
}

/// The Dockerfile, if `file` names standard input or a URL.
fn dockerfile_from_elsewhere(
    file: Option<&str>,
    remote: &Remote<'_>,
) -> Result<Option<Source>, UsageError> {
    match file {
        Some(STDIN) => {
            let mut text = String::new();
            let read = Stdin { stop: remote.stop }.read_to_string(&mut text);
            read.map_err(|source| UsageError::Dockerfile { path: STDIN.to_owned(), source })?;
            Ok(Some(Source::new(DEFAULT_NAME, text)))
        }
        Some(url) if frontend::is_url(url) => {
            let url = RemoteUrl::from(url);
            match remote.receive(&url)? {
                Received::Dockerfile(text) => Ok(Some(Source::new(DEFAULT_NAME, text))),
                Received::Context(_) => Err(UsageError::ArchiveAsDockerfile(url)),
            }
        }
        Some(_) | None => Ok(None),
    }
}

/// A Dockerfile, called what the user called it.
fn named(file: Option<&str>, found: DockerfileText) -> Source {
    let name = match file {
        Some(file) => file.to_owned(),
        None => found.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    Source::new(name, found.text)
}

impl Remote<'_> {
    async fn check_out(&self, source: &GitSource) -> Result<BuildContext, UsageError> {
        let GitSource { remote, reference, checksum, .. } = source;
        let commit = self.git.resolve(remote, reference.as_deref(), checksum.as_deref()).await?;
        let run_dir = self.downloads.cache.run_dir()?;
        let into = run_dir.path().join("context");
        let unreadable = |error| {
            let remote = remote.clone();
            UsageError::Git(GitError::Read { remote, source: error })
        };
        let checkout = self.git.check_out(&source.at(commit), &into).await?;
        if source.commit_times {
            git::set_times(&checkout.part, checkout.committed).map_err(unreadable)?;
        }
        let root = Root::open(&checkout.part).map_err(unreadable)?;
        let label = format!("the build context from {}", remote);
        let time = worker::seconds(checkout.committed);
        Ok(BuildContext::checked_out(root, label, run_dir).made_at(time))
    }

    fn receive(&self, url: &RemoteUrl) -> Result<Received, UsageError> {
        let download = self.stop.run_until_cancelled(self.downloads.download(url, None));
        let file = self.runtime.block_on(download).ok_or(UsageError::Stopped)??;
        let blob = self.downloads.cache.open_blob(&file.digest)?;
        let blob = Stoppable::new(blob, self.stop);
        let name = url.to_string();
        Ok(match received::receive(&self.downloads.cache, &name, blob, self.stop)? {
            Received::Context(context) => Received::Context(context.made_at(file.modified)),
            dockerfile => dockerfile,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_before_it_is_anything_else() {
        let here = tempfile::tempdir().unwrap();
        let directory = here.path().join("git@h:a");
        std::fs::create_dir(&directory).unwrap();
        for (text, kind) in [
            ("-", "stdin"),
            (directory.to_str().unwrap(), "directory"),
            ("https://h/a.git#main", "git https://h/a.git"),
            ("git@h:a/b", "git git@h:a/b"),
            ("ssh://h/a", "git ssh://h/a"),
            ("github.com/a/b", "git https://github.com/a/b"),
            ("https://h/a.tar", "url"),
            ("./git@h:a/b", "nothing"),
            ("no/such/dir", "nothing"),
            ("gitlab.com/a/b", "nothing"),
        ] {
            let found = match Place::of(text) {
                Ok(Place::Stdin) => "stdin".to_owned(),
                Ok(Place::Directory(_)) => "directory".to_owned(),
                Ok(Place::Url(_)) => "url".to_owned(),
                Ok(Place::Git(source)) => format!("git {}", source.remote),
                Err(_) => "nothing".to_owned(),
            };
            assert_eq!(found, kind, "{text}");
        }
    }
}
