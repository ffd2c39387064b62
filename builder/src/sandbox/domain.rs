//! Keeps a command from the processes beside it, by a Landlock domain of its own.
//!
//! Whatever else a domain forbids, a process in it may not look into one outside: the kernel refuses
//! it the other's memory, variables and descriptors, and the way to the other's files by
//! `/proc/PID/root`. Two commands of a build have the same rights in the same user namespace, and
//! where the kernel permits no new `/proc` they see each other in the one outside.
//!
//! A domain must forbid something, for which there are two [ways](Domain). A kernel that has neither
//! (before 5.19, or built or started without Landlock) permits a domain only at the price of renames
//! from one directory to another, which no package manager can pay. There commands that see each other
//! run [one at a time](super::Sandbox::run): before and after it a command is not there to be looked
//! into. A user namespace for each command would part them as well, but in it the root that rbuild has
//! mounted would be a stranger's.

use landlock::{
    AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope,
};
use serde::{Deserialize, Serialize};

use super::SandboxError;
use super::error::OrCannot;

/// What a domain forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Domain {
    /// Connections to abstract unix sockets that were made outside of it; since Linux 6.12.
    AbstractSockets,
    /// Renames and links from one directory to another, which are then permitted below `/`; since
    /// Linux 5.19.
    Renames,
}

impl Domain {
    /// Returns the best one that this kernel has.
    pub(super) fn here() -> Option<Self> {
        [Self::AbstractSockets, Self::Renames].into_iter().find(|way| way.rules().is_ok())
    }

    /// Puts this process and all it starts into a new domain. Needs `CAP_SYS_ADMIN`, since
    /// `no_new_privs` stays off.
    pub(super) fn enter(self) -> Result<(), SandboxError> {
        let enter =
            || self.rules()?.no_new_privs(false).restrict_self().map_err(std::io::Error::other);
        enter().or_cannot("part the command from other processes").map(|_fully| ())
    }

    fn rules(self) -> std::io::Result<RulesetCreated> {
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let made = match self {
            Self::AbstractSockets => {
                rules.scope(Scope::AbstractUnixSocket).and_then(Ruleset::create)
            }
            Self::Renames => {
                let root = PathFd::new("/").map_err(std::io::Error::other)?;
                rules
                    .handle_access(AccessFs::Refer)
                    .and_then(Ruleset::create)
                    .and_then(|rules| rules.add_rule(PathBeneath::new(root, AccessFs::Refer)))
            }
        };
        made.map_err(std::io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    /// Either is enough, and neither is in the way of what commands do.
    #[test]
    fn a_process_in_a_domain_looks_into_none_outside_and_renames_as_before() {
        if Domain::here().is_none() || !rustix::process::geteuid().is_root() {
            return;
        }
        // What root reads of the memory of others is another right of its.
        let script = "ls /proc/$PPID/root/ > look; readlink /proc/$PPID/exe >> look; \
                      mkdir a b; touch a/x; mv a/x b/y; ln b/y a/z; mv a c; mkdir b/d; mv b/d c/d; \
                      ls /proc/self/root/ > own; rm c/z";
        for way in [Domain::AbstractSockets, Domain::Renames] {
            let directory = tempfile::tempdir().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(directory.path());
            command.env("PATH", "/usr/bin:/bin");
            // SAFETY: the other threads of a test that runs alone hold no lock.
            unsafe { command.pre_exec(move || way.enter().map_err(std::io::Error::other)) };
            let output = command.output().unwrap();
            assert!(output.status.success(), "{way:?}: {output:?}");
            let length = |name| std::fs::metadata(directory.path().join(name)).unwrap().len();
            assert_eq!(length("look"), 0, "{way:?}");
            assert!(length("own") > 0 && length("b/y") == 0 && length("c/d") > 0, "{way:?}");
        }
    }
}
