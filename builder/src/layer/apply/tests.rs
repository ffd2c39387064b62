//! Archives as they are, and as someone who means harm would make them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::super::OPAQUE;
use super::super::samples::{self, CAPABILITY_VALUE, Sample, describe, is_root};
use super::super::tar::write_tree;
use super::*;
use crate::layer::diff_id;

/// A tar in the making: what our own writer would never write.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn entry(mut self, kind: u8, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = ::tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(::tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o750 } else { 0o640 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1000);
        header.set_size(content.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(b'0', name, "", content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, b"")
    }

    fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, b"")
    }

    fn unpack_into(&self, sample: &Sample) -> Result<Applied, ApplyError> {
        unpack(&self.0[..], sample.fd.as_fd(), &Options::default())
    }

    /// Unpacks below a directory that holds a file which must stay as it is.
    fn unpack(&self) -> (Sample, Result<Applied, ApplyError>) {
        let outer = Sample::empty();
        fs::write(outer.at("outside"), "untouched").unwrap();
        fs::create_dir(outer.at("layer")).unwrap();
        let fd = samples::open(&outer.at("layer"));
        let result = unpack(&self.0[..], fd.as_fd(), &Options::default());
        assert_eq!(fs::read_to_string(outer.at("outside")).unwrap(), "untouched");
        let names: Vec<_> = fs::read_dir(outer.path.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let inner = Sample { fd, path: outer.path };
        (inner, result)
    }

    fn unpacked(&self) -> Sample {
        let (sample, result) = self.unpack();
        result.unwrap();
        sample
    }

    fn refused(&self) -> String {
        let error = self.unpack().1.unwrap_err();
        std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    }
}

fn read(sample: &Sample, name: &str) -> String {
    fs::read_to_string(sample.at("layer").join(name)).unwrap()
}

fn is_whiteout(sample: &Sample, name: &str) -> bool {
    let name = CString::new(name).unwrap();
    Meta::of(sample.fd.as_fd(), &name).is_ok_and(|meta| meta.is_whiteout())
}

fn is_opaque(sample: &Sample, name: &str) -> bool {
    let dir = samples::open(&sample.at("layer").join(name));
    walk::xattr(dir.as_fd(), OPAQUE).unwrap().as_deref() == Some(b"y")
}

#[test]
fn unpacking_the_tar_of_a_directory_gives_the_directory() {
    if !is_root() {
        return;
    }
    for seed in 0..60 {
        let sample = Sample::random(seed);
        let mut tar = vec![];
        write_tree(sample.fd.as_fd(), &mut tar, None).unwrap();
        let copy = Sample::empty();
        let applied = unpack(&tar[..], copy.fd.as_fd(), &Options::default()).unwrap();
        assert_eq!(describe(copy.fd.as_fd()), describe(sample.fd.as_fd()), "seed {seed}");
        assert_eq!(
            diff_id(copy.fd.as_fd(), &CancellationToken::new()).unwrap(),
            (applied.diff_id, applied.size),
            "seed {seed}"
        );
        assert_eq!(applied.implied_directories, Vec::<PathBuf>::new());
    }
}

#[test]
fn gnu_tar_unpacks_what_we_write_to_the_same_files() {
    if !is_root() {
        return;
    }
    for seed in 100..120 {
        let sample = Sample::random(seed);
        let mut tar = vec![];
        write_tree(sample.fd.as_fd(), &mut tar, None).unwrap();
        let copy = Sample::empty();
        fs::write(copy.at("tar"), &tar).unwrap();
        fs::create_dir(copy.at("layer")).unwrap();
        let (archive, dir) = (copy.at("tar"), copy.at("layer"));
        let done = std::process::Command::new("tar")
            .args(["--numeric-owner", "--xattrs", "--xattrs-include=security.capability"])
            // With its prefix the name of a whiteout may be longer than a file's may be.
            .args(["--exclude=.wh.*", "-xpf"])
            .args([archive.as_os_str(), "-C".as_ref(), dir.as_os_str()])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let described = |fd: BorrowedFd<'_>| {
            let lines = describe(fd).into_iter();
            let real = |line: &String| !line.contains(".wh.") && !line.ends_with("deleted");
            lines.filter(real).map(|line| line.replace("Some([121])", "None")).collect::<Vec<_>>()
        };
        assert_eq!(
            described(samples::open(&dir).as_fd()),
            described(sample.fd.as_fd()),
            "seed {seed}"
        );
    }
}

/// CVE-2026-28406 (GHSA-6rxq-q92g-4rmf, kaniko): `../x` left the destination.
#[test]
fn names_with_dots_or_a_leading_slash_stay_inside() {
    let archive = Archive::default()
        .file("../outside", "a")
        .file("/../../b", "b")
        .file("/c/d", "d")
        .file("x/../y/../z", "z");
    let sample = archive.unpacked();
    assert_eq!(read(&sample, "outside"), "a");
    assert_eq!(read(&sample, "b"), "b");
    assert_eq!(read(&sample, "c/d"), "d");
    assert_eq!(read(&sample, "z"), "z");
}

/// CVE-2026-28406: the first mend refused images that have such links.
#[test]
fn a_link_with_many_dots_is_kept_as_it_is() {
    let sample = Archive::default().symlink("bin", "../../../usr/bin").unpacked();
    assert_eq!(fs::read_link(sample.at("layer/bin")).unwrap(), Path::new("../../../usr/bin"));
}

/// RUSTSEC-2018-0002, RUSTSEC-2021-0080 (Rust's tar), CVE-2020-10696 (GHSA-fx8w-mjvm-hvpc,
/// buildah): a link, then a file through it.
#[test]
fn a_link_on_the_way_is_followed_inside_the_root_only() {
    let sample = Archive::default()
        .dir("usr/")
        .dir("usr/lib/")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr")
        .file("lib/a", "through a link")
        .file("abs/b", "through an absolute link")
        .dir("etc/")
        .symlink("etc/up", "../..")
        .file("etc/up/outside", "inside")
        .unpacked();
    assert_eq!(read(&sample, "usr/lib/a"), "through a link");
    assert_eq!(read(&sample, "usr/b"), "through an absolute link");
    assert_eq!(read(&sample, "outside"), "inside");
}

/// Issue 9: images that have such links were refused, which umoci and containerd unpack.
#[test]
fn what_a_link_leads_to_is_made_where_a_member_lies_below_it() {
    let archive = Archive::default()
        .symlink("lib", "usr/lib")
        .file("lib/f", "f")
        .symlink("var/run", "/run")
        .file("var/run/f", "g")
        .symlink("out", "../../deep/./er")
        .dir("out/d/")
        .file("out/d/f", "h")
        .symlink("twice", "once")
        .symlink("once", "real")
        .file("twice/.wh.gone", "")
        .hardlink("twice/f", "lib/f");
    let (sample, applied) = archive.unpack();
    let implied = ["deep", "deep/er", "real", "run", "usr", "usr/lib", "var"].map(PathBuf::from);
    assert_eq!(applied.unwrap().implied_directories, implied);
    for (name, content) in
        [("usr/lib/f", "f"), ("run/f", "g"), ("deep/er/d/f", "h"), ("real/f", "f")]
    {
        assert_eq!(read(&sample, name), content, "{name}");
    }
    assert!(sample.at("layer/lib").symlink_metadata().unwrap().is_symlink());
    assert!(!is_root() || is_whiteout(&sample, "real/gone"));
    for (target, told) in [("loop", "loop/f"), ("file", "`file`"), ("file/below", "`file`")] {
        let archive = Archive::default().file("file", "").symlink("loop", target);
        let said = archive.file("loop/f", "").refused();
        assert!(said.contains(told) || said.contains("symbolic links"), "{target}: {said}");
    }
}

/// CVE-2025-11395 (GHSA-3gcv-x57j-xqxv, podman): a file of a layer overwrote one of the host.
#[test]
fn a_file_replaces_a_link_instead_of_writing_through_it() {
    let sample = Archive::default().symlink("x", "../outside").file("x", "replaced").unpacked();
    assert_eq!(read(&sample, "x"), "replaced");
}

/// CVE-2026-33056 (GHSA-j4xf-2g29-59ph, RUSTSEC-2026-0067), RUSTSEC-2026-0145 (GHSA-3cv2-h65g-fgmm,
/// Rust's tars), CVE-2021-32760, CVE-2025-47290 (GHSA-cm76-qm8v-3j95, containerd): a directory over
/// a link changed the mode of what the link leads to.
#[test]
fn a_directory_replaces_a_link_instead_of_changing_its_target() {
    let sample = Archive::default().symlink("x", "..").dir("x/").file("x/f", "f").unpacked();
    assert!(sample.at("layer/x").symlink_metadata().unwrap().is_dir());
    assert_eq!(read(&sample, "x/f"), "f");
}

#[test]
fn the_last_of_two_members_of_one_name_counts() {
    let sample = Archive::default()
        .file("f", "first")
        .file("f", "second")
        .dir("d/")
        .file("d/below", "x")
        .file("d", "now a file")
        .file("e", "a file")
        .dir("e/")
        .file("e/below", "now in a directory")
        .dir("kept/")
        .file("kept/f", "kept")
        .dir("kept/")
        .unpacked();
    assert_eq!(read(&sample, "f"), "second");
    assert_eq!(read(&sample, "d"), "now a file");
    assert_eq!(read(&sample, "e/below"), "now in a directory");
    assert_eq!(read(&sample, "kept/f"), "kept");
}

/// CVE-2026-50163 (oras-go): a hard link to a file outside.
#[test]
fn a_hard_link_reaches_inside_only() {
    let sample = Archive::default()
        .file("a", "content")
        .hardlink("b", "a")
        .hardlink("c", "/../../a")
        .hardlink("a", "a")
        .unpacked();
    let inode = |name: &str| sample.at("layer").join(name).metadata().unwrap().ino();
    assert_eq!((inode("b"), inode("c")), (inode("a"), inode("a")));

    assert!(Archive::default().hardlink("x", "../outside").refused().contains("`x`"));
    let through = Archive::default().symlink("up", "..").hardlink("x", "up/outside");
    assert!(through.refused().contains("`x`"));
    assert!(Archive::default().dir("d/").hardlink("x", "d").refused().contains("directory"));
    assert!(Archive::default().hardlink("x", "/").refused().contains("root"));
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_one_to_the_link() {
    let sample = Archive::default().symlink("l", "../outside").hardlink("h", "l").unpacked();
    assert_eq!(fs::read_link(sample.at("layer/h")).unwrap(), Path::new("../outside"));
    assert_eq!(sample.at("outside").metadata().unwrap().nlink(), 1);
}

/// CVE-2021-29136 (GHSA-9m95-8hx6-7p9v, umoci): a link in place of the root led every other member
/// astray.
#[test]
fn the_root_can_only_be_a_directory() {
    for name in [".", "/", "./", "a/..", ""] {
        assert!(Archive::default().symlink(name, "/etc").refused().contains("root"), "{name}");
        assert!(Archive::default().hardlink(name, "x").refused().contains("root"), "{name}");
    }
    let sample = Archive::default().dir("./").file("./f", "").unpacked();
    let root = sample.at("layer").metadata().unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.gid(), root.mtime()), (0o750, 7, 8, 1000));
    assert_eq!(walk::xattr(sample.fd.as_fd(), DESCRIBES_ROOT).unwrap().as_deref(), Some(&b"y"[..]));
}

#[test]
fn a_layer_that_does_not_describe_the_root_has_a_plain_one() {
    let sample = Archive::default().file("f", "").unpacked();
    let root = sample.at("layer").metadata().unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.mtime()), (0o755, 0, 0));
    assert_eq!(walk::xattr(sample.fd.as_fd(), DESCRIBES_ROOT).unwrap(), None);
}

#[test]
fn whiteouts_become_the_overlays_own() {
    if !is_root() {
        return;
    }
    let sample = Archive::default()
        .file(".wh.gone", "")
        .dir("d/")
        .file("d/.wh..wh..opq", "")
        .file("implied/.wh..wh..opq", "")
        .file(".wh..wh.aufs", "")
        .file(".wh..wh.plnk/1.2", "")
        .file("d/.wh.also gone", "")
        .unpacked();
    assert!(is_whiteout(&sample, "gone"));
    assert!(is_whiteout(&sample, "d/also gone"));
    assert!(is_opaque(&sample, "d") && is_opaque(&sample, "implied"));
    assert_eq!(fs::read_dir(sample.at("layer")).unwrap().count(), 3);
}

#[test]
fn whiteouts_hide_what_is_below_in_whatever_order_they_come() {
    if !is_root() {
        return;
    }
    let sample = Archive::default()
        .file(".wh.a", "")
        .file("a/f", "new")
        .file("b/f", "new")
        .file(".wh.b", "")
        .file("c", "new")
        .file(".wh.c", "")
        .file(".wh.d", "")
        .file("d", "new")
        .unpacked();
    assert!(is_opaque(&sample, "a") && is_opaque(&sample, "b"));
    for name in ["a/f", "b/f", "c", "d"] {
        assert_eq!(read(&sample, name), "new", "{name}");
    }
}

/// As umoci and containerd do; the files were missing.
#[test]
fn hard_links_to_the_shared_files_of_aufs_are_files() {
    let (sample, applied) = Archive::default()
        .dir(".wh..wh.plnk/")
        .file(".wh..wh.plnk/1.2", "shared")
        .symlink(".wh..wh.plnk/link", "..")
        .hardlink("f", ".wh..wh.plnk/1.2")
        .hardlink("d/g", "/.wh..wh.plnk/1.2")
        .file(".wh..wh.plnk/unused", "x")
        .unpack();
    assert_eq!(applied.unwrap().implied_directories, [PathBuf::from("d")]);
    assert_eq!((read(&sample, "f"), read(&sample, "d/g")), ("shared".into(), "shared".into()));
    let names = |name: &str| sample.at(name).metadata().unwrap().nlink();
    assert_eq!(names("layer/f"), 2);
    assert_eq!(fs::read_dir(sample.at("layer")).unwrap().count(), 2);
}

/// Further hardening: whiteouts of `..` and the like.
#[test]
fn whiteouts_of_no_name_are_refused() {
    for name in [".wh.", ".wh...", ".wh..", "d/.wh..."] {
        assert!(Archive::default().file(name, "").refused().contains("deletes no name"), "{name}");
    }
    assert!(Archive::default().file(".wh.x/y", "").refused().contains("deleted name"));
}

/// Issue 9: containerd makes a directory `.wh.x` of it, which the next reader takes for a deleted `x`.
#[test]
fn a_deleted_name_is_no_opaque_directory() {
    for name in [".wh.x/.wh..wh..opq", "d/.wh.x/.wh..wh..opq", ".wh.x/y/.wh..wh..opq"] {
        let said = Archive::default().dir("d").file(name, "").refused();
        assert!(said.contains("a deleted name is no directory"), "{name}: {said}");
    }
    let below = Archive::default().file(".wh..wh.aufs/.wh..wh..opq", "").unpacked();
    assert_eq!(fs::read_dir(below.at("layer")).unwrap().count(), 0);
}

/// Issue 9: as containerd has it.
#[test]
fn a_hard_link_to_a_deleted_name_deletes_its_own_name() {
    let sample = Archive::default()
        .file("d/.wh.x", "")
        .hardlink("d/y", "d/x")
        .hardlink("d/.wh.z", "d/y")
        .unpacked();
    for name in ["x", "y", "z"] {
        assert!(is_whiteout(&sample, &format!("d/{name}")), "{name}");
    }
    let said = Archive::default().file("d/.wh.x", "").hardlink("d/y", "d/.wh.x").refused();
    assert!(said.contains("create the hard link"), "{said}");
}

/// Issue 9: as containerd has it.
#[test]
fn a_directory_with_two_names_is_one() {
    let archive = Archive::default()
        .symlink("l", ".")
        .dir("l/l/d")
        .file("l/l/d/x", "x")
        .file("l/implied/x", "x")
        .file("l/d/.wh..wh..opq", "")
        .hardlink("l/d/x", "d/x")
        .hardlink("l/y", "l/l/d/x")
        .file("l/.wh.gone", "");
    let sample = archive.unpacked();
    assert_eq!((read(&sample, "d/x"), read(&sample, "y")), ("x".to_owned(), "x".to_owned()));
    assert!(is_opaque(&sample, "d") && is_whiteout(&sample, "gone"));
    assert_eq!(fs::metadata(sample.at("layer/d")).unwrap().mtime(), 1000);
    let applied = archive.unpack().1.unwrap();
    assert_eq!(applied.implied_directories, [PathBuf::from("implied")]);

    // The name through which it was made may go, and what it was may be replaced by another.
    let sample =
        archive.file("l", "").dir("l2").symlink("a", "l2").dir("a/d").file("l2/d", "").unpacked();
    assert_eq!(fs::metadata(sample.at("layer/d")).unwrap().mtime(), 1000);
    assert_eq!(fs::metadata(sample.at("layer/l2/d")).unwrap().mtime(), 1000);
    assert_eq!(fs::metadata(sample.at("layer/l2")).unwrap().mtime(), 1000);
}

#[test]
fn an_archive_that_is_added_has_no_whiteouts_and_one_owner() {
    let archive = Archive::default().file(".wh.x", "").dir("d/").file("d/f", "f").file("p/f", "");
    let sample = Sample::empty();
    fs::write(sample.at("x"), "stays").unwrap();
    fs::create_dir(sample.at("real")).unwrap();
    symlink("/real", sample.at("d2")).unwrap();
    let archive = archive.file("d2/g", "");
    let options = Options { whiteouts: Whiteouts::Keep, owner: Some((0, 9)), ..Options::default() };
    unpack(&archive.0[..], sample.fd.as_fd(), &options).unwrap();
    assert!(sample.at("x").exists() && sample.at(".wh.x").exists() && sample.at("real/g").exists());
    let owner = |name: &str| sample.at(name).metadata().map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!((owner("d"), owner("d/f")), ((0, 9), (0, 9)));
    assert_eq!(owner("p"), (0, 0));
}

#[test]
fn a_device_0_0_is_a_deleted_name() {
    if !is_root() {
        return;
    }
    let sample = Archive::default().entry(b'3', "x", "", b"").unpacked();
    assert!(is_whiteout(&sample, "x"));
}

#[test]
fn owner_mode_and_time_are_those_of_the_archive() {
    let sample = Archive::default().dir("d/").file("d/f", "x").symlink("d/l", "f").unpacked();
    for (name, mode) in [("d", 0o750), ("d/f", 0o640), ("d/l", 0o777)] {
        let metadata = sample.at("layer").join(name).symlink_metadata().unwrap();
        let found = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime());
        assert_eq!(found, (mode, 7, 8, 1000), "{name}");
    }
}

#[test]
fn implied_directories_are_reported_and_look_like_those_below() {
    let base = Sample::empty();
    fs::create_dir(base.at("tmp")).unwrap();
    fs::set_permissions(base.at("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    walk::set_mtime(base.fd.as_fd(), c"tmp", 77).unwrap();
    symlink("tmp", base.at("link")).unwrap();
    let archive =
        Archive::default().file("tmp/f", "").file("new/a/f", "").file("link/f", "").dir("new/");
    let sample = Sample::empty();
    let options = Options { below: Some(base.fd.as_fd()), ..Options::default() };
    let applied = unpack(&archive.0[..], sample.fd.as_fd(), &options).unwrap();
    assert_eq!(applied.implied_directories, ["link", "new/a", "tmp"].map(PathBuf::from));
    let like =
        |name: &str| sample.at(name).metadata().map(|m| (m.mode() & 0o7777, m.mtime())).unwrap();
    assert_eq!((like("tmp"), like("new/a"), like("link")), ((0o1777, 77), (0o755, 0), (0o755, 0)));
    assert_eq!(like("new"), (0o750, 1000));
}

/// So many directories, each in the last one.
fn deep(count: usize) -> String {
    "d/".repeat(count)
}

/// Members of names that are too long for a header.
fn long_names(names: impl IntoIterator<Item = String>) -> Archive {
    let member = |archive: Archive, name: String| {
        archive.entry(b'L', "././@LongLink", "", name.as_bytes()).file("short", "")
    };
    names.into_iter().fold(Archive::default(), member)
}

#[test]
fn a_name_may_be_as_long_as_paths_can_be() {
    let archive = long_names([format!("{}f", deep(1900)), format!("d/d/d/e/{}f", deep(20))]);
    let (sample, applied) = archive.unpack();
    let applied = applied.unwrap();
    let count = format!("{:?}", applied.implied_directories).matches('"').count() / 2;
    assert_eq!(count, 1900 + 1 + 20);
    let parent = sample.at("layer").join(deep(1000));
    assert!(parent.symlink_metadata().unwrap().is_dir());
}

/// Issue 9, 1.8: Ctrl-C was only heard where the archive was read.
#[test]
fn unpacking_ends_between_two_directories_when_it_is_stopped() {
    let archive = |count: usize| long_names((0..count).map(|at| format!("{at}/{}f", deep(800))));
    let stop = CancellationToken::new();
    let is_stopped = |result: Result<(), ApplyError>| {
        let Err(ApplyError::Entry { source, .. }) = result else { panic!("{result:?}") };
        source.raw_os_error() == Some(Errno::CANCELED.raw_os_error())
    };

    // Within a member, when the archive has long been read.
    let sample = Sample::empty();
    let result = std::thread::scope(|scope| {
        let (at, stop) = (sample.at("0/d/d/d"), &stop);
        scope.spawn(move || {
            while !at.exists() {
                std::thread::yield_now();
            }
            stop.cancel();
        });
        let options = Options { stop: Some(stop), ..Options::default() };
        unpack(&archive(40).0[..], sample.fd.as_fd(), &options)
    });
    assert!(is_stopped(result.map(drop)));
    assert!(fs::read_dir(sample.path.path()).unwrap().count() < 40);

    // When nothing is left to be done but to set owners, modes and times.
    let sample = Sample::empty();
    let applied = unpack(&archive(1).0[..], sample.fd.as_fd(), &Options::default()).unwrap();
    let implied = &applied.implied_directories;
    assert!(is_stopped(inherit(sample.fd.as_fd(), implied, None, &stop)));
}

#[test]
fn a_file_can_not_have_entries() {
    assert!(Archive::default().file("f", "x").file("f/g", "").refused().contains("`f`"));
}

/// GHSA-w26x-xg27-7qjc (BuildKit): attributes of an archive went to files outside.
#[test]
fn attributes_other_than_capabilities_are_dropped() {
    if !is_root() {
        return;
    }
    let mut records = vec![];
    for (key, value) in [
        ("SCHILY.xattr.user.overlay.opaque", &b"y"[..]),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.rbuild.owner", b"0:0"),
        ("SCHILY.xattr.security.capability", &CAPABILITY_VALUE),
    ] {
        let rest = key.len() + value.len() + 3;
        records.extend_from_slice(format!("{} {key}=", rest + 2).as_bytes());
        records.extend_from_slice(value);
        records.push(b'\n');
    }
    let sample = Archive::default().entry(b'x', "p", "", &records).file("f", "x").unpacked();
    let file = fs::File::open(sample.at("layer/f")).unwrap();
    let mut names = [0; 256];
    let length = rustix::fs::flistxattr(&file, &mut names).unwrap();
    assert_eq!(&names[..length], b"security.capability\0");
    assert_eq!(walk::xattr(file.as_fd(), CAPABILITY).unwrap().unwrap(), CAPABILITY_VALUE);
}

#[test]
fn a_hard_link_costs_no_file_its_setuid_bit() {
    let mut archive = Archive::default().file("su", "x").hardlink("su2", "su");
    for start in [0, 1024] {
        let mut header = ::tar::Header::from_byte_slice(&archive.0[start..start + 512]).clone();
        header.set_mode(0o4755);
        header.set_cksum();
        archive.0[start..start + 512].copy_from_slice(header.as_bytes());
    }
    let sample = archive.unpacked();
    assert_eq!(sample.at("layer/su").metadata().unwrap().mode() & 0o7777, 0o4755);
}

/// CVE-2026-114236 (buildah): each malformed layer left a descriptor open.
#[test]
fn bad_archives_leave_no_descriptor_open() {
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let sample = Sample::empty();
    let bad = Archive::default().dir("d/").file("d/f", "").hardlink("x", "nowhere");
    bad.unpack_into(&sample).unwrap_err();
    let before = open();
    for _ in 0..10_000 {
        bad.unpack_into(&sample).unwrap_err();
    }
    // Other tests run beside this one.
    assert!(open() < before + 100);
}
