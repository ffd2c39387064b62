//! The arrows between the crates: a new one is a decision, not an accident.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use test_support::workspace;

/// Who may depend on whom, tests aside.
const ARROWS: [(&str, &[&str]); 7] = [
    ("oci", &[]),
    ("frontend", &["oci"]),
    ("cache", &["oci"]),
    ("registry-client", &["oci"]),
    ("builder", &["oci", "frontend", "cache", "registry-client"]),
    ("test-support", &["oci"]),
    ("integration-tests", &[]),
];

/// What a crate must not reach, however indirectly.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("oci", &["tokio", "reqwest", "rustix"]),
    ("frontend", &["tokio", "reqwest", "rustix"]),
    ("cache", &["reqwest"]),
];

/// What `cargo metadata` says.
struct Metadata(Value);

impl Metadata {
    fn read() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--locked", "--filter-platform"])
            .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
            .current_dir(workspace())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(serde_json::from_slice(&output.stdout).expect("cargo writes JSON"))
    }

    /// The names of the workspace's crates.
    fn members(&self) -> BTreeSet<&str> {
        let members = self.0["workspace_members"].as_array().expect("a list").iter();
        let ids: BTreeSet<&str> = members.filter_map(Value::as_str).collect();
        self.packages().filter(|package| ids.contains(text(&package["id"]))).map(name).collect()
    }

    fn packages(&self) -> impl Iterator<Item = &Value> {
        self.0["packages"].as_array().expect("a list").iter()
    }

    /// The names of the crates that a crate names in its `Cargo.toml`, those for its tests aside.
    fn dependencies(&self, crate_name: &str) -> BTreeSet<&str> {
        let package = self.packages().find(|package| name(package) == crate_name);
        let package = package.unwrap_or_else(|| panic!("no crate is called {crate_name}"));
        let dependencies = package["dependencies"].as_array().expect("a list").iter();
        dependencies.filter(|dependency| dependency["kind"] != "dev").map(name).collect()
    }

    /// The names of all crates that end up in a crate: what was resolved, for its tests aside.
    fn reaches(&self, crate_name: &str) -> BTreeSet<&str> {
        let names: BTreeMap<&str, &str> =
            self.packages().map(|package| (text(&package["id"]), name(package))).collect();
        let nodes = self.0["resolve"]["nodes"].as_array().expect("a list");
        let nodes: BTreeMap<&str, &Value> =
            nodes.iter().map(|node| (text(&node["id"]), node)).collect();
        let start = names.iter().find(|(_, name)| **name == crate_name).expect("it is here").0;
        let (mut reached, mut open) = (BTreeSet::new(), vec![*start]);
        while let Some(next) = open.pop() {
            for dependency in nodes[next]["deps"].as_array().expect("a list") {
                let kinds = dependency["dep_kinds"].as_array().expect("a list");
                let id = text(&dependency["pkg"]);
                if kinds.iter().any(|kind| kind["kind"].is_null()) && reached.insert(id) {
                    open.push(id);
                }
            }
        }
        reached.into_iter().map(|id| names[id]).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn name(value: &Value) -> &str {
    text(&value["name"])
}

#[test]
fn the_crates_depend_on_each_other_as_drawn() {
    let metadata = Metadata::read();
    let members = metadata.members();
    let drawn: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(members, drawn, "the workspace has these crates");
    for (crate_name, allowed) in ARROWS {
        let found: BTreeSet<&str> =
            metadata.dependencies(crate_name).intersection(&members).copied().collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert_eq!(found, allowed, "{crate_name} depends on these crates of the workspace");
    }
}

#[test]
fn words_and_frontend_do_no_io() {
    let metadata = Metadata::read();
    for (crate_name, forbidden) in FORBIDDEN {
        let reached = metadata.reaches(crate_name);
        for forbidden in forbidden {
            assert!(!reached.contains(forbidden), "{crate_name} reaches {forbidden}");
        }
    }
}

#[test]
fn versions_stand_in_the_root_only() {
    let crates = ["builder", "frontend", "cache", "registry-client", "registry-client/oci"];
    for member in crates.into_iter().chain(["tests", "tests/support"]) {
        let path = workspace().join(member).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).expect("a crate has a Cargo.toml");
        let mut section = "";
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('[') {
                section = line;
            } else if section.ends_with("dependencies]") {
                assert!(line.contains("workspace = true"), "{}: {line}", path.display());
            }
        }
    }
}
