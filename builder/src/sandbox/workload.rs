//! The last steps from PID 1 to the command itself.
//!
//! The order is the kernel's: limits, Landlock and the filter need rights that the later steps take
//! away, and ids come before capabilities. Every descriptor is closed first of all: an image may name
//! `/proc/self/fd/7` as its working directory. No file is opened by a path, which may lead wherever the
//! Dockerfile wants it to: standard input comes from PID 1.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io::{Cursor, Read};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{
    Pid, Signal, fchdir, getcwd, set_parent_process_death_signal, setsid, umask,
};
use rustix::thread::{
    Gid, Uid, set_current_timer_slack, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::domain::Domain;
use super::error::{OrCannot, no_process};
use super::init::{Fork, end, fork};
use super::limits::Limit;
use super::message::{Spec, send_with_rights};
use super::sockets::Said;
use super::{Level, Network, SandboxError, Security, capabilities, seccomp, single_id, sockets};

/// What a shell answers for a command that it does not find.
const NOT_FOUND: i32 = 127;
/// … and for one that it cannot start.
const NOT_EXECUTABLE: i32 = 126;

/// How long a file may be open for writing: a process that rbuild forks while it writes a layer has
/// its descriptors until it executes, a moment later.
const BUSY: Duration = Duration::from_millis(500);

/// Where the socket goes on which a failure before the command is told, and where PID 1 finds the
/// requests for sockets.
const FAILURE: RawFd = 3;

/// All that is needed of the spec once the root is entered.
pub(super) struct Workload {
    command: Command,
    filter: Vec<u8>,
    hostname: String,
    cwd: String,
    limits: Vec<Limit>,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    level: Level,
    domain: Option<Domain>,
    security: Security,
    /// Whether it is to leave the host's network namespace.
    leaves_network: bool,
}

/// A command that runs.
pub(super) struct Started {
    pub(super) process: Pid,
    /// Ends with the start, or tells why there was none.
    pub(super) failure: Box<dyn Read>,
    /// What it asks on: for sockets, if it has left the host's network namespace, and about owners and
    /// ids where there is one.
    pub(super) listener: Option<OwnedFd>,
}

/// Words and variables as `execve` takes them.
struct Command {
    /// As the user wrote it.
    name: String,
    /// What to try, in order.
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Workload {
    /// Takes what it needs of `spec`; `bytes` begin with the filter.
    pub(super) fn new(spec: &Spec, bytes: &[u8]) -> Result<Self, SandboxError> {
        Ok(Self {
            command: Command::new(&spec.args, &spec.env)?,
            filter: bytes[..spec.filter_length].to_vec(),
            hostname: spec.hostname.clone(),
            cwd: spec.cwd.clone(),
            limits: spec.limits.clone(),
            uid: Uid::from_raw(spec.uid),
            gid: Gid::from_raw(spec.gid),
            groups: spec.groups.iter().copied().map(Gid::from_raw).collect(),
            level: spec.level,
            domain: spec.domain,
            security: spec.security,
            leaves_network: (spec.network, spec.security) == (Network::Host, Security::Sandbox)
                && spec.level != Level::Chroot
                && sockets::are_needed(),
        })
    }

    /// Its host's name, as the kernel takes it.
    pub(super) fn hostname(&self) -> &[u8] {
        self.hostname.as_bytes()
    }

    /// Starts it.
    pub(super) fn start(self) -> Result<Started, SandboxError> {
        let (failure, failed) = UnixStream::pair().or_cannot("make a socket pair")?;
        match fork().map_err(|error| no_process("fork", error))? {
            Fork::Child => {
                let Err(error) = self.become_command(failed);
                tell(&error)
            }
            Fork::Parent(process) => {
                drop(failed);
                let said = if self.leaves_network || self.level == Level::SingleId {
                    Said::receive(&failure)?
                } else {
                    Said::Listener(None)
                };
                Ok(match said {
                    Said::Listener(listener) => {
                        Started { process, failure: Box::new(failure), listener }
                    }
                    Said::Failure(first) => {
                        let failure = Box::new(Cursor::new([first]).chain(failure));
                        Started { process, failure, listener: None }
                    }
                })
            }
        }
    }

    fn become_command(&self, failed: UnixStream) -> Result<Infallible, SandboxError> {
        close_all_but_streams(failed)?;
        if self.level == Level::Chroot {
            // The process that started this one is there already.
            rustix::process::chroot(".").or_cannot("change the root directory")?;
        }
        setsid().or_cannot("start a session")?;
        reset_signals();
        umask(Mode::from_raw_mode(0o022));
        self.own_the_streams()?;
        self.limits.iter().try_for_each(Limit::apply)?;
        let is_answered = self.ask_about_owners()?;
        self.give_up_rights(is_answered)?;
        enter_directory(&self.cwd)?;
        self.take_ids()?;
        self.set_capabilities()?;
        if self.level == Level::Chroot {
            // No namespace ends with the process that started this one.
            set_parent_process_death_signal(Some(Signal::KILL)).or_cannot("watch the parent")?;
        }
        self.command.execute()
    }

    /// A user who is not root must be able to reopen `/dev/stdout`, so the pipes become theirs.
    fn own_the_streams(&self) -> Result<(), SandboxError> {
        // With one id they are the user's anyway.
        if self.uid.is_root() || self.level == Level::SingleId {
            return Ok(());
        }
        for stream in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
            rustix::fs::fchown(stream, Some(self.uid), None).or_cannot("pass on the output")?;
        }
        Ok(())
    }

    /// Where the kernel knows one id, has PID 1 answer what has to do with owners and ids. False if it
    /// does not.
    fn ask_about_owners(&self) -> Result<bool, SandboxError> {
        if self.level != Level::SingleId {
            return Ok(false);
        }
        leave_real_time();
        let cannot = "set the timer slack";
        set_current_timer_slack(NonZeroU64::new(single_id::USUAL_SLACK)).or_cannot(cannot)?;
        // SAFETY: `close_all_but_streams` has put the socket there.
        let line = unsafe { BorrowedFd::borrow_raw(FAILURE) };
        match seccomp::listen(single_id::program(self.leaves_network)) {
            Ok(listener) => send_with_rights(line, &[0], &[listener.as_fd()]).map(|()| true),
            Err(_another_listens) if self.uid.is_root() => {
                send_with_rights(line, &[0], &[]).map(|()| false)
            }
            Err(_another_listens) => {
                let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
                Err(SandboxError::SingleId { uid, gid })
            }
        }
    }

    fn give_up_rights(&self, is_answered: bool) -> Result<(), SandboxError> {
        match self.security {
            Security::Insecure => return Ok(()),
            Security::Sandbox => capabilities::bound()?,
        }
        // A container that permits no namespace does not permit the rest either.
        if self.level == Level::Chroot && !capabilities::may_confine()? {
            return Ok(());
        }
        if let Some(domain) = self.domain {
            domain.enter()?;
        }
        if self.leaves_network && is_answered {
            sockets::enter_own_network()?;
        } else if self.leaves_network && self.level != Level::SingleId {
            // SAFETY: `close_all_but_streams` has put the socket there.
            sockets::leave_network(unsafe { BorrowedFd::borrow_raw(FAILURE) })?;
        }
        seccomp::install(&self.filter)
    }

    fn take_ids(&self) -> Result<(), SandboxError> {
        let cannot = || format!("become {}:{}", self.uid.as_raw(), self.gid.as_raw());
        match self.level {
            Level::Root | Level::SubordinateIds | Level::Chroot => (),
            // There is no other to the kernel, and PID 1 tells those for which the command asks.
            Level::SingleId => return Ok(()),
        }
        set_thread_groups(&self.groups).or_cannot_with(cannot)?;
        set_thread_res_gid(self.gid, self.gid, self.gid).or_cannot_with(cannot)?;
        if self.security == Security::Insecure {
            set_keep_capabilities(true).or_cannot_with(cannot)?;
        }
        set_thread_res_uid(self.uid, self.uid, self.uid).or_cannot_with(cannot)
    }

    fn set_capabilities(&self) -> Result<(), SandboxError> {
        match self.security {
            Security::Sandbox if self.level == Level::SingleId && !self.uid.is_root() => {
                capabilities::drop_all_as_root()
            }
            Security::Sandbox => capabilities::drop_to_default(),
            Security::Insecure => capabilities::raise_all(),
        }
    }
}

fn tell(error: &SandboxError) -> ! {
    // SAFETY: `close_all_but_streams` has put the socket there; before that, writing may fail.
    let failed = unsafe { BorrowedFd::borrow_raw(FAILURE) };
    let _nobody_reads = rustix::io::write(failed, error.chain().as_bytes());
    end(1)
}

/// Takes the usual scheduling if the caller's is another one: the kernel keeps no timer slack for what
/// runs in real time.
fn leave_real_time() {
    const REAL_TIME: [libc::c_int; 3] = [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE];
    // SAFETY: the structure is one number, a zero as that policy demands, and outlives the call. The C
    // library's own functions do nothing in musl.
    unsafe {
        let policy = libc::syscall(libc::SYS_sched_getscheduler, 0)
            & !libc::c_long::from(libc::SCHED_RESET_ON_FORK);
        if REAL_TIME.iter().any(|real_time| libc::c_long::from(*real_time) == policy) {
            let usual: libc::c_int = 0;
            libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const usual);
        }
    }
}

/// Gives every signal its default action and blocks none.
fn reset_signals() {
    /// `struct sigaction` of the kernel, whose zeroes are the default action.
    type Action = [u64; 4];
    const SIZE_OF_SIGNAL_SET: usize = 8;
    const LAST_SIGNAL: i32 = 64;
    // SAFETY: sets default actions and an empty mask in a process with one thread; no handler runs.
    // A signal that cannot be changed answers an error, which changes nothing. The C library's own
    // function would refuse the two signals that it keeps for itself.
    unsafe {
        let default: Action = [0; 4];
        for signal in 1..=LAST_SIGNAL {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<Action>(),
                SIZE_OF_SIGNAL_SET,
            );
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Closes every descriptor but the streams and `failed`, which becomes [`FAILURE`].
fn close_all_but_streams(failed: UnixStream) -> Result<(), SandboxError> {
    let failed = failed.into_raw_fd();
    // SAFETY: the descriptors belong to values of a process that never uses them again: it ends by
    // `execve` or `_exit`, without dropping them.
    let result = unsafe {
        if failed != FAILURE {
            libc::dup3(failed, FAILURE, libc::O_CLOEXEC);
        }
        libc::syscall(libc::SYS_close_range, FAILURE + 1, u32::MAX, 0)
    };
    if result == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error()).or_cannot("close descriptors")
}

/// Enters the working directory; a path through `/proc/self/fd` leads nowhere.
fn enter_directory(path: &str) -> Result<(), SandboxError> {
    let cannot = || format!("enter the working directory {path}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .or_cannot_with(cannot)?;
    fchdir(directory).or_cannot_with(cannot)?;
    let now = getcwd(Vec::new()).or_cannot_with(cannot)?;
    if now.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(SandboxError::Unfit(format!("the working directory {path} is outside the container")))
}

impl Command {
    fn new(args: &[String], env: &[(String, String)]) -> Result<Self, SandboxError> {
        let name = args.first().ok_or(SandboxError::EmptyCommand)?.clone();
        let word = || "a word of it".to_owned();
        let variable = |(name, value): &(String, String)| {
            c_string(&format!("{name}={value}"), || format!("the variable {name:?}"))
        };
        let search = env.iter().rev().find(|(name, _)| name == "PATH");
        let search = search.map_or("", |(_, value)| value.as_str());
        let candidates: Result<_, _> =
            candidates(&name, search).iter().map(|path| c_string(path, word)).collect();
        Ok(Self {
            candidates: candidates?,
            args: args.iter().map(|arg| c_string(arg, word)).collect::<Result<_, _>>()?,
            env: env.iter().map(variable).collect::<Result<_, _>>()?,
            name,
        })
    }

    /// Becomes the command, or ends as a shell would that cannot.
    fn execute(&self) -> ! {
        let (args, env) = (pointers(&self.args), pointers(&self.env));
        let mut denied = None;
        for candidate in &self.candidates {
            let error = execute(candidate, &args, &env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => (),
                Some(libc::EACCES) => denied = Some(error),
                _ => self.give_up(NOT_EXECUTABLE, &reason(&error)),
            }
        }
        match denied {
            Some(error) => self.give_up(NOT_EXECUTABLE, &reason(&error)),
            None if self.name.contains('/') => self.give_up(NOT_FOUND, "no such file or directory"),
            None => self.give_up(NOT_FOUND, "executable file not found in $PATH"),
        }
    }

    fn give_up(&self, code: i32, why: &str) -> ! {
        let message = format!("exec: {:?}: {why}\n", self.name);
        let _nobody_reads = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
        end(code)
    }
}

/// Executes a file, or returns why not.
fn execute(
    file: &CStr,
    args: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> std::io::Error {
    let begin = Instant::now();
    loop {
        // SAFETY: all are strings with their end, in arrays with theirs.
        unsafe { libc::execve(file.as_ptr(), args.as_ptr(), env.as_ptr()) };
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ETXTBSY) || begin.elapsed() > BUSY {
            return error;
        }
        std::thread::sleep(BUSY / 100);
    }
}

fn reason(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn c_string(text: &str, what: impl Fn() -> String) -> Result<CString, SandboxError> {
    CString::new(text).map_err(|_| SandboxError::ZeroByte(what()))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The paths to try for a command; one with a slash is its own.
fn candidates(name: &str, search: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    if name.is_empty() {
        return Vec::new();
    }
    search
        .split(':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| format!("{directory}/{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_looked_up_and_a_path_is_not() {
        assert_eq!(candidates("sh", "/usr/bin:/bin"), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(candidates("./sh", "/usr/bin"), ["./sh"]);
        assert!(candidates("", "/usr/bin").is_empty());
        assert!(candidates("sh", "").is_empty());
    }

    #[test]
    fn a_zero_byte_is_refused() {
        let args = ["a\0b".to_owned()];
        assert!(matches!(Command::new(&args, &[]), Err(SandboxError::ZeroByte(_))));
        let env = [("TOKEN".to_owned(), "secret\0".to_owned())];
        let said = Command::new(&["true".to_owned()], &env).map(drop).unwrap_err().to_string();
        assert!(said.contains("TOKEN") && !said.contains("secret"), "{said}");
    }

    #[test]
    fn the_last_path_counts() {
        let path = |value: &str| ("PATH".to_owned(), value.to_owned());
        let command = Command::new(&["sh".to_owned()], &[path("/a"), path("/b")]).unwrap();
        assert_eq!(command.candidates, [c"/b/sh".to_owned()]);
    }
}
