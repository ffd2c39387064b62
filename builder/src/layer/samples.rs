//! Directories for tests: random ones of every kind of entry, and what there is to compare.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, XattrFlags};

use super::walk::{self, Visit, Walk};
use super::{CAPABILITY, OPAQUE};

/// A capability as `setcap cap_dac_override,cap_fowner=ep` writes it: it has a newline in it.
pub(crate) const CAPABILITY_VALUE: [u8; 20] =
    [1, 0, 0, 2, 0x0a, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Whether tests can make device nodes and mounts.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Opens a directory by path.
pub(crate) fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap()
}

/// A directory that is removed with its descriptor.
pub(crate) struct Sample {
    pub(crate) path: tempfile::TempDir,
    pub(crate) fd: OwnedFd,
}

impl Sample {
    pub(crate) fn empty() -> Self {
        let path = tempfile::tempdir().unwrap();
        let fd = open(path.path());
        Self { path, fd }
    }

    /// Entries of every kind, as a layer in the store may have them.
    pub(crate) fn random(seed: u64) -> Self {
        let sample = Self::empty();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        fill(sample.fd.as_fd(), &mut dice, 3);
        sample
    }

    pub(crate) fn at(&self, name: &str) -> std::path::PathBuf {
        self.path.path().join(name)
    }
}

/// xorshift64*.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % sides
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize]
    }

    fn name(&mut self) -> CString {
        let length = self.pick(&[1, 5, 20, 90, 101, 150, 255]);
        let letters = self.pick(&[&b"abc"[..], b"x y", "äö".as_bytes(), b"\xff\x01z", b"\n-="]);
        CString::new((0..length).map(|_| self.pick(letters)).collect::<Vec<_>>()).unwrap()
    }
}

fn fill(dir: BorrowedFd<'_>, dice: &mut Dice, depth: u32) {
    for _ in 0..dice.roll(9) {
        let name = dice.name();
        if walk::Meta::of(dir, &name).is_ok() {
            continue;
        }
        make_entry(dir, &name, dice, depth);
    }
}

fn make_entry(dir: BorrowedFd<'_>, name: &CString, dice: &mut Dice, depth: u32) {
    let mode = Mode::from_raw_mode(0o600);
    let special = |kind, device| rustix::fs::mknodat(dir, name, kind, mode, device).unwrap();
    match dice.roll(if depth == 0 { 8 } else { 12 }) {
        0 => special(FileType::Fifo, 0),
        1 => special(FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        2 => special(FileType::BlockDevice, rustix::fs::makedev(259, 70_000)),
        3 => return special(FileType::CharacterDevice, rustix::fs::makedev(0, 0)),
        4 => {
            let target = dice.pick(&["x", "/etc/passwd", "../../ä", "l".repeat(180).leak()]);
            rustix::fs::symlinkat(target, dir, name).unwrap();
        }
        5..=7 => make_file(dir, name, dice),
        _ => {
            rustix::fs::mkdirat(dir, name, mode).unwrap();
            let below = walk::open_dir(dir, name).unwrap();
            fill(below.as_fd(), dice, depth - 1);
            if dice.roll(4) == 0 {
                rustix::fs::fsetxattr(&below, OPAQUE, b"y", XattrFlags::empty()).unwrap();
            }
        }
    }
    set_metadata(dir, name, dice);
}

fn make_file(dir: BorrowedFd<'_>, name: &CString, dice: &mut Dice) {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).unwrap();
    let size = dice.pick(&[0, 1, 511, 512, 513, 300_000]);
    let content: Vec<u8> = (0..size).map(|_| dice.roll(256) as u8).collect();
    super::apply::write_at(file.as_fd(), 0, &content).unwrap();
    if dice.roll(3) == 0 {
        let other = dice.name();
        let _may_be_taken = rustix::fs::linkat(dir, name, dir, &other, AtFlags::empty());
    }
}

fn set_metadata(dir: BorrowedFd<'_>, name: &CString, dice: &mut Dice) {
    let id = |dice: &mut Dice| dice.pick(&[0, 1000, 65_534, 3_000_000]);
    let (uid, gid) = (Uid::from_raw(id(dice)), Gid::from_raw(id(dice)));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let kind = walk::Meta::of(dir, name).unwrap().kind;
    if kind != FileType::Symlink {
        let mode = dice.pick(&[0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o000]);
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
    }
    if kind == FileType::RegularFile && dice.roll(3) == 0 {
        let file = walk::open_file(dir, name).unwrap();
        rustix::fs::fsetxattr(file, CAPABILITY, &CAPABILITY_VALUE, XattrFlags::empty()).unwrap();
    }
    let mtime = dice.pick(&[0, 1, -1, -86_400, 1_700_000_000, 9_000_000_000]);
    walk::set_mtime(dir, name, mtime).unwrap();
}

/// Everything that a layer says of the entries in `dir`, a line each.
pub(crate) fn describe(dir: BorrowedFd<'_>) -> Vec<String> {
    let mut walk = Walk::new(dir).unwrap();
    let mut lines = vec![];
    let mut inodes = HashMap::new();
    while let Some(visit) = walk.next().unwrap() {
        let Visit::Entry(meta) = visit else { continue };
        let path = String::from_utf8_lossy(walk.path()).into_owned();
        if meta.is_whiteout() {
            lines.push(format!("{path:?} deleted"));
            continue;
        }
        let first = inodes.entry(meta.inode).or_insert_with(|| path.clone()).clone();
        let what = match meta.kind {
            FileType::RegularFile => describe_file(&walk, meta.size),
            FileType::Symlink => {
                format!("{:?}", rustix::fs::readlinkat(walk.dir(), walk.name(), vec![]).unwrap())
            }
            FileType::Directory => {
                walk.enter().unwrap();
                let is_opaque = super::form::is_opaque(walk.dir()).unwrap();
                format!("opaque {:?}", is_opaque.then_some([b'y']))
            }
            _ => format!("{:?}", meta.device),
        };
        let walk::Meta { kind, mode, uid, gid, mtime, nanoseconds, .. } = meta;
        let time = format!("{mtime}.{nanoseconds}");
        lines.push(format!("{path:?} {kind:?} {mode:o} {uid}:{gid} {time} {what} = {first:?}"));
    }
    lines
}

fn describe_file(walk: &Walk, size: u64) -> String {
    let file = walk::open_file(walk.dir(), walk.name()).unwrap();
    let capability = walk::xattr(file.as_fd(), CAPABILITY).unwrap();
    let mut content = vec![];
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut content).unwrap();
    format!("{size} {} {capability:?}", oci::Digest::of(content))
}
