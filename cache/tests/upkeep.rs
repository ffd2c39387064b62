//! Upkeep of a store: what a prune takes and leaves, and what is made good of damage.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cache::{
    BrokenImage, Cache, CacheKey, OwnershipMap, PruneOptions, Pruned, Record, Sharing, Snapshot,
};
use oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, Reference, media_type};
use tempfile::TempDir;

const LONG_AGO: i64 = 1_000_000_000;

fn store() -> (TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&directory);
    (directory, cache)
}

/// A second process, as far as locks and transactions can tell.
fn open(directory: &TempDir) -> Cache {
    Cache::open(directory.path(), OwnershipMap::Real).unwrap()
}

fn everything() -> PruneOptions {
    PruneOptions { unused_for: Duration::ZERO, records: true }
}

fn snapshot(name: &str) -> Snapshot {
    Snapshot::of(&[DiffId(Digest::of(name))])
}

/// A layer in the store with one file.
fn publish(cache: &Cache, name: &str) -> PathBuf {
    let run = cache.run_dir().unwrap();
    let staged = run.path().join("layer");
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("file"), name).unwrap();
    cache.publish_layer(&staged, &snapshot(name), false).unwrap()
}

/// An image of one layer, with its name; returns the layer's blob.
fn image(cache: &Cache, name: &str) -> Descriptor {
    let add = |media_type: &str, bytes: &[u8]| {
        assert_eq!(cache.add_blob(bytes).unwrap(), Digest::of(bytes));
        Descriptor::of(media_type, bytes)
    };
    let layer = add(media_type::LAYER_GZIP, format!("layer of {name}").as_bytes());
    let mut config = ImageConfig::from_bytes(br#"{"os":"linux","architecture":"amd64"}"#).unwrap();
    config.rootfs.diff_ids = vec![DiffId(Digest::of(name))];
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        artifact_type: None,
        config: add(media_type::CONFIG, &config.to_bytes()),
        layers: vec![layer.clone()],
        subject: None,
        annotations: Default::default(),
    };
    let descriptor = add(media_type::MANIFEST, &manifest.to_bytes());
    cache.tag(&reference(name), &descriptor).unwrap();
    layer
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Makes everything look as if nobody had used it for years.
fn age(directory: &TempDir) {
    let database = rusqlite::Connection::open(directory.path().join("rbuild.db")).unwrap();
    database.execute("UPDATE blobs SET used = ?1", [LONG_AGO]).unwrap();
    database.execute("UPDATE layers SET used = ?1", [LONG_AGO]).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_prune_leaves_the_named_images_and_takes_the_rest() {
    let (directory, cache) = store();
    let needed = image(&cache, "app");
    let loose = cache.add_blob(b"loose").unwrap();
    let layer = publish(&cache, "layer");
    drop(cache);

    let pruned = open(&directory).prune(&PruneOptions::default()).unwrap();

    assert_eq!((pruned.blobs, pruned.layers), (1, 1));
    assert!(pruned.bytes >= 8192, "{pruned:?}");
    let cache = open(&directory);
    assert!(cache.has_blob(&needed.digest).unwrap() && cache.blob_path(&needed.digest).exists());
    assert!(!cache.has_blob(&loose).unwrap() && !cache.blob_path(&loose).exists());
    assert!(cache.layer_path(&snapshot("layer")).unwrap().is_none() && !layer.exists());
    assert_eq!(names(&directory.path().join("run")), [""; 0]);
}

#[test]
fn what_a_living_process_counts_on_stays() {
    let (directory, writer) = store();
    let kept = [writer.add_blob(b"kept").unwrap(), writer.add_blob(b"written").unwrap()];
    publish(&writer, "kept");
    let loose = writer.add_blob(b"loose").unwrap();
    publish(&writer, "loose");
    drop(writer);
    age(&directory);
    let living = open(&directory);
    assert!(living.has_blob(&kept[0]).unwrap());
    assert!(living.layer_path(&snapshot("kept")).unwrap().is_some());
    living.add_blob(b"new").unwrap();
    publish(&living, "new");

    open(&directory).prune(&everything()).unwrap();

    assert!(living.has_blob(&kept[0]).unwrap() && living.blob_path(&kept[0]).exists());
    assert!(living.has_blob(&Digest::of("new")).unwrap());
    for layer in ["kept", "new"] {
        assert!(living.sealed_layer(&snapshot(layer)).unwrap().is_some(), "{layer}");
    }
    for blob in [kept[1], loose] {
        assert!(!living.has_blob(&blob).unwrap() && !living.blob_path(&blob).exists());
    }
    assert!(living.layer_path(&snapshot("loose")).unwrap().is_none());
}

#[test]
fn what_is_deleted_between_a_question_and_its_answer_is_not_here() {
    let (directory, writer) = store();
    let blob = writer.add_blob(b"blob").unwrap();
    drop(writer);
    age(&directory);
    // It lives before the prune, but has not asked for this one yet.
    let asking = open(&directory);
    assert!(!asking.has_blob(&Digest::of("another")).unwrap());
    open(&directory).prune(&PruneOptions::default()).unwrap();
    assert!(!asking.has_blob(&blob).unwrap());
}

#[test]
fn what_a_prune_would_take_is_told_and_left() {
    let (directory, cache) = store();
    image(&cache, "app:1");
    publish(&cache, "layer");
    cache.add_blob(b"unneeded").unwrap();
    drop(cache);
    let cache = open(&directory);
    let told = cache.prunable(&PruneOptions::default()).unwrap();
    assert_eq!(cache.prunable(&PruneOptions::default()).unwrap(), told, "nothing went");
    let pruned = cache.prune(&PruneOptions::default()).unwrap();
    let counts = |pruned: Pruned| (pruned.blobs, pruned.layers, pruned.cache_mounts);
    assert_eq!((counts(told), counts(told)), (counts(pruned), (1, 1, 0)));
    assert!(told.bytes > 0);
}

#[test]
fn what_was_used_of_late_can_be_kept() {
    let (directory, cache) = store();
    let old = cache.add_blob(b"old").unwrap();
    age(&directory);
    let new = cache.add_blob(b"new").unwrap();
    drop(cache);
    let a_day = PruneOptions { unused_for: Duration::from_secs(86_400), records: false };

    let cache = open(&directory);
    assert_eq!(cache.prunable(&a_day).unwrap().blobs, 1);
    cache.prune(&a_day).unwrap();

    assert!(!cache.has_blob(&old).unwrap());
    assert!(cache.has_blob(&new).unwrap());
}

#[test]
fn records_outlive_a_prune_unless_it_is_asked_for_them() {
    let (_directory, cache) = store();
    let key = CacheKey(Digest::of("key"));
    let record =
        Record { snapshot: snapshot("layer"), created: 0, description: "RUN make".to_owned() };
    cache.save(key, &record).unwrap();
    cache.prune(&PruneOptions::default()).unwrap();
    assert_eq!(cache.lookup(key).unwrap(), Some(record.clone()));
    cache.prune(&everything()).unwrap();
    assert_eq!(cache.lookup(key).unwrap(), None);
    cache.save(key, &record).unwrap();
    assert_eq!(cache.lookup(key).unwrap(), Some(record), "its layers are noted once more");
}

#[test]
fn cache_mounts_go_unless_somebody_uses_them() {
    let (directory, cache) = store();
    let take = |id| {
        let taken = cache.try_cache_mount(id, Sharing::Shared, |_| Ok::<_, cache::CacheError>(()));
        taken.unwrap().unwrap()
    };
    let used = take("used");
    let unused = take("unused").path().to_owned();

    let pruned = open(&directory).prune(&PruneOptions::default()).unwrap();

    assert_eq!(pruned.cache_mounts, 1);
    assert!(used.path().exists() && !unused.exists());
    assert!(take("unused").path().exists(), "it can be made again");
}

#[test]
fn what_nobody_knows_of_goes() {
    let (directory, cache) = store();
    let inside = |path: &str| directory.path().join(path);
    let hex = Digest::of("lost").hex();
    fs::write(inside("blobs/sha256").join(&hex), "lost").unwrap();
    fs::create_dir(inside("layers/single").join(&hex)).unwrap();
    fs::create_dir_all(inside("run/1-2-3/upper")).unwrap();
    fs::write(inside("locks").join(&hex), "").unwrap();
    let key = CacheKey(Digest::of("held"));
    let lease = cache.lease(&key).unwrap();

    cache.prune(&PruneOptions::default()).unwrap();

    for empty in ["blobs/sha256", "layers/single"] {
        assert_eq!(names(&inside(empty)), [""; 0], "{empty}");
    }
    assert_eq!(names(&inside("locks")), [key.0.hex()]);
    assert!(!inside("run/1-2-3").exists());
    drop(lease);
}

#[test]
fn a_layer_without_its_seal_is_no_layer() {
    let (directory, cache) = store();
    let [whole, missing, made_anew] =
        ["whole", "missing", "made anew"].map(|name| publish(&cache, name));
    fs::remove_dir_all(&missing).unwrap();
    fs::remove_dir_all(&made_anew).unwrap();
    fs::create_dir(&made_anew).unwrap();
    // Somebody else's seal is none.
    let copied = publish(&cache, "copied");
    fs::remove_dir_all(&copied).unwrap();
    fs::rename(publish(&cache, "other"), &copied).unwrap();

    for name in ["missing", "made anew", "copied"] {
        assert_eq!(cache.sealed_layer(&snapshot(name)).unwrap(), None, "{name}");
        assert_eq!(cache.layer_path(&snapshot(name)).unwrap(), None, "{name}");
    }
    assert_eq!(cache.sealed_layer(&snapshot("whole")).unwrap(), Some(whole));
    assert!(!made_anew.exists() && !copied.exists());
    drop(directory);
}

/// A store with a whole image, one that lacks a blob, and a loose layer; nobody has it open.
fn store_to_damage() -> (TempDir, Descriptor) {
    let (directory, cache) = store();
    let whole = image(&cache, "whole");
    let broken = image(&cache, "broken");
    publish(&cache, "layer");
    fs::write(cache.blob_path(&broken.digest), "else").unwrap();
    (directory, whole)
}

fn assert_rebuilt(directory: &TempDir, whole: &Descriptor, reason: &str) {
    let cache = open(directory);
    let rebuilt = cache.rebuilt().expect("the database is made anew");
    assert!(rebuilt.reason.contains(reason), "{rebuilt:?}");
    assert_eq!(rebuilt.blobs, 5);
    assert_eq!(rebuilt.lost_images, ["docker.io/library/broken:latest"]);
    assert!(cache.image(&reference("whole")).unwrap().is_some());
    assert_eq!(cache.image(&reference("broken")).unwrap(), None);
    assert!(cache.has_blob(&whole.digest).unwrap());
    // Its config says so, but nothing has read it yet.
    let layer = DiffId(Digest::of("whole"));
    assert_eq!(cache.layer_blobs(layer).unwrap(), []);
    assert_eq!(names(&directory.path().join("layers/real")), [""; 0]);
    let index = fs::read_to_string(directory.path().join("index.json")).unwrap();
    assert!(index.contains("whole") && !index.contains("broken"), "{index}");
    drop(cache);
    assert_eq!(open(directory).rebuilt(), None, "once is enough");
}

#[test]
fn a_database_of_garbage_is_set_aside_and_made_anew() {
    let (directory, whole) = store_to_damage();
    fs::write(directory.path().join("rbuild.db"), vec![7; 100_000]).unwrap();
    assert_rebuilt(&directory, &whole, "not a database");
    let aside = names(directory.path()).into_iter().filter(|name| name.contains(".aside-"));
    assert_eq!(aside.count(), 1);
}

#[test]
fn a_database_that_is_lost_or_empty_is_made_anew() {
    let (directory, whole) = store_to_damage();
    fs::remove_file(directory.path().join("rbuild.db")).unwrap();
    assert_rebuilt(&directory, &whole, "missing");
    let (directory, whole) = store_to_damage();
    fs::write(directory.path().join("rbuild.db"), "").unwrap();
    assert_rebuilt(&directory, &whole, "empty");
}

#[test]
fn damage_that_a_build_meets_is_made_good_by_the_next_one() {
    let (directory, whole) = store_to_damage();
    let path = directory.path().join("rbuild.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    let page = |table| -> u32 {
        let sql = "SELECT rootpage FROM sqlite_master WHERE name = ?1";
        database.query_row(sql, [table], |row| row.get(0)).unwrap()
    };
    let start = 4096 * (page("images") as usize - 1);
    drop(database);
    let mut bytes = fs::read(&path).unwrap();
    bytes[start..start + 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();

    let met = open(&directory).images().unwrap_err();

    assert!(met.to_string().contains("build again"), "{met}");
    assert_rebuilt(&directory, &whole, "malformed");
}

#[test]
fn a_database_of_an_older_format_is_made_anew() {
    let (directory, whole) = store_to_damage();
    let database = rusqlite::Connection::open(directory.path().join("rbuild.db")).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    drop(database);
    assert_rebuilt(&directory, &whole, "older format 1");
}

#[test]
fn two_processes_make_a_damaged_database_anew_at_once() {
    for _ in 0..20 {
        let (directory, _) = store_to_damage();
        fs::write(directory.path().join("rbuild.db"), vec![7; 10_000]).unwrap();
        let rebuilt = std::thread::scope(|scope| {
            let opened = [(); 2].map(|()| scope.spawn(|| open(&directory).rebuilt().is_some()));
            opened.map(|thread| thread.join().unwrap())
        });
        assert_eq!(rebuilt.iter().filter(|rebuilt| **rebuilt).count(), 1);
    }
}

#[test]
fn a_database_that_is_made_again_leaves_running_processes_their_layers() {
    let (directory, running) = store();
    let layer = publish(&running, "layer");
    fs::write(layer.join("file"), "").unwrap();
    let mounted = fs::File::open(layer.join("file")).unwrap();
    let is_whole = || mounted.metadata().unwrap().nlink() == 1;
    fs::remove_file(directory.path().join("rbuild.db")).unwrap();

    let other = open(&directory);
    assert!(other.rebuilt().is_some());
    assert!(layer.join("file").exists() && is_whole(), "where it was");
    other.prune(&everything()).unwrap();
    assert!(layer.join("file").exists() && is_whole());
    assert_eq!(publish(&other, "layer"), layer);
    other.forget_layer(&snapshot("layer")).unwrap();
    other.reclaim().unwrap();
    other.prune(&everything()).unwrap();
    assert!(is_whole(), "it may be mounted");
    let image = image(&other, "app");
    let late = running.tag(&reference("another"), &image).unwrap_err();
    assert!(late.to_string().contains("build again"), "{late}");
    let index = fs::read_to_string(directory.path().join("index.json")).unwrap();
    assert!(index.contains("app") && !index.contains("another"), "{index}");

    drop(running);
    other.prune(&everything()).unwrap();
    assert!(!is_whole(), "nobody is left who could use it");
    assert_eq!(names(&directory.path().join("run")).len(), 1, "that of the other's own process");
}

#[test]
fn a_store_is_removed_unless_somebody_uses_it() {
    let (directory, cache) = store();
    let root = directory.path();
    image(&cache, "app");
    publish(&cache, "layer");
    fs::write(root.join("rbuild.db.aside-1"), "").unwrap();
    let error = cache::remove_store(root).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(cache.sealed_layer(&snapshot("layer")).unwrap().is_some());
    drop(cache);
    fs::write(root.join("thesis.txt"), "").unwrap();
    cache::remove_store(root).unwrap();
    assert_eq!(names(root), ["thesis.txt"]);

    let error = cache::remove_store(root).unwrap_err();
    assert!(error.to_string().contains("there is no store in"), "{error}");
}

#[test]
fn a_store_is_not_removed_while_a_process_has_it_open() {
    let (directory, cache) = store();
    // It has asked for nothing yet, and so is in no list of those that live.
    assert_eq!(names(&directory.path().join("locks")), [""; 0]);
    let error = cache::remove_store(directory.path()).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    image(&cache, "app");
}

#[test]
fn a_process_that_starts_while_a_store_is_removed_has_a_whole_one() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let open = || Cache::open(&root, OwnershipMap::Real).unwrap();
    drop(open());
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let tries = std::iter::repeat_with(|| cache::remove_store(&root));
            assert_eq!(tries.filter(Result::is_ok).take(30).count(), 30);
        });
        while !remover.is_finished() {
            let cache = open();
            std::thread::yield_now();
            let layer = image(&cache, "app");
            assert!(cache.has_blob(&layer.digest).unwrap());
            assert!(cache.image(&reference("app")).unwrap().is_some());
        }
    });
    image(&open(), "app");
}

#[test]
fn an_image_that_lacks_a_blob_is_told() {
    let (_directory, cache) = store();
    image(&cache, "whole");
    let layer = image(&cache, "broken");
    cache.forget_blob(&layer.digest).unwrap();
    let broken = cache.broken_images().unwrap();
    assert_eq!(broken, [BrokenImage { name: reference("broken"), missing: layer.digest }]);
}
