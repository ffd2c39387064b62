//! Git repositories: which commit a name stands for, and the files of a commit.
//!
//! Git itself does it, run by the [`Broker`](crate::sandbox::Broker). What a Dockerfile names it reads
//! as BuildKit's does: with nothing of the caller's configuration, credentials and agents but what the
//! build was given, or else a Dockerfile could have whatever its user may read. A repository that the
//! user named as a context it reads as the user would.
//! What a repository says is never trusted: hooks are off, transports that run commands too, no word
//! of it becomes an option, and a subdirectory is a real directory at each step.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use frontend::{GitOp, GitRef, PinnedCommit, RemoteUrl, without_secrets};

use crate::sandbox::{Bounds, BrokerCommand, Inherited, Sandbox, SandboxError};
use crate::worker::{Secrets, SshAgents};

/// Runs git for a build.
#[derive(Clone)]
pub struct Git {
    sandbox: Arc<Sandbox>,
    secrets: Secrets,
    ssh: SshAgents,
    named: Arc<BTreeSet<RemoteUrl>>,
}

/// Why a repository can't be used.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error("cannot run git, which fetches {remote}: {source}")]
    NoGit {
        /// The repository.
        remote: RemoteUrl,
        /// Why.
        source: SandboxError,
    },
    /// Programs disagree on what the address means.
    #[error("cannot fetch {remote}: the address {flaw}")]
    Address {
        /// The repository.
        remote: RemoteUrl,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// The time of the commit is none that a file can have.
    #[error("the commit {commit} of {remote} has a time that no file can have")]
    Time {
        /// The repository.
        remote: RemoteUrl,
        /// The commit.
        commit: String,
    },
    /// Git has no broker to run it.
    #[error("git can't be run here")]
    NoBroker,
    /// Git failed.
    #[error("git can't {action} {remote}: {said}")]
    Failed {
        /// What was attempted.
        action: &'static str,
        /// The repository.
        remote: RemoteUrl,
        /// What it said.
        said: String,
    },
    /// The server keeps it waiting.
    #[error(
        "git can't {action} {remote}: the server sent nothing worth mentioning for {} s",
        after.as_secs()
    )]
    Slow {
        /// What was attempted.
        action: &'static str,
        /// The repository.
        remote: RemoteUrl,
        /// How long it may.
        after: Duration,
    },
    /// Nothing has that name.
    #[error("repository {remote} has no branch, tag or commit `{reference}`")]
    NoRef {
        /// The repository.
        remote: RemoteUrl,
        /// What was asked for.
        reference: String,
    },
    /// The name stands for another commit.
    #[error("expected a commit with checksum {expected} in {remote}, got {found}")]
    Checksum {
        /// The repository.
        remote: RemoteUrl,
        /// What it must begin with.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The server has listed a commit for a tag that is another one's.
    #[error(
        "the server of {remote} lists {expected} as the commit of {tag}, which is that of {found}"
    )]
    Tag {
        /// The repository.
        remote: RemoteUrl,
        /// The tag's object.
        tag: String,
        /// What the server says.
        expected: String,
        /// What the object says.
        found: String,
    },
    /// The directory that was asked for is not there.
    #[error("`{}` is no directory of {remote}", subdir.escape_debug())]
    NoSubdir {
        /// The repository.
        remote: RemoteUrl,
        /// The directory.
        subdir: String,
    },
    /// The checkout can't be read.
    #[error("cannot read the checkout of {remote}")]
    Read {
        /// The repository.
        remote: RemoteUrl,
        /// Why.
        source: io::Error,
    },
}

impl GitError {
    /// Whether a server was too slow, for us or for git itself.
    fn is_slow(&self) -> bool {
        let Self::Failed { said, .. } = self else { return matches!(self, Self::Slow { .. }) };
        let slow = ["Operation too slow", "timed out", "Timeout was reached"];
        slow.iter().any(|words| said.contains(words))
    }
}

/// A commit's files.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// The directory that was asked for.
    pub part: PathBuf,
    /// When the commit was made.
    pub committed: SystemTime,
}

/// A line of `ls-remote`.
struct Advertised<'a> {
    id: &'a str,
    name: &'a str,
}

impl Git {
    /// Git with the tokens that `secrets` hold and the keys of the agent `default`. Repositories that
    /// the user `named` it reads with the caller's configuration, too, and, where the build was not
    /// given an agent, with that of the caller's environment.
    pub fn new(
        sandbox: Arc<Sandbox>,
        secrets: Secrets,
        ssh: SshAgents,
        named: BTreeSet<RemoteUrl>,
    ) -> Self {
        Self { sandbox, secrets, ssh, named: Arc::new(named) }
    }

    /// The commit that `reference` stands for today; without one that of the default branch.
    pub async fn resolve(
        &self,
        remote: &RemoteUrl,
        reference: Option<&str>,
        checksum: Option<&str>,
    ) -> Result<PinnedCommit, GitError> {
        // Without a name a whole checksum is one.
        let reference = reference.or(checksum.filter(|checksum| is_commit(checksum)));
        let found = match reference {
            Some(commit) if is_commit(commit) => PinnedCommit { id: commit.to_owned(), name: None },
            _ => self.look_up(remote, reference.unwrap_or("HEAD")).await?,
        };
        let fits = |id: &String| checksum.is_none_or(|checksum| id.starts_with(checksum));
        if fits(&found.id) || found.name.as_ref().is_some_and(|name| fits(&name.object)) {
            return Ok(found);
        }
        let expected = checksum.unwrap_or_default().to_owned();
        Err(GitError::Checksum { remote: remote.clone(), expected, found: found.id })
    }

    /// What a name stands for today.
    async fn look_up(&self, remote: &RemoteUrl, reference: &str) -> Result<PinnedCommit, GitError> {
        let pattern = reference.strip_prefix("refs/").unwrap_or(reference);
        let peeled = format!("{pattern}^{{}}");
        let address = remote.without_user();
        let args = ["ls-remote", "--symref", "--", &*address, pattern, &peeled];
        let listed = self.run("look into", remote, None, &args).await?;
        let refs: Vec<_> = listed.lines().filter_map(Advertised::parse).collect();
        let find = |name: &str| refs.iter().find(|found| found.name == name);
        let places = ["", "refs/", "refs/heads/", "refs/tags/"];
        let found = places.into_iter().find_map(|place| {
            let name = format!("{place}{reference}");
            let found = find(&name)?;
            let peeled = find(&format!("{name}^{{}}")).unwrap_or(found);
            let name = default_branch(&listed, &name).unwrap_or(name);
            // Others, such as HEAD where it is no branch, are nothing to be kept.
            let is_ref = name.starts_with("refs/");
            let object = found.id.to_owned();
            let name = is_ref.then_some(GitRef { name, object });
            Some(PinnedCommit { id: peeled.id.to_owned(), name })
        });
        found.ok_or_else(|| GitError::NoRef {
            remote: remote.clone(),
            reference: reference.to_owned(),
        })
    }

    /// Checks the commit out into the new directory `into`. Modes are 0644 and 0755, whatever the
    /// caller's umask is.
    pub async fn check_out(&self, git: &GitOp, into: &Path) -> Result<Checkout, GitError> {
        let (remote, address) = (&git.remote, git.remote.without_user());
        let unreadable = |source| GitError::Read { remote: remote.clone(), source };
        fs::create_dir(into).map_err(unreadable)?;
        let run = async |action, args: &[&str]| self.run(action, remote, Some(into), args).await;
        let format = if git.commit.len() == 64 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        run("prepare a checkout of", &["init", "-q", "--template=", &format]).await?;
        run("prepare a checkout of", &["remote", "add", "origin", "--", &address]).await?;
        let kept = git.kept_name.as_ref().map(|name| &name.object);
        let tag = git.checked_tag.as_ref().or(kept);
        let object = tag.unwrap_or(&git.commit);
        let fetch = ["fetch", "-q", "--depth=1", "--no-tags", "origin", "--"];
        let fetched = run("fetch", &[&fetch[..], &[object]].concat()).await;
        if let Err(error) = fetched {
            // Some servers give nothing but what has a name. One that is slow is so for that, too.
            let Some(reference) = git.reference.as_ref().filter(|_| !error.is_slow()) else {
                return Err(error);
            };
            run("fetch", &[&fetch[..2], &["--no-tags", "origin", "--", reference]].concat())
                .await?;
        }
        if let Some(tag) = tag {
            self.demand_commit_of(tag, git, into).await?;
        }
        let checkout = ["checkout", "-q", "--force", "--detach", &git.commit, "--"];
        run("check out", &checkout).await?;
        if let Some(GitRef { name, object }) = &git.kept_name {
            run("keep the name of a commit of", &["update-ref", "--", name, object]).await?;
        }
        if git.submodules && into.join(".gitmodules").exists() {
            let update = ["submodule", "update", "-q", "--init", "--recursive", "--depth=1"];
            // The repository names them, not the user, and what they are goes to its own commands: they
            // get nothing of the caller's.
            let stranger = Self { named: Arc::default(), ..self.clone() };
            stranger.run("fetch the submodules of", remote, Some(into), &update).await?;
        }
        let seconds = run("read the time of", &["show", "-s", "--format=%ct", "HEAD"]).await?;
        let committed = time_of(seconds.trim())
            .ok_or_else(|| GitError::Time { remote: remote.clone(), commit: git.commit.clone() })?;
        // It says when and from where; BuildKit removes it, too.
        let _there_may_be_none = fs::remove_file(into.join(".git/FETCH_HEAD"));
        let part = match &git.subdir {
            Some(subdir) => real_directory(into, subdir).ok_or_else(|| GitError::NoSubdir {
                remote: remote.clone(),
                subdir: subdir.clone(),
            })?,
            None => into.to_owned(),
        };
        tidy(&part, git.keep_git_dir).map_err(unreadable)?;
        Ok(Checkout { part, committed })
    }

    /// Demands that `tag`, which was fetched, is one of the commit: what a server lists says nothing.
    async fn demand_commit_of(&self, tag: &str, git: &GitOp, into: &Path) -> Result<(), GitError> {
        let commit = format!("{tag}^{{commit}}");
        let args = ["rev-parse", "--verify", &commit];
        let found = self.run("read the tag of", &git.remote, Some(into), &args).await?;
        let found = found.trim().to_owned();
        if found == git.commit {
            return Ok(());
        }
        let (remote, expected) = (git.remote.clone(), git.commit.clone());
        Err(GitError::Tag { remote, tag: tag.to_owned(), expected, found })
    }

    /// Runs git in `directory`, else where there is no repository: never where the caller stands.
    async fn run(
        &self,
        action: &'static str,
        remote: &RemoteUrl,
        directory: Option<&Path>,
        args: &[&str],
    ) -> Result<String, GitError> {
        match self.try_to(action, remote, directory, args, Login::Shown).await {
            Err(GitError::Failed { said, .. }) if said.contains("returned error: 30") => {
                self.try_to(action, remote, directory, args, Login::Told).await
            }
            done => done,
        }
    }

    async fn try_to(
        &self,
        action: &'static str,
        remote: &RemoteUrl,
        directory: Option<&Path>,
        args: &[&str],
        login: Login,
    ) -> Result<String, GitError> {
        if let Some(flaw) = remote.flaw() {
            return Err(GitError::Address { remote: remote.clone(), flaw });
        }
        let broker = self.sandbox.broker().ok_or(GitError::NoBroker)?;
        let safe = SAFE.iter().flat_map(|setting| ["-c", setting]);
        let words = std::iter::once("git").chain(safe).chain(args.iter().copied());
        let command = BrokerCommand {
            args: words.map(str::to_owned).collect(),
            directory: Some(directory.unwrap_or(Path::new(NO_REPOSITORY)).into()),
            inherited: self.inherited(remote),
            env: self.environment(remote, login),
            bounds: bounds(remote, args),
            stdin: vec![],
        };
        let remote = remote.clone();
        let output = broker.run(&command).await.map_err(|error| match error {
            SandboxError::Idle { after, .. } => {
                GitError::Slow { action, remote: remote.clone(), after }
            }
            source => GitError::NoGit { remote: remote.clone(), source },
        })?;
        if output.code == Some(0) {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = last_words(&String::from_utf8_lossy(&output.stderr));
        Err(GitError::Failed { action, remote, said })
    }

    /// What git sees of the caller's environment.
    fn inherited(&self, remote: &RemoteUrl) -> Inherited {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        match self.named.contains(remote) {
            true => Inherited::AllBut(names(&OF_ANOTHER_REPOSITORY)),
            false => Inherited::Only(names(&PATH_AND_PROXIES)),
        }
    }

    /// No question is ever asked. Tokens and passwords go into the environment, where `ps` does not
    /// show them.
    fn environment(&self, remote: &RemoteUrl, login: Login) -> Vec<(String, String)> {
        let mut env = vec![
            ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()),
            ("LC_ALL".to_owned(), "C".to_owned()),
            ("GIT_CEILING_DIRECTORIES".to_owned(), "/".to_owned()),
        ];
        if !self.named.contains(remote) {
            env.extend(NOBODY.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        if let Some(agent) = self.ssh.get("default") {
            env.push(("SSH_AUTH_SOCK".to_owned(), agent.to_string_lossy().into_owned()));
        }
        let mut config = vec![];
        if !self.named.contains(remote) {
            config.push(("core.sshCommand".to_owned(), SSH_OF_NOBODY.to_owned()));
        }
        let authorization = authorization(&self.secrets, remote);
        let told = authorization.as_ref().and_then(|(_, header)| user_of(header));
        if let (Login::Shown, Some((origin, header))) = (login, authorization) {
            let header = format!("Authorization: {header}");
            config.push((format!("http.{origin}/.extraHeader"), header));
            config.push((format!("http.{origin}/.followRedirects"), "false".to_owned()));
        }
        let user = told.filter(|_| login == Login::Told).or_else(|| remote.user());
        if let (Some(origin), Some((user, password))) = (origin(remote), user) {
            config.push((format!("credential.{origin}.helper"), TELL_USER.to_owned()));
            env.push(("RBUILD_GIT_USER".to_owned(), user));
            env.push(("RBUILD_GIT_PASSWORD".to_owned(), password));
        }
        env.extend(as_environment(config));
        env
    }
}

/// The time of a commit, which says anything; that of one before 1970 is 1970.
fn time_of(seconds: &str) -> Option<SystemTime> {
    /// What the headers of archives hold, and file systems with them.
    const LATEST: i64 = 0o77_777_777_777;
    let seconds: i64 = seconds.parse().ok().filter(|seconds| *seconds <= LATEST)?;
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// What a server may make git take, and how long it may keep it waiting. Git itself gives up a slow web
/// server ([`SAFE`]), and the kernel does not count what it reads from one.
fn bounds(remote: &RemoteUrl, args: &[&str]) -> Bounds {
    /// A minute, as for downloads.
    const IDLE: Duration = Duration::from_secs(60);
    /// Room for the names of some millions of refs.
    const LIST: u64 = 512 << 20;
    /// Room for the largest files, which git has in memory several times.
    const FILES: u64 = 8 << 30;
    let may_use_others = args.first() == Some(&"submodule");
    let idle = (origin(remote).is_none() || may_use_others).then_some(IDLE);
    let memory = if args.first() == Some(&"ls-remote") { LIST } else { FILES };
    Bounds { idle, memory: Some(memory) }
}

/// The end of what git said, in one line: a server may have it say anything, of any length.
fn last_words(said: &str) -> String {
    const MOST: usize = 2 << 10;
    let said = said.trim();
    let from = said.len().saturating_sub(MOST);
    // Not within an address: what is secret in it could not be seen any more.
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    let start = match from {
        0 => Some(0),
        _ => said.as_bytes()[from..].iter().position(is_blank).map(|blank| from + blank),
    };
    let (end, omitted) = (start.map_or("", |start| &said[start..]), from > 0);
    let lines: Vec<_> = end.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    without_secrets(&format!("{}{}", if omitted { "… " } else { "" }, lines.join("; ")))
}

/// How a server gets to know what a secret says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Login {
    /// With the first request, unasked. Git shows such a header to wherever a server redirects it, so
    /// it follows no redirect then.
    Shown,
    /// When it asks; another host is told nothing.
    Told,
}

/// User and password of a header of the kind `basic`.
fn user_of(header: &str) -> Option<(String, String)> {
    let (kind, encoded) = header.split_once(' ')?;
    let is_basic = kind.eq_ignore_ascii_case("basic");
    let decoded = STANDARD.decode(encoded.trim()).ok().filter(|_| is_basic)?;
    let decoded = String::from_utf8(decoded).ok()?;
    decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// A credential helper that tells the user of a URL. Git asks it for nothing but the host that the
/// URL names, also where a server sends it elsewhere. What no line can hold is not told.
const TELL_USER: &str = r#"!f() {
    test "$1" = get || exit 0
    case $RBUILD_GIT_USER$RBUILD_GIT_PASSWORD in *[[:cntrl:]]*) exit 0;; esac
    printf 'username=%s\npassword=%s\n' "$RBUILD_GIT_USER" "$RBUILD_GIT_PASSWORD"
}; f"#;

/// Configuration as git takes it from its environment.
fn as_environment(config: Vec<(String, String)>) -> impl Iterator<Item = (String, String)> {
    let count = ("GIT_CONFIG_COUNT".to_owned(), config.len().to_string());
    let pairs = config.into_iter().enumerate().flat_map(|(index, (key, value))| {
        [(format!("GIT_CONFIG_KEY_{index}"), key), (format!("GIT_CONFIG_VALUE_{index}"), value)]
    });
    std::iter::once(count).chain(pairs)
}

/// Scheme, host and port of a repository on the web.
fn origin(remote: &RemoteUrl) -> Option<String> {
    let address = remote.without_user();
    let (scheme @ ("http" | "https"), rest) = address.split_once("://")? else { return None };
    Some(format!("{scheme}://{}", rest.split('/').next().unwrap_or_default()))
}

/// The origin that a secret is for, and what it says there. A secret for the host goes before one
/// for all hosts.
fn authorization(secrets: &Secrets, remote: &RemoteUrl) -> Option<(String, String)> {
    let origin = origin(remote)?;
    let (_, host) = origin.split_once("://")?;
    let secret = |id: &str| Some(String::from_utf8_lossy(secrets.get(id)?).trim().to_owned());
    let basic = |token| STANDARD.encode(format!("x-access-token:{token}"));
    let header = [format!(".{host}"), String::new()].iter().find_map(|whose| {
        let token = || secret(&format!("GIT_AUTH_TOKEN{whose}"));
        let of_token = || Some(format!("basic {}", basic(token()?)));
        secret(&format!("GIT_AUTH_HEADER{whose}")).or_else(of_token)
    })?;
    Some((origin, header))
}

/// What holds whatever the configuration says: nothing that a repository brings along is run, no
/// process stays behind, and no time gets into a kept `.git`.
/// A server that sends nothing for a minute, or next to nothing, is given up.
const SAFE: [&str; 12] = [
    "http.lowSpeedLimit=256",
    "http.lowSpeedTime=60",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.logAllRefUpdates=false",
    "protocol.ext.allow=never",
    "protocol.file.allow=user",
    "submodule.recurse=false",
    "transfer.bundleURI=false",
    "maintenance.auto=false",
    "gc.auto=0",
    "advice.detachedHead=false",
];

/// A directory of a filesystem that holds no repository, nor does one above it.
const NO_REPOSITORY: &str = "/proc";

/// What git sees of the caller's environment where it reads for a Dockerfile, or a submodule.
/// `GIT_SSH_COMMAND` is not among it: the command may name the caller's key.
const PATH_AND_PROXIES: [&str; 9] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// A user without any configuration.
const NOBODY: [(&str, &str); 4] = [
    ("HOME", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
];

/// OpenSSH looks for its files in the home that the system knows, whatever `HOME` says: this one reads
/// but the keys of known hosts, and asks nobody.
const SSH_OF_NOBODY: &str =
    "ssh -F /dev/null -o IdentityFile=none -o BatchMode=yes -o ConnectTimeout=60";

/// Variables that git gives to its hooks: where they are set, a build would take the repository of the
/// hook for its own (`git rev-parse --local-env-vars`). And those that take a protection away.
const OF_ANOTHER_REPOSITORY: [&str; 19] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
    "GIT_ALLOW_PROTOCOL",
    "GIT_PROTOCOL_FROM_USER",
];

/// The branch that `HEAD` is, as `listed` tells it. A server says that, so it may be anything.
fn default_branch(listed: &str, name: &str) -> Option<String> {
    let branch = |line: &str| {
        let (branch, head) = line.strip_prefix("ref: ")?.split_once('\t')?;
        (head == name).then(|| branch.to_owned())
    };
    listed.lines().find_map(branch)
}

impl<'a> Advertised<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (id, name) = line.split_once('\t')?;
        is_commit(id).then_some(Self { id, name })
    }
}

/// Whether it is a whole object name.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The directory `subdir` of `root`; a link on the way is none (CVE-2026-33748).
fn real_directory(root: &Path, subdir: &str) -> Option<PathBuf> {
    let mut path = root.to_owned();
    for part in subdir.split('/') {
        path.push(part);
        if part == ".git" || !fs::symlink_metadata(&path).ok()?.is_dir() {
            return None;
        }
    }
    Some(path)
}

/// Sets the modes that git knows, and removes what is git's own: unless `keep_git_dir`, that of the
/// repository itself, and those of submodules.
fn tidy(directory: &Path, keep_git_dir: bool) -> io::Result<()> {
    let mut todo = vec![(directory.to_owned(), keep_git_dir)];
    while let Some((directory, keep)) = todo.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&directory)? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let metadata = fs::symlink_metadata(&path)?;
            if name == ".git" && !keep {
                if metadata.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }?;
            } else if metadata.is_dir() {
                todo.push((path, keep));
            } else if metadata.is_file() {
                let mode = if metadata.mode() & 0o100 == 0 { 0o644 } else { 0o755 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
        }
    }
    Ok(())
}

/// Gives everything below `directory` this time.
pub fn set_times(directory: &Path, time: SystemTime) -> io::Result<()> {
    let mut todo = vec![directory.to_owned()];
    let mut directories = vec![];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                todo.push(path);
            } else if metadata.is_file() {
                File::open(&path)?.set_modified(time)?;
            }
        }
        directories.push(directory);
    }
    directories.iter().rev().try_for_each(|directory| File::open(directory)?.set_modified(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_commit_says_of_its_time_is_a_time_or_none() {
        let since = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(time_of("1700000000"), since(1_700_000_000));
        assert_eq!(time_of("-1"), since(0));
        assert_eq!(time_of("8589934591"), since(8_589_934_591));
        for none in ["8589934592", "9223372036854775807", "9223372036854775808", "", "now"] {
            assert_eq!(time_of(none), None, "{none}");
        }
    }

    #[test]
    fn what_git_said_is_clipped_to_its_end_and_hides_passwords() {
        assert_eq!(last_words(" one\n  two\n\n"), "one; two");
        assert_eq!(last_words("fatal: http://u:secret@h/a is bad"), "fatal: http://h/a is bad");
        let long = format!("{}\nfatal: the end", "remote: é\n".repeat(10_000));
        let said = last_words(&long);
        assert!(said.starts_with("… é; remote: é; ") && said.ends_with("é; fatal: the end"));
        assert!(said.len() < 3 << 10);
        // The beginning of the address is cut off with the rest of the line.
        for length in 2000..2100 {
            let said = last_words(&format!("x http://u:secret@h/{} end", "a".repeat(length)));
            assert!(!said.contains("secret") && said.ends_with("end"), "{said}");
        }
        assert_eq!(last_words(&"x".repeat(9999)), "… ");
    }

    #[test]
    fn a_server_that_git_waits_for_is_given_up() {
        let idle = |remote: &str, command: &str| bounds(&remote.into(), &[command]).idle;
        let minute = Some(Duration::from_secs(60));
        for remote in ["git://h/a", "ssh://git@h/a", "git@h:a"] {
            assert_eq!(idle(remote, "ls-remote"), minute, "{remote}");
            assert_eq!(idle(remote, "fetch"), minute, "{remote}");
        }
        // Git does it itself there; what a submodule's server speaks is not known.
        assert_eq!(idle("https://h/a", "fetch"), None);
        assert_eq!(idle("https://h/a", "submodule"), minute);
    }

    #[test]
    fn a_slow_server_is_not_asked_a_second_time() {
        let failed = |said: &str| {
            let (remote, said) = ("https://h/a".into(), said.to_owned());
            GitError::Failed { action: "fetch", remote, said }
        };
        let slow =
            "error: RPC failed; curl 28 Operation too slow. Less than 256 bytes/sec transferred";
        assert!(failed(slow).is_slow());
        assert!(failed("connect to host h port 22: Connection timed out").is_slow());
        assert!(!failed("Server does not allow request for unadvertised object").is_slow());
    }

    #[test]
    fn a_secret_for_the_host_goes_before_one_for_all_and_a_header_before_a_token() {
        let all = [
            ("GIT_AUTH_HEADER.h.org:8443", "header of the host\n"),
            ("GIT_AUTH_TOKEN.h.org:8443", "t1"),
            ("GIT_AUTH_HEADER", "header"),
            ("GIT_AUTH_TOKEN", "t2"),
        ];
        let basic =
            |token: &str| format!("basic {}", STANDARD.encode(format!("x-access-token:{token}")));
        let shown = [all[0].1.trim().to_owned(), basic("t1"), "header".to_owned(), basic("t2")];
        for (first, expected) in shown.into_iter().enumerate() {
            let secret = |(id, value): &(&str, &str)| ((*id).to_owned(), value.as_bytes().to_vec());
            let secrets = Secrets::new(all[first..].iter().map(secret).collect());
            let found = authorization(&secrets, &"https://me@h.org:8443/a.git".into()).unwrap();
            assert_eq!(found, ("https://h.org:8443".to_owned(), expected));
            assert_eq!(authorization(&secrets, &"ssh://git@h.org/a".into()), None);
        }
    }
}
