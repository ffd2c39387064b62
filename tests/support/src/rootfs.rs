//! Compares root filesystems by `fixtures/listing.c`, a program that runs inside and outside.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::workspace;

/// What a container has and an image hasn't: mounts, and the files that the runtime puts there.
pub const SKIPPED: [&str; 5] = ["proc", "sys", "dev", "etc/hosts", "etc/resolv.conf"];

/// Compiles the program to `path`.
pub fn build_listing(path: &Path) {
    compile("listing.c", path, &[]);
}

/// Compiles a source in `fixtures` to a program that is linked statically: it runs in any image.
pub fn compile(source: &str, program: &Path, flags: &[&str]) {
    let compiled = Command::new("cc")
        .args(["-static", "-O1", "-o"])
        .arg(program)
        .args(flags)
        .arg(workspace().join("fixtures").join(source))
        .status()
        .expect("cc runs");
    assert!(compiled.success(), "fixtures/{source} does not compile");
}

/// Lists the root filesystem in a directory with a program that [`build_listing`] made.
pub fn list(program: &Path, root: &Path) -> String {
    let out: PathBuf = program.with_extension("out");
    let listed = Command::new(program).arg(root).arg(&out).args(SKIPPED).status();
    assert!(listed.expect("the listing runs").success(), "{} can't be listed", root.display());
    std::fs::read_to_string(out).expect("it has been written")
}
