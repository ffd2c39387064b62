//! Runs `rbuild` as a user would, on real images, and looks at the results with the tools of others.
//!
//! A module for each topic. The tests need root and what `fixtures/setup.sh test` installs.

#![allow(clippy::print_stdout, reason = "tests that try many things say which")]

mod arrows;
mod cache;
mod call;
mod chroot;
mod command_line;
mod containers;
mod copies;
mod copy;
mod disk_full;
mod dockerfile;
mod doctor;
mod errors;
mod events;
mod flags;
mod git;
mod graph;
mod kernels;
mod kill;
mod logins;
mod mounts;
mod output;
mod owners;
mod parallel;
mod real;
mod remote;
mod rootless;
mod run;
mod security;
mod signal;
mod together;
mod upkeep;
