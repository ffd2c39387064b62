//! `rbuild doctor`: what it finds is what a build then does.

use serde_json::Value;
use test_support::{Caller, Session, rbuild};

fn examined(session: &Session, args: &[&str]) -> Value {
    let told = session.rbuild(&[&["doctor", "--json"], args].concat()).succeeds();
    serde_json::from_str(&told.stdout).unwrap()
}

#[test]
fn each_caller_is_told_the_level_of_its_builds() {
    for (caller, level, others) in [
        (Caller::Root, "root", ["chroot", "outer-proc", "single-id", "subordinate-ids"]),
        (Caller::RootOfContainer, "subordinate-ids", ["chroot", "outer-proc", "single-id", ""]),
        (Caller::WithSubordinateIds, "subordinate-ids", ["outer-proc", "single-id", "", ""]),
        (Caller::WithOneId, "single-id", ["outer-proc", "", "", ""]),
    ] {
        let found = examined(&Session::new().run_by(caller), &[]);
        assert_eq!(found["level"], level, "{caller:?} {found}");
        assert_eq!(found["ownProc"], true, "{found}");
        for (name, tried) in found["levels"].as_object().unwrap() {
            let expected = name == level || others.contains(&name.as_str());
            assert_eq!(tried["refused"].is_null(), expected, "{caller:?} {name} {tried}");
        }
        assert_eq!(found["advice"].as_array().unwrap().is_empty(), level != "single-id", "{found}");
    }
}

#[test]
fn a_level_that_is_asked_for_is_the_one_that_is_told() {
    let session = Session::new();
    let found = examined(&session, &["--sandbox=outer-proc"]);
    assert_eq!(found["ownProc"], false, "{found}");
    assert!(found["advice"].to_string().contains("unmask=ALL"), "{found}");
    assert_eq!(examined(&Session::new().env("RBUILD_SANDBOX", ""), &[])["level"], "root");
    let single = Session::new().env("RBUILD_SANDBOX", "single-id");
    assert_eq!(examined(&single, &[])["level"], "single-id");
    let wrong = Session::new().env("RBUILD_SANDBOX", "deep");
    wrong.build(&[]).fails_with(&["RBUILD_SANDBOX", "deep", "single-id"]);
    let refused = examined(&Session::new().run_by(Caller::WithOneId), &["--sandbox=root"]);
    assert!(refused["refused"].to_string().contains("mount namespace"), "{refused}");
    assert!(refused["level"].is_null(), "{refused}");
}

#[test]
fn it_tells_of_the_store_and_makes_none() {
    let session = Session::new();
    let found = examined(&session, &[]);
    assert_eq!(found["store"]["path"], session.store().to_str().unwrap());
    assert!(found["store"]["freeBytes"].as_u64().unwrap() > 0, "{found}");
    let kind =
        session.tool("findmnt", &["-no", "FSTYPE", "-T", session.path(".").to_str().unwrap()]);
    assert_eq!(found["store"]["fileSystem"], kind.trim(), "{found}");
    assert!(found["overlayRefused"].is_null(), "{found}");
    assert!(!session.store().exists());
    let beside = session.path(".").read_dir().unwrap().count();
    let told = session.rbuild(&["doctor"]).succeeds().stdout;
    assert!(told.contains("level             root\n"), "{told}");
    assert!(told.contains(&format!("{} on {}", session.store().display(), kind.trim())), "{told}");
    assert_eq!(session.path(".").read_dir().unwrap().count(), beside);
}

#[test]
fn a_store_that_cannot_be_used_is_no_reason_to_say_nothing() {
    let session = Session::new();
    session.write("../file", "");
    let file = session.path("file");
    let found = examined(&session, &["--root", file.to_str().unwrap()]);
    assert!(found["store"]["problem"].to_string().contains("file"), "{found}");
    assert_eq!(found["level"], "root", "{found}");
}

#[test]
fn the_profile_for_apparmor_names_the_program() {
    let profile = Session::new().rbuild(&["doctor", "--apparmor-profile"]).succeeds().stdout;
    let program = format!("profile rbuild \"{}\" flags=(unconfined) {{", rbuild().display());
    assert!(profile.contains(&program) && profile.contains("\n  userns,\n"), "{profile}");
}
