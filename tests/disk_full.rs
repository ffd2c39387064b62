//! No room left on the disk, wherever a build writes: a clear error, and a store that is whole.
//!
//! The store lies on a small tmpfs. Its sizes are such that every place that writes is the one that
//! meets the end of it at least once; the list is printed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use test_support::{Outcome, Session, TestRegistry};

/// A tmpfs of a few kilobytes; unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: PathBuf, kilobytes: usize) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let size = std::ffi::CString::new(format!("size={kilobytes}k")).unwrap();
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), &*size).unwrap();
        Self(path)
    }

    /// Leaves not one byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let mut piece = 1 << 20;
        while piece > 0 {
            match file.write_all(&vec![0; piece]) {
                Ok(()) => {}
                Err(_full) => piece /= 2,
            }
        }
    }

    fn grow(&self) {
        mount_remount(&self.0, MountFlags::empty(), c"size=256m").unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _nothing_more_to_do = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    NewStore,
    Database,
    Index,
    Download,
    Unpack,
    Run,
    Layer,
    Blob,
    Destination,
}

/// Where a build met the end of the disk, by what it says.
fn place_of(outcome: &Outcome) -> Place {
    let error = outcome.stderr.lines().find(|line| line.starts_with("error: "));
    let error = error.unwrap_or_else(|| panic!("it says why:\n{outcome}"));
    let places = [
        (
            "/index.json",
            if outcome.stderr.contains("exporting") { Place::Index } else { Place::NewStore },
        ),
        ("/blobs/sha256/", Place::Blob),
        ("in the cache database", Place::Database),
        ("cannot write its blob", Place::Download),
        ("cannot unpack layer", Place::Unpack),
        ("did not complete successfully: exit code: 1", Place::Run),
        ("to `dest/", Place::Destination),
        ("/oci-layout`", Place::NewStore),
        ("cannot copy", Place::Layer),
        ("cannot write the blob of layer", Place::Blob),
    ];
    let place = places.into_iter().find(|(words, _)| error.contains(words));
    let place = place.unwrap_or_else(|| panic!("it names a place:\n{outcome}")).1;
    let says = match place {
        // The command says it in its own words.
        Place::Run => "when it ended the disk was full",
        _ => "o space left on device",
    };
    assert!(outcome.stderr.contains(says), "{outcome}");
    place
}

const DOCKERFILE: &str = "FROM base\n\
    RUN head -c 1000000 /random > /run\n\
    COPY random /copied\n\
    RUN echo end > /end\n";

fn random(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn digest(session: &Session) -> String {
    session.rbuild(&["images", "-q"]).succeeds().stdout
}

/// Once there is room, the store is as good as any.
fn assert_whole(session: &Session, want: &str) {
    session.rbuild(&["store", "check"]).succeeds();
    session.build(&["-t", "app"]).succeeds();
    assert_eq!(digest(session), want);
    session.rbuild(&["prune", "-f"]).succeeds();
    let left = std::fs::read_dir(session.store().join("run")).unwrap().count();
    assert_eq!(left, 0, "nothing lies about");
}

/// Builds on disks of so many kilobytes, and notes where each build failed.
fn build_on_disks_of(
    sizes: impl Iterator<Item = usize>,
    session: &Session,
    want: &str,
    failed: &mut BTreeMap<Place, Vec<usize>>,
) {
    for kilobytes in sizes {
        let disk = SmallDisk::new(session.store(), kilobytes);
        let outcome = session.build(&["-t", "app"]);
        if outcome.status.success() {
            assert_eq!(digest(session), want);
            continue;
        }
        failed.entry(place_of(&outcome)).or_default().push(kilobytes);
        disk.grow();
        assert_whole(session, want);
    }
}

#[test]
fn a_full_disk_is_told_and_the_store_stays_whole() {
    let registry = TestRegistry::start();
    let session = Session::new().file("random", random(1_000_000)).dockerfile(
        "FROM busybox\nCOPY random /random\nRUN mkdir /many; cd /many; seq 300 | xargs touch\n",
    );
    session.build(&["-t", &registry.name("library/base"), "--push"]).succeeds();
    let session = session.mirror(registry.host()).env("SOURCE_DATE_EPOCH", "1000000000");
    session.write("Dockerfile", DOCKERFILE);
    session.build(&["-t", "app"]).succeeds();
    let want = digest(&session);
    let session = session.in_another_store();

    let mut failed: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
    // Small steps where only the database is written, larger ones for files.
    let files = (300..6000).step_by(300).chain((6000..9000).step_by(150));
    let sizes = (4..260).step_by(8).chain(files);
    build_on_disks_of(sizes, &session, &want, &mut failed);
    for options in ["type=oci,dest=dest/app.tar", "type=tar,dest=dest/files.tar", "dest/files"] {
        let dest = SmallDisk::new(session.path("dest"), 1000);
        let outcome = session.build(&["-t", "app", "-o", options]);
        assert_eq!(place_of(&outcome), Place::Destination, "{outcome}");
        assert!(!outcome.stderr.contains("rbuild prune"), "that is another disk: {outcome}");
        failed.entry(Place::Destination).or_default().push(1000);
        let half_written = std::fs::read_dir(session.path("dest")).unwrap().count();
        assert!(options == "dest/files" || half_written == 0, "half an archive is of no use");
        dest.grow();
        session.build(&["-t", "app", "-o", options]).succeeds();
    }
    // The index is the last that is written: here all the rest is small, too.
    let tiny = Session::new().dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let tiny = tiny.env("SOURCE_DATE_EPOCH", "1000000000");
    tiny.build(&["-t", "app"]).succeeds();
    let want = digest(&tiny);
    build_on_disks_of((132..400).step_by(4), &tiny.in_another_store(), &want, &mut failed);
    println!("where the disk was full, in kilobytes: {failed:#?}");
    use Place::{Blob, Database, Destination, Download, Index, Layer, Run, Unpack};
    for place in [Database, Index, Download, Unpack, Run, Layer, Blob, Destination] {
        assert!(failed.contains_key(&place), "{place:?} was never the first: {failed:?}");
    }
}

/// Issue 9, section 3: SQLite needs 32 kB to open a database, and what a prune frees comes later.
#[test]
fn a_prune_on_a_full_disk_needs_no_room() {
    let session = Session::new().file("random", random(1_000_000));
    for dockerfile in [
        "FROM busybox\nCOPY random /random\n",
        "FROM busybox\nRUN --mount=type=cache,target=/c head -c 4000000 /dev/zero > /c/f\n",
    ] {
        session.write("Dockerfile", dockerfile);
        let disk = SmallDisk::new(session.store(), 30_000);
        session.build(&["-t", "app"]).succeeds();
        let want = digest(&session);
        disk.fill();
        let pruned = session.rbuild(&["prune", "-f"]).succeeds();
        assert!(pruned.stdout.contains(" MB"), "{pruned}");
        assert_eq!(digest(&session), want);
        session.rbuild(&["store", "check"]).succeeds();
        session.build(&["-t", "again"]).succeeds();
    }
}

/// Issue 9: the kernel ended rbuild without a word (SIGXFSZ).
#[test]
fn a_limit_of_the_size_of_files_is_told() {
    let session = Session::new().file("random", random(3_000_000)).dockerfile(
        "FROM busybox\nCOPY random /random\nRUN grep SigIgn /proc/self/status > /signals\n",
    );
    let build = |blocks: u32, output: &str| {
        let build = session.build_command("plain", &["-t", "app", "-o", output]);
        let mut command = session.command("sh");
        let limited = format!("ulimit -f {blocks}; exec \"$@\"");
        command.args(["-c", &limited, "sh"]).arg(build.get_program()).args(build.get_args());
        session.run(&mut command)
    };
    // Some fail in the database, some in a layer; none ends without a word.
    for blocks in [0, 16, 64, 128, 256, 1000, 4000] {
        let failed = build(blocks, "type=image").fails_with(&["File too large", "ulimit -f"]);
        assert!(!failed.stderr.contains("rbuild prune"), "{failed}");
    }
    build(100_000, "type=image").succeeds();
    let ignored = session.image("app").text("/signals");
    let ignored = u64::from_str_radix(ignored["SigIgn:".len()..].trim(), 16).unwrap();
    assert_eq!(ignored & (1 << (25 - 1)), 0, "a command of RUN has SIGXFSZ as always");
    build(4000, "type=oci,dest=app.tar").fails_with(&["app.tar", "File too large", "ulimit -f"]);
    build(4000, "type=tar,dest=app.tar").fails_with(&["app.tar", "File too large", "ulimit -f"]);
    build(4000, "out").fails_with(&["out", "File too large"]);
    session.rbuild(&["store", "check"]).succeeds();
}
