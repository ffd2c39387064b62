//! Services that run beside a test and end with it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::program::workspace;

/// Debian's registry with the base images in it: somebody else's, for pushing to.
pub struct DebianRegistry {
    process: Child,
    /// Where it listens, `host:port`.
    pub address: String,
}

impl DebianRegistry {
    /// Starts it on a free port.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    pub fn start() -> Self {
        // setpriv: it ends also when this test is killed.
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(workspace().join("fixtures/images/registry.sh"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv runs");
        let stdout = process.stdout.take().expect("it was asked for");
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).expect("a pipe can be read");
        assert!(!address.is_empty(), "fixtures/images/registry.sh does not start");
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let id = self.process.id().to_string();
        let _it_has_ended = Command::new("kill").arg(id).status();
        let _it_has_ended = self.process.wait();
    }
}
