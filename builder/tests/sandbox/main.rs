//! Containers, run as root on this machine with busybox as their whole world.
//!
//! Each test moves its own thread into a mount namespace and runs containers from there; the init
//! is the built `rbuild`. Without root, or without a static busybox, there is nothing to test.

mod broker;
mod chroot;
mod command;
mod isolation;
mod levels;
mod lifetime;
mod mounts;
mod support;
