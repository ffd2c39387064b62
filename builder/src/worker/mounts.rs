//! What `RUN --mount` shows: from the plan to detached mounts.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cache::{CacheError, RunDir, Sharing, Snapshot};
use frontend::{
    CacheMount, CacheSharing, ExecOp, FileSource, Mount, MountSource, SecurityMode, Selection,
};
use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::LocalWorker;
use super::agent::{self, Forwarded};
use super::parting;
use crate::context::BuildContext;
use crate::files::{self, CopyOptions, FilesError, Root};
use crate::layer;
use crate::owners::Owners;
use crate::sandbox::{self, ContainerMount, Level, SandboxError};
use crate::snapshot::{self, Active, Method, SnapshotError};
use crate::solver::{Job, OpError};

/// Why something could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A secret that must be there is not.
    #[error("secret {0}: not found")]
    Secret(String),
    /// A secret that is to be a variable is no text.
    #[error("secret {0} is not text: it can't be the value of a variable")]
    SecretText(String),
    /// A secret that is to be a variable can't be one.
    #[error("secret {0} has a NUL byte in it: it can't be the value of a variable")]
    SecretZeroByte(String),
    /// No agent was given.
    #[error("ssh agent {0}: not found")]
    Ssh(String),
    /// An agent's socket can't be forwarded.
    #[error("cannot forward the ssh agent {id}")]
    Forward {
        /// The agent.
        id: String,
        /// Why.
        source: std::io::Error,
    },
    /// A source is not there.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A source can't be opened.
    #[error("cannot open `{path}` to mount it")]
    Open {
        /// The path within the source.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A stage's files could not be mounted.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A cache can only be in one place where nothing can be mounted.
    #[error(
        "cannot put the cache {id} to two places: this container permits no mounts, so that its \
         directory itself is moved to {target}"
    )]
    CacheTwice {
        /// The cache's name.
        id: String,
        /// The second place.
        target: String,
    },
    /// The kernel refuses.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl MountError {
    /// What the user can do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Secret(id) => {
                Some(format!("give it with --secret id={id},src=FILE or --secret id={id},env=NAME"))
            }
            Self::Ssh(id) => Some(format!("give it with --ssh {id}, or --ssh {id}=SOCKET")),
            Self::Files(error) => error.help(),
            _ => None,
        }
    }
}

/// The mounts of a command, made but not attached yet.
#[derive(Default)]
pub(super) struct Mounted {
    /// What goes where.
    pub(super) mounts: Vec<ContainerMount>,
    /// The same places, and whether each is a directory.
    pub(super) targets: Vec<(String, bool)>,
    /// Secrets that are variables.
    pub(super) variables: Vec<(String, String)>,
    /// Cache mounts in use, by their names.
    pub(super) caches: BTreeMap<String, cache::CacheMount>,
    /// Agents that are forwarded.
    pub(super) agents: Vec<Forwarded>,
    /// The stages' files that the command may write to.
    pub(super) actives: Vec<Active>,
    /// What was written for the mounts.
    pub(super) _run_dir: Option<RunDir>,
}

impl Mounted {
    fn add(&mut self, mount: &Mount, source: sandbox::MountSource, is_directory: bool) {
        self.mounts.push(ContainerMount { source, target: mount.target.clone() });
        self.targets.push((mount.target.clone(), is_directory));
    }
}

/// Where the files of a mount come from, ready to be read on another thread.
enum Source {
    Context(Arc<BuildContext>),
    Snapshot(Snapshot, Vec<PathBuf>),
}

impl LocalWorker {
    pub(super) async fn mount_all(&self, exec: &ExecOp, job: &Job<'_>) -> Result<Mounted, OpError> {
        let mut mounted = Mounted::default();
        if exec.mounts.is_empty() {
            return Ok(mounted);
        }
        mounted.caches = self.take_caches(exec, job).await?;
        let cache = self.cache.clone();
        let run_dir = self.blocking(move || cache.run_dir()).await?;
        for (number, mount) in exec.mounts.iter().enumerate() {
            let directory = run_dir.path().join(format!("mount-{number}"));
            let is_guarded = self.is_guarded(exec);
            let made = self.mount(mount, is_guarded, job, &directory, &mut mounted).await;
            made.map_err(OpError::failed)?;
        }
        mounted._run_dir = Some(run_dir);
        Ok(mounted)
    }

    /// Whether nothing that the command does writes to a read-only mount of a layer's own files: it
    /// can't, or there are none, since overlays never write to layers.
    fn is_guarded(&self, exec: &ExecOp) -> bool {
        match (&self.snapshots, exec.security) {
            (Method::Overlay, _) | (Method::Copies(_), SecurityMode::Sandbox) => true,
            (Method::Copies(_), SecurityMode::Insecure) => false,
        }
    }

    async fn mount(
        &self,
        mount: &Mount,
        is_guarded: bool,
        job: &Job<'_>,
        directory: &Path,
        mounted: &mut Mounted,
    ) -> Result<(), MountError> {
        let read_only = mount.read_only;
        let file = |data: Vec<u8>, (mode, uid, gid), read_only| sandbox::MountSource::File {
            data,
            mode,
            uid,
            gid,
            read_only,
        };
        match &mount.source {
            MountSource::Bind { from, selection } => {
                let access = Access { read_only, is_guarded };
                let source = self.source(from, job)?;
                let bound = self.bind_files(source, selection, access, directory, job);
                let (bound, is_directory, active) = bound.await?;
                mounted.add(mount, bound, is_directory);
                mounted.actives.extend(active);
            }
            MountSource::Cache(cache) => {
                let id = cache_id(cache, self.seed_of(cache, job)?.as_ref().map(|(from, _)| from));
                let bound = self.show(mounted.caches[&id].path(), read_only, true)?;
                if mounted.mounts.iter().any(|other| is_same(&other.source, &bound)) {
                    let (id, target) = (cache.id.clone(), mount.target.clone());
                    return Err(MountError::CacheTwice { id, target });
                }
                mounted.add(mount, bound, true);
            }
            MountSource::Tmpfs { size } => {
                mounted.add(mount, sandbox::MountSource::Tmpfs { size: *size, mode: 0o777 }, true);
            }
            MountSource::Secret { id, required, file: mode, env } => {
                let value = self.secret(id, *required, env.as_deref(), mounted)?;
                if let (Some(value), Some(mode)) = (value, mode) {
                    mounted.add(mount, file(value, *mode, true), false);
                }
            }
            MountSource::Ssh { id, required, mode } => match self.ssh.get(id) {
                Some(agent) => {
                    let failed = |source| MountError::Forward { id: id.clone(), source };
                    mounted.agents.push(agent::forward(agent, directory, *mode).map_err(failed)?);
                    mounted.add(mount, self.show(directory, false, false)?, false);
                }
                None if *required => return Err(MountError::Ssh(id.clone())),
                None => {}
            },
            MountSource::Inline { data, mode } => {
                mounted.add(mount, file(data.clone(), (*mode, 0, 0), read_only), false);
            }
        }
        Ok(())
    }

    /// What a bind mount shows, whether it is a directory, and what is to be kept meanwhile.
    async fn bind_files(
        &self,
        source: Source,
        selection: &Selection,
        access: Access,
        directory: &Path,
        job: &Job<'_>,
    ) -> Result<(sandbox::MountSource, bool, Option<Active>), MountError> {
        let (selection, directory) = (selection.clone(), directory.to_owned());
        let (method, level, stop) =
            (self.snapshots.clone(), self.sandbox.level(), job.stop.clone());
        let work = move || match level {
            Level::Chroot => copy(&method, &source, &selection, &directory, &stop)
                .map(|(copied, is_directory)| (copied, is_directory, None)),
            Level::Root | Level::SubordinateIds | Level::SingleId => bind(
                &method, &source, &selection, access, &directory, &stop,
            )
            .map(|Bound { mount, is_directory, active }| {
                (sandbox::MountSource::Mount(mount), is_directory, active)
            }),
        };
        self.blocking(work).await
    }

    /// A file or directory of the builder's, whatever is written to it; it may be wanted back.
    fn show(
        &self,
        path: &Path,
        read_only: bool,
        returns: bool,
    ) -> Result<sandbox::MountSource, SandboxError> {
        Ok(match self.sandbox.level() {
            Level::Chroot => sandbox::MountSource::Moved { path: path.to_owned(), returns },
            Level::Root | Level::SubordinateIds | Level::SingleId => {
                sandbox::MountSource::Mount(sandbox::bind_path(path, read_only)?)
            }
        })
    }

    fn source(&self, from: &FileSource, job: &Job<'_>) -> Result<Source, MountError> {
        Ok(match from {
            FileSource::Context(name) => Source::Context(self.context(name)),
            FileSource::Vertex(id) => {
                let snapshot = job.inputs[*id].clone();
                let lowers = super::lowers(&self.cache, &snapshot)?;
                Source::Snapshot(snapshot, lowers)
            }
        })
    }

    /// The value of a secret, if there is one. Where it is to be a variable it becomes one: empty
    /// if the secret is missing and need not be there.
    fn secret(
        &self,
        id: &str,
        required: bool,
        variable: Option<&str>,
        mounted: &mut Mounted,
    ) -> Result<Option<Vec<u8>>, MountError> {
        let value = self.secrets.get(id);
        if value.is_none() && required {
            return Err(MountError::Secret(id.to_owned()));
        }
        if let Some(name) = variable {
            let text = String::from_utf8(value.unwrap_or_default().to_vec());
            let text = text.map_err(|_| MountError::SecretText(id.to_owned()))?;
            if text.contains('\0') {
                return Err(MountError::SecretZeroByte(id.to_owned()));
            }
            mounted.variables.push((name.to_owned(), text));
        }
        Ok(value.map(<[u8]>::to_vec))
    }

    /// Takes each cache mount of the command once, in the order of their names: two commands that
    /// take the same ones never wait for each other.
    async fn take_caches(
        &self,
        exec: &ExecOp,
        job: &Job<'_>,
    ) -> Result<BTreeMap<String, cache::CacheMount>, OpError> {
        let mut wanted = BTreeMap::new();
        for mount in &exec.mounts {
            if let MountSource::Cache(cache) = &mount.source {
                let from = self.seed_of(cache, job).map_err(OpError::failed)?;
                let id = cache_id(cache, from.as_ref().map(|(source, _)| source));
                // Of two ways to share, the narrower serves both.
                let known: Option<&(&CacheMount, _)> = wanted.get(&id);
                if known.is_none_or(|(known, _)| (known.sharing as u8) < cache.sharing as u8) {
                    wanted.insert(id, (cache, Arc::new(from)));
                }
            }
        }
        let mut taken = BTreeMap::new();
        for (id, (mount, from)) in wanted {
            taken.insert(id.clone(), self.take_cache(id, mount, from, job).await?);
        }
        Ok(taken)
    }

    /// Waits until nobody uses the cache mount in a way that forbids ours, or the build is stopped.
    async fn take_cache(
        &self,
        id: String,
        mount: &CacheMount,
        from: Arc<Option<(Source, Selection)>>,
        job: &Job<'_>,
    ) -> Result<cache::CacheMount, OpError> {
        /// Between two attempts: nothing beside a step's time, much beside an attempt's.
        const PAUSE: Duration = Duration::from_millis(20);
        let mode = mount.mode;
        let sharing = match mount.sharing {
            // It can only be in one place.
            CacheSharing::Shared if self.sandbox.level() == Level::Chroot => Sharing::Locked,
            CacheSharing::Shared => Sharing::Shared,
            CacheSharing::Private => Sharing::Private,
            CacheSharing::Locked => Sharing::Locked,
        };
        loop {
            let (cache, id, from) = (self.cache.clone(), id.clone(), from.clone());
            let stop = job.stop.clone();
            let method = self.snapshots.clone();
            let seed = move |directory: &Path| {
                seed(&method, directory, from.as_ref().as_ref(), mode, &stop)
            };
            let taken = self.blocking(move || cache.try_cache_mount(&id, sharing, seed)).await;
            if let Some(taken) = taken.map_err(OpError::failed)? {
                return Ok(taken);
            }
            tokio::select! {
                () = job.stop.cancelled() => return Err(OpError::Stopped),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// What a new cache mount begins with.
    fn seed_of(
        &self,
        mount: &CacheMount,
        job: &Job<'_>,
    ) -> Result<Option<(Source, Selection)>, MountError> {
        match &mount.from {
            Some((from, selection)) => Ok(Some((self.source(from, job)?, selection.clone()))),
            None => Ok(None),
        }
    }
}

/// Mode, owner and group of a cache mount about which nothing is said.
const PLAIN: (u32, u32, u32) = (0o755, 0, 0);

/// What names the directory: one that begins with other contents is another one.
fn cache_id(mount: &CacheMount, source: Option<&Source>) -> String {
    let CacheMount { id, sharing: _, from: _, mode } = mount;
    match source {
        Some(Source::Snapshot(snapshot, _)) => format!("{id}:{}", snapshot.identity()),
        Some(Source::Context(context)) => format!("{id}:{}", context.path().display()),
        None if *mode == PLAIN => id.clone(),
        None => format!("{id}:{mode:?}"),
    }
}

/// Fills a new cache mount.
fn seed(
    method: &Method,
    directory: &Path,
    from: Option<&(Source, Selection)>,
    mode: (u32, u32, u32),
    stop: &CancellationToken,
) -> Result<(), MountError> {
    let to = Root::open(directory).map_err(|source| open_error(directory, source))?;
    match from {
        None => set_owner_and_mode(directory, mode).map_err(|source| open_error(directory, source)),
        Some((Source::Context(context), selection)) => {
            copy_all(&context.source(stop), selection, &to)
        }
        Some((Source::Snapshot(_, lowers), selection)) => {
            let beside = directory.with_extension("view");
            std::fs::create_dir(&beside).map_err(|source| open_error(&beside, source))?;
            let view = Root::new(snapshot::view(method, lowers, &beside)?);
            copy_all(&super::stage(&view, stop), selection, &to)
        }
    }
}

fn set_owner_and_mode(directory: &Path, (mode, uid, gid): (u32, u32, u32)) -> std::io::Result<()> {
    Owners::here().give(std::fs::File::open(directory)?, (uid, gid))?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))
}

/// A copy that changes nothing, into the root of another tree.
const TO_ROOT: CopyOptions<'static> =
    CopyOptions { dest: "/", owner: None, mode: None, unpack: false };

fn copy_all(
    source: &files::Source<'_>,
    selection: &Selection,
    to: &Root,
) -> Result<(), MountError> {
    Ok(files::copy(source, selection, to, &TO_ROOT, None).map(drop)?)
}

fn open_error(path: &Path, source: std::io::Error) -> MountError {
    MountError::Open { path: path.display().to_string(), source }
}

/// What a command may do with a mount.
#[derive(Clone, Copy)]
struct Access {
    read_only: bool,
    /// Whether it is kept from writing to one that is read-only.
    is_guarded: bool,
}

/// A bind mount.
struct Bound {
    mount: OwnedFd,
    is_directory: bool,
    /// The files that it shows a part of, if they may be written to.
    active: Option<Active>,
}

/// Mounts what `selection` names. What is written to it is thrown
/// away: it never reaches the source (CVE-2025-4953).
fn bind(
    method: &Method,
    source: &Source,
    selection: &Selection,
    Access { read_only, is_guarded }: Access,
    directory: &Path,
    stop: &CancellationToken,
) -> Result<Bound, MountError> {
    std::fs::create_dir_all(directory).map_err(|source| open_error(directory, source))?;
    match source {
        Source::Context(context) => {
            let copy = copy_context(&context.source(stop), selection, directory)?;
            let is_directory = is_directory(&copy)?;
            Ok(Bound { mount: sandbox::bind(&copy, read_only)?, is_directory, active: None })
        }
        Source::Snapshot(_, lowers) if read_only && is_guarded => {
            let view = Root::new(snapshot::view(method, lowers, directory)?);
            bind_part(&view, selection, directory, read_only)
        }
        Source::Snapshot(_, lowers) => {
            let active = snapshot::prepare(method, lowers, directory, &[])?;
            let root = active.root().try_clone_to_owned();
            let root = Root::new(root.map_err(|source| open_error(directory, source))?);
            let bound = bind_part(&root, selection, directory, read_only)?;
            Ok(Bound { active: Some(active), ..bound })
        }
    }
}

/// Copies what `selection` names, to be moved to its place; tells whether it is a directory.
fn copy(
    method: &Method,
    source: &Source,
    selection: &Selection,
    directory: &Path,
    stop: &CancellationToken,
) -> Result<(sandbox::MountSource, bool), MountError> {
    let failed = |source| open_error(directory, source);
    std::fs::create_dir_all(directory).map_err(failed)?;
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).map_err(failed)?;
    let copied = match source {
        Source::Context(context) => copy_context(&context.source(stop), selection, directory)?,
        Source::Snapshot(_, lowers) => {
            let beside = directory.with_extension("view");
            std::fs::create_dir(&beside).map_err(failed)?;
            let view = Root::new(snapshot::view(method, lowers, &beside)?);
            let copied = copy_context(&super::stage(&view, stop), selection, directory)?;
            let original = find(&view, &selection.path)?;
            if is_directory(&original)? {
                let copy = std::fs::File::open(directory).map_err(failed)?;
                layer::copy_metadata(original.as_fd(), copy.as_fd())
                    .map_err(|error| failed(error.into()))?;
            }
            copied
        }
    };
    let is_directory = is_directory(&copied)?;
    let path = if is_directory { directory.to_owned() } else { directory.join(name_in(selection)) };
    Ok((sandbox::MountSource::Moved { path, returns: false }, is_directory))
}

fn is_same(one: &sandbox::MountSource, other: &sandbox::MountSource) -> bool {
    use sandbox::MountSource::Moved;
    matches!((one, other), (Moved { path: one, .. }, Moved { path: other, .. }) if one == other)
}

/// Sees to it that nothing written to a cache is written to a layer, once a command that had it in its
/// own file system has ended.
pub(super) fn part_from_layers(
    caches: &BTreeMap<String, cache::CacheMount>,
    stop: &CancellationToken,
) -> Result<(), MountError> {
    caches.values().try_for_each(|cache| {
        parting::part(cache.path(), stop).map_err(|source| open_error(cache.path(), source))
    })
}

/// `whole` must still be there: what is bound is a piece of it.
fn bind_part(
    whole: &Root,
    selection: &Selection,
    directory: &Path,
    read_only: bool,
) -> Result<Bound, MountError> {
    let part = find(whole, &selection.path)?;
    let place = snapshot::mount_point(directory)?;
    let mount = sandbox::bind_part(whole.dir(), &part, &place, read_only)?;
    Ok(Bound { mount, is_directory: is_directory(&part)?, active: None })
}

fn is_directory(file: impl AsFd) -> Result<bool, MountError> {
    let status =
        rustix::fs::fstat(file).map_err(|error| open_error(Path::new("."), error.into()))?;
    Ok(FileType::from_raw_mode(status.st_mode).is_dir())
}

fn find(root: &Root, path: &str) -> Result<OwnedFd, MountError> {
    let missing = || open_error(Path::new(path), std::io::ErrorKind::NotFound.into());
    root.find(Path::new(path))?.ok_or_else(missing)
}

/// Copies what `selection` names, and opens the copy. A copy, because a context's files must
/// belong to root, and those that `.dockerignore` hides must not be seen.
fn copy_context(
    context: &files::Source<'_>,
    selection: &Selection,
    directory: &Path,
) -> Result<OwnedFd, MountError> {
    let to = Root::open(directory).map_err(|source| open_error(directory, source))?;
    copy_all(context, selection, &to)?;
    let source = find(context.root, &selection.path)?;
    let status = rustix::fs::fstat(&source).map_err(|error| open_error(directory, error.into()))?;
    let is_directory = FileType::from_raw_mode(status.st_mode).is_dir();
    find(&to, if is_directory { "/" } else { name_in(selection) })
}

/// The name of what is copied.
fn name_in(selection: &Selection) -> &str {
    selection.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}
