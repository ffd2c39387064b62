//! What the caller says about one container.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One command and the world it sees. Run it with [`Sandbox::run`](super::Sandbox::run).
#[derive(Debug)]
pub struct Container {
    /// Its root: a detached mount, such as an overlay from `fsmount`. It is made `nodev`. At
    /// [`Level::Chroot`](super::Level::Chroot) a plain directory.
    pub root: OwnedFd,
    /// What a container needs where nothing can be mounted, and only there.
    pub beside: Option<Beside>,
    /// Further mounts, in the order in which they are attached.
    pub mounts: Vec<ContainerMount>,
    /// The command; its first word is looked up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: Vec<(String, String)>,
    /// Its working directory; made if missing, owned by the user.
    pub cwd: String,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// Its host name.
    pub hostname: String,
    /// What it sees of the network.
    pub network: Network,
    /// What it may do.
    pub security: Security,
    /// Its `/etc/resolv.conf`; read-only and never part of a layer.
    pub resolv_conf: Vec<u8>,
    /// Its `/etc/hosts`; read-only and never part of a layer.
    pub hosts: Vec<u8>,
    /// The size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Resource limits: name as in `ulimit`, soft, hard; -1 is none.
    pub ulimits: Vec<(String, i64, i64)>,
}

/// What a container at [`Level::Chroot`](super::Level::Chroot) has beside its root.
#[derive(Debug)]
pub struct Beside {
    /// An empty directory on the root's file system. What is left in it goes with it.
    pub directory: OwnedFd,
    /// Held until everything has been put back, also when this process ends before: locks on what the
    /// container works on.
    pub locks: Vec<OwnedFd>,
}

/// Something attached inside a container.
#[derive(Debug)]
pub struct ContainerMount {
    /// What.
    pub source: MountSource,
    /// Where: a path in the container. Links in it are followed inside the root only.
    pub target: String,
}

/// What a [`ContainerMount`] shows.
#[derive(Debug)]
pub enum MountSource {
    /// A detached mount, see [`bind`](super::bind). It is made `nodev`.
    Mount(OwnedFd),
    /// A file or directory on the root's file system, which is renamed to its place; at
    /// [`Level::Chroot`](super::Level::Chroot), and only there. Nothing keeps the command from writing
    /// to it.
    Moved {
        /// Where it is.
        path: PathBuf,
        /// Whether it is renamed back afterwards.
        returns: bool,
    },
    /// A file system in memory, `nodev` and `nosuid`; at [`Level::Chroot`](super::Level::Chroot) a
    /// directory beside the root, of any size.
    Tmpfs {
        /// What it holds at most; `None`: half of the memory.
        size: Option<u64>,
        /// Its permissions.
        mode: u32,
    },
    /// A file in memory that only this container sees: a secret, an inline file.
    File {
        /// Its bytes.
        data: Vec<u8>,
        /// Its permissions.
        mode: u32,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Whether the mount refuses writes.
        read_only: bool,
    },
}

/// What a command sees of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The host's, without its abstract unix sockets and without looking at its packets.
    Host,
    /// A loopback device alone.
    None,
}

/// What a command may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// Docker's default capabilities and system calls; parts of `/proc` and `/sys` hidden.
    Sandbox,
    /// Whatever this process may do, all devices included.
    Insecure,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code: 127 if it was not found, 126 if it cannot be executed.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By the kernel, which ran out of memory.
    OutOfMemory,
}
