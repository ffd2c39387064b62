//! Which capabilities a command has.
//!
//! Without `no_new_privs`, set-user-id programs work as the image means them; what they can gain is
//! bounded by the bounding set. The order in [`workload`](super::workload) follows from the kernel's
//! rules: dropping from the bounding set needs `CAP_SETPCAP`, a seccomp filter `CAP_SYS_ADMIN`,
//! changing ids `CAP_SETUID`, so the effective set goes last.

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};

use super::SandboxError;
use super::error::OrCannot;

/// What a command in [`Security::Sandbox`](super::Security::Sandbox) has: Docker's default.
pub(super) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Capabilities are numbered from 0; the kernel answers `EINVAL` above its last one.
const HIGHEST_NUMBER: u32 = 63;

/// Takes what is not in [`DEFAULT`] out of the bounding set.
pub(super) fn bound() -> Result<(), SandboxError> {
    for capability in numbered().filter(|capability| !DEFAULT.contains(*capability)) {
        // Root of a container may lack the right to drop what it does not have anyway.
        if capability_is_in_bounding_set(capability) == Ok(false) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => (),
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error).or_cannot("drop capabilities"),
        }
    }
    Ok(())
}

/// Whether this process may put a filter on itself, `no_new_privs` being off.
pub(super) fn may_confine() -> Result<bool, SandboxError> {
    let own = capabilities(None).or_cannot("read the capabilities")?;
    Ok(own.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Leaves this process what it has of [`DEFAULT`], nothing inheritable, nothing ambient.
pub(super) fn drop_to_default() -> Result<(), SandboxError> {
    clear_ambient_capability_set().or_cannot("clear the ambient capabilities")?;
    let own = capabilities(None).or_cannot("read the capabilities")?;
    let kept = own.permitted & DEFAULT;
    set(CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })
}

/// Leaves this process nothing, though it is root and stays it: for a user who is another one in
/// name only. What a file gives to any user, it can still have.
pub(super) fn drop_all_as_root() -> Result<(), SandboxError> {
    let not_by_id = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    set_capabilities_secure_bits(not_by_id).or_cannot("part root from its capabilities")?;
    clear_ambient_capability_set().or_cannot("clear the ambient capabilities")?;
    let none = CapabilitySet::empty();
    set(CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// Puts all that this process may have into all five sets.
pub(super) fn raise_all() -> Result<(), SandboxError> {
    let own = capabilities(None).or_cannot("read the capabilities")?.permitted;
    set(CapabilitySets { effective: own, permitted: own, inheritable: own })?;
    for capability in numbered().filter(|capability| own.contains(*capability)) {
        configure_capability_in_ambient_set(capability, true).or_cannot("raise capabilities")?;
    }
    Ok(())
}

fn set(sets: CapabilitySets) -> Result<(), SandboxError> {
    set_capabilities(None, sets).or_cannot("set the capabilities")
}

fn numbered() -> impl Iterator<Item = CapabilitySet> {
    (0..=HIGHEST_NUMBER).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_docker_grants() {
        assert_eq!(DEFAULT.bits(), 0xa804_25fb);
    }
}
