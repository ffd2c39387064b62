//! What others read in our tars. That unpacking gives the directory again is tested with `apply`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, XattrFlags, makedev};

use super::super::OPAQUE;
use super::super::samples::{CAPABILITY_VALUE, Sample, is_root};
use super::*;

fn tar_of(sample: &Sample, latest: Option<i64>) -> Vec<u8> {
    let mut tar = vec![];
    let size = write_tree(sample.fd.as_fd(), &mut tar, latest).unwrap();
    assert_eq!(size, tar.len() as u64);
    tar
}

/// GNU tar's listing: mode, owner, size or device, time, name and target.
fn listed(tar: &[u8]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), tar).unwrap();
    let output = Command::new("tar")
        .args(["--numeric-owner", "--full-time", "--quoting-style=literal", "-tvf"])
        .arg(file.path())
        .envs([("TZ", "UTC"), ("LC_ALL", "C")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    String::from_utf8_lossy(&output.stdout).lines().map(words).collect()
}

/// The names that the `tar` crate reads.
fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = ::tar::Archive::new(tar);
    let name =
        |entry: ::tar::Entry<'_, &[u8]>| String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    archive.entries().unwrap().map(|entry| name(entry.unwrap())).collect()
}

fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    set_time(path, 1_000_000_000);
}

fn set_time(path: &Path, mtime: i64) {
    let time = walk::whole_second(mtime);
    rustix::fs::utimensat(CWD, path, &time, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn names_of_any_length_are_read_by_others() {
    let sample = Sample::empty();
    let mut expected = vec![];
    for length in [1, 99, 100, 101, 155, 156, 255] {
        expected.push("n".repeat(length));
        fs::write(sample.at(&"n".repeat(length)), "").unwrap();
    }
    for (directory, file) in [(98, 1), (99, 1), (100, 100), (155, 100), (155, 101), (156, 99)] {
        let directory = "d".repeat(directory);
        fs::create_dir_all(sample.at(&directory)).unwrap();
        let file = format!("{directory}/{}", "f".repeat(file));
        fs::write(sample.at(&file), "").unwrap();
        expected.extend([format!("{directory}/"), file]);
    }
    let deep = ["x".repeat(100), "y".repeat(99), "z".repeat(99)].join("/");
    assert_eq!(deep.len(), 300);
    fs::create_dir_all(sample.at(&deep)).unwrap();
    expected.extend([format!("{}/", &deep[..100]), format!("{}/", &deep[..200]), deep + "/"]);
    expected.sort();
    expected.dedup();

    let tar = tar_of(&sample, None);
    let last_word = |line: &String| line.rsplit(' ').next().unwrap().to_owned();
    let mut by_gnu: Vec<_> = listed(&tar).iter().map(last_word).collect();
    by_gnu.sort();
    assert_eq!(by_gnu, expected);
    let mut by_crate = names(&tar);
    by_crate.sort();
    assert_eq!(by_crate, expected);
}

#[test]
fn names_that_are_not_ascii_are_kept_byte_by_byte() {
    use std::os::unix::ffi::OsStrExt;
    let sample = Sample::empty();
    let odd: [&[u8]; 4] = ["ä".as_bytes(), "名前".as_bytes(), b"\xff\xfe", b"new\nline"];
    for name in odd {
        fs::write(sample.path.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
    }
    symlink("zu/ä", sample.at("link")).unwrap();
    let tar = tar_of(&sample, None);
    let mut archive = ::tar::Archive::new(&tar[..]);
    let mut found = vec![];
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        if let Some(target) = entry.link_name_bytes() {
            assert_eq!(*target, *"zu/ä".as_bytes());
        }
        found.push(entry.path_bytes().into_owned());
    }
    assert_eq!(found, [&b"link"[..], b"new\nline", odd[0], odd[1], odd[2]]);
}

#[test]
fn owners_and_times_of_any_size_are_read_by_others() {
    if !is_root() {
        return;
    }
    let sample = Sample::empty();
    for (name, owner, mtime) in [
        ("a", (2_097_151, 2_097_151), 0),
        ("b", (3_000_000, 4_000_000_000), 1_000_000_000),
        ("c", (0, 2_097_152), 8_589_934_591),
        ("d", (1, 2), 8_589_934_592),
        ("e", (1, 2), -1),
        ("f", (1, 2), -2_000_000_000),
    ] {
        fs::write(sample.at(name), "").unwrap();
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        rustix::fs::chown(sample.at(name), Some(uid), Some(gid)).unwrap();
        rustix::fs::chmod(sample.at(name), Mode::from_raw_mode(0o4644)).unwrap();
        set_time(&sample.at(name), mtime);
    }
    assert_eq!(
        listed(&tar_of(&sample, None)),
        [
            "-rwSr--r-- 2097151/2097151 0 1970-01-01 00:00:00 a",
            "-rwSr--r-- 3000000/4000000000 0 2001-09-09 01:46:40 b",
            "-rwSr--r-- 0/2097152 0 2242-03-16 12:56:31 c",
            "-rwSr--r-- 1/2 0 2242-03-16 12:56:32 d",
            "-rwSr--r-- 1/2 0 1969-12-31 23:59:59 e",
            "-rwSr--r-- 1/2 0 1906-08-16 20:26:40 f",
        ]
    );
}

#[test]
fn entries_of_every_kind_are_read_by_others() {
    if !is_root() {
        return;
    }
    let sample = Sample::empty();
    let mode = Mode::from_raw_mode(0o600);
    for (name, kind, device) in [
        ("block", FileType::BlockDevice, makedev(259, 70_000)),
        ("character", FileType::CharacterDevice, makedev(1, 3)),
        ("deleted", FileType::CharacterDevice, makedev(0, 0)),
        ("gone too", FileType::Socket, 0),
        ("pipe", FileType::Fifo, 0),
    ] {
        rustix::fs::mknodat(CWD, sample.at(name), kind, mode, device).unwrap();
        set_time(&sample.at(name), 0);
    }
    symlink("file", sample.at("symbolic")).unwrap();
    set_time(&sample.at("symbolic"), 0);
    write(&sample.at("file"), "content");
    let file = fs::File::open(sample.at("file")).unwrap();
    rustix::fs::fsetxattr(file, CAPABILITY, &CAPABILITY_VALUE, XattrFlags::empty()).unwrap();
    fs::create_dir(sample.at("opaque")).unwrap();
    fs::hard_link(sample.at("file"), sample.at("opaque/hard")).unwrap();
    fs::hard_link(sample.at("symbolic"), sample.at("symbolic too")).unwrap();
    let dir = walk::open_dir(sample.fd.as_fd(), c"opaque").unwrap();
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty()).unwrap();
    set_time(&sample.at("opaque"), 0);

    let tar = tar_of(&sample, None);
    assert_eq!(
        listed(&tar),
        [
            "brw------- 0/0 259,70000 1970-01-01 00:00:00 block",
            "crw------- 0/0 1,3 1970-01-01 00:00:00 character",
            "---------- 0/0 0 1970-01-01 00:00:00 .wh.deleted",
            "-rw-r--r-- 0/0 7 2001-09-09 01:46:40 file",
            "---------- 0/0 0 1970-01-01 00:00:00 .wh.gone too",
            "drwxr-xr-x 0/0 0 1970-01-01 00:00:00 opaque/",
            "---------- 0/0 0 1970-01-01 00:00:00 opaque/.wh..wh..opq",
            "hrw-r--r-- 0/0 0 2001-09-09 01:46:40 opaque/hard link to file",
            "prw------- 0/0 0 1970-01-01 00:00:00 pipe",
            "lrwxrwxrwx 0/0 0 1970-01-01 00:00:00 symbolic -> file",
            "hrwxrwxrwx 0/0 0 1970-01-01 00:00:00 symbolic too link to symbolic",
        ]
    );
    // The `tar` crate can't read a value with a newline in it; that GNU tar can is tested with
    // `apply`.
    let record = [&b"57 SCHILY.xattr.security.capability="[..], &CAPABILITY_VALUE, b"\n"].concat();
    assert_eq!(tar.windows(record.len()).filter(|&found| found == record).count(), 2);
}

#[test]
fn a_plain_file_is_a_ustar_header_without_names_and_other_times() {
    let sample = Sample::empty();
    write(&sample.at("f"), "");
    let tar = tar_of(&sample, None);
    assert_eq!(tar.len(), 512 + 1024, "no PAX header, and the two blocks of the end");
    assert_eq!(&tar[257..265], b"ustar\x0000");
    assert_eq!(&tar[136..148], b"07346545000\0", "1000000000 in octal");
    assert!(tar[265..329].iter().all(|&byte| byte == 0), "no names of user and group");
    assert!(tar[345..512].iter().all(|&byte| byte == 0), "no prefix, no other times");
}

#[test]
fn a_sparse_file_is_written_out() {
    let sample = Sample::empty();
    let file = fs::File::create(sample.at("sparse")).unwrap();
    file.set_len(3_000_001).unwrap();
    let tar = tar_of(&sample, None);
    assert_eq!(tar.len(), 512 + 3_000_001_usize.next_multiple_of(512) + 1024);
    assert!(listed(&tar)[0].contains(" 3000001 "));
}

#[test]
fn a_size_beyond_eight_gigabytes_is_read_by_others() {
    let mut tar = vec![];
    let meta = Meta::of_fd(Sample::empty().fd.as_fd()).unwrap();
    Header { size: 8 << 30, ..header(b"big", &meta) }.encode(&mut tar);
    let mut archive = ::tar::Archive::new(&tar[..]);
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!((entry.size(), &*entry.path_bytes()), (8 << 30, &b"big"[..]));
}

#[test]
fn the_order_in_which_files_were_made_does_not_matter() {
    let tar_of_order = |order: &[u32]| {
        let sample = Sample::empty();
        for number in order {
            let directory = sample.at(&format!("d{}", number % 7));
            fs::create_dir_all(&directory).unwrap();
            write(&directory.join(number.to_string()), "x");
            set_time(&directory, 5);
        }
        tar_of(&sample, None)
    };
    let forward: Vec<u32> = (0..400).collect();
    let backward: Vec<u32> = (0..400).rev().collect();
    assert!(tar_of_order(&forward) == tar_of_order(&forward));
    assert!(tar_of_order(&forward) == tar_of_order(&backward));
}

#[test]
fn only_later_times_become_the_latest_one() {
    let sample = Sample::empty();
    for (name, mtime) in [("after", 2000), ("at", 1000), ("before", 999), ("long before", -1)] {
        fs::write(sample.at(name), "").unwrap();
        set_time(&sample.at(name), mtime);
    }
    let times = |latest| {
        let time = |line: String| line.split(' ').nth(4).unwrap().to_owned();
        listed(&tar_of(&sample, latest)).into_iter().map(time).collect::<Vec<_>>()
    };
    assert_eq!(times(None), ["00:33:20", "00:16:40", "00:16:39", "23:59:59"]);
    assert_eq!(times(Some(1000)), ["00:16:40", "00:16:40", "00:16:39", "23:59:59"]);
    assert_eq!(tar_of(&sample, Some(2000)), tar_of(&sample, None));
}

#[test]
fn a_reader_that_goes_away_is_an_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sample = Sample::empty();
    fs::write(sample.at("f"), "x").unwrap();
    let error = write_tree(sample.fd.as_fd(), &mut Gone, None).unwrap_err();
    assert!(matches!(error, TarError::Write(_)), "{error}");
}
