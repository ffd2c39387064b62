//! Finds out what a machine permits by trying it, each level in a child of its own.

use std::io::{Read as _, Write as _};

use rustix::process::{WaitOptions, waitpid};
use rustix::thread::UnshareFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::OrCannot;
use super::init::{Fork, end, fork};
use super::{Choice, Level, ProcessFiles, Sandbox, SandboxError, enter, mounts, self_namespace};

/// Enters a level in a child and has it `look` around; the error says, as one line, why it could not
/// enter. This process must have one thread.
pub fn try_level<T: Serialize + DeserializeOwned>(
    choice: Choice,
    look: impl FnOnce(&Sandbox) -> T,
) -> Result<T, String> {
    try_in_a_child(|| enter(choice).map(|sandbox| look(&sandbox)).map_err(|error| error.chain()))
        .unwrap_or_else(|error| Err(error.chain()))
}

fn try_in_a_child<T: Serialize + DeserializeOwned>(
    work: impl FnOnce() -> T,
) -> Result<T, SandboxError> {
    self_namespace::refuse_threads()?;
    let cannot = "try what this machine permits";
    let (mut answer, mut answered) = std::io::pipe().or_cannot(cannot)?;
    match fork().or_cannot(cannot)? {
        Fork::Child => {
            drop(answer);
            let told = serde_json::to_vec(&work())
                .map_err(std::io::Error::from)
                .and_then(|text| answered.write_all(&text));
            end(i32::from(told.is_err()))
        }
        Fork::Parent(child) => {
            drop(answered);
            let mut text = vec![];
            answer.read_to_end(&mut text).or_cannot(cannot)?;
            waitpid(Some(child), WaitOptions::empty()).or_cannot(cannot)?;
            serde_json::from_slice(&text).or_cannot(cannot)
        }
    }
}

impl Sandbox {
    /// Whether commands see a `/proc` of their own. This process must have one thread, and can't have
    /// another afterwards.
    pub fn has_own_proc(&self) -> bool {
        let mounts = || mounts::process_files(ProcessFiles::Own, Level::Root).is_ok();
        self.process_files == ProcessFiles::Own
            && self.level != Level::Chroot
            && self_namespace::unshare(UnshareFlags::NEWPID).is_ok()
            && self_namespace::child_can(mounts)
    }
}
