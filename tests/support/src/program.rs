//! Where the program under test is.
//!
//! Cargo tells only the tests of `builder` where it put `rbuild`, so the tests of this workspace
//! build it themselves, once for a run, in the profile and the directory that they were built in.
//! `RBUILD` names another one: the gate tests the static program that it ships.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Returns the path of `rbuild`, built if need be.
///
/// # Panics
///
/// If it can't be built.
pub fn rbuild() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("RBUILD") {
        Some(path) => fs::canonicalize(&path)
            .unwrap_or_else(|e| panic!("RBUILD names {}: {e}", Path::new(&path).display())),
        None => build(),
    })
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let support = Path::new(env!("CARGO_MANIFEST_DIR"));
    support.ancestors().nth(2).expect("this crate is two directories below the workspace")
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    // TARGET/PROFILE/deps/test-1234
    let output = test.ancestors().nth(2).expect("cargo puts tests below its target directory");
    let program = output.join("rbuild");
    let lock = File::create(output.join(".rbuild-for-tests.lock")).expect("cargo wrote there too");
    lock.lock().expect("nobody holds it for ever");
    // Under nextest each test is a process of its own: the first of a run builds for all.
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_default();
    let stamp = output.join(".rbuild-for-tests.run");
    let is_built = !run.is_empty() && fs::read_to_string(&stamp).is_ok_and(|last| last == run);
    if !is_built {
        cargo_build(output);
        fs::write(&stamp, run).expect("cargo wrote there too");
    }
    program
}

fn cargo_build(output: &Path) {
    let profile = match output.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo told this test of its package would make it build again what looked at that.
    for (name, _) in std::env::vars_os() {
        let is_of_the_test = |prefix| name.as_encoded_bytes().starts_with(prefix);
        if is_of_the_test(b"CARGO_PKG_") || is_of_the_test(b"CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    let built = cargo
        .args(["build", "--quiet", "--package=builder", "--bin=rbuild", "--profile", profile])
        .arg("--target-dir")
        .arg(output.parent().expect("a profile's directory is in the target directory"))
        .current_dir(workspace())
        .status()
        .expect("cargo runs");
    assert!(built.success(), "rbuild does not build");
}
