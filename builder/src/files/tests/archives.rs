//! ADD of archives.

use std::io::Write as _;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::super::Stream;
use super::{Copy, Tree};

/// An archive being written.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(vec![]))
    }

    fn entry(mut self, kind: tar::EntryType, path: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_000_000_000);
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.set_link_name_literal(data).unwrap();
            header.set_size(0);
            header.set_cksum();
            self.0.append(&header, &[][..]).unwrap();
        } else {
            header.set_size(data.len() as u64);
            header.set_cksum();
            self.0.append(&header, data).unwrap();
        }
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(tar::EntryType::Regular, path, 0o640, data.as_bytes())
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(tar::EntryType::Directory, path, mode, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, 0o777, target.as_bytes())
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, 0o644, target.as_bytes())
    }

    fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(key, value)]).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn add(archive: impl AsRef<[u8]>, dest: &str, to: &Tree) -> Result<(), super::FilesError> {
    Copy::new("a", dest).unpack().run(&Tree::new().file("a", archive), to)
}

fn added(archive: Archive, dest: &str) -> Tree {
    let to = Tree::new();
    add(archive.bytes(), dest, &to).unwrap();
    to
}

#[test]
fn every_compression_is_told_by_content() {
    let plain = Archive::new().file("f", "x").bytes();
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut xz = lzma_rust2::XzWriter::new(vec![], options).unwrap();
    xz.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
    skippable.extend_from_slice(&zstd);
    let archives = [
        plain,
        gzip.finish().unwrap(),
        bzip2.finish().unwrap(),
        xz.finish().unwrap(),
        zstd,
        skippable,
    ];
    for (number, archive) in archives.iter().enumerate() {
        let to = Tree::new();
        add(archive, "/x", &to).unwrap();
        assert_eq!(to.list(), ["x", "x/f"], "archive {number}");
    }
}

#[test]
fn what_is_no_archive_is_copied() {
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(b"no tar").unwrap();
    for other in [&b""[..], &[0; 2048], b"text", &gzip.finish().unwrap()] {
        let to = Tree::new();
        add(other, "/x", &to).unwrap();
        assert_eq!(to.list(), ["x"]);
        assert_eq!(std::fs::read(to.at("x")).unwrap(), other);
    }
}

#[test]
fn what_is_no_file_is_copied_even_if_an_archive_is_in_it() {
    let tar = Archive::new().file("f", "x").bytes();
    let from = Tree::new().file("d/a.tar", tar).fifo("p");
    let add = |path: &str| Copy::new(path, "/x").unpack().of_stage().to_empty(&from);
    assert_eq!(add("d").list(), ["x", "x/a.tar"]);
    assert_eq!(add("p").show("x"), "p 0640 0:0");
}

#[test]
fn exclude_is_not_for_entries() {
    let from = Tree::new().file("a", Archive::new().file("f", "x").bytes());
    let copy = Copy::new("a", "/x").unpack().exclude(&["f", "**"]);
    assert_eq!(copy.to_empty(&from).list(), ["x", "x/f"]);
}

#[test]
fn copy_never_unpacks() {
    let from = Tree::new().file("a", Archive::new().file("f", "x").bytes());
    assert_eq!(Copy::new("a", "/x").to_empty(&from).show("x"), "f 0644 0:0");
}

#[test]
fn an_archive_behind_a_link_is_unpacked() {
    let from = Tree::new().file("a", Archive::new().file("f", "x").bytes()).link("l", "a");
    assert_eq!(Copy::new("l", "/x").unpack().to_empty(&from).list(), ["x", "x/f"]);
}

#[test]
fn entries_keep_owner_mode_and_time_and_chmod_is_not_for_them() {
    let from = Tree::new().file("a", Archive::new().dir("d/", 0o710).file("d/f", "x").bytes());
    let copy = Copy::new("a", "/x").unpack().chmod(frontend::Mode::Octal(0o777));
    let to = copy.to_empty(&from);
    assert_eq!((to.show("x/d"), to.show("x/d/f")), ("d 0710 12:34".into(), "f 0640 12:34".into()));
    assert_eq!(
        (to.modified("x/d"), to.modified("x/d/f")),
        ((1_000_000_000, 0), (1_000_000_000, 0))
    );
}

#[test]
fn chown_is_for_every_entry_but_not_for_implied_parents() {
    let from = Tree::new().file("a", Archive::new().file("implied/f", "x").bytes());
    let to = Copy::new("a", "/x").unpack().chown(50, 60).to_empty(&from);
    assert_eq!((to.show("x"), to.show("x/implied")), ("d 0755 50:60".into(), "d 0755 0:0".into()));
    assert_eq!(to.show("x/implied/f"), "f 0640 50:60");
}

#[test]
fn implied_parents_take_after_a_directory_with_set_group_id() {
    let to = Tree::new().dir("s", 0o755).owner("s", 7, 50).mode("s", 0o2775);
    add(Archive::new().file("implied/f", "x").dir("own/", 0o755).bytes(), "/s/x", &to).unwrap();
    for (path, shown) in [
        ("s/x", "d 2755 0:50"),
        ("s/x/implied", "d 2755 0:50"),
        ("s/x/implied/f", "f 0640 12:34"),
        ("s/x/own", "d 0755 12:34"),
    ] {
        assert_eq!(to.show(path), shown, "{path}");
    }
}

#[test]
fn the_archives_root_entry_changes_nothing() {
    let to = added(Archive::new().dir("./", 0o700).file("./f", "x"), "/x");
    assert_eq!((to.show("x"), to.show("x/f")), ("d 0755 0:0".into(), "f 0640 12:34".into()));
    add(Archive::new().symlink(".", "/etc").bytes(), "/x", &to).unwrap();
    assert_eq!(to.show("x"), "d 0755 0:0");
}

/// CVE-2026-28406 (kaniko), CVE-2026-17106 (GHSA-hfg8-hc9c-6c3h, moby): `../x` left the
/// destination.
#[test]
fn names_stay_within_the_destination() {
    let archive = Archive::new().file("/abs", "a").file("../../up", "b").file("in/../x", "c");
    let to = added(archive, "/d/e");
    assert_eq!(to.list(), ["d", "d/e", "d/e/abs", "d/e/up", "d/e/x"]);
}

/// CVE-2026-17106 (moby): names were checked as text, and links then followed out.
#[test]
fn links_resolve_within_the_destination_and_keep_their_text() {
    let archive = Archive::new()
        .dir("real/", 0o755)
        .symlink("abs", "/real")
        .symlink("up", "../../../real")
        .file("abs/f", "x")
        .file("up/g", "y");
    let to = added(archive, "/d");
    assert_eq!((to.read("d/real/f"), to.read("d/real/g")), ("x".to_owned(), "y".to_owned()));
    assert_eq!(
        (to.show("d/abs"), to.show("d/up")),
        ("l 12:34 -> /real".into(), "l 12:34 -> ../../../real".into())
    );
}

/// CVE-2026-17106: through a link that the destination has.
#[test]
fn existing_links_resolve_within_the_destination_too() {
    let to = Tree::new().dir("d/dir", 0o755).link("d/link", "/dir");
    add(Archive::new().file("link/f", "x").bytes(), "/d", &to).unwrap();
    assert_eq!(to.read("d/dir/f"), "x");
}

/// moby's go-archive 0.2.1: a stricter check broke ADD through an absolute link.
#[test]
fn a_destination_through_an_absolute_link_is_found_in_the_root() {
    let to = Tree::new().dir("dir", 0o755).link("link", "/dir");
    for dest in ["/link", "/link/", "/link/below"] {
        add(Archive::new().file("f", "x").bytes(), dest, &to).unwrap();
    }
    assert_eq!(to.list(), ["dir", "dir/below", "dir/below/f", "dir/f", "link"]);
}

#[test]
fn an_entry_through_a_link_that_leads_nowhere_is_an_error() {
    let to = Tree::new();
    let archive = Archive::new().symlink("l", "../../../outside").file("l/f", "x");
    let error = add(archive.bytes(), "/x", &to).unwrap_err();
    assert_eq!(error.to_string(), "cannot unpack `a`: entry `l/f`");
    assert!(format!("{error:?}").contains("`l` is a link that leads nowhere"), "{error:?}");
    assert_eq!(to.list(), ["x", "x/l"]);
}

/// CVE-2026-17106; its mend in 0.3.0 broke hard links with absolute names.
#[test]
fn hard_links_are_made_within_the_destination() {
    let outside = Tree::new().file("secret", "s");
    let secret = outside.at("secret");
    let archive = Archive::new().file("f", "x").hard_link("h", "/f").hard_link("i", "../f");
    let to = added(archive, "/x");
    assert_eq!((to.read("x/h"), to.read("x/i")), ("x".to_owned(), "x".to_owned()));
    let archive = Archive::new().hard_link("h", secret.to_str().unwrap());
    assert!(add(archive.bytes(), "/x", &Tree::new()).is_err());
}

#[test]
fn directories_merge_and_any_other_clash_removes_what_was_there() {
    let to = Tree::new().file("x/d/kept", "").file("x/gone/deep/er", "").link("x/l", "/etc");
    let archive = Archive::new().dir("d/", 0o711).file("gone", "file").dir("l/", 0o755);
    add(archive.bytes(), "/x", &to).unwrap();
    assert_eq!(to.list(), ["x", "x/d", "x/d/kept", "x/gone", "x/l"]);
    assert_eq!((to.show("x/d"), to.show("x/l")), ("d 0711 12:34".into(), "d 0755 12:34".into()));
}

/// CVE-2026-33056 (Rust's tar): the mode of what the link leads to was changed.
#[test]
fn a_directory_entry_over_a_link_does_not_touch_what_it_leads_to() {
    let to = Tree::new().dir("x/target", 0o755).link("x/l", "target");
    add(Archive::new().dir("l/", 0o777).bytes(), "/x", &to).unwrap();
    assert_eq!((to.show("x/target"), to.show("x/l")), ("d 0755 0:0".into(), "d 0777 12:34".into()));
}

#[test]
fn a_file_as_destination_is_an_error() {
    let to = Tree::new().file("x", "f");
    let error = add(Archive::new().file("f", "").bytes(), "/x", &to).unwrap_err();
    assert_eq!(error.to_string(), "mkdir /x: not a directory");
}

#[test]
fn whiteout_names_are_ordinary_files() {
    let to = added(Archive::new().file("keep", "").file(".wh.keep", ""), "/x");
    assert_eq!(to.list(), ["x", "x/.wh.keep", "x/keep"]);
}

#[test]
fn attributes_and_fractions_of_seconds_come_from_the_pax_header() {
    let archive = Archive::new().pax("SCHILY.xattr.user.a", b"b").file("f", "x");
    let archive = archive.pax("mtime", b"5.25").file("g", "");
    let archive = archive.pax("SCHILY.xattr.user.overlay.opaque", b"y").dir("d", 0o755);
    let to = added(archive, "/x");
    let xattrs = |path| super::super::xattrs::read(std::fs::File::open(to.at(path)).unwrap());
    assert_eq!(xattrs("x/f").unwrap(), [("user.a".into(), b"b".to_vec())]);
    assert_eq!(to.modified("x/g"), (5, 250_000_000));
    let mut names = [0; 64];
    let dir = std::fs::File::open(to.at("x/d")).unwrap();
    assert_eq!(rustix::fs::flistxattr(dir, &mut names).unwrap(), 0);
}

#[test]
fn a_truncated_archive_is_an_error() {
    let plain = Archive::new().file("f", &"x".repeat(100_000)).bytes();
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::none());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    for cut in [&plain[..50_000], &gzip[..50_000]] {
        let error = add(cut, "/x", &Tree::new()).unwrap_err();
        assert_eq!(error.to_string(), "cannot unpack `a`: entry `f`");
    }
}

#[test]
fn a_sparse_file_is_unpacked_with_its_holes() {
    let map = "2\n1048576\n1\n8388608\n0\n";
    let content = format!("{map:\0<512}x");
    let archive = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.realsize", b"8388608"),
    ];
    let mut tar = tar::Builder::new(vec![]);
    tar.append_pax_extensions(archive).unwrap();
    let to = added(Archive(tar).file("GNUSparseFile.1/holes", &content), "/x");
    assert_eq!(to.list(), ["x", "x/holes"]);
    let read = std::fs::read(to.at("x/holes")).unwrap();
    assert_eq!((read.len(), read[1 << 20]), (8 << 20, b'x'));
    assert_eq!(read.iter().filter(|byte| **byte != 0).count(), 1);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&to.at("x/holes").metadata().unwrap());
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks are on the disk");
}

/// Issue 9, 1.8: an xz header of a few bytes took gigabytes.
#[test]
fn an_archive_that_asks_for_too_much_memory_is_an_error() {
    let options = lzma_rust2::XzOptions::with_preset(0);
    let mut xz = lzma_rust2::XzWriter::new(vec![], options).unwrap();
    xz.write_all(&Archive::new().file("f", "x").bytes()).unwrap();
    let mut xz = xz.finish().unwrap();
    // The block header: its size, flags, the filter's id, the size of its properties, and these.
    assert_eq!(&xz[12..16], [2, 0, 0x21, 1]);
    xz[16] = 40;
    let checksum = crc32fast::hash(&xz[12..20]);
    xz[20..24].copy_from_slice(&checksum.to_le_bytes());
    let to = Tree::new();
    let error = add(&xz, "/x", &to).unwrap_err();
    assert!(format!("{error:?}").contains("memory"), "{error:?}");
    let error = stream(&xz).unpack(&to.root(), &CancellationToken::new()).unwrap_err();
    assert!(format!("{error:?}").contains("memory"), "{error:?}");
    assert!(to.list().is_empty());
}

/// Issue 9, 1.8: PAX records of any size went to memory.
#[test]
fn an_archive_with_a_huge_header_is_an_error() {
    let huge = vec![b'x'; 2 << 20];
    let archive = Archive::new().pax("comment", &huge).file("f", "x");
    let error = add(archive.bytes(), "/x", &Tree::new()).unwrap_err();
    assert!(format!("{error:?}").contains("1 MiB"), "{error:?}");
}

/// Issue 9, 1.8: a name of 60 kB did not end in minutes.
#[test]
fn an_entry_with_a_name_beyond_what_the_kernel_takes_is_an_error() {
    for length in [30_000, 2040] {
        let name = "d/".repeat(length) + "f";
        let archive = Archive::new().pax("path", name.as_bytes()).file("f", "x").bytes();
        let to = Tree::new();
        let started = std::time::Instant::now();
        assert_eq!(add(archive, "/x", &to).is_ok(), length == 2040, "{length}");
        assert!(started.elapsed().as_secs() < 10, "{length}: {:?}", started.elapsed());
    }
}

/// Issue 9, 1.8: Ctrl-C was not heard.
#[test]
fn unpacking_ends_when_it_is_stopped() {
    let bomb = {
        let mut zstd = zstd::stream::write::Encoder::new(vec![], 1).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(64 << 30);
        header.set_cksum();
        zstd.write_all(header.as_bytes()).unwrap();
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut zstd).unwrap();
        zstd.finish().unwrap()
    };
    let (stop, to) = (CancellationToken::new(), Tree::new());
    let unpacked = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            stop.cancel();
        });
        stream(&bomb).unpack(&to.root(), &stop)
    });
    assert!(format!("{unpacked:?}").contains("125"), "stopped, not at its end: {unpacked:?}");
}

/// `tar` in each of the compressions that have a checksum at their end.
fn compressed(tar: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::fast());
    bzip2.write_all(tar).unwrap();
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut xz = lzma_rust2::XzWriter::new(vec![], options).unwrap();
    xz.write_all(tar).unwrap();
    let mut zstd = zstd::stream::write::Encoder::new(vec![], 1).unwrap();
    zstd.include_checksum(true).unwrap();
    zstd.write_all(tar).unwrap();
    [
        ("gzip", gzip.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd.finish().unwrap()),
    ]
}

/// Issue 9: the end of a compressed archive, where its checksum is, was never looked at.
#[test]
fn an_archive_that_is_cut_or_changed_behind_its_last_entry_is_an_error() {
    // So much that what is wrong at the end is not seen at the beginning, where archives are told
    // from other files.
    let mut dice = crate::layer::samples::Dice(9);
    let long: String = (0..20_000).map(|_| format!("{:016x}", dice.roll(u64::MAX))).collect();
    for (kind, whole) in compressed(&Archive::new().file("f", &long).bytes()) {
        let mut changed = whole.clone();
        let last = changed.len() - 2;
        changed[last] ^= 0x10;
        for broken in [&changed[..], &whole[..whole.len() - 1], &whole[..whole.len() - 5]] {
            assert!(add(broken, "/x", &Tree::new()).is_err(), "{kind}");
            let to = Tree::new();
            let given = stream(broken).unpack(&to.root(), &CancellationToken::new());
            assert!(given.is_err(), "{kind}");
        }
        for behind in [&b"more"[..], &[0; 10_000]] {
            let to = Tree::new();
            add([&whole, behind].concat(), "/x", &to).unwrap();
            assert_eq!(to.list(), ["x", "x/f"], "{kind}");
        }
    }
}

#[test]
fn bytes_behind_the_end_of_an_archive_count() {
    let mut archive = Archive::new().file("f", "x").bytes();
    archive.extend_from_slice(b"and more");
    let to = Tree::new();
    add(&archive, "/x", &to).unwrap();
    assert_eq!(to.list(), ["x", "x/f"]);
}

#[test]
fn wildcards_may_match_several_archives() {
    let from = Tree::new()
        .file("1.tar", Archive::new().file("one", "").bytes())
        .file("2.tar", Archive::new().file("two", "").bytes());
    assert_eq!(Copy::new("*.tar", "/x").unpack().to_empty(&from).list(), ["x", "x/one", "x/two"]);
}

fn stream(bytes: &[u8]) -> Stream<'_, &[u8]> {
    Stream::new(Path::new("standard input"), bytes).unwrap()
}

#[test]
fn a_stream_is_an_archive_if_it_is_compressed_or_begins_with_a_header() {
    let tar = Archive::new().file("f", "x").bytes();
    assert!(stream(&tar).is_archive());
    for compressed in [&b"\x1f\x8b\x08"[..], b"BZh91AY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"] {
        assert!(stream(compressed).is_archive(), "{compressed:x?}");
    }
    assert!(!stream(b"FROM scratch\n").is_archive());
    assert!(!stream(b"").is_archive());
    assert_eq!(stream(b"FROM scratch\n").text().unwrap(), "FROM scratch\n");
}

#[test]
fn a_stream_is_unpacked_with_its_owners_and_within_its_directory() {
    let tar = Archive::new().dir("d", 0o750).file("d/../f", "x").file("/abs", "y").bytes();
    let to = Tree::new();
    stream(&tar).unpack(&to.root(), &CancellationToken::new()).unwrap();
    assert_eq!(to.list(), ["abs", "d", "f"]);
    assert_eq!(to.show("f"), "f 0640 12:34");
}

#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let tar = Archive::new().file("f", "x").bytes();
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(&tar).unwrap();
    let packed = packed.finish().unwrap();
    let error = stream(&packed[..packed.len() / 2])
        .unpack(&Tree::new().root(), &CancellationToken::new())
        .unwrap_err();
    assert!(error.to_string().starts_with("cannot unpack `standard input`"), "{error}");
}

#[test]
fn an_archive_may_lack_its_end_but_not_a_part_of_a_block() {
    let whole = Archive::new().file("f", "content").bytes();
    let without_end = &whole[..1024];
    let to = Tree::new();
    add(without_end, "/a/", &to).unwrap();
    for broken in [&without_end[..1000], &whole[..2047]] {
        let error = add(broken, "/b/", &to).unwrap_err();
        assert!(format!("{error:?}").contains("ends within a block"), "{error:?}");
    }
}
