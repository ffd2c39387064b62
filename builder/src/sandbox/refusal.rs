//! Why a machine refuses a user namespace, as far as it can be told, and what its owner can do.

use std::fmt;
use std::path::Path;

/// Who refuses, the likeliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// AppArmor, as Ubuntu has it since 23.10: only programs with a profile get full namespaces.
    AppArmor,
    /// Debian's switch, which older installations have turned off.
    Switch,
    /// A limit of 0.
    Limit,
    /// The container's runtime, by seccomp.
    Seccomp,
    /// The container's runtime, by AppArmor or SELinux.
    SecurityModule,
    /// It is not known.
    Unknown,
}

impl Refusal {
    /// Who would refuse this process a user namespace. Must be asked outside of one.
    pub(super) fn of_namespaces() -> Self {
        if is_on("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
            Self::AppArmor
        } else if is_off("/proc/sys/kernel/unprivileged_userns_clone") {
            Self::Switch
        } else if is_off("/proc/sys/user/max_user_namespaces") {
            Self::Limit
        } else if is_in_a_container() {
            Self::Seccomp
        } else {
            Self::Unknown
        }
    }

    /// Who refuses to mount in the user namespace that this process has entered.
    pub(super) fn of_mounts() -> Self {
        if is_in_a_container() {
            Self::SecurityModule
        } else if is_on("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
            Self::AppArmor
        } else {
            Self::Unknown
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AppArmor => {
                "AppArmor grants full ones only to programs with a profile; give rbuild its own: \
                 rbuild doctor --apparmor-profile | sudo tee /etc/apparmor.d/rbuild >/dev/null && \
                 sudo apparmor_parser --replace /etc/apparmor.d/rbuild"
            }
            Self::Switch => {
                "this machine forbids them to all but root: \
                 sudo sysctl kernel.unprivileged_userns_clone=1"
            }
            Self::Limit => {
                "the limit of this machine is 0: sudo sysctl user.max_user_namespaces=65536"
            }
            Self::Seccomp => {
                "start the container with --security-opt seccomp=unconfined (in Kubernetes \
                 seccompProfile: {type: Unconfined}), or run rbuild as its root"
            }
            Self::SecurityModule => {
                "start the container with --security-opt apparmor=unconfined --security-opt \
                 label=disable (in Kubernetes appArmorProfile: {type: Unconfined}), or run rbuild \
                 as its root"
            }
            Self::Unknown => "run rbuild as root, or allow user namespaces on this machine",
        })
    }
}

fn is_on(switch: &str) -> bool {
    std::fs::read_to_string(switch).is_ok_and(|value| value.trim() == "1")
}

fn is_off(switch: &str) -> bool {
    std::fs::read_to_string(switch).is_ok_and(|value| value.trim() == "0")
}

/// Whether this looks like the inside of a container: by the marks of docker, podman and Kubernetes.
pub(super) fn is_in_a_container() -> bool {
    Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || Path::new("/var/run/secrets/kubernetes.io").exists()
}
