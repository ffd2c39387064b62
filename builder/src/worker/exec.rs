//! RUN: a command in a container on the files below it.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use cache::{Cache, NoRoom, RunDir};
use frontend::{ExecOp, FileSource, Input, NetworkMode, SecurityMode, quote};

use super::LocalWorker;
use super::commit::Workspace;
use super::mounts::{self, MountError, Mounted};
use crate::MAKE_ROOM;
use crate::event::StepId;
use crate::files::{self, User};
use crate::sandbox::{
    self, Beside, Container, Exit, Level, Network, STUBS, SandboxError, Security,
};
use crate::snapshot::Method;
use crate::solver::{Job, Made, OpError};

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// With an exit code.
    #[error("process {} did not complete successfully: exit code: {code}", quote(command))]
    Code {
        /// The command line.
        command: String,
        /// Its exit code.
        code: i32,
        /// Why it had no room to write to when it ended, if that is so.
        no_room: Option<NoRoom>,
    },
    /// By a signal; shells tell it as 128 and its number.
    #[error("process {} did not complete successfully: exit code: {} (killed by {})", quote(command), 128 + signal, signal_name(*signal))]
    Signal {
        /// The command line.
        command: String,
        /// The signal's number.
        signal: i32,
    },
    /// By the kernel.
    #[error(
        "process {} did not complete successfully: exit code: 137: the kernel ran out of memory and killed it",
        quote(command)
    )]
    OutOfMemory {
        /// The command line.
        command: String,
    },
    /// It is for a machine of another kind.
    #[error("cannot run a command for {wanted} on {host}: emulation is not supported yet")]
    Platform {
        /// The command's platform.
        wanted: String,
        /// This machine's.
        host: String,
    },
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl ExecError {
    /// The same without the command line, for where the instruction is shown beside it.
    pub fn brief(&self) -> String {
        match self {
            Self::Code { .. } | Self::Signal { .. } | Self::OutOfMemory { .. } => {
                let (text, ended) = (self.to_string(), "did not complete successfully: ");
                // A command may hold these words, too.
                let how = text.rfind(ended).map_or(text.as_str(), |place| &text[place..]);
                format!("the command {how}")
            }
            Self::Platform { .. } | Self::Sandbox(_) => self.to_string(),
        }
    }

    /// What the user can do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        if let Self::Platform { wanted, host } = self {
            return Some(format!(
                "leave out --platform to build for {host}, or begin a stage that only prepares files \
                 for {wanted} with FROM --platform=$BUILDPLATFORM: it runs here"
            ));
        }
        let Self::Code { no_room, .. } = self else { return None };
        let was = match (*no_room)? {
            NoRoom::Disk => "the disk was full",
            NoRoom::Quota => "the quota of the disk was used up",
            NoRoom::FileSize => return None,
        };
        Some(format!("when it ended {was}: {MAKE_ROOM}"))
    }
}

/// The size of `/dev/shm` if nobody says otherwise.
const SHM_SIZE: u64 = 64 << 20;

impl LocalWorker {
    pub(super) async fn exec(&self, exec: &ExecOp, job: Job<'_>) -> Result<Made, OpError> {
        refuse_other_platforms(exec)?;
        let mounted = self.mount_all(exec, &job).await?;
        let (cache, method, user) = (self.cache.clone(), self.snapshots.clone(), exec.user.clone());
        let (base, stubs) = (job.inputs[exec.root].clone(), stubs(&mounted));
        let make = move || {
            let made = Workspace::new((&cache, &method), &base, &stubs);
            let workspace = made.map_err(OpError::failed)?;
            let user = files::resolve_user(workspace.root(), &user).map_err(OpError::failed)?;
            Ok::<_, OpError>((workspace, user))
        };
        let (workspace, user) = self.blocking(make).await?;
        if let Err(error) = self.run_on(exec, &job, &workspace, &user, mounted).await {
            // What it wrote may be much to remove.
            self.blocking(move || drop(workspace)).await;
            return Err(error);
        }
        let (restamp, stop) = (!job.vertex.no_cache, job.stop.clone());
        let warn = self.warner(&job);
        let mut made = self
            .blocking(move || workspace.commit(restamp, &stop, warn))
            .await
            .map_err(OpError::failed)?;
        made.recordable = self.contexts_are_unchanged(&job).await?;
        Ok(made)
    }

    /// Runs the command on the files of a workspace; it must end well.
    async fn run_on(
        &self,
        exec: &ExecOp,
        job: &Job<'_>,
        workspace: &Workspace,
        user: &User,
        mounted: Mounted,
    ) -> Result<(), OpError> {
        self.say_what_chroot_lacks(exec, self.warner(job));
        let root = self.root_of_container(workspace)?;
        let exit = self.run_in(exec, job, root, user, mounted).await?;
        if job.stop.is_cancelled() {
            return Err(OpError::Stopped);
        }
        let (args, store) = (exec.args.clone(), self.cache.root().to_owned());
        self.blocking(move || succeed(exit, &args, &store)).await.map_err(OpError::failed)
    }

    /// What a sandbox can attach: of a plain directory that is a mount of its own. Where nothing can be
    /// mounted it is the directory.
    fn root_of_container(&self, workspace: &Workspace) -> Result<OwnedFd, OpError> {
        let root = workspace.root().dir();
        match (&self.snapshots, self.sandbox.level()) {
            (Method::Overlay, _) | (_, Level::Chroot) => {
                root.try_clone_to_owned().map_err(OpError::failed)
            }
            (Method::Copies(_), _) => sandbox::bind(root, false).map_err(OpError::failed),
        }
    }

    async fn run_in(
        &self,
        exec: &ExecOp,
        job: &Job<'_>,
        root: OwnedFd,
        user: &User,
        mounted: Mounted,
    ) -> Result<Exit, OpError> {
        let scratch = self.scratch(&mounted).await.map_err(OpError::failed)?;
        let Mounted { mounts, variables, targets: _, caches, agents: _agents, actives, _run_dir } =
            mounted;
        let (beside, _scratch) = scratch.map(|scratch| (scratch.beside, scratch._run_dir)).unzip();
        let container = Container {
            root,
            beside,
            mounts,
            args: exec.args.clone(),
            env: environment(exec, user, variables),
            cwd: exec.cwd.clone(),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
            hostname: exec.hostname.clone(),
            network: match exec.network {
                NetworkMode::Default | NetworkMode::Host => Network::Host,
                NetworkMode::None => Network::None,
            },
            security: match exec.security {
                SecurityMode::Sandbox => Security::Sandbox,
                SecurityMode::Insecure => Security::Insecure,
            },
            resolv_conf: resolv_conf(&self.host.resolv_conf),
            hosts: hosts(exec),
            shm_size: exec.shm_size.unwrap_or(SHM_SIZE),
            ulimits: exec.ulimits.clone(),
        };
        let mut printer = self.outputs.printer(StepId(job.vertex.digest));
        let output = |stderr: bool, bytes: &[u8]| printer.print(stderr, bytes);
        let exit = self.sandbox.run(container, output, job.stop.clone()).await;
        printer.end();
        if !actives.is_empty() {
            self.blocking(move || drop(actives)).await;
        }
        if self.sandbox.level() == Level::Chroot {
            let stop = job.stop.clone();
            let parted = self.blocking(move || mounts::part_from_layers(&caches, &stop)).await;
            if job.stop.is_cancelled() {
                return Err(OpError::Stopped);
            }
            parted.map_err(OpError::failed)?;
        }
        exit.map_err(|error| match error {
            SandboxError::Stopped => OpError::Stopped,
            error => OpError::failed(error),
        })
    }

    /// What the container has beside its root; `None` where it is not needed.
    async fn scratch(&self, mounted: &Mounted) -> Result<Option<Scratch>, MountError> {
        if self.sandbox.level() != Level::Chroot {
            return Ok(None);
        }
        let hold = || -> io::Result<Vec<OwnedFd>> {
            let mut locks: Vec<_> = self.snapshots.hold()?.into_iter().collect();
            locks.extend(mounted._run_dir.as_ref().map(RunDir::hold).transpose()?);
            for cache in mounted.caches.values() {
                locks.push(cache.hold()?);
            }
            Ok(locks)
        };
        let path = self.cache.root().display().to_string();
        let locks = hold().map_err(|source| MountError::Open { path, source })?;
        let cache = self.cache.clone();
        self.blocking(move || Scratch::new(&cache, locks)).await.map(Some)
    }

    /// Says once for all commands what those by chroot do without.
    fn say_what_chroot_lacks(&self, exec: &ExecOp, warn: impl Fn(String)) {
        if self.sandbox.level() != Level::Chroot {
            return;
        }
        self.told_of_chroot.call_once(|| warn(sandbox::CHROOT_LACKS.to_owned()));
        if exec.shm_size.is_some() {
            let text = "--shm-size has no effect: by chroot, /dev/shm is a directory on the disk";
            self.told_of_shared_memory.call_once(|| warn(text.to_owned()));
        }
    }

    /// Whether the context's files that the command saw still are what its key says.
    async fn contexts_are_unchanged(&self, job: &Job<'_>) -> Result<bool, OpError> {
        let mut digests = job.files.iter();
        for input in job.vertex.op.inputs() {
            let Input::Files { from, selection } = input else { continue };
            let before = digests.next().expect("a digest for each selection");
            if let FileSource::Context(name) = from
                && self.digest_context(name, selection, job.stop).await? != *before
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a container has beside its root where nothing can be mounted, and the directory it is in.
struct Scratch {
    beside: Beside,
    _run_dir: RunDir,
}

impl Scratch {
    /// `locks` keep what the container changes from looking dead.
    fn new(cache: &Cache, mut locks: Vec<OwnedFd>) -> Result<Self, MountError> {
        let run_dir = cache.run_dir()?;
        let path = run_dir.path().join("beside");
        let mut make = || {
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            locks.push(run_dir.hold()?);
            Ok(OwnedFd::from(std::fs::File::open(&path)?))
        };
        let directory = make()
            .map_err(|source| MountError::Open { path: path.display().to_string(), source })?;
        Ok(Self { beside: Beside { directory, locks }, _run_dir: run_dir })
    }
}

fn refuse_other_platforms(exec: &ExecOp) -> Result<(), OpError> {
    let host = oci::Platform::host();
    let runs_here = exec.platform.satisfies(&host)
        || (host.architecture == "amd64" && exec.platform.architecture == "386");
    if runs_here {
        return Ok(());
    }
    Err(OpError::failed(ExecError::Platform {
        wanted: exec.platform.to_string(),
        host: host.to_string(),
    }))
}

/// The mount points that the root needs.
fn stubs(mounted: &Mounted) -> Vec<(String, bool)> {
    let always = STUBS.iter().map(|&(path, is_directory)| (path.to_owned(), is_directory));
    always.chain(mounted.targets.iter().cloned()).collect()
}

fn environment(
    exec: &ExecOp,
    user: &User,
    secrets: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut env = exec.env.clone();
    for (name, value) in exec.proxy_env.iter().cloned().chain(secrets) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => env.push((name, value)),
        }
    }
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), user.home.clone()));
    }
    env
}

fn resolv_conf(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

fn hosts(exec: &ExecOp) -> Vec<u8> {
    let mut text = format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        exec.hostname
    );
    for (name, address) in &exec.extra_hosts {
        let _infallible = writeln!(text, "{address}\t{name}");
    }
    text.into_bytes()
}

fn succeed(exit: Exit, args: &[String], store: &Path) -> Result<(), ExecError> {
    let command = args.join(" ");
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => {
            let no_room = cache::lacks_room(store);
            Err(ExecError::Code { command, code, no_room })
        }
        Exit::Signal(signal) => Err(ExecError::Signal { command, signal }),
        Exit::OutOfMemory => Err(ExecError::OutOfMemory { command }),
    }
}

fn signal_name(signal: i32) -> String {
    let names = [
        "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE",
        "SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM",
    ];
    let index = usize::try_from(signal - 1).unwrap_or(usize::MAX);
    names.get(index).map_or_else(|| format!("signal {signal}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_told_as_it_is_and_a_signal_by_name() {
        let args = ["/bin/sh".to_owned(), "-c".to_owned(), "exit 3".to_owned()];
        let told = |exit| succeed(exit, &args, Path::new("/")).unwrap_err().to_string();
        assert!(told(Exit::Code(3)).ends_with("exit code: 3"));
        assert!(told(Exit::Signal(9)).ends_with("exit code: 137 (killed by SIGKILL)"));
        assert!(told(Exit::OutOfMemory).contains("out of memory"));
    }

    #[test]
    fn beside_its_instruction_a_command_is_not_repeated() {
        let args = ["did not complete successfully: exit code: 9; exit 3".to_owned()];
        let told = |exit| succeed(exit, &args, Path::new("/")).unwrap_err().brief();
        let ended = "the command did not complete successfully: exit code: ";
        assert_eq!(told(Exit::Code(3)), format!("{ended}3"));
        assert_eq!(told(Exit::Signal(9)), format!("{ended}137 (killed by SIGKILL)"));
        let killed = format!("{ended}137: the kernel ran out of memory and killed it");
        assert_eq!(told(Exit::OutOfMemory), killed);
    }

    #[test]
    fn the_command_that_failed_is_quoted_on_one_line() {
        let args = ["/bin/sh".to_owned(), "-c".to_owned(), "echo \"a\"\nexit 3\n".to_owned()];
        let told = succeed(Exit::Code(3), &args, Path::new("/")).unwrap_err().to_string();
        let process = r#"process "/bin/sh -c echo \"a\"\nexit 3\n" did not complete successfully"#;
        assert_eq!(told, format!("{process}: exit code: 3"));
    }
}
