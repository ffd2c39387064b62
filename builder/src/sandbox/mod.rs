//! Runs the commands of a build, each in a container of its own that ends without a trace.
//!
//! No daemon, no OCI runtime, no cgroups. The way of one command:
//!
//! ```text
//!  main ── enter() ──▶ broker (forked, stays outside)
//!            │
//!            ▼  own mount namespace (or user and mount namespace), before any thread
//!          rbuild ── Sandbox::run ──▶ stage 1: /proc/self/exe again, one thread
//!            ▲            one socket:      │ unshare(pid), fork
//!            │            spec, mounts,    ▼
//!            └─────────── report, life ── PID 1: mounts, pivot_root, reaps
//!                         line             │ fork
//!                                          ▼
//!                                         the workload
//! ```
//!
//! * [`enter`] moves the whole process into a mount namespace, so every mount dies with it.
//! * `spawn` starts stage 1 by `posix_spawn` of our own executable: no Rust code runs between a
//!   fork and an exec in a process that has threads.
//! * The socket is the life line: when rbuild ends, however it ends, both stages see its end and
//!   the kernel ends the process namespace with PID 1.
//! * Mounts are made detached, before the new root is entered, and attached after
//!   `pivot_root`: no link in an image can lead a mount to the host.
//! * Whatever a command can write is mounted `nodev`; the nodes in `/dev` are bind mounts of single
//!   files, made for this container. So root may make a device node, which belongs to the layer, but
//!   not open it, and change the modes of those in `/dev`, which end with the container.
//! * Where the machine permits no namespace, stage 1 itself runs the command, by `chroot`.
//!
//! [`Level`] says how much of this the machine permits; the first one that works is entered, unless
//! the caller [chooses](Choice).

mod activity;
mod broker;
mod capabilities;
mod chroot;
mod container;
mod devices;
mod domain;
mod error;
mod examine;
mod init;
mod known_ids;
mod limits;
mod listener;
mod message;
mod mounts;
mod network;
mod paths;
mod refusal;
mod rootfs;
mod seccomp;
mod self_namespace;
mod single_id;
mod sockets;
mod spawn;
mod streams;
mod workload;

use std::path::Path;

use cache::OwnershipMap;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

pub use broker::{Bounds, Broker, BrokerCommand, BrokerOutput, Inherited};
pub use container::{Beside, Container, ContainerMount, Exit, MountSource, Network, Security};
pub use error::SandboxError;
pub use examine::try_level;
pub use init::{hear_of_children, init_if_asked, keep_descriptors, survive_file_size_limits};
pub use mounts::{bind, bind_part, bind_path, tmpfs};
pub use refusal::Refusal;
pub use self_namespace::Choice;

use domain::Domain;
use known_ids::KnownIds;
use limits::Limit;
use seccomp::Filters;
use spawn::InitProgram;

/// Mount points that every container needs in its root: path and whether it is a directory.
///
/// A snapshotter lays a lowest layer with these (and the targets of a command's own mounts) below
/// the image, so that nothing has to be made in the root itself. What is missing all the same is
/// made before the command starts and taken away after it.
pub const STUBS: &[(&str, bool)] = &[
    ("proc", true),
    ("dev", true),
    ("sys", true),
    ("etc/resolv.conf", false),
    ("etc/hosts", false),
];

/// How this process came to be allowed to mount, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Root with `CAP_SYS_ADMIN`: a mount namespace, real ids, real devices.
    Root,
    /// A user namespace with a range of subordinate ids: any id, no devices.
    SubordinateIds,
    /// A user namespace in which only root exists to the kernel; other owners and ids are noted.
    SingleId,
    /// Root in a container that permits no namespace: `chroot` alone, and nothing can be mounted.
    Chroot,
}

/// What is to be said once where commands run at [`Level::Chroot`].
pub const CHROOT_LACKS: &str = "commands run by chroot, which keeps nothing of this container from \
    those that are root, and see no /proc of their own. Where namespaces are permitted they are \
    isolated: start the container with --security-opt seccomp=unconfined (in Kubernetes \
    seccompProfile: {type: Unconfined})";

/// The `/proc` that a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProcessFiles {
    /// One of its own process namespace; where the kernel refuses that to a user namespace, as it does
    /// inside a container some of whose `/proc` is hidden, the one outside.
    Own,
    /// The one outside. `/proc/self` is right there; numbers are those of the processes outside.
    Outer,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::SubordinateIds => "subordinate-ids",
            Self::SingleId => "single-id",
            Self::Chroot => "chroot",
        })
    }
}

/// What the kernel lacks, and what is done instead.
pub fn fallbacks() -> Vec<String> {
    let mut fallbacks = vec![];
    let domain = Domain::here();
    if domain != Some(Domain::AbstractSockets) {
        fallbacks.push(
            "before 6.12: a RUN on the host's network reaches abstract unix sockets of the host"
                .to_owned(),
        );
    }
    if domain.is_none() {
        fallbacks.push(
            "no Landlock of 5.19: where /proc is that of the container around, RUNs take turns"
                .to_owned(),
        );
    }
    fallbacks
}

impl Level {
    /// Returns how unpacked files keep their owners at this level.
    pub fn ownership_map(self) -> OwnershipMap {
        match self {
            Self::Root | Self::SubordinateIds | Self::Chroot => OwnershipMap::Real,
            Self::SingleId => OwnershipMap::Single,
        }
    }
}

/// The right to run containers: this process is in a mount namespace of its own.
pub struct Sandbox {
    level: Level,
    process_files: ProcessFiles,
    broker: Option<Broker>,
    init: InitProgram,
    filters: Filters,
    ids: KnownIds,
    /// What keeps a command from the others.
    domain: Option<Domain>,
    /// Who runs where nothing does, and they see each other.
    turn: Option<Mutex<()>>,
    /// The caller's limit, which commands get.
    open_files: Limit,
}

/// Moves this process into a namespace where it may mount, and leaves a [`Broker`] outside.
///
/// Enters the first level that the machine permits, or the one that is chosen. Must be the first thing in `main` after [`init_if_asked`]: it refuses when threads exist, since
/// they would stay outside.
pub fn enter(choice: Choice) -> Result<Sandbox, SandboxError> {
    self_namespace::refuse_threads()?;
    let broker = Broker::start()?;
    let level = self_namespace::enter(&broker, choice)?;
    if level == Level::Chroot {
        chroot::hide_memory();
        chroot::adopt_orphans()?;
    }
    let mut sandbox = Sandbox {
        level,
        process_files: choice.process_files(),
        broker: Some(broker),
        init: InitProgram::sealed(None)?,
        filters: Filters::default(),
        ids: KnownIds::here(),
        domain: Domain::here(),
        turn: None,
        open_files: limits::raise_open_files(),
    };
    sandbox.turn = sandbox.commands_see_each_other().then(Mutex::default);
    Ok(sandbox)
}

impl Sandbox {
    /// Moves only the calling thread, for a test that runs beside others; needs root.
    ///
    /// Containers must be run from this thread (a current-thread runtime on it), there is no
    /// broker, and `init_program` is an executable that calls [`init_if_asked`].
    pub fn for_this_thread(init_program: &Path) -> Result<Self, SandboxError> {
        self_namespace::enter_as_root()?;
        let init = InitProgram::sealed(Some(init_program))?;
        Ok(Self {
            level: Level::Root,
            process_files: ProcessFiles::Own,
            broker: None,
            init,
            filters: Filters::default(),
            ids: KnownIds::here(),
            domain: Domain::here(),
            turn: None,
            open_files: Limit::open_files(),
        })
    }

    /// Runs containers by chroot, for a test; needs root. `init_program` is as above.
    pub fn by_chroot(init_program: &Path) -> Result<Self, SandboxError> {
        chroot::adopt_orphans()?;
        Ok(Self {
            level: Level::Chroot,
            process_files: ProcessFiles::Own,
            broker: None,
            init: InitProgram::sealed(Some(init_program))?,
            filters: Filters::default(),
            ids: KnownIds::here(),
            domain: Domain::here(),
            turn: None,
            open_files: Limit::open_files(),
        })
    }

    /// Whether two commands that run at once could look into each other.
    fn commands_see_each_other(&self) -> bool {
        let shares_a_namespace = match self.level {
            Level::SubordinateIds | Level::SingleId => true,
            // Commands have a `/proc` of their own, or none.
            Level::Root | Level::Chroot => false,
        };
        shares_a_namespace
            && self.domain.is_none()
            && !self_namespace::child_can(|| self.has_own_proc())
    }

    /// Returns what the machine permits.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the process outside, which still is the caller; none in
    /// [`Sandbox::for_this_thread`].
    pub fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }
}
