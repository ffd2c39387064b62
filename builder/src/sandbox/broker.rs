//! A process that stays outside: it keeps the caller's identity and mounts.
//!
//! Inside our user namespace D-Bus refuses us, `podman` takes itself for root, and `ssh` looks into
//! root's home. So credential helpers and the like are run by a process that was forked before.
//! It has one thread, does one thing, and ends when its socket does, thus with rbuild.
//!
//! A request carries four descriptors: a socket for the answer and the command's three streams. The
//! broker forks for each, so several run at once; closing the answer's socket ends the command.

use std::ffi::OsString;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getpid, getrlimit,
    kill_process, pidfd_open, set_child_subreaper, set_dumpable_behavior, setrlimit, waitpid,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::SandboxError;
use super::activity::Activity;
use super::error::{OrCannot, no_process};
use super::init::{Fork, end, fork};
use super::message::{self, Incoming, Outgoing};
use super::streams::{FarEnds, Streams};

/// How long the broker may take to read a request, and to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process outside. Dropping this ends it.
pub struct Broker {
    process: Pid,
    socket: Mutex<UnixStream>,
}

/// A command to be run outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerCommand {
    /// The program, looked up in the caller's `PATH`, and its arguments.
    pub args: Vec<String>,
    /// The directory that it runs in, whatever bytes its path has; `None`: the caller's.
    pub directory: Option<OsString>,
    /// What it sees of the caller's environment.
    pub inherited: Inherited,
    /// Variables to add to that.
    pub env: Vec<(String, String)>,
    /// What it may not exceed.
    pub bounds: Bounds,
    /// What it reads from its standard input.
    #[serde(skip)]
    pub stdin: Vec<u8>,
}

/// What a command may not exceed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// How long it may neither read and write nor compute anything worth mentioning. It is ended
    /// within twice that time.
    pub idle: Option<Duration>,
    /// How many bytes each of its processes may have for its data.
    pub memory: Option<u64>,
}

/// What a command sees of the caller's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inherited {
    /// Everything.
    #[default]
    All,
    /// Everything but these variables.
    AllBut(Vec<String>),
    /// These variables alone.
    Only(Vec<String>),
}

/// What a command run outside has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerOutput {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// How a command ended, as the broker tells it.
#[derive(Serialize, Deserialize)]
enum Answer {
    Ended(Option<i32>),
    /// With the error's number.
    NotStarted(i32),
    /// It did nothing for too long.
    Idle,
}

/// Why a command is not waited for any longer.
enum End {
    OfItself,
    /// rbuild does not want it any more.
    Unwanted,
    Idle,
}

impl Broker {
    /// Forks it. Must be called before threads exist and before this process enters a namespace.
    pub fn start() -> Result<Self, SandboxError> {
        let (near, far) = UnixStream::pair().or_cannot("make a socket pair")?;
        limit_sending(&near).or_cannot("limit the time of a socket")?;
        match fork().map_err(|error| no_process("fork the broker", error))? {
            Fork::Child => serve(far),
            Fork::Parent(process) => Ok(Self { process, socket: Mutex::new(near) }),
        }
    }

    /// Runs a command as the caller, outside. Dropping the future ends the command.
    pub async fn run(&self, command: &BrokerCommand) -> Result<BrokerOutput, SandboxError> {
        let stdin = in_memory(&command.stdin).or_cannot("keep a command's input")?;
        self.run_with_stdin(command, stdin).await
    }

    /// Like [`Broker::run`], but the command reads from `stdin`, such as the end of a pipe.
    pub async fn run_with_stdin(
        &self,
        command: &BrokerCommand,
        stdin: OwnedFd,
    ) -> Result<BrokerOutput, SandboxError> {
        let (mut streams, far) = Streams::new()?;
        let answer = self.request(command, stdin, far)?;
        answer.set_nonblocking(true).or_cannot("watch a socket")?;
        let mut answer = tokio::net::UnixStream::from_std(answer).or_cannot("watch a socket")?;
        let mut output = BrokerOutput { code: None, stdout: Vec::new(), stderr: Vec::new() };
        let mut text = Vec::new();
        let mut printed = [0; 2];
        loop {
            tokio::select! {
                (stderr, bytes) = streams.next() => {
                    output.add(stderr, bytes);
                    printed[usize::from(stderr)] += bytes.len();
                    // Leaving ends the command.
                    refuse_too_much(printed).or_cannot_with(|| attempt(command))?;
                }
                read = answer.read_buf(&mut text) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(_) => (),
                },
            }
        }
        streams.drain(|stderr, bytes| output.add(stderr, bytes));
        output.code = code(command, &text)?;
        Ok(output)
    }

    /// Like [`Broker::run`] where there is no runtime yet, for a command that writes nothing.
    pub(super) fn run_before_threads(
        &self,
        command: &BrokerCommand,
    ) -> Result<BrokerOutput, SandboxError> {
        let (_stdout, far_stdout) = std::io::pipe().or_cannot("make a pipe")?;
        let (_stderr, far_stderr) = std::io::pipe().or_cannot("make a pipe")?;
        let far = FarEnds { stdout: far_stdout, stderr: far_stderr };
        let mut text = Vec::new();
        let stdin = in_memory(&command.stdin).or_cannot("keep a command's input")?;
        self.request(command, stdin, far)?
            .read_to_end(&mut text)
            .or_cannot_with(|| attempt(command))?;
        let code = code(command, &text)?;
        Ok(BrokerOutput { code, stdout: Vec::new(), stderr: Vec::new() })
    }

    /// Sends a command and returns the socket for its answer.
    fn request(
        &self,
        command: &BrokerCommand,
        stdin: OwnedFd,
        far: FarEnds,
    ) -> Result<UnixStream, SandboxError> {
        let (answer, far_answer) = UnixStream::pair().or_cannot("make a socket pair")?;
        let descriptors =
            [far_answer.as_fd(), stdin.as_fd(), far.stdout.as_fd(), far.stderr.as_fd()];
        let message = Outgoing::new(command, &[], descriptors.len())?;
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        message.send_head(&socket, &descriptors)?;
        socket.write_all(&message.body).or_cannot_with(|| attempt(command))?;
        Ok(answer)
    }
}

impl BrokerOutput {
    /// How much of a command's complaints is kept.
    const KEPT_STDERR: usize = 64 << 10;

    fn add(&mut self, stderr: bool, bytes: &[u8]) {
        if !stderr {
            self.stdout.extend_from_slice(bytes);
            return;
        }
        self.stderr.extend_from_slice(bytes);
        // The last of it says what went wrong.
        if self.stderr.len() > 2 * Self::KEPT_STDERR {
            self.stderr.drain(..self.stderr.len() - Self::KEPT_STDERR);
        }
    }
}

/// Refuses to listen on where the two streams of a command have brought so much: a server that git talks
/// to may have it print without end.
fn refuse_too_much(printed: [usize; 2]) -> std::io::Result<()> {
    const MOST: usize = 16 << 20;
    if printed.iter().all(|&bytes| bytes <= MOST) {
        return Ok(());
    }
    Err(std::io::Error::other("it printed more than 16 MiB"))
}

impl Drop for Broker {
    fn drop(&mut self) {
        let socket = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Each fails only if the broker is gone already.
        let _gone = socket.shutdown(std::net::Shutdown::Both);
        if !ends_within(self.process, PATIENCE) {
            let _gone = kill_process(self.process, Signal::KILL);
        }
        let _gone = waitpid(Some(self.process), WaitOptions::empty());
    }
}

/// Fails instead of waiting for ever where a broker that was stopped reads nothing any more.
fn limit_sending(socket: &UnixStream) -> std::io::Result<()> {
    socket.set_write_timeout(Some(PATIENCE))
}

/// Whether a child has ended before `patience` has. One that was stopped (SIGSTOP) ends never.
fn ends_within(child: Pid, patience: Duration) -> bool {
    let Ok(pidfd) = pidfd_open(child, PidfdFlags::empty()) else { return true };
    let timeout = Timespec::try_from(patience).ok();
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut polled, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

fn attempt(command: &BrokerCommand) -> String {
    format!("run {}", command.args.first().map_or("an empty command", String::as_str))
}

fn code(command: &BrokerCommand, text: &[u8]) -> Result<Option<i32>, SandboxError> {
    let answer = serde_json::from_slice(text).or_cannot_with(|| attempt(command))?;
    match answer {
        Answer::Ended(code) => Ok(code),
        Answer::NotStarted(number) => {
            Err(std::io::Error::from_raw_os_error(number)).or_cannot_with(|| attempt(command))
        }
        Answer::Idle => {
            let program = command.args.first().cloned().unwrap_or_default();
            Err(SandboxError::Idle { program, after: command.bounds.idle.unwrap_or_default() })
        }
    }
}

/// A file with `bytes` that nobody else sees: unlike a pipe it needs no one to fill it.
fn in_memory(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("stdin", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(OwnedFd::from(file))
}

/// The broker's life.
fn serve(socket: UnixStream) -> ! {
    let Ok(socket) = keep_only(socket) else { end(1) };
    // Its environment and a copy of rbuild's memory are not for commands that share its container.
    let _only_hardening = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Ctrl-C is rbuild's business; ended requests need no farewell.
    let of_caller = block_endings();
    set_signal(libc::SIGCHLD, libc::SIG_IGN);
    while let Ok(Some(request)) = message::receive::<BrokerCommand>(&socket) {
        if let Ok(Fork::Child) = fork() {
            answer(request, of_caller)
        }
    }
    end(0)
}

/// Closes every descriptor but the streams and `socket`, the near end of that above all.
fn keep_only(socket: UnixStream) -> std::io::Result<UnixStream> {
    const FIRST: RawFd = 3;
    let number = socket.into_raw_fd();
    // SAFETY: this process is a fresh fork that never returns to the owners of the others.
    unsafe {
        if number != FIRST && libc::dup3(number, FIRST, libc::O_CLOEXEC) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        libc::syscall(libc::SYS_close_range, FIRST + 1, u32::MAX, 0);
        Ok(UnixStream::from_raw_fd(FIRST))
    }
}

fn set_signal(signal: i32, action: libc::sighandler_t) {
    // SAFETY: the actions are the kernel's own, no handler runs.
    unsafe { libc::signal(signal, action) };
}

/// What a terminal, or whoever ends a job, sends to a whole group of processes.
const ENDINGS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Has [`ENDINGS`] wait from now on, or else a broker would end with its group, before it has cleaned up
/// behind its commands. Returns the signals that waited until now.
fn block_endings() -> libc::sigset_t {
    // SAFETY: both sets are initialized before they are read.
    unsafe {
        let (mut endings, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut endings);
        libc::sigemptyset(&raw mut before);
        for signal in ENDINGS {
            libc::sigaddset(&raw mut endings, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const endings, &raw mut before);
        before
    }
}

/// Whether one of [`ENDINGS`] has come since this process began.
fn was_told_to_end() -> bool {
    // SAFETY: the set is initialized before it is read.
    unsafe {
        let mut pending = std::mem::zeroed();
        libc::sigemptyset(&raw mut pending);
        libc::sigpending(&raw mut pending);
        ENDINGS.iter().any(|&signal| libc::sigismember(&raw const pending, signal) == 1)
    }
}

fn answer(request: Incoming<BrokerCommand>, of_caller: libc::sigset_t) -> ! {
    set_signal(libc::SIGCHLD, libc::SIG_DFL);
    let Ok([answer, stdin, stdout, stderr]) = <[OwnedFd; 4]>::try_from(request.descriptors) else {
        end(1)
    };
    let answer = UnixStream::from(answer);
    let result = run(&request.spec, [stdin, stdout, stderr], &answer, of_caller)
        .unwrap_or_else(|error| Answer::NotStarted(error.raw_os_error().unwrap_or(libc::EINVAL)));
    let _nobody_reads = serde_json::to_writer(&answer, &result);
    end(0)
}

fn run(
    command: &BrokerCommand,
    streams: [OwnedFd; 3],
    answer: &UnixStream,
    of_caller: libc::sigset_t,
) -> std::io::Result<Answer> {
    // What its children leave behind comes to this process.
    set_child_subreaper(Some(getpid()))?;
    let mut child = start(command, streams, of_caller)?;
    let end = wait_for_end(Pid::from_child(&child), command.bounds.idle, answer)?;
    if let End::Unwanted | End::Idle = end {
        child.kill()?;
    }
    let status = child.wait()?;
    let was_told_to_end = was_told_to_end();
    // What goes on after a command that ended well may be meant to, such as a cache of passwords.
    if !matches!(end, End::OfItself) || was_told_to_end || status.code().is_none() {
        end_orphans();
    }
    if was_told_to_end {
        // So was rbuild, which then goes without an answer, and shall not take this for a failure.
        let patience = Timespec::try_from(PATIENCE).ok();
        poll(&mut [PollFd::new(answer, PollFlags::RDHUP)], patience.as_ref())?;
    }
    Ok(if let End::Idle = end { Answer::Idle } else { Answer::Ended(status.code()) })
}

fn start(
    command: &BrokerCommand,
    [stdin, stdout, stderr]: [OwnedFd; 3],
    of_caller: libc::sigset_t,
) -> std::io::Result<Child> {
    let [program, args @ ..] = &command.args[..] else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let mut to_run = Command::new(program);
    inherit(&mut to_run, &command.inherited);
    if let Some(directory) = &command.directory {
        to_run.current_dir(directory);
    }
    let memory = command.bounds.memory;
    let prepare = move || {
        // SAFETY: the set comes from the kernel.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const of_caller, std::ptr::null_mut()) };
        memory.map_or(Ok(()), limit_memory)
    };
    // SAFETY: it makes system calls and nothing else.
    unsafe { to_run.pre_exec(prepare) }
        .args(args)
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()
}

/// Limits the data of this process and of those that it starts. Not its addresses: git maps whole packs.
fn limit_memory(bytes: u64) -> std::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Data);
    let current = Some(current.map_or(bytes, |current| current.min(bytes)));
    Ok(setrlimit(Resource::Data, Rlimit { current, maximum })?)
}

fn wait_for_end(process: Pid, idle: Option<Duration>, answer: &UnixStream) -> std::io::Result<End> {
    /// Looks so often in the time that it may be idle. Ctrl-Z stops this process, too, which then takes
    /// any time for one look, not for all.
    const LOOKS: u32 = 4;
    let pidfd = pidfd_open(process, PidfdFlags::empty())?;
    let timeout = idle.and_then(|idle| Timespec::try_from(idle / LOOKS).ok());
    let mut before = idle.and_then(|_| Activity::of(process));
    let mut looks = 0;
    loop {
        let mut polled =
            [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(answer, PollFlags::RDHUP)];
        let is_ready = poll(&mut polled, timeout.as_ref())? > 0;
        let [command, answer] = polled.map(|polled| !polled.revents().is_empty());
        match (command, answer) {
            (true, _) => return Ok(End::OfItself),
            (false, true) => return Ok(End::Unwanted),
            (false, false) => {}
        }
        let (Some(idle), false) = (idle, is_ready) else { continue };
        let now = Activity::of(process);
        if let (Some(before), Some(now)) = (before, now)
            && !now.is_enough(before, idle)
        {
            looks += 1;
            if looks == LOOKS {
                return Ok(End::Idle);
            }
            continue;
        }
        (before, looks) = (now, 0);
    }
}

/// Ends what a killed command has started, such as the processes that git talks to servers with. Each
/// one's children come here in their turn.
fn end_orphans() {
    let path = format!("/proc/self/task/{}/children", getpid().as_raw_nonzero());
    loop {
        let children = std::fs::read_to_string(&path).unwrap_or_default();
        let ids = children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?));
        let mut are_left = false;
        for child in ids {
            are_left = true;
            let _it_may_have_ended = kill_process(child, Signal::KILL);
        }
        if !are_left {
            return;
        }
        let _ended = waitpid(None, WaitOptions::empty());
    }
}

/// Leaves `command` no more of our environment, which is the caller's, than it shall see.
fn inherit(command: &mut Command, inherited: &Inherited) {
    match inherited {
        Inherited::All => {}
        Inherited::AllBut(names) => names.iter().for_each(|name| {
            command.env_remove(name);
        }),
        Inherited::Only(names) => {
            command.env_clear();
            let kept = |name: &String| Some((name.clone(), std::env::var_os(name)?));
            command.envs(names.iter().filter_map(kept));
        }
    }
}
