//! Starts a container's init, passes it everything, and follows it to its end.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::MutexGuard;
use tokio_util::sync::CancellationToken;

use super::domain::Domain;
use super::error::{OrCannot, no_process};
use super::init::{GRACE, MARKER};
use super::limits::Limit;
use super::message::{MountSpec, Outgoing, Report, STOP, SourceSpec, Spec};
use super::streams::{FarEnds, Streams};
use super::{
    Container, ContainerMount, Exit, Level, MountSource, Network, ProcessFiles, Sandbox,
    SandboxError, Security, chroot, mounts,
};

/// Where an executable finds itself.
const SELF: &str = "/proc/self/exe";

/// The executable that becomes a container's init.
pub(super) enum InitProgram {
    /// A detached read-only mount of it: a workload with all capabilities that opens `/proc/1/exe`
    /// cannot write to it.
    Sealed(OwnedFd),
    /// A path, if it has been replaced on disk meanwhile.
    Path(PathBuf),
}

impl InitProgram {
    /// Seals `program`, or this process's own executable.
    pub(super) fn sealed(program: Option<&Path>) -> Result<Self, SandboxError> {
        if let Some(program) = program {
            return mounts::bind_path(program, true).map(Self::Sealed);
        }
        let own = std::fs::read_link(SELF).or_cannot("find this executable")?;
        let unchanged = identity(&own).is_some() && identity(&own) == identity(Path::new(SELF));
        if !unchanged {
            return Ok(Self::Path(PathBuf::from(SELF)));
        }
        Ok(mounts::bind_path(&own, true).map_or(Self::Path(PathBuf::from(SELF)), Self::Sealed))
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Sealed(mount) => PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())),
            Self::Path(path) => path.clone(),
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Sandbox {
    /// Runs a container to its end.
    ///
    /// `output` is given what the command writes, as it comes; true stands for standard error.
    /// When `stop` is cancelled, the command gets SIGTERM and at most 300 ms, then SIGKILL, and the
    /// answer is [`SandboxError::Stopped`]. When this returns, no process of the container exists.
    /// A dropped future ends the container too, a moment later: nobody can wait for it then.
    pub async fn run(
        &self,
        container: Container,
        mut output: impl FnMut(bool, &[u8]),
        stop: CancellationToken,
    ) -> Result<Exit, SandboxError> {
        if stop.is_cancelled() {
            return Err(SandboxError::Stopped);
        }
        let _turn = self.wait_for_turn(&stop).await?;
        let parcel = self.pack(container)?;
        let kills_before = out_of_memory_kills();
        let mut running = self.start(parcel).await?;
        let status = running.follow(&mut output, &stop).await?;
        let report = running.finish(&mut output)?;
        if report.is_none() && self.level == Level::Chroot {
            chroot::end_orphans();
        }
        if stop.is_cancelled() {
            return Err(SandboxError::Stopped);
        }
        let exit = exit(report.ok_or(SandboxError::Lost(status))?)?;
        let starved = matches!(exit, Exit::Signal(libc::SIGKILL) | Exit::Code(KILLED_IN_A_SHELL))
            && out_of_memory_kills() > kills_before;
        Ok(if starved { Exit::OutOfMemory } else { exit })
    }

    /// Waits until no other command runs, where they could look into each other.
    async fn wait_for_turn(
        &self,
        stop: &CancellationToken,
    ) -> Result<Option<MutexGuard<'_, ()>>, SandboxError> {
        let Some(turn) = &self.turn else { return Ok(None) };
        tokio::select! {
            turn = turn.lock() => Ok(Some(turn)),
            () = stop.cancelled() => Err(SandboxError::Stopped),
        }
    }

    fn pack(&self, container: Container) -> Result<Parcel, SandboxError> {
        if self.level == Level::Chroot && container.network == Network::None {
            return Err(SandboxError::ChrootHasNetwork);
        }
        match self.level {
            Level::Root | Level::SubordinateIds | Level::Chroot => self.ids.check(&container)?,
            // The command is made to believe that it has any.
            Level::SingleId => (),
        }
        let filter = match container.security {
            Security::Sandbox => self.filters.for_network(container.network),
            Security::Insecure => &[],
        };
        let kind = (self.level, self.process_files, self.domain);
        Parcel::new(kind, &self.open_files, container, filter)
    }

    async fn start(&self, parcel: Parcel) -> Result<Running, SandboxError> {
        let (socket, far_socket) = StdUnixStream::pair().or_cannot("make a socket pair")?;
        let (streams, far_streams) = Streams::new()?;
        let descriptors: Vec<BorrowedFd<'_>> = parcel.descriptors.iter().map(AsFd::as_fd).collect();
        parcel.message.send_head(&socket, &descriptors)?;
        let child = spawn(&self.init, OwnedFd::from(far_socket), far_streams)?;
        socket.set_nonblocking(true).or_cannot("watch a socket")?;
        let mut socket = UnixStream::from_std(socket).or_cannot("watch a socket")?;
        // If init is gone already, its report or its exit status says why.
        let _told_by_the_report = socket.write_all(&parcel.message.body).await;
        Ok(Running { child, socket: Some(socket), streams })
    }
}

/// What a shell answers when its command was killed.
const KILLED_IN_A_SHELL: i32 = 128 + libc::SIGKILL;

fn spawn(program: &InitProgram, socket: OwnedFd, streams: FarEnds) -> Result<Child, SandboxError> {
    // The command holds the far ends: they must be closed here before the near ends are read.
    let mut command = Command::new(program.path());
    command
        .arg0("rbuild-init")
        .arg(MARKER)
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(streams.stdout))
        .stderr(Stdio::from(streams.stderr))
        // A Ctrl-C in the terminal is for rbuild, which ends its containers in order.
        .process_group(0);
    command.spawn().map_err(|error| no_process("start the first process of a container", error))
}

/// A container in the form in which it travels.
struct Parcel {
    message: Outgoing,
    descriptors: Vec<OwnedFd>,
}

impl Parcel {
    fn new(
        (level, process_files, domain): (Level, ProcessFiles, Option<Domain>),
        open_files: &Limit,
        container: Container,
        filter: &[u8],
    ) -> Result<Self, SandboxError> {
        let own = container.ulimits.iter().map(Limit::parse);
        let limits =
            std::iter::once(Ok(open_files.clone())).chain(own).collect::<Result<_, _>>()?;
        let mut descriptors = vec![container.root];
        let mut locks = Vec::new();
        if let Some(beside) = container.beside {
            descriptors.push(beside.directory);
            locks = beside.locks;
        }
        let mut bytes = filter.to_vec();
        let generated = [
            generated_file("/etc/resolv.conf", container.resolv_conf),
            generated_file("/etc/hosts", container.hosts),
        ];
        let mounts = generated.into_iter().chain(container.mounts).map(|mount| {
            let source = pack_source(level, mount.source, &mut descriptors, &mut bytes)?;
            Ok(MountSpec { target: mount.target, source })
        });
        let mounts = mounts.collect::<Result<_, SandboxError>>()?;
        descriptors.extend(locks);
        let spec = Spec {
            level,
            process_files,
            mounts,
            args: container.args,
            env: container.env,
            cwd: container.cwd,
            uid: container.uid,
            gid: container.gid,
            groups: container.groups,
            hostname: container.hostname,
            network: container.network,
            domain,
            security: container.security,
            shm_size: container.shm_size,
            limits,
            filter_length: filter.len(),
        };
        let message = Outgoing::new(&spec, &bytes, descriptors.len())?;
        Ok(Self { message, descriptors })
    }
}

fn generated_file(target: &str, data: Vec<u8>) -> ContainerMount {
    let source = MountSource::File { data, mode: 0o644, uid: 0, gid: 0, read_only: true };
    ContainerMount { source, target: target.to_owned() }
}

fn pack_source(
    level: Level,
    source: MountSource,
    descriptors: &mut Vec<OwnedFd>,
    bytes: &mut Vec<u8>,
) -> Result<SourceSpec, SandboxError> {
    Ok(match source {
        MountSource::Mount(mount) => {
            descriptors.push(mount);
            SourceSpec::Descriptor
        }
        MountSource::Moved { path, returns } => {
            let (parent, name) = parent_and_name(&path)?;
            descriptors.push(parent);
            SourceSpec::Moved { name, returns }
        }
        MountSource::Tmpfs { size: _, mode } if level == Level::Chroot => {
            SourceSpec::Directory { mode }
        }
        MountSource::Tmpfs { size, mode } => {
            descriptors.push(mounts::tmpfs(size, mode)?);
            SourceSpec::Descriptor
        }
        MountSource::File { data, mode, uid, gid, read_only } => {
            bytes.extend_from_slice(&data);
            SourceSpec::File { length: data.len(), mode, uid, gid, read_only }
        }
    })
}

/// Opens the directory that something is in.
fn parent_and_name(path: &Path) -> Result<(OwnedFd, String), SandboxError> {
    let cannot = || format!("open the directory of {}", path.display());
    let (parent, name) = (path.parent(), path.file_name().and_then(|name| name.to_str()));
    let (Some(parent), Some(name)) = (parent, name) else {
        return Err(SandboxError::Unfit(format!("{} can't be put anywhere", path.display())));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty()).or_cannot_with(cannot)?;
    Ok((parent, name.to_owned()))
}

/// A container's init and what connects it with us.
struct Running {
    child: Child,
    /// The life line; dropping it ends the container.
    socket: Option<UnixStream>,
    streams: Streams,
}

impl Running {
    /// Passes output on until init has ended, and with it everything in the container.
    async fn follow(
        &mut self,
        output: &mut impl FnMut(bool, &[u8]),
        stop: &CancellationToken,
    ) -> Result<ExitStatus, SandboxError> {
        let mut asked = false;
        let patience = tokio::time::sleep(GRACE * 3);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                status = self.child.wait() => return status.or_cannot("wait for the container"),
                (stderr, bytes) = self.streams.next() => output(stderr, bytes),
                () = stop.cancelled(), if !asked => {
                    asked = true;
                    patience.as_mut().reset(tokio::time::Instant::now() + GRACE * 3);
                    self.ask_to_stop();
                }
                () = &mut patience, if asked && self.socket.is_some() => self.socket = None,
            }
        }
    }

    fn ask_to_stop(&mut self) {
        let sent = self.socket.as_ref().map(|socket| socket.try_write(&[STOP]));
        if !matches!(sent, Some(Ok(1))) {
            self.socket = None;
        }
    }

    /// Takes the last output and the report; `None` if init said nothing.
    fn finish(self, output: &mut impl FnMut(bool, &[u8])) -> Result<Option<Report>, SandboxError> {
        self.streams.drain(output);
        let Some(socket) = self.socket else { return Ok(None) };
        let mut socket = socket.into_std().or_cannot("read the report")?;
        let mut text = Vec::new();
        // All that writes to it has ended, so what is there is complete. It may lack an end: a
        // process that is being spawned has every descriptor until it executes.
        let _would_wait_for_the_end = socket.read_to_end(&mut text);
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&text).or_cannot("read the report").map(Some)
    }
}

fn exit(report: Report) -> Result<Exit, SandboxError> {
    match report {
        Report::Exited(code) => Ok(Exit::Code(code)),
        Report::Killed(signal) => Ok(Exit::Signal(signal)),
        Report::Failed(why) => Err(SandboxError::Setup(why)),
    }
}

/// How many processes the kernel has killed for want of memory, here or in any control group.
///
/// It does not say whose they were: of steps that run at once, another one may be blamed.
fn out_of_memory_kills() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    let count = counters.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    count.trim().parse().ok()
}
