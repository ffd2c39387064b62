//! The process that waits for an answer: its memory, its files and its ids.
//!
//! Everything about it is read through its directory in `/proc`, which is the working directory of
//! this PID 1, so that names of it are short and a command that may mount cannot put another there.
//! What is found is worth something only while the caller waits: before anything is changed,
//! [`Listener::is_waiting`](super::listener::Listener::is_waiting) is asked.
//!
//! Paths are a stranger's. They are walked from the caller's root or directory, the end is opened
//! as a mere place (`O_PATH`: no pipe blocks, no device is touched), and no link of the kernel's
//! own is followed, which would lead to what this PID 1 has open. Where such a link is on the way,
//! as for `/dev/stdout`, the path is walked [step by step](super::steps).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, StatxFlags, fstatfs, openat,
    openat2, statx,
};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, chroot, fchdir, pidfd_open};

use super::calls::At;
use super::steps;

/// The kernel's `PATH_MAX`, with the end.
const LONGEST_PATH: usize = 4096;

/// What most paths fit into: a page is seldom read for ten letters.
const SHORT: usize = 256;

/// This PID 1's own view.
pub(super) struct View {
    proc: OwnedFd,
    root: OwnedFd,
    root_identity: (u64, u64),
    /// Whether the numbers in this `/proc` are those of an outer process namespace.
    is_outer: bool,
}

impl View {
    /// Enters `/proc`, where the names of callers begin.
    pub(super) fn enter() -> Result<Self, Errno> {
        let open = |path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, path, flags, Mode::empty())
        };
        let (proc, root) = (open("/proc")?, open("/")?);
        fchdir(&proc)?;
        let own = rustix::fs::readlinkat(CWD, "self", Vec::new())?;
        let number = std::process::id().to_string();
        let root_identity = identity(root.as_fd(), c"")?;
        Ok(Self { proc, root, root_identity, is_outer: own.to_bytes() != number.as_bytes() })
    }

    /// The name in this `/proc` of the process or thread with a number of this namespace.
    fn name_of(&self, pid: u32) -> Result<String, Errno> {
        if !self.is_outer {
            return Ok(pid.to_string());
        }
        name_in_proc(pid, ".")
    }
}

/// The name of a process or thread, which has the number `pid` in this process namespace, in `proc`.
pub(in super::super) fn name_in_proc(pid: u32, proc: &str) -> Result<String, Errno> {
    // The first thread of a process can be opened otherwise, too.
    let pidfd = open_thread(pid).or_else(|_| pidfd_open(number(pid)?, PidfdFlags::empty()));
    let Ok(pidfd) = pidfd else { return name_by_search(pid, proc).ok_or(Errno::SRCH) };
    let facts = std::fs::read_to_string(format!("{proc}/self/fdinfo/{}", pidfd.as_raw_fd()));
    let facts = facts.map_err(|_| Errno::SRCH)?;
    let number = facts.lines().find_map(|line| line.strip_prefix("Pid:"));
    number.map(|number| number.trim().to_owned()).ok_or(Errno::SRCH)
}

/// Looks at all threads: kernels before 6.9 open only the first one of a process.
fn name_by_search(pid: u32, proc: &str) -> Option<String> {
    let space = |process: &str| std::fs::read_link(format!("{proc}/{process}/ns/pid")).ok();
    let own = space("self")?;
    let names = |directory: String| {
        let entries = std::fs::read_dir(directory).ok().into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    };
    let is_number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    let pid = pid.to_string();
    let is_it = |thread: &String| {
        let status = std::fs::read_to_string(format!("{proc}/{thread}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.and_then(|numbers| numbers.split_whitespace().last()) == Some(&*pid)
    };
    names(proc.to_owned())
        .filter(is_number)
        .filter(|process| space(process).as_ref() == Some(&own))
        .flat_map(|process| names(format!("{proc}/{process}/task")))
        .find(is_it)
}

/// Opens any thread, which kernels before 6.9 can't.
fn open_thread(pid: u32) -> Result<OwnedFd, Errno> {
    /// `PIDFD_THREAD`
    const THREAD: u32 = libc::O_EXCL as u32;
    pidfd_open(number(pid)?, PidfdFlags::from_bits_retain(THREAD))
}

fn number(pid: u32) -> Result<Pid, Errno> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)
}

/// Which mount and which file in it.
fn identity(dir: impl AsFd, name: &CStr) -> Result<(u64, u64), Errno> {
    let mount = StatxFlags::from_bits_retain(libc::STATX_MNT_ID) | StatxFlags::INO;
    let found = statx(dir, name, AtFlags::EMPTY_PATH, mount)?;
    Ok((found.stx_mnt_id, found.stx_ino))
}

/// A process or thread that waits.
pub(super) struct Caller<'v> {
    view: &'v View,
    pid: libc::pid_t,
    name: String,
    arguments: [u64; 6],
    /// Whether its root is surely this PID 1's.
    has_our_root: bool,
}

impl<'v> Caller<'v> {
    pub(super) fn new(
        view: &'v View,
        notification: &libc::seccomp_notif,
        may_have_another_root: bool,
    ) -> Result<Self, Errno> {
        let pid = libc::pid_t::try_from(notification.pid).map_err(|_| Errno::SRCH)?;
        let name = view.name_of(notification.pid)?;
        let has_our_root = !may_have_another_root
            || identity(CWD, &c_string(&[name.as_bytes(), b"/root"])?)? == view.root_identity;
        Ok(Self { view, pid, name, arguments: notification.data.args, has_our_root })
    }

    /// An argument as the kernel reads most of them: its low half.
    pub(super) fn number(&self, argument: usize) -> u32 {
        self.arguments[argument] as u32
    }

    /// An argument that is an address.
    pub(super) fn address(&self, argument: usize) -> u64 {
        self.arguments[argument]
    }

    /// Fills `bytes` from its memory.
    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        if self.read_some(address, bytes)? == bytes.len() { Ok(()) } else { Err(Errno::FAULT) }
    }

    fn read_some(&self, address: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
        let (near, far) = vectors(bytes.as_mut_ptr(), bytes.len(), address);
        // SAFETY: the kernel writes to `bytes` alone, and only reads the memory of the other.
        let count = unsafe { libc::process_vm_readv(self.pid, &near, 1, &far, 1, 0) };
        counted(count)
    }

    /// Writes to its memory.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let (near, far) = vectors(bytes.as_ptr().cast_mut(), bytes.len(), address);
        // SAFETY: the kernel only reads `bytes`; what it writes to is the other's.
        let count = unsafe { libc::process_vm_writev(self.pid, &near, 1, &far, 1, 0) };
        if counted(count)? == bytes.len() { Ok(()) } else { Err(Errno::FAULT) }
    }

    /// Reads a string that is as long as a path at most.
    pub(super) fn string(&self, argument: usize) -> Result<CString, Errno> {
        let mut address = self.address(argument);
        let mut text = Vec::with_capacity(SHORT);
        while text.len() < LONGEST_PATH {
            // Not over the end of a page: the next one may not be there.
            let page = 4096 - (address % 4096) as usize;
            let wanted = page.min(if text.is_empty() { SHORT } else { LONGEST_PATH });
            let before = text.len();
            text.resize(before + wanted, 0);
            let read = self.read_some(address, &mut text[before..])?;
            text.truncate(before + read);
            if let Some(end) = text[before..].iter().position(|byte| *byte == 0) {
                text.truncate(before + end);
                return match text.len() < LONGEST_PATH {
                    true => CString::new(text).map_err(|_| Errno::FAULT),
                    false => Err(Errno::NAMETOOLONG),
                };
            }
            if read < wanted {
                return Err(Errno::FAULT);
            }
            address = address.checked_add(read as u64).ok_or(Errno::FAULT)?;
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Its timer slack, see [`Known`](super::ids::Known).
    pub(super) fn slack(&self) -> Result<u64, Errno> {
        let file = self.open_own("timerslack_ns", OFlags::RDONLY)?;
        let mut text = [0; 24];
        let length = rustix::io::read(&file, &mut text)?;
        let text = std::str::from_utf8(&text[..length]).map_err(|_| Errno::INVAL)?;
        text.trim().parse().map_err(|_| Errno::INVAL)
    }

    /// Opens its timer slack for [`set_slack`]. The descriptor stays with this thread: a later one
    /// that gets its number is not reached by it.
    pub(super) fn open_slack(&self) -> Result<OwnedFd, Errno> {
        self.open_own("timerslack_ns", OFlags::WRONLY)
    }

    /// Where the parts of its program are in memory. It changes when another program is executed,
    /// and a child has its parent's.
    pub(super) fn layout(&self) -> Result<Layout, Errno> {
        let text = self.read_own("stat", &mut [0; 1024])?;
        layout_of(&text).ok_or(Errno::SRCH)
    }

    /// Whether programs give it no rights: `PR_SET_NO_NEW_PRIVS`.
    pub(super) fn gains_nothing(&self) -> Result<bool, Errno> {
        Ok(self.status("NoNewPrivs:")?.as_deref() == Some("1"))
    }

    /// The number of its process in this `/proc`.
    pub(super) fn process(&self) -> Result<String, Errno> {
        self.status("Tgid:")?.ok_or(Errno::SRCH)
    }

    /// Its name in `/proc`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn status(&self, field: &str) -> Result<Option<String>, Errno> {
        let text = self.read_own("status", &mut [0; 4096])?;
        let value = text.lines().find_map(|line| line.strip_prefix(field));
        Ok(value.map(|value| value.trim().to_owned()))
    }

    fn read_own(&self, name: &str, buffer: &mut [u8]) -> Result<String, Errno> {
        let length = rustix::io::read(self.open_own(name, OFlags::RDONLY)?, &mut *buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Whether one of its descriptors is a mere place, which `fchown` refuses.
    pub(super) fn is_mere_place(&self, descriptor: u32) -> bool {
        let facts = self.read_own(&format!("fdinfo/{descriptor}"), &mut [0; 256]);
        let flags = facts
            .as_deref()
            .unwrap_or_default()
            .lines()
            .find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        flags.is_some_and(|flags| flags & OFlags::PATH.bits() != 0)
    }

    /// The permissions that it takes from what it makes.
    pub(super) fn umask(&self) -> Result<Mode, Errno> {
        // It is the second line.
        let text = self.read_own("status", &mut [0; 256])?;
        let mask = text.lines().find_map(|line| line.strip_prefix("Umask:"));
        let mask = mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok());
        mask.map(Mode::from_raw_mode).ok_or(Errno::INVAL)
    }

    fn open_own(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // Not from the working directory, which is another one while this process has another root.
        let path = format!("{}/{name}", self.name);
        openat(self.proc(), path, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// The file that a call is about, if it can be named.
    pub(super) fn place(&self, at: At) -> Result<Place, Errno> {
        match at {
            At::Descriptor(number) => Ok(Place::Descriptor(self.number(number))),
            At::Path(path) => path_at(AT_CWD, self.string(path)?, true),
            At::PathOfLink(path) => path_at(AT_CWD, self.string(path)?, false),
            At::Relative(dir, path) => path_at(self.number(dir), self.string(path)?, true),
            At::RelativeWithFlags(dir, path, flags) => {
                let flags = AtFlags::from_bits_retain(self.number(flags));
                let follow = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
                if !flags.contains(AtFlags::EMPTY_PATH) {
                    return path_at(self.number(dir), self.string(path)?, follow);
                }
                // Newer kernels take no path for an empty one.
                let is_empty = self.address(path) == 0 || self.string(path)?.is_empty();
                match (is_empty, self.number(dir)) {
                    (true, AT_CWD) => path_at(AT_CWD, c".".to_owned(), true),
                    (true, descriptor) => Ok(Place::Descriptor(descriptor)),
                    (false, dir) => path_at(dir, self.string(path)?, follow),
                }
            }
        }
    }

    /// A path by which this PID 1 may look at the place without opening it. It can lead elsewhere if
    /// links of the kernel's own are on the way: nothing may be changed by it. `None` if the
    /// caller's root is another one, or if the path is surely over such a link.
    pub(super) fn shortcut(&self, place: &Place) -> Option<CString> {
        let name = self.name.as_bytes();
        let path = match place {
            Place::Descriptor(number) => return self.descriptor(*number).ok(),
            Place::Path { .. } if !self.has_our_root => return None,
            Place::Path { path, .. } if is_of_kernel(path) => return None,
            Place::Path { path, .. } if is_absolute(path) => return Some(path.clone()),
            Place::Path { dir: AT_CWD, path, .. } => c_string(&[name, b"/cwd/", path.to_bytes()]),
            Place::Path { dir, path, .. } => {
                let number = dir.to_string();
                c_string(&[name, b"/fd/", number.as_bytes(), b"/", path.to_bytes()])
            }
        };
        path.ok()
    }

    /// Opens the place itself, as a place.
    pub(super) fn open(&self, place: &Place) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match place {
            Place::Descriptor(number) => {
                let path = self.descriptor(*number)?;
                openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
                    Errno::NOENT => Errno::BADF,
                    error => error,
                })
            }
            Place::Path { dir, path, follow } => {
                let flags = if *follow { flags } else { flags | OFlags::NOFOLLOW };
                self.walk(*dir, path, flags)
            }
        }
    }

    /// Opens the directory of a path that is walked within bounds: those of `openat2`.
    pub(super) fn open_within(
        &self,
        place: &Place,
        bounds: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let Place::Path { dir, path, follow } = place else { return self.open(place) };
        if bounds.is_empty() {
            return self.open(place);
        }
        let is_rooted = is_absolute(path) && !bounds.intersects(SCOPES);
        let start = self.start(if is_rooted { None } else { Some(*dir) })?;
        let start = start.as_ref().map_or(CWD, AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let flags = if *follow { flags } else { flags | OFlags::NOFOLLOW };
        let bounds = bounds | ResolveFlags::NO_MAGICLINKS;
        self.at_its_root(|| openat2(start, path, flags, Mode::empty(), bounds))
    }

    fn walk(&self, dir: u32, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        let start = self.start(if is_absolute(path) { None } else { Some(dir) })?;
        let dir = start.as_ref().map_or(CWD, AsFd::as_fd);
        self.at_its_root(|| {
            let found = openat2(dir, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
            match found {
                Ok(file) if !is_in_proc(&file) => Ok(file),
                // The way may be over a link of the kernel's own, or over `/proc/self`, which is
                // another process's here.
                Ok(_) | Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {
                    let follow = !flags.contains(OFlags::NOFOLLOW);
                    steps::walk(self, start.as_ref().map(AsFd::as_fd), path.to_bytes(), follow)
                }
                Err(error) => Err(error),
            }
        })
    }

    /// The directory in which a path begins; `None` is the root.
    fn start(&self, dir: Option<u32>) -> Result<Option<OwnedFd>, Errno> {
        match dir {
            None => Ok(None),
            Some(AT_CWD) => self.open_own("cwd", OFlags::PATH).map(Some),
            Some(number) => self.open(&Place::Descriptor(number)).map(Some),
        }
    }

    /// The directory of `/proc` with its own and all other processes.
    pub(super) fn proc(&self) -> BorrowedFd<'_> {
        self.view.proc.as_fd()
    }

    fn descriptor(&self, number: u32) -> Result<CString, Errno> {
        if i32::try_from(number).is_err() {
            return Err(Errno::BADF);
        }
        c_string(&[self.name.as_bytes(), b"/fd/", number.to_string().as_bytes()])
    }

    /// Works where absolute paths begin at the caller's root.
    fn at_its_root<T>(&self, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if self.has_our_root { work() } else { self.in_its_root(work) }
    }

    /// Takes the caller's root for a moment. This process has one thread.
    fn in_its_root<T>(&self, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        let root = self.open_own("root", OFlags::PATH | OFlags::DIRECTORY)?;
        let enter = |root: BorrowedFd<'_>| fchdir(root).and_then(|()| chroot("."));
        let done = enter(root.as_fd()).and_then(|()| work());
        enter(self.view.root.as_fd())?;
        fchdir(&self.view.proc)?;
        done
    }
}

/// `AT_FDCWD` as an argument.
pub(super) const AT_CWD: u32 = libc::AT_FDCWD as u32;

/// What makes a path begin at a directory also if it is absolute.
pub(super) const SCOPES: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::BENEATH);

/// Where the parts of a program are in memory.
pub(super) type Layout = [u64; 4];

/// Sets the timer slack of the thread from which `file` was opened.
pub(super) fn set_slack(file: &OwnedFd, slack: u64) -> Result<(), Errno> {
    rustix::io::write(file, slack.to_string().as_bytes()).map(drop)
}

/// Reads `/proc/PID/stat`.
fn layout_of(stat: &str) -> Option<Layout> {
    /// Of code, stack, data and heap: the fields 26, 28, 45 and 47, of which the third is the
    /// first behind the program's name.
    const BEGINNINGS: [usize; 4] = [26 - 3, 28 - 3, 45 - 3, 47 - 3];
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let mut layout = [0; 4];
    for (address, at) in layout.iter_mut().zip(BEGINNINGS) {
        *address = fields.get(at)?.parse().ok()?;
    }
    Some(layout)
}

/// What a call names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Descriptor(u32),
    Path { dir: u32, path: CString, follow: bool },
}

impl Place {
    /// Whether a link at its end is looked at itself.
    pub(super) fn is_of_link(&self) -> bool {
        matches!(self, Self::Path { follow: false, .. })
    }

    /// The place that a link in this directory leads to, if a way within such bounds is over it.
    pub(super) fn join(&self, target: &CStr, bounds: ResolveFlags) -> Self {
        match self {
            Self::Path { dir, path, .. } if !is_absolute(target) => {
                let path = c_string(&[path.to_bytes(), b"/", target.to_bytes()]);
                Self::Path { dir: *dir, path: path.unwrap_or_default(), follow: true }
            }
            Self::Path { dir, .. } if bounds.intersects(SCOPES) => {
                Self::Path { dir: *dir, path: target.to_owned(), follow: true }
            }
            _ => Self::Path { dir: AT_CWD, path: target.to_owned(), follow: true },
        }
    }

    /// The same, but a link at its end is not followed.
    pub(super) fn unfollowed(self) -> Self {
        match self {
            Self::Path { dir, path, .. } => Self::Path { dir, path, follow: false },
            descriptor @ Self::Descriptor(_) => descriptor,
        }
    }

    /// Whether only a directory can be there.
    pub(super) fn ends_in_slash(&self) -> bool {
        matches!(self, Self::Path { path, .. } if path.to_bytes().ends_with(b"/"))
    }

    /// The directory that it is in, and its name there; `None` if it has no name of its own.
    pub(super) fn split(&self) -> Option<(Self, CString)> {
        let Self::Path { dir, path, .. } = self else { return None };
        let path = path.to_bytes();
        let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
        let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let name = &path[start..end];
        if name == b"." || name == b".." {
            return None;
        }
        let above = if start == 0 { &b"."[..] } else { &path[..start] };
        let above = Self::Path { dir: *dir, path: CString::new(above).ok()?, follow: true };
        Some((above, CString::new(name).ok()?))
    }
}

/// The place at a path.
pub(super) fn path_at(dir: u32, path: CString, follow: bool) -> Result<Place, Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    Ok(Place::Path { dir, path, follow })
}

/// Whether a path begins where the kernel keeps links of its own.
fn is_of_kernel(path: &CStr) -> bool {
    let mut names = path.to_bytes().split(|byte| *byte == b'/');
    let first = names.find(|name| !matches!(*name, b"" | b"."));
    is_absolute(path) && matches!(first, Some(b"proc" | b"dev"))
}

/// Whether a file is one of `/proc`.
pub(super) fn is_in_proc(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC)
}

fn is_absolute(path: &CStr) -> bool {
    path.to_bytes().starts_with(b"/")
}

fn c_string(parts: &[&[u8]]) -> Result<CString, Errno> {
    CString::new(parts.concat()).map_err(|_| Errno::INVAL)
}

fn vectors(near: *mut u8, length: usize, far: u64) -> (libc::iovec, libc::iovec) {
    let vector = |base| libc::iovec { iov_base: base, iov_len: length };
    (vector(near.cast()), vector(far as *mut libc::c_void))
}

fn counted(count: isize) -> Result<usize, Errno> {
    usize::try_from(count).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::FAULT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_found_by_its_number_also_where_it_cannot_be_opened() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).unwrap();
            let _ended = ended.recv();
        });
        let number = told.recv().unwrap();
        // Here both process namespaces are one.
        assert_eq!(name_by_search(number, "/proc"), Some(number.to_string()));
        assert_eq!(name_in_proc(number, "/proc"), Ok(number.to_string()));
        assert_eq!(name_by_search(u32::MAX, "/proc"), None);
        drop(end);
        thread.join().unwrap();
    }

    fn path(text: &str) -> Place {
        Place::Path { dir: AT_CWD, path: CString::new(text).unwrap(), follow: true }
    }

    #[test]
    fn a_path_is_split_before_its_last_name() {
        let split = |text: &str| path(text).split();
        let want = |above, name: &str| Some((path(above), CString::new(name).unwrap()));
        assert_eq!(split("a/b"), want("a/", "b"));
        assert_eq!(split("a//b//"), want("a//", "b"));
        assert_eq!(split("/b"), want("/", "b"));
        assert_eq!(split("b"), want(".", "b"));
        for nameless in ["/", "a/..", ".", "a/."] {
            assert_eq!(split(nameless), None, "{nameless}");
        }
    }

    #[test]
    fn a_link_leads_on_from_its_directory_or_the_root() {
        assert_eq!(path("a/").join(c"../b", ResolveFlags::empty()), path("a//../b"));
        assert_eq!(path("a/").join(c"/b", ResolveFlags::empty()), path("/b"));
    }

    #[test]
    fn a_link_stays_within_the_bounds_of_its_path() {
        let inside = Place::Path { dir: 3, path: c"a/".to_owned(), follow: true };
        let target = Place::Path { dir: 3, path: c"/b".to_owned(), follow: true };
        assert_eq!(inside.join(c"/b", ResolveFlags::IN_ROOT), target);
        assert_eq!(inside.join(c"/b", ResolveFlags::NO_XDEV), path("/b"));
    }

    #[test]
    fn a_path_over_links_of_the_kernel_is_known_however_it_is_written() {
        let is = |path: &str| is_of_kernel(&CString::new(path).unwrap());
        for path in ["/proc/self/fd/3", "//proc//self/fd", "/./dev/stdout", "/proc"] {
            assert!(is(path), "{path}");
        }
        for path in ["/process", "proc/self", "/etc/proc", "/"] {
            assert!(!is(path), "{path}");
        }
    }

    #[test]
    fn the_layout_of_a_program_is_read_behind_its_name() {
        let fields: Vec<String> = (3..=52).map(|field: u32| field.to_string()).collect();
        let stat = format!("42 (a) 1 (b)) {}\n", fields.join(" "));
        assert_eq!(layout_of(&stat), Some([26, 28, 45, 47]));
        assert_eq!(layout_of("42 (a) R 1"), None);
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(layout_of(&own).unwrap().iter().all(|address| *address != 0), "{own}");
    }
}
