//! The two processes between rbuild and a workload. Both have one thread and run our own code.
//!
//! *Stage 1* is our executable started again. It reads the spec, makes a process namespace and
//! waits for its PID 1. Only it is seen from outside, and when it ends nothing of the container is
//! left: the kernel ends a PID 1 only after everything in its namespace.
//!
//! *PID 1* builds the container, starts the workload, reaps what is orphaned, reports. It ends at
//! once, and the container with it, when the socket's other end is closed.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open,
    pidfd_send_signal, set_dumpable_behavior, set_parent_process_death_signal, setsid, umask,
    waitpid,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::error::{OrCannot, no_namespace, no_process};
use super::message::{self, Incoming, Report, Spec};
use super::single_id::{Ids, Supervisor};
use super::sockets::Sockets;
use super::workload::{Started, Workload};
use super::{Level, Network, SandboxError, Security, chroot, network, rootfs};
use crate::owners::Owners;

/// The first argument of an executable that shall be a container's init.
pub(super) const MARKER: &str = "--be-the-init-of-a-container";

/// How long a workload may take to end when it is asked to.
pub(super) const GRACE: Duration = Duration::from_millis(300);

/// Keeps descriptors that this process inherited from all programs that it starts.
///
/// A directory of the host that a caller left open would reach a container's first process, into
/// which an insecure command can look. They stay open here: `/dev/fd/63` may be the Dockerfile.
///
/// Must be called before all else in `main`.
pub fn keep_descriptors() {
    close_range_from_three(libc::CLOSE_RANGE_CLOEXEC);
}

/// Has the kernel tell of children that end, also where the caller wished not to hear of its own: an
/// ignored SIGCHLD is inherited, and nothing would ever be seen to end.
///
/// Must be called in `main` before children exist.
pub fn hear_of_children() {
    // SAFETY: the action is the kernel's own, no handler runs.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Has a write beyond the limit of a file's size fail with an error instead of ending the process
/// without a word. The commands of RUN get the default action again.
pub fn survive_file_size_limits() {
    // SAFETY: the action is the kernel's own, no handler runs.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// A kernel that can't do this can't run containers: starting the workload would say so.
fn close_range_from_three(flags: u32) {
    // SAFETY: called before anything has opened a descriptor that it relies on.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, flags) };
}

/// Becomes a container's init if this process was started as one; then it never returns.
///
/// Must be called first in `main`, behind [`keep_descriptors`].
pub fn init_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == MARKER) {
        stage_one();
    }
}

fn stage_one() -> ! {
    // The workload must not look into the init's memory, where the spec and its secrets are.
    let _only_hardening = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // All that it is given comes on the streams.
    close_range_from_three(0);
    let Ok(socket) = take_socket() else { end(1) };
    let code = match message::receive::<Spec>(&socket) {
        Ok(None) => 0,
        Ok(Some(incoming)) if incoming.spec.level == Level::Chroot => {
            let told = chroot::contain(incoming, &socket);
            report(&socket, &told.unwrap_or_else(|error| Report::Failed(error.chain())));
            0
        }
        Ok(Some(incoming)) => contain(incoming, &socket).unwrap_or_else(|error| {
            report(&socket, &Report::Failed(error.chain()));
            1
        }),
        Err(error) => {
            report(&socket, &Report::Failed(error.chain()));
            1
        }
    };
    end(code)
}

/// Ends this process without the exit handlers, which belong to nobody after a fork.
pub(super) fn end(code: i32) -> ! {
    // SAFETY: ends the process, whatever its state.
    unsafe { libc::_exit(code) }
}

/// Moves the socket away from standard input and puts `/dev/null` there.
fn take_socket() -> std::io::Result<UnixStream> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(UnixStream::from(socket))
}

fn report(mut socket: &UnixStream, report: &Report) {
    // If rbuild is gone, so is the reader of this.
    let _nobody_reads = serde_json::to_writer(&mut socket, report);
    let _nobody_reads = socket.flush();
}

/// A fork's two sides.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's number.
    Parent(Pid),
}

/// Forks this process, which must have one thread.
pub(super) fn fork() -> rustix::io::Result<Fork> {
    // SAFETY: with one thread no lock can be held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        number if number > 0 => {
            Pid::from_raw(number).map(Fork::Parent).ok_or(rustix::io::Errno::AGAIN)
        }
        // The only reasons are limits.
        _error => Err(rustix::io::Errno::AGAIN),
    }
}

/// Makes the process namespace and its PID 1, and waits for that.
fn contain(incoming: Incoming<Spec>, socket: &UnixStream) -> Result<i32, SandboxError> {
    unshare(UnshareFlags::NEWPID)
        .map_err(|error| no_namespace("make a process namespace", error))?;
    match fork().map_err(|error| no_process("fork", error))? {
        Fork::Child => {
            let result = run(incoming, socket).unwrap_or_else(|e| Report::Failed(e.chain()));
            report(socket, &result);
            end(0)
        }
        Fork::Parent(first) => {
            drop(incoming);
            wait_with_life_line(first, socket).or_cannot("wait for the container")
        }
    }
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: no descriptor table is unshared, and nothing here relies on the namespaces left.
    unsafe { unshare_unsafe(flags) }
}

fn wait_with_life_line(first: Pid, socket: &UnixStream) -> rustix::io::Result<i32> {
    let pidfd = pidfd_open(first, PidfdFlags::empty())?;
    loop {
        let mut polled =
            [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(socket, PollFlags::RDHUP)];
        poll_patiently(&mut polled, None)?;
        let [ended, line] = polled.map(|polled| !polled.revents().is_empty());
        if line && !ended {
            pidfd_send_signal(&pidfd, Signal::KILL)?;
        }
        if line || ended {
            break;
        }
    }
    let status = waitpid(Some(first), WaitOptions::empty())?;
    Ok(status.and_then(|(_, status)| status.exit_status()).unwrap_or(1))
}

fn poll_patiently(polled: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> rustix::io::Result<()> {
    match poll(polled, timeout) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// PID 1 from its first to its last breath.
fn run(incoming: Incoming<Spec>, socket: &UnixStream) -> Result<Report, SandboxError> {
    set_parent_process_death_signal(Some(Signal::KILL)).or_cannot("watch the parent")?;
    setsid().or_cannot("start a session")?;
    leave_keyring();
    umask(rustix::fs::Mode::empty());
    // It is read in /proc, which is covered for a while.
    let _known_from_now_on = Owners::here();
    enter_namespaces(&incoming.spec)?;
    let workload = Workload::new(&incoming.spec, &incoming.bytes)?;
    let answering = Answers::of(&incoming.spec);
    let stubs = rootfs::enter(incoming)?;
    // Profiles of container runtimes forbid the call; the command then sees the container's name.
    let _forbidden = rustix::system::sethostname(workload.hostname());
    let children = Children::watch()?;
    let Started { process, failure, listener } = workload.start()?;
    let answers = listener.map(answering).transpose()?;
    let status = supervise(process, &children, socket, answers, signal_all);
    let Some(status) = status.or_cannot("watch the workload")? else { end(1) };
    if !stubs.is_empty() {
        end_all_others();
        stubs.remove();
    }
    Ok(outcome(status, failure))
}

/// Keeps what ends a process that has nothing to say from ending this one.
pub(super) fn ignore_farewells() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the action is the kernel's own, no handler runs.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The keys of the caller's session are not the container's: an insecure command could read them.
pub(super) fn leave_keyring() {
    /// `KEYCTL_JOIN_SESSION_KEYRING`; without a name it is a new one.
    const JOIN: libc::c_long = 1;
    // SAFETY: the call takes no pointer but a null one. A kernel without keyrings has none to leave.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN, std::ptr::null::<libc::c_char>()) };
}

fn enter_namespaces(spec: &Spec) -> Result<(), SandboxError> {
    let namespaces =
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    let enter = |namespaces| {
        unshare(namespaces).map_err(|error| no_namespace("enter the container's namespaces", error))
    };
    match spec.network {
        Network::Host => enter(namespaces),
        Network::None => {
            enter(namespaces | UnshareFlags::NEWNET)?;
            network::raise_loopback()
        }
    }
}

/// What there is to report of a workload that has ended.
pub(super) fn outcome(status: WaitStatus, mut failure: impl Read) -> Report {
    let mut message = String::new();
    let read = failure.read_to_string(&mut message);
    match (status.exit_status(), status.terminating_signal()) {
        _ if read.is_ok() && !message.is_empty() => Report::Failed(message),
        (Some(code), _) => Report::Exited(code),
        (None, Some(signal)) => Report::Killed(signal),
        (None, None) => Report::Failed("the workload ended in an unknown way".to_owned()),
    }
}

/// Tells when children end.
pub(super) struct Children(OwnedFd);

impl Children {
    pub(super) fn watch() -> Result<Self, SandboxError> {
        // SAFETY: the set is initialised by `sigemptyset` before it is read; the calls only block
        // SIGCHLD in this process and make a descriptor, which is owned here alone.
        let number = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if number < 0 {
            return Err(std::io::Error::last_os_error()).or_cannot("watch for the end of children");
        }
        // SAFETY: the kernel has just made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Waits for the next ones only.
    pub(super) fn forget(&self) {
        let mut signal = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.0, &mut signal).is_ok_and(|length| length > 0) {}
    }

    /// Reaps all that have ended; returns the status of `awaited` if it was among them.
    fn reap(&self, awaited: Pid) -> rustix::io::Result<Option<WaitStatus>> {
        self.forget();
        let mut found = None;
        while let Some((child, status)) = rustix::process::wait(WaitOptions::NOHANG)? {
            if child == awaited {
                found = Some(status);
                break;
            }
        }
        Ok(found)
    }
}

/// What answers the questions of a workload, if it asks any.
pub(super) enum Answers {
    Sockets(Sockets),
    /// And for sockets too, if need be.
    Owners(Box<Supervisor>),
}

impl Answers {
    /// Returns what begins to answer on a listener.
    fn of(spec: &Spec) -> impl FnOnce(OwnedFd) -> Result<Self, SandboxError> + use<> {
        let level = spec.level;
        let ids = Ids::new(spec.uid, spec.gid, spec.groups.clone());
        let may_mount = spec.security == Security::Insecure;
        move |listener| {
            Ok(match level {
                Level::SingleId => {
                    Self::Owners(Box::new(Supervisor::new(listener, ids, may_mount)?))
                }
                Level::Root | Level::SubordinateIds | Level::Chroot => {
                    Self::Sockets(Sockets::new(listener))
                }
            })
        }
    }

    fn answer(&mut self) {
        match self {
            Self::Sockets(sockets) => sockets.answer(),
            Self::Owners(supervisor) => supervisor.serve(),
        }
    }
}

impl AsFd for Answers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Sockets(sockets) => sockets.as_fd(),
            Self::Owners(supervisor) => supervisor.as_fd(),
        }
    }
}

impl AsFd for Children {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for the workload, answers its questions, reaps orphans, and passes on the wish to stop by
/// `signal_all`, which sends a signal to everything in the container. `None` if the life line has ended
/// before the workload.
pub(super) fn supervise(
    workload: Pid,
    children: &Children,
    socket: &UnixStream,
    mut answers: Option<Answers>,
    signal_all: impl Fn(Signal),
) -> rustix::io::Result<Option<WaitStatus>> {
    let mut deadline: Option<Instant> = None;
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            signal_all(Signal::KILL);
            deadline = None;
            continue;
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut polled = vec![
            PollFd::new(&children.0, PollFlags::IN),
            PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP),
        ];
        polled.extend(answers.iter().map(|answers| PollFd::new(answers, PollFlags::IN)));
        poll_patiently(&mut polled, timeout.as_ref())?;
        let [child, line, asked] =
            [0, 1, 2].map(|at| polled.get(at).map_or(PollFlags::empty(), PollFd::revents));
        if line.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            return Ok(None);
        }
        if !child.is_empty()
            && let Some(status) = children.reap(workload)?
        {
            return Ok(Some(status));
        }
        match &mut answers {
            Some(answers) if asked.contains(PollFlags::IN) => answers.answer(),
            // Nothing that could ask is left.
            Some(_) if !asked.is_empty() => answers = None,
            _ => (),
        }
        if line.contains(PollFlags::IN) {
            rustix::io::read(socket, &mut [0; 1])?;
            signal_all(Signal::TERM);
            deadline = Some(Instant::now() + GRACE);
        }
    }
}

/// Sends a signal to everything in the container but this PID 1.
fn signal_all(signal: Signal) {
    // SAFETY: for PID 1, -1 is every other process of its own namespace. That there is none is no
    // error.
    let _nobody_is_left = unsafe { libc::kill(-1, signal.as_raw()) };
}

fn end_all_others() {
    signal_all(Signal::KILL);
    while rustix::process::wait(WaitOptions::empty()).is_ok() {}
}
