//! A root with busybox, and what a container that ran in it has left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use builder::sandbox::{
    Beside, Container, Exit, Level, Network, Sandbox, SandboxError, Security, bind_path,
};
use rustix::fs::Mode;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// A root with busybox and the stubs, and the right to run containers in it.
pub(crate) struct Fixture {
    pub(crate) root: TempDir,
    /// Where containers that can't mount have a directory each.
    pub(crate) beside: TempDir,
    pub(crate) sandbox: Sandbox,
    pub(crate) runtime: Runtime,
}

/// What a container has left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Result<Exit, SandboxError>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Fixture {
    /// Makes the root; `None` where these tests cannot run.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Sandbox::for_this_thread)
    }

    /// The same for containers without namespaces and mounts.
    pub(crate) fn by_chroot() -> Option<Self> {
        Self::with(Sandbox::by_chroot)
    }

    fn with(sandbox: impl FnOnce(&Path) -> Result<Sandbox, SandboxError>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        rustix::fs::chmod(root.path(), Mode::from_raw_mode(0o755)).unwrap();
        for directory in ["bin", "dev", "etc", "home", "proc", "sys", "tmp"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        for file in ["etc/resolv.conf", "etc/hosts"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        fs::copy(BUSYBOX, root.path().join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.path().join("bin").join(applet)).unwrap();
        }
        let sandbox = sandbox(Path::new(env!("CARGO_BIN_EXE_rbuild"))).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(Self { root, beside: tempfile::tempdir().unwrap(), sandbox, runtime })
    }

    fn beside(&self) -> Beside {
        let directory = tempfile::tempdir_in(self.beside.path()).unwrap().keep();
        Beside { directory: fs::File::open(directory).unwrap().into(), locks: Vec::new() }
    }

    pub(crate) fn container(&self, args: &[&str]) -> Container {
        let (root, beside) = match self.sandbox.level() {
            Level::Chroot => {
                (fs::File::open(self.root.path()).unwrap().into(), Some(self.beside()))
            }
            _ => (bind_path(self.root.path(), false).unwrap(), None),
        };
        Container {
            root,
            beside,
            mounts: Vec::new(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            hostname: "buildkitsandbox".to_owned(),
            network: Network::Host,
            security: Security::Sandbox,
            resolv_conf: b"nameserver 192.0.2.1\n".to_vec(),
            hosts: b"127.0.0.1 localhost\n".to_vec(),
            shm_size: 64 << 20,
            ulimits: Vec::new(),
        }
    }

    pub(crate) fn shell(&self, script: &str) -> Container {
        self.container(&["/bin/sh", "-c", script])
    }

    pub(crate) fn run(&self, container: Container) -> Ran {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let output = |is_stderr: bool, bytes: &[u8]| {
            if is_stderr { &mut stderr } else { &mut stdout }.extend_from_slice(bytes);
        };
        let running = self.sandbox.run(container, output, CancellationToken::new());
        let exit = self.runtime.block_on(running);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { exit, stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs a script that must succeed and returns what it printed.
    pub(crate) fn prints(&self, script: &str) -> String {
        self.run(self.shell(script)).succeeded()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert!(matches!(self.exit, Ok(Exit::Code(0))), "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub(crate) fn ended_with(&self, exit: Exit) {
        assert!(matches!(self.exit, Ok(found) if found == exit), "{self:?}");
    }

    #[track_caller]
    pub(crate) fn failed(self) -> String {
        self.exit.expect_err("it ran").to_string()
    }
}

const APPLETS: &[&str] = &[
    "sh", "cat", "cp", "dd", "echo", "env", "grep", "hostname", "id", "ip", "kill", "ls", "mkdir",
    "mknod", "mount", "mv", "nc", "ping", "ps", "pwd", "rm", "setsid", "sleep", "stat", "test",
    "touch", "true", "ulimit", "umount", "wc",
];

/// Processes of the machine whose command line holds `mark`.
pub(crate) fn processes_with(mark: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|command| String::from_utf8_lossy(command).contains(mark))
        .count()
}
