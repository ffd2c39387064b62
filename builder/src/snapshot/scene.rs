//! Steps for tests: layers made as they are made in a build, by a shell on an overlay.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cache::Deletions;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio_util::sync::CancellationToken;

use super::{Active, Method, SnapshotError, Stub, Trees, prepare, view};
use crate::layer::samples::{Sample, describe, open};
use crate::layer::{self, Committed, Options};

/// A stack of layers, uppermost first, in a directory that is removed with it.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    method: Method,
    pub(crate) lowers: Vec<PathBuf>,
    runs: std::cell::Cell<u32>,
}

/// What a step left.
pub(crate) struct Made {
    pub(crate) committed: Committed,
    pub(crate) upper: PathBuf,
}

impl Scene {
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, method: Method::Overlay, lowers: vec![], runs: 0.into() }
    }

    /// Nothing yet, and steps work on copies; what they delete is told by `deletions`.
    pub(crate) fn copies(deletions: Deletions) -> Self {
        let mut scene = Self::empty();
        let home = scene.trees();
        fs::create_dir(&home).unwrap();
        let trees = Trees::in_directory(home, deletions, CancellationToken::new());
        scene.method = Method::Copies(Arc::new(trees));
        scene
    }

    /// Where copies are.
    pub(crate) fn trees(&self) -> PathBuf {
        self.dir.path().join("trees")
    }

    /// One layer of what `script` makes, with times of 2001.
    pub(crate) fn on(script: &str) -> Self {
        Self::empty().and(script)
    }

    /// The same by every method.
    pub(crate) fn all_on(script: &str) -> [Self; 3] {
        Self::all().map(|scene| scene.and(script))
    }

    /// Nothing yet, by every method.
    pub(crate) fn all() -> [Self; 3] {
        let [devices, sockets] = [Deletions::Devices, Deletions::Sockets].map(Self::copies);
        [Self::empty(), devices, sockets]
    }

    /// The same with one more layer on top.
    pub(crate) fn and(mut self, script: &str) -> Self {
        let old = "find . -mindepth 1 -exec touch -hcd @1000000000 {} +";
        let made = self.step(&format!("{script}\n{old}"));
        self.lowers.insert(0, made.upper);
        self
    }

    /// An empty directory of its own.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.runs.set(self.runs.get() + 1);
        let dir = self.dir.path().join(self.runs.get().to_string());
        fs::create_dir(&dir).unwrap();
        dir
    }

    pub(crate) fn prepare(&self, stubs: &[Stub<'_>]) -> Active {
        self.try_to_prepare(stubs).unwrap()
    }

    pub(crate) fn try_to_prepare(&self, stubs: &[Stub<'_>]) -> Result<Active, SnapshotError> {
        prepare(&self.method, &self.lowers, &self.run_dir(), stubs)
    }

    pub(crate) fn view(&self) -> OwnedFd {
        view(&self.method, &self.lowers, &self.run_dir()).unwrap()
    }

    /// Runs `script` in the root, now.
    pub(crate) fn step(&self, script: &str) -> Made {
        self.step_by(&[], |root| shell(root, script))
    }

    /// Runs `script`, whose clock says `now` to what it names in `touch`ed files.
    pub(crate) fn step_at(&self, now: u64, script: &str) -> Made {
        let active = self.prepare(&[]);
        shell(active.root(), script);
        shell(
            active.root(),
            &format!("find . -mindepth 1 -newermt -1day -exec touch -hcd @{now}.5 {{}} +"),
        );
        let now = UNIX_EPOCH + Duration::from_secs(now);
        commit(active, now, now + Duration::from_secs(1))
    }

    /// Lets `step` work in the root, now.
    pub(crate) fn step_by<T>(
        &self,
        stubs: &[Stub<'_>],
        step: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> Made {
        let active = self.prepare(stubs);
        let started = SystemTime::now();
        step(active.root());
        commit(active, started, SystemTime::now())
    }
}

/// Commits, and checks what must hold of every layer: unpacked it is the same again.
pub(crate) fn commit(active: Active, started: SystemTime, ended: SystemTime) -> Made {
    let (committed, upper) = active.commit(started, ended, &CancellationToken::new()).unwrap();
    let dir = open(&upper);
    let mut tar = vec![];
    layer::write_tree(dir.as_fd(), &mut tar, None).unwrap();
    let copy = Sample::empty();
    let applied = layer::unpack(&tar[..], copy.fd.as_fd(), &Options::default()).unwrap();
    assert_eq!(describe(copy.fd.as_fd()), describe(dir.as_fd()));
    assert_eq!((applied.diff_id, applied.size), (committed.diff_id, committed.size));
    assert_eq!(applied.implied_directories, Vec::<PathBuf>::new());
    Made { committed, upper }
}

impl Made {
    pub(crate) fn open(&self) -> OwnedFd {
        open(&self.upper)
    }

    /// The names in its tar; links with what they lead to.
    pub(crate) fn entries(&self) -> Vec<String> {
        let mut tar = vec![];
        layer::write_tree(self.open().as_fd(), &mut tar, None).unwrap();
        let mut archive = ::tar::Archive::new(&tar[..]);
        let entry = |entry: ::tar::Entry<'_, &[u8]>| {
            let name = entry.path().unwrap().display().to_string();
            match (entry.link_name().unwrap(), entry.header().entry_type()) {
                (Some(first), ::tar::EntryType::Link) => format!("{name} = {}", first.display()),
                (Some(target), _) => format!("{name} -> {}", target.display()),
                (None, _) => name,
            }
        };
        archive.entries().unwrap().map(|found| entry(found.unwrap())).collect()
    }
}

/// A path to `dir` that is good as long as it is open.
pub(crate) fn path_of(dir: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string())
}

/// Runs `script` in `dir`, and returns what it says.
pub(crate) fn shell(dir: BorrowedFd<'_>, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(path_of(dir))
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
