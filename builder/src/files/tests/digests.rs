//! What changes a content digest, what does not, and when no file is read.

use std::time::{Duration, SystemTime};

use oci::Digest;

use super::super::StatCache;
use super::super::digest::digest_at;
use super::{Copy, Tree};

fn context() -> Tree {
    Tree::new().file("d/f", "x").file("d/s/g", "y").link("d/l", "f")
}

fn digest(tree: &Tree) -> Digest {
    Copy::new("d", "/x").digest(tree).unwrap().digest
}

#[test]
fn the_same_files_have_the_same_digest_wherever_they_are() {
    let other = Tree::new().file("e/d/f", "x").file("e/d/s/g", "y").link("e/d/l", "f");
    let other = other.time("e/d/f", 1, 1).owner("e/d/f", 3, 3);
    assert_eq!(Copy::new("e/d", "/x").digest(&other).unwrap().digest, digest(&context()));
}

#[test]
fn a_context_and_a_snapshot_of_it_have_the_same_digest() {
    let snapshot = Copy::new("d", "/d").to_empty(&context());
    let of_stage = Copy::new("d", "/x").of_stage();
    assert_eq!(of_stage.digest(&snapshot).unwrap().digest, digest(&context()));
    let owned = snapshot.owner("d/f", 1, 0);
    assert_ne!(of_stage.digest(&owned).unwrap().digest, digest(&context()));
}

#[test]
fn what_a_copy_shows_changes_the_digest() {
    let changed = [
        context().file("d/f", "z"),
        context().file("d/new", ""),
        context().dir("d/empty", 0o755),
        context().mode("d/f", 0o600),
        context().mode("d/s", 0o700),
        context().xattr("d/f", "user.x", b"y"),
        Tree::new().file("d/f", "x").file("d/s/g", "y").link("d/l", "g"),
        Tree::new().file("d/f", "x").file("d/s/h", "y").link("d/l", "f"),
        Tree::new().file("d/f", "x").file("d/g", "y").dir("d/s", 0o755).link("d/l", "f"),
        Tree::new().file("d/f", "x").file("d/s/g", "y").file("d/l", "f"),
    ];
    let mut digests: Vec<_> = changed.iter().map(digest).collect();
    digests.push(digest(&context()));
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), changed.len() + 1);
}

#[test]
fn times_hard_links_and_labels_do_not_change_the_digest() {
    let acl = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255]
        .into_iter()
        .chain([32, 0, 4, 0, 255, 255, 255, 255])
        .collect::<Vec<u8>>();
    let touched = context().time("d/f", 5, 5).hard_link("outside", "d/f");
    let labelled = context().xattr("d/f", "system.posix_acl_access", &acl).mode("d/f", 0o644);
    for tree in [touched, labelled] {
        assert_eq!(digest(&tree), digest(&context()));
    }
}

#[test]
fn a_capability_counts() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let capable = context().xattr("d/f", "security.capability", capability);
    assert_ne!(digest(&capable), digest(&context()));
}

#[test]
fn numbers_of_devices_count() {
    let device = |minor| {
        let number = rustix::fs::makedev(1, minor);
        digest(&context().node("d/n", rustix::fs::FileType::CharacterDevice, number))
    };
    assert_ne!(device(3), device(5));
    assert_eq!(device(3), device(3));
}

#[test]
fn the_name_of_a_match_counts() {
    let digest = |tree: &Tree| Copy::new("f*", "/x/").digest(tree).unwrap().digest;
    assert_ne!(digest(&Tree::new().file("f1", "")), digest(&Tree::new().file("f2", "")));
}

#[test]
fn ignored_and_excluded_files_do_not_count() {
    let plain = digest(&context());
    let more = context().file("d/log", "noise");
    let excluded = Copy::new("d", "/x").exclude(&["log"]).digest(&more).unwrap();
    let ignored = Copy::new("d", "/x").ignore("d/log").digest(&more).unwrap();
    assert_eq!((excluded.digest, ignored.digest), (plain, plain));
}

/// What a later build knows when all changes are long past.
fn settle(copy: &Copy, tree: &Tree) -> StatCache {
    let root = tree.root();
    let later = SystemTime::now() + Duration::from_secs(10);
    let source = copy.source(&root);
    let digested = digest_at(&source, &copy.selection, &StatCache::default(), later).unwrap();
    assert!(digested.learnt);
    StatCache::decode(&digested.cache.encode())
}

#[test]
fn a_file_written_less_than_two_seconds_ago_is_not_relied_on() {
    let (copy, tree) = (Copy::new("d", "/x"), context());
    let known = copy.digest(&tree).unwrap().cache;
    assert_eq!(StatCache::decode(&known.encode()), StatCache::default());
}

#[test]
fn a_no_op_opens_no_file_and_a_change_reads_only_what_changed() {
    let (copy, tree) = (Copy::new("d", "/x"), context());
    let known = settle(&copy, &tree);
    // Bytes that changed behind the kernel's back would only be noticed by reading them: a cache
    // that lies about one file shows that this file was not read.
    let lying = lie(&known, Digest::of("x"), Digest::of("lie"));
    let plain = copy.digest(&tree).unwrap().digest;
    assert_eq!(copy.digest_knowing(&tree, &lying).unwrap().digest, plain);
    let tree = tree.file("d/s/g", "changed");
    let truth = copy.digest(&tree).unwrap().digest;
    assert_eq!(copy.digest_knowing(&tree, &known).unwrap().digest, truth);
    assert_ne!(copy.digest_knowing(&tree, &lying).unwrap().digest, truth);
    assert!(copy.digest_knowing(&tree, &known).unwrap().learnt);
}

fn lie(cache: &StatCache, truth: Digest, lie: Digest) -> StatCache {
    let bytes = cache.encode();
    let at = bytes.windows(32).position(|window| window == truth.as_bytes()).unwrap();
    let mut bytes = bytes;
    bytes[at..at + 32].copy_from_slice(lie.as_bytes());
    StatCache::decode(&bytes)
}

#[test]
fn a_file_that_changes_between_digest_and_copy_fails_the_copy() {
    let (copy, tree) = (Copy::new("d", "/x"), context());
    let expected = copy.digest(&tree).unwrap();
    let fails = |tree: &Tree| copy.run_expecting(tree, &Tree::new(), Some(&expected)).unwrap_err();
    let tree = tree.file("d/s/g", "other");
    assert_eq!(fails(&tree).to_string(), "`d/s/g` changed while it was copied");
    let tree = tree.file("d/s/g", "y").file("d/new", "");
    assert!(fails(&tree).to_string().ends_with("changed while it was copied"));
    std::fs::remove_file(tree.at("d/new")).unwrap();
    copy.run_expecting(&tree, &Tree::new(), Some(&expected)).unwrap();
}

#[test]
fn what_a_signature_recalled_is_enough_to_copy() {
    let (copy, tree) = (Copy::new("d", "/x"), context());
    let known = settle(&copy, &tree);
    let recalled = copy.digest_knowing(&tree, &known).unwrap();
    copy.run_expecting(&tree, &Tree::new(), Some(&recalled)).unwrap();
}

#[test]
fn many_files_are_digested_alike_on_many_threads() {
    let mut tree = Tree::new();
    for number in 0..200 {
        tree = tree.file(&format!("d/{}/{number}", number % 7), format!("{number}"));
    }
    let first = digest(&tree);
    assert!((0..5).all(|_| digest(&tree) == first));
}
