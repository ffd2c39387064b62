//! What can go wrong in the sandbox itself; a command that fails is an [`Exit`](super::Exit).

use std::io;
use std::time::Duration;

use super::refusal::Refusal;

/// An error of the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A namespace would leave the other threads outside.
    #[error("cannot enter a namespace: this process already has {0} threads")]
    Threads(usize),
    /// The machine allows neither root's mounts nor a user namespace.
    #[error("cannot enter a user namespace; {refusal}")]
    NoUserNamespace {
        /// What to do.
        refusal: Refusal,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is a user namespace, but nothing can be mounted in it.
    #[error("cannot mount anything in a user namespace; {refusal}")]
    NoMounts {
        /// What to do.
        refusal: Refusal,
        /// What the kernel said.
        source: io::Error,
    },
    /// [`Choice::SubordinateIds`](super::Choice::SubordinateIds) without any.
    #[error(
        "cannot map subordinate ids: this user has none; add a range for it to /etc/subuid and \
         /etc/subgid and install newuidmap"
    )]
    NoSubordinateIds,
    /// [`Choice::Chroot`](super::Choice::Chroot) without the right to.
    #[error(
        "cannot run containers by chroot: that takes root with the capabilities CHOWN, \
         DAC_OVERRIDE, FOWNER, SETUID, SETGID and SYS_CHROOT"
    )]
    ChrootNeedsRoot,
    /// No device node can be made for commands at [`Level::Chroot`](super::Level::Chroot).
    #[error(
        "cannot make /dev/null for commands that run by chroot: start the container with --cap-add \
         MKNOD (in Kubernetes capabilities: {{add: [MKNOD]}}), or with --security-opt \
         seccomp=unconfined (in Kubernetes seccompProfile: {{type: Unconfined}})"
    )]
    NoDeviceNodes {
        /// What the kernel said.
        source: io::Error,
    },
    /// No device node can be opened where the roots of commands at
    /// [`Level::Chroot`](super::Level::Chroot) are.
    #[error(
        "cannot open /dev/null of commands that run by chroot: the file system of the store refuses \
         devices (nodev); put the store on a volume, with --root, or start the container with \
         --security-opt seccomp=unconfined (in Kubernetes seccompProfile: {{type: Unconfined}})"
    )]
    NoDevicesInStore {
        /// What the kernel said.
        source: io::Error,
    },
    /// A command without a network, where there is no namespace for it.
    #[error(
        "cannot run a command without a network: this container permits no namespaces; start it with \
         --security-opt seccomp=unconfined (in Kubernetes seccompProfile: {{type: Unconfined}})"
    )]
    ChrootHasNetwork,
    /// The kernel gives this user no more namespaces.
    #[error(
        "cannot {what}: this user may not make more namespaces; raise the limits \
         user.max_{{user,mnt,pid,ipc,uts,cgroup,net}}_namespaces with sysctl (one of them may be 0)"
    )]
    NamespaceLimit {
        /// What was attempted.
        what: String,
    },
    /// The system gives this user no more processes.
    #[error(
        "cannot {what}: this user may have no more processes; raise `ulimit -u` or the limit of the \
         control group (pids.max)"
    )]
    ProcessLimit {
        /// What was attempted.
        what: String,
    },
    /// There is only one id, the command wants another, and it can't be made to believe it.
    #[error(
        "cannot run as {uid}:{gid}: this user has no subordinate ids, and another program hears its \
         system calls already; add a range for it to /etc/subuid and /etc/subgid and install newuidmap"
    )]
    SingleId {
        /// The user asked for.
        uid: u32,
        /// The group asked for.
        gid: u32,
    },
    /// The user namespace lacks an id that the command needs.
    #[error(
        "cannot use the {kind} id {id}: the ids {known} are all that this user has; a longer range for \
         this user in /etc/subuid and /etc/subgid (in a container: a longer one for its user namespace) \
         has more"
    )]
    UnknownId {
        /// A user's or a group's.
        kind: &'static str,
        /// The id.
        id: u32,
        /// Those that are there.
        known: String,
    },
    /// The kernel knows no such limit.
    #[error("unknown ulimit {0:?}")]
    UnknownUlimit(String),
    /// The command has no words.
    #[error("cannot run an empty command")]
    EmptyCommand,
    /// A word, variable or path holds a zero byte. What it is, not what it holds: it may be a secret.
    #[error("cannot pass {0} to a command: it holds a zero byte")]
    ZeroByte(String),
    /// A command outside waited in vain.
    #[error("`{program}` did nothing for {} s", after.as_secs_f32())]
    Idle {
        /// The command's first word.
        program: String,
        /// How long it may.
        after: Duration,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was attempted, on which thing.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The image or the host is not as a container needs it.
    #[error("{0}")]
    Unfit(String),
    /// The container could not be set up.
    #[error("cannot set up the container: {0}")]
    Setup(String),
    /// The container's first process ended without a word.
    #[error("the container's init ended without a report ({0})")]
    Lost(std::process::ExitStatus),
    /// The caller stopped it.
    #[error("stopped")]
    Stopped,
}

impl SandboxError {
    /// Returns the error and its causes as one line, for a process that reports to another.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// Says what was attempted when a namespace could not be made. The kernel calls a limit that is
/// reached "no space left on device", which nobody should take for a full disk.
pub(super) fn no_namespace(what: &str, error: rustix::io::Errno) -> SandboxError {
    match error {
        rustix::io::Errno::NOSPC => SandboxError::NamespaceLimit { what: what.to_owned() },
        error => SandboxError::System { what: what.to_owned(), source: error.into() },
    }
}

/// Says what was attempted when a process could not be started. The kernel asks to try again.
pub(super) fn no_process(what: impl Into<String>, error: impl Into<io::Error>) -> SandboxError {
    let (what, source) = (what.into(), error.into());
    match source.kind() {
        io::ErrorKind::WouldBlock => SandboxError::ProcessLimit { what },
        _ => SandboxError::System { what, source },
    }
}

/// Says what was attempted when a system call fails.
pub(super) trait OrCannot<T> {
    /// Turns an error into [`SandboxError::System`]; `what` completes "cannot …".
    fn or_cannot(self, what: impl Into<String>) -> Result<T, SandboxError>;

    /// Like [`OrCannot::or_cannot`], for a text that costs something to make.
    fn or_cannot_with(self, what: impl FnOnce() -> String) -> Result<T, SandboxError>;
}

impl<T, E: Into<io::Error>> OrCannot<T> for Result<T, E> {
    fn or_cannot(self, what: impl Into<String>) -> Result<T, SandboxError> {
        self.or_cannot_with(|| what.into())
    }

    fn or_cannot_with(self, what: impl FnOnce() -> String) -> Result<T, SandboxError> {
        self.map_err(|error| SandboxError::System { what: what(), source: error.into() })
    }
}
