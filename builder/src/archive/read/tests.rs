//! Archives that readers disagree on: the same entries as GNU tar, or a refusal.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::layer::samples::Dice;

/// Blocks of an archive.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn header(mut self, gnu: bool, change: impl FnOnce(&mut Header)) -> Self {
        let mut header = if gnu { Header::new_gnu() } else { Header::new_ustar() };
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    fn named(self, kind: u8, name: &str, size: u64) -> Self {
        self.header(true, |header| {
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(EntryType::new(kind));
            header.set_size(size);
        })
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.named(b'0', name, content.len() as u64).bytes(content)
    }

    fn records(self, records: &[(&str, &str)]) -> Self {
        let line = |(key, value): &(&str, &str)| {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|length| length - length.to_string().len() == rest);
            format!("{} {key}={value}\n", length.unwrap())
        };
        let body: String = records.iter().map(line).collect();
        self.named(b'x', "pax", body.len() as u64).bytes(body.as_bytes())
    }

    fn end(self) -> Vec<u8> {
        let mut bytes = self.0;
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }
}

fn members(bytes: &[u8]) -> Result<Vec<Member>, ReadError> {
    let mut members = Members::new(bytes);
    let mut found = vec![];
    while let Some(member) = members.next()? {
        found.push(member);
    }
    members.finish()?;
    Ok(found)
}

fn names(bytes: &[u8]) -> Vec<String> {
    let name = |member: &Member| String::from_utf8_lossy(&member.name).into_owned();
    members(bytes).unwrap().iter().map(name).collect()
}

fn names_by_gnu_tar(bytes: &[u8]) -> Vec<String> {
    let mut tar = Command::new("tar")
        .args(["-tPf", "-", "--quoting-style=literal"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = tar.wait_with_output().unwrap().stdout;
    String::from_utf8(output).unwrap().lines().map(str::to_owned).collect()
}

fn problem(bytes: &[u8]) -> String {
    members(bytes).unwrap_err().to_string()
}

/// CVE-2025-62518 (GHSA-j5gw-2vrg-8fgx, RUSTSEC-2025-0111, TARmageddon), CVE-2026-33055
/// (GHSA-gchp-q4r4-x4ff, RUSTSEC-2026-0068), RUSTSEC-2026-0112 (GHSA-fp55-jw48-c537),
/// RUSTSEC-2026-0113 (GHSA-xx64-wwv2-hcqq), GHSA-3pv8-6f4r-ffg2: readers that see other entries
/// than GNU tar does.
#[test]
fn odd_archives_have_the_entries_that_gnu_tar_sees() {
    let inner = Archive::default().file("smuggled", b"x").end();
    let size = inner.len().to_string();
    let long = "l".repeat(300);
    let archives = [
        ("a plain one", Archive::default().file("a", b"1").file("b", &[7; 600]).end()),
        (
            "a size in the records, 0 in the header",
            Archive::default()
                .records(&[("size", &size)])
                .named(b'0', "outer", 0)
                .bytes(&inner)
                .file("after", b"")
                .end(),
        ),
        (
            "a size in the records, another in the header",
            Archive::default()
                .records(&[("size", &size)])
                .named(b'0', "outer", 512)
                .bytes(&inner)
                .file("after", b"")
                .end(),
        ),
        (
            "the last of two equal records",
            Archive::default()
                .records(&[("path", "first"), ("path", "second"), ("size", "1"), ("size", &size)])
                .named(b'0', "header", 0)
                .bytes(&inner)
                .file("after", b"")
                .end(),
        ),
        (
            "records before a long name",
            Archive::default()
                .records(&[("size", "3")])
                .named(b'L', "././@LongLink", 301)
                .bytes(format!("{long}\0").as_bytes())
                .named(b'0', "short", 0)
                .bytes(b"abc")
                .file("after", b"")
                .end(),
        ),
        (
            "a hard link with a size",
            Archive::default().file("a", b"1").named(b'1', "link", 600).file("after", b"").end(),
        ),
        ("no end", Archive::default().file("a", b"1").0),
        ("something after the end", Archive::default().file("a", b"1").end().repeat(2)),
        ("nothing at all", vec![0; 1024]),
        (
            "a file with a slash at its end",
            Archive::default().named(b'0', "dir/", 0).file("dir/f", b"").end(),
        ),
    ];
    for (what, bytes) in archives {
        assert_eq!(names(&bytes), names_by_gnu_tar(&bytes), "{what}");
    }
}

/// RUSTSEC-2026-0112 and its kind: what is ambiguous can hide entries.
#[test]
fn what_readers_disagree_on_is_refused() {
    let two_names = Archive::default()
        .named(b'L', "././@LongLink", 2)
        .bytes(b"x\0")
        .records(&[("path", "y")])
        .file("z", b"")
        .end();
    assert!(problem(&two_names).contains("two different names"));
    let full_directory = Archive::default().named(b'5', "d/", 512).bytes(&[1; 512]).end();
    assert!(problem(&full_directory).contains("has a content"));
    let twice =
        Archive::default().records(&[("path", "a")]).records(&[("path", "b")]).file("c", b"");
    assert!(problem(&twice.end()).contains("two extension headers"));
    // Issue 9: readers differ on what belongs to the member then.
    for before in [
        Archive::default().records(&[("path", "a")]),
        Archive::default().named(b'L', "././@LongLink", 2).bytes(b"x\0"),
        Archive::default().named(b'K', "././@LongLink", 2).bytes(b"x\0"),
    ] {
        let global = b"15 comment=abc\n";
        let between = before.named(b'g', "global", global.len() as u64).bytes(global);
        assert!(problem(&between.file("c", b"").end()).contains("a global header between"));
    }
    for (key, value) in
        [("size", "-1"), ("size", "12x"), ("uid", "99999999999"), ("gid", "4294967295")]
    {
        let bad = Archive::default().records(&[(key, value)]).file("f", b"").end();
        assert!(problem(&bad).contains(key), "{key}={value}: {}", problem(&bad));
    }
}

/// A file whose header has this in the fields that come after the link's target.
fn with_magic(magic: &[u8; 8], prefix: &[u8], end: &[u8]) -> Vec<u8> {
    let header = |header: &mut Header| {
        let bytes = header.as_mut_bytes();
        bytes[0] = b'f';
        bytes[257..265].copy_from_slice(magic);
        bytes[345..][..prefix.len()].copy_from_slice(prefix);
        bytes[512 - end.len()..].copy_from_slice(end);
    };
    Archive::default().header(false, header).end()
}

/// Issue 9: the prefix was only heeded in version `00`, where others look at the magic alone.
#[test]
fn the_prefix_of_a_name_counts_in_every_version_of_ustar() {
    for magic in [b"ustar\x0000", b"ustar\0\0\0", b"ustar\0  ", b"ustar\x0001"] {
        let bytes = with_magic(magic, b"dir", b"");
        assert_eq!(names(&bytes), ["dir/f"], "{magic:x?}");
        assert_eq!(names(&bytes), names_by_gnu_tar(&bytes), "{magic:x?}");
    }
    let times = with_magic(b"ustar  \0", b"00000000000\x0000000000000\0", b"");
    assert_eq!(names(&times), ["f"]);
    assert_eq!(names(&times), names_by_gnu_tar(&times));
    for magic in [b"\0\0\0\0\0\0\0\0", b"ustar 00", b"ustar0\0\0"] {
        assert_eq!(names(&with_magic(magic, b"", b"")), ["f"]);
        let problem = problem(&with_magic(magic, b"dir", b""));
        assert!(problem.contains("readers disagree"), "{magic:x?}: {problem}");
    }
    let star = |length| with_magic(b"ustar\x0000", &vec![b'd'; length], b"tar\0");
    assert_eq!(names(&star(130)), ["d".repeat(130) + "/f"]);
    assert!(problem(&star(131)).contains("readers disagree"));
}

/// Issue 9: 4097:3 became 1:3, and 4096:0 a deleted name.
#[test]
fn a_device_number_that_linux_does_not_have_is_refused() {
    let device = |gnu, major: u64, minor: u64| {
        let header = |header: &mut Header| {
            header.as_old_mut().name[0] = b'n';
            header.set_entry_type(EntryType::Char);
            let field = |number: u64| format!("{number:07o}\0").into_bytes();
            header.as_mut_bytes()[329..337].copy_from_slice(&field(major));
            header.as_mut_bytes()[337..345].copy_from_slice(&field(minor)[..8]);
        };
        members(&Archive::default().header(gnu, header).end())
    };
    for gnu in [true, false] {
        let highest = device(gnu, 4095, 1_048_575).unwrap();
        assert_eq!(highest[0].kind, Kind::Character(4095, 1_048_575));
        for (major, minor) in [(4096, 0), (4097, 3), (0, 1_048_576), (65_535, 0)] {
            let problem = device(gnu, major, minor).unwrap_err().to_string();
            assert!(problem.contains("device number"), "{major}:{minor}: {problem}");
        }
    }
}

/// What the first member of an archive holds, and its name.
fn first_content(bytes: &[u8]) -> Result<(String, Vec<u8>), ReadError> {
    let mut members = Members::new(bytes);
    let member = members.next()?.expect("a member");
    let mut read = vec![0; member.size as usize];
    members.content(&member, |offset, bytes| {
        read[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    })?;
    assert_eq!(members.next()?, None);
    Ok((shown_name(&member.name), read))
}

#[test]
fn sparse_files_in_every_format_of_gnu_tar_read_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("holes")).unwrap();
    let mut content = vec![0; 2_000_000];
    for at in (0..30).map(|piece| piece * 65_536) {
        content[at..at + 3].copy_from_slice(b"abc");
        rustix::io::pwrite(&file, b"abc", at as u64).unwrap();
    }
    file.set_len(2_000_000).unwrap();
    let formats: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    for format in formats {
        let tar = Command::new("tar")
            .args(format)
            .args(["--sparse", "-cf", "-", "holes"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(tar.stdout.len() < 400_000, "the archive is sparse: {format:?}");
        let (name, read) = first_content(&tar.stdout).unwrap();
        assert_eq!(name, "holes", "{format:?}");
        assert!(read == content, "{format:?}");
    }
}

#[test]
fn sparse_files_that_are_all_hole_or_begin_or_end_with_one_read_as_they_were() {
    for (pieces, size) in [(&[][..], 100_000), (&[4096][..], 100_000), (&[0][..], 5000)] {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        let mut content = vec![0; size];
        for &at in pieces {
            content[at..at + 1000].fill(b'x');
            rustix::io::pwrite(&file, &[b'x'; 1000], at as u64).unwrap();
        }
        file.set_len(size as u64).unwrap();
        for version in ["0.0", "0.1", "1.0"] {
            let tar = Command::new("tar")
                .args(["--format=posix", "--sparse-version", version, "--sparse", "-cf-", "f"])
                .current_dir(dir.path())
                .output()
                .unwrap();
            let (name, read) = first_content(&tar.stdout).unwrap();
            assert_eq!((name.as_str(), read == content), ("f", true), "{version} {pieces:?}");
        }
    }
}

/// A sparse file of the format 1.0 that holds `content`.
fn version_1(real_size: &str, content: &[u8]) -> Vec<u8> {
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.realsize", real_size),
    ];
    Archive::default().records(&records).file("GNUSparseFile.1/real", content).end()
}

/// A block that begins with `map`, and a block of content.
fn map_and_block(map: &str) -> Vec<u8> {
    let mut bytes = map.as_bytes().to_vec();
    bytes.resize(BLOCK, 0);
    bytes.resize(2 * BLOCK, b'x');
    bytes
}

/// CVE-2017-14992, CVE-2025-58183: the map itself is what fills memory.
#[test]
fn a_sparse_map_before_the_content_has_a_limit() {
    assert!(first_content(&version_1("2000", &map_and_block("1\n512\n512\n"))).is_ok());
    let endless = [&b"40000\n"[..], &vec![b'1'; 2 << 20]].concat();
    for (map, told) in [
        (map_and_block("99999999999\n"), "too long"),
        (map_and_block("18446744073709551615\n"), "too long"),
        (endless, "does not end"),
        (vec![b'1'; 2 << 20], "does not end"),
        (map_and_block("2\n0\n"), "does not end"),
        (map_and_block("1\n0\n-5\n"), "no numbers"),
        (map_and_block("x\n"), "no numbers"),
        (map_and_block("1\n0\n511\n"), "does not fit"),
        (map_and_block("1\n1500\n512\n"), "does not fit"),
        (map_and_block("2\n512\n256\n600\n256\n"), "overlap"),
        (map_and_block("1\n18446744073709551615\n512\n"), "too long"),
    ] {
        let problem = problem(&version_1("2000", &map));
        assert!(problem.contains(told), "{problem} instead of {told}");
    }
    for size in ["-1", "x", "99999999999999999999"] {
        assert!(problem(&version_1(size, &map_and_block("1\n0\n512\n"))).contains("no number"));
    }
    let huge = version_1("18446744073709551615", &map_and_block("1\n0\n512\n"));
    assert!(problem(&huge).contains("does not fit"));
}

#[test]
fn sparse_maps_in_records_are_refused_where_they_contradict_themselves() {
    let good = [("GNU.sparse.size", "10"), ("GNU.sparse.map", "3,1"), ("GNU.sparse.name", "n")];
    let archive =
        |records: &[(&str, &str)]| Archive::default().records(records).file("f", b"x").end();
    let (name, content) = first_content(&archive(&good)).unwrap();
    assert_eq!((name.as_str(), &content[..]), ("n", &b"\0\0\0x\0\0\0\0\0\0"[..]));
    let bad: [(&[(&str, &str)], &str); 9] = [
        (&[("GNU.sparse.map", "3,1")], "without its size"),
        (&[("GNU.sparse.size", "10")], "does not fit"),
        (&[("GNU.sparse.size", "10"), ("GNU.sparse.map", "3,1,")], "no numbers"),
        (&[("GNU.sparse.size", "10"), ("GNU.sparse.map", "3")], "half a piece"),
        (&[("GNU.sparse.size", "3"), ("GNU.sparse.map", "3,1")], "does not fit"),
        (&[("GNU.sparse.size", "10"), ("GNU.sparse.numbytes", "3")], "malformed"),
        (
            &[("GNU.sparse.size", "10"), ("GNU.sparse.map", "3,1"), ("GNU.sparse.numblocks", "2")],
            "another length",
        ),
        (&[("GNU.sparse.size", "10"), ("GNU.sparse.major", "2")], "not known"),
        (
            &[("GNU.sparse.size", "9"), ("GNU.sparse.realsize", "8"), ("GNU.sparse.map", "3,1")],
            "two different sizes",
        ),
    ];
    for (records, told) in bad {
        let problem = problem(&archive(records));
        assert!(problem.contains(told), "{problem} instead of {told}");
    }
    let link = Archive::default().records(&good).named(b'2', "l", 0).end();
    assert!(problem(&link).contains("no plain file"));
}

/// Issue 9, 1.8: a name of 60 kB kept us busy for minutes.
#[test]
fn names_and_targets_are_no_longer_than_paths_can_be() {
    for (key, kind) in [("path", b'0'), ("linkpath", b'2'), ("linkpath", b'1')] {
        let longest = "d/".repeat(2047) + "f";
        let named = |name: &str| Archive::default().records(&[(key, name)]).named(kind, "f", 0);
        assert_eq!(members(&named(&longest).end()).unwrap().len(), 1, "{key}");
        let problem = problem(&named(&(longest + "f")).end());
        assert!(problem.len() < 1000 && problem.contains("in the archive"), "{problem}");
    }
}

/// As Go reads them: writers leave blank what does not matter.
#[test]
fn blank_number_fields_are_0() {
    let blank = |fill: u8| {
        let archive = Archive::default().header(false, |header| {
            let old = header.as_old_mut();
            old.name[0] = b'f';
            for field in [&mut old.mode, &mut old.uid, &mut old.gid] {
                field.fill(fill);
            }
            old.size.fill(fill);
            old.mtime.fill(fill);
        });
        members(&archive.end()).unwrap()
    };
    for fill in [0, b' '] {
        let found = &blank(fill)[0];
        assert_eq!((found.mode, found.uid, found.gid, found.mtime), (0, 0, 0, 0));
    }
}

/// CVE-2025-58183: a map that is not bounded by what it maps.
#[test]
fn a_sparse_map_that_does_not_fit_is_refused() {
    let sparse = |offset: u64, length: u64, stored: u64, size: u64| {
        Archive::default()
            .header(true, |header| {
                header.set_entry_type(EntryType::GNUSparse);
                header.set_size(stored);
                let gnu = header.as_gnu_mut().unwrap();
                gnu.name[0] = b's';
                gnu.set_real_size(size);
                gnu.sparse[0].set_offset(offset);
                gnu.sparse[0].set_length(length);
            })
            .bytes(&vec![1; stored as usize])
            .end()
    };
    assert!(members(&sparse(512, 512, 512, 2000)).is_ok());
    for (offset, length, stored, size) in
        [(512, 512, 512, 600), (0, 512, 1024, 2000), (0, 1024, 512, 2000)]
    {
        assert!(problem(&sparse(offset, length, stored, size)).contains("sparse"));
    }
}

/// CVE-2017-14992: headers of any size went to memory.
#[test]
fn extension_headers_have_a_limit() {
    for kind in [b'x', b'L', b'K'] {
        let bytes = Archive::default().named(kind, "big", 2 << 20).bytes(&vec![b'a'; 2 << 20]);
        assert!(problem(&bytes.file("f", b"").end()).contains("1 MiB"));
    }
}

#[test]
fn global_records_are_ignored() {
    let records = b"15 comment=abc\n13 path=evil\n";
    let bytes = Archive::default().named(b'g', "global", records.len() as u64).bytes(records);
    assert_eq!(names(&bytes.file("f", b"").end()), ["f"]);
}

#[test]
fn a_record_may_have_a_newline_in_its_value() {
    let value = "a\nsize=7\nb";
    let records = [("SCHILY.xattr.security.capability", value), ("size", "1")];
    let bytes =
        Archive::default().records(&records).named(b'0', "f", 0).bytes(b"x").file("g", b"").end();
    let found = members(&bytes).unwrap();
    assert_eq!(found[0].xattr(b"security.capability"), Some(value.as_bytes()));
    assert_eq!(found.len(), 2);
}

#[test]
fn times_are_rounded_down_and_may_be_negative() {
    for (value, seconds) in
        [("5", 5), ("5.9", 5), ("-5", -5), ("-5.5", -6), ("-0.5", -1), ("-5.0", -5)]
    {
        let bytes = Archive::default().records(&[("mtime", value)]).file("f", b"").end();
        assert_eq!(members(&bytes).unwrap()[0].mtime, seconds, "{value}");
    }
    for (value, time) in [
        ("5.25", (5, 250_000_000)),
        ("-5.25", (-6, 750_000_000)),
        ("5.1234567899", (5, 123_456_789)),
        ("-1.0000000001", (-2, 999_999_999)),
    ] {
        let bytes = Archive::default().records(&[("mtime", value)]).file("f", b"").end();
        let found = &members(&bytes).unwrap()[0];
        assert_eq!((found.mtime, found.nanoseconds), time, "{value}");
    }
    let negative =
        Archive::default().header(true, |header| header.as_old_mut().mtime = [0xff; 12]).end();
    assert_eq!(members(&negative).unwrap()[0].mtime, -1);
}

#[test]
fn big_numbers_in_base_256_are_read() {
    let bytes = Archive::default()
        .header(true, |header| {
            header.set_uid(3_000_000);
            header.set_gid(4_000_000_000);
            header.set_mtime(90_000_000_000);
        })
        .end();
    let member = &members(&bytes).unwrap()[0];
    assert_eq!((member.uid, member.gid, member.mtime), (3_000_000, 4_000_000_000, 90_000_000_000));
}

#[test]
fn damaged_archives_are_errors_and_never_panics() {
    let sparse = [("GNU.sparse.size", "9"), ("GNU.sparse.map", "3,1"), ("GNU.sparse.name", "n")];
    let version_1 = version_1("2000", &map_and_block("1\n512\n512\n"));
    let good = Archive(version_1[..version_1.len() - 2 * BLOCK].to_vec())
        .records(&sparse)
        .file("s", b"x")
        .records(&[("path", "long"), ("mtime", "1.5")])
        .file("a", &[3; 700])
        .named(b'L', "x", 3)
        .bytes(b"ab\0")
        .file("b", b"c")
        .end();
    let mut dice = Dice(7);
    for round in 0..3000 {
        let mut bad = good.clone();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(bad.len() as u64) as usize;
            bad[at] = dice.roll(256) as u8;
        }
        if round % 2 == 0 {
            fix_checksums(&mut bad);
        }
        bad.truncate(dice.roll(bad.len() as u64 + 1) as usize);
        let _any_outcome_but_a_panic = members(&bad);
    }
}

fn fix_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(BLOCK) {
        let mut header = Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
}

#[test]
fn only_a_tar_looks_like_one() {
    assert!(looks_like_tar(&Archive::default().file("a", b"").end()));
    assert!(!looks_like_tar(&[0; 1024]));
    assert!(!looks_like_tar(&[b'x'; 1024]));
    assert!(!looks_like_tar(b"short"));
}
