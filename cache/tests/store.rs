//! One store, seen from outside: what it keeps, and how two users of it get along.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use cache::{
    Cache, CacheError, CacheKey, Deletions, OwnershipMap, Place, PruneOptions, Record, Sharing,
    Snapshot,
};
use oci::{ChainId, Descriptor, DiffId, Digest, Index, Reference, media_type};
use tempfile::TempDir;

fn store() -> (TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), OwnershipMap::Real).unwrap();
    (directory, cache)
}

/// A second process, as far as locks and transactions can tell.
fn again(directory: &TempDir) -> Cache {
    Cache::open(directory.path(), OwnershipMap::Real).unwrap()
}

fn key(name: &str) -> CacheKey {
    CacheKey(Digest::of(name))
}

fn layer(name: &str) -> DiffId {
    DiffId(Digest::of(name))
}

fn record(layers: &[&str], created: i64) -> Record {
    let layers: Vec<_> = layers.iter().map(|name| layer(name)).collect();
    Record { snapshot: Snapshot::of(&layers), created, description: "RUN make".to_owned() }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn image(name: &str) -> Descriptor {
    Descriptor::of(media_type::MANIFEST, name.as_bytes())
}

/// A directory as an unpacked layer would be.
fn stage(cache: &Cache, content: &str) -> (cache::RunDir, std::path::PathBuf) {
    let run = cache.run_dir().unwrap();
    let staged = run.path().join("layer");
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("file"), content).unwrap();
    (run, staged)
}

fn index(root: &Path) -> Index {
    serde_json::from_slice(&fs::read(root.join("index.json")).unwrap()).unwrap()
}

fn two_at_once<T: Send>(directory: &TempDir, work: impl Fn(Cache, usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let start = |number| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                let cache = again(directory);
                barrier.wait();
                work(cache, number)
            })
        };
        let threads = [start(0), start(1)];
        threads.map(|thread| thread.join().unwrap()).into()
    })
}

#[test]
fn a_record_comes_back_as_it_was_saved_also_to_another_process() {
    let (directory, cache) = store();
    let record = record(&["a", "b"], 7);
    cache.save(key("make"), &record).unwrap();

    let found = again(&directory).lookup(key("make")).unwrap().unwrap();

    assert_eq!(found, record);
    assert_eq!(found.snapshot.layers(), record.snapshot.layers());
    assert_eq!(cache.lookup(key("other")).unwrap(), None);
}

#[test]
fn the_newest_record_answers_and_an_older_result_can_become_the_newest_again() {
    let (_directory, cache) = store();
    let answer = || cache.lookup(key("make")).unwrap().unwrap();
    cache.save(key("make"), &record(&["a"], 1)).unwrap();
    cache.save(key("make"), &record(&["b"], 2)).unwrap();
    assert_eq!(answer(), record(&["b"], 2));

    cache.save(key("make"), &record(&["a"], 3)).unwrap();

    assert_eq!(answer(), record(&["a"], 3));
}

#[test]
fn the_empty_snapshot_can_be_a_result() {
    let (_directory, cache) = store();
    cache.save(key("scratch"), &record(&[], 1)).unwrap();
    assert_eq!(cache.lookup(key("scratch")).unwrap(), Some(record(&[], 1)));
}

#[test]
fn what_a_sandbox_without_owners_made_never_answers_one_with_owners() {
    let (directory, with) = store();
    let without = Cache::open_without_owners(directory.path(), OwnershipMap::Real).unwrap();
    with.save(key("make"), &record(&["owned"], 1)).unwrap();
    without.save(key("make"), &record(&["ownerless"], 2)).unwrap();
    without.save(key("chown"), &record(&["ownerless"], 2)).unwrap();

    assert_eq!(with.lookup(key("make")).unwrap(), Some(record(&["owned"], 1)));
    assert_eq!(with.lookup(key("chown")).unwrap(), None);
    assert_eq!(without.lookup(key("make")).unwrap(), Some(record(&["ownerless"], 2)));
}

#[test]
fn a_sandbox_without_owners_does_not_take_a_record_from_one_with_owners() {
    let (directory, with) = store();
    let without = Cache::open_without_owners(directory.path(), OwnershipMap::Real).unwrap();
    with.save(key("make"), &record(&["a"], 1)).unwrap();
    without.save(key("make"), &record(&["a"], 2)).unwrap();
    assert_eq!(with.lookup(key("make")).unwrap(), Some(record(&["a"], 1)));
}

#[test]
fn two_processes_save_at_once_and_nothing_is_lost() {
    let (directory, cache) = store();
    two_at_once(&directory, |cache, process| {
        for step in 0..100 {
            let name = format!("{process} {step}");
            cache.save(key(&name), &record(&["base", &name], step)).unwrap();
        }
    });
    for process in 0..2 {
        for step in 0..100 {
            let name = format!("{process} {step}");
            let found = cache.lookup(key(&name)).unwrap().unwrap();
            assert_eq!(found, record(&["base", &name], step));
        }
    }
}

#[test]
fn two_processes_make_the_store_at_once() {
    // What goes wrong goes wrong seldom.
    for _ in 0..100 {
        let directory = tempfile::tempdir().unwrap();
        two_at_once(&directory, |cache, process| {
            cache.save(key(&process.to_string()), &record(&["a"], 1)).unwrap();
        });
        let cache = again(&directory);
        assert!(cache.lookup(key("0")).unwrap().is_some());
        assert!(cache.lookup(key("1")).unwrap().is_some());
    }
}

#[test]
fn a_blob_is_written_known_and_read() {
    let (directory, cache) = store();
    let mut writer = cache.write_blob().unwrap();
    writer.write_all(b"hello").unwrap();
    let (digest, size) = writer.finish().unwrap();

    assert_eq!((digest, size), (Digest::of("hello"), 5));
    assert_eq!(again(&directory).blob_size(&digest).unwrap(), Some(5));
    assert_eq!(cache.blob_bytes(&digest, 5).unwrap(), b"hello");
    let too_large = cache.blob_bytes(&digest, 4).unwrap_err();
    assert!(matches!(too_large, CacheError::BlobTooLarge { size: 5, limit: 4, .. }));
}

#[test]
fn a_blob_that_is_not_the_expected_one_leaves_nothing() {
    let (directory, cache) = store();
    let mut writer = cache.write_blob().unwrap();
    writer.write_all(b"evil").unwrap();
    let growing = writer.path().to_owned();

    let error = writer.finish_as(&Digest::of("good")).unwrap_err();

    assert!(matches!(error, CacheError::UnexpectedBlob { size: 4, .. }), "{error}");
    assert!(!growing.exists());
    assert_eq!(fs::read_dir(directory.path().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_corrupt_blob_is_noticed_at_its_end_and_forgotten() {
    let (_directory, cache) = store();
    let digest = cache.add_blob(b"hello").unwrap();
    fs::write(cache.blob_path(&digest), "hullo").unwrap();

    let error = cache.open_blob(&digest).unwrap().read_to_end(&mut vec![]).unwrap_err();

    assert_eq!(
        error.to_string(),
        format!("blob {digest} is corrupt: its bytes have the digest {}", Digest::of("hullo"))
    );
    assert!(!cache.has_blob(&digest).unwrap());
    let missing = cache.open_blob(&digest).unwrap_err();
    assert_eq!(missing.to_string(), format!("blob {digest} is not in the store"));
}

#[test]
fn a_truncated_blob_is_noticed() {
    let (_directory, cache) = store();
    let digest = cache.add_blob(b"hello").unwrap();
    fs::write(cache.blob_path(&digest), "").unwrap();
    let error = cache.blob_bytes(&digest, 100).unwrap_err();
    assert!(matches!(error, CacheError::CorruptBlob { .. }), "{error}");
}

#[test]
fn a_blob_whose_file_is_gone_is_no_longer_known() {
    let (_directory, cache) = store();
    let digest = cache.add_blob(b"hello").unwrap();
    fs::remove_file(cache.blob_path(&digest)).unwrap();
    assert!(matches!(cache.open_blob(&digest), Err(CacheError::MissingBlob(_))));
    assert!(!cache.has_blob(&digest).unwrap());
}

#[test]
fn a_published_layer_is_found_by_its_diff_id_on_any_base() {
    let (directory, cache) = store();
    let made = record(&["base", "top"], 0).snapshot;
    let (_run, staged) = stage(&cache, "x");
    fs::write(cache::owners_file(&staged), "owners").unwrap();

    let path = cache.publish_layer(&staged, &made, false).unwrap();

    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "x");
    assert_eq!(fs::read_to_string(cache::owners_file(&path)).unwrap(), "owners");
    let elsewhere = record(&["other", "top"], 0).snapshot;
    assert_eq!(again(&directory).layer_path(&elsewhere).unwrap(), Some(path));
    assert_eq!(cache.layer_path(&record(&["base"], 0).snapshot).unwrap(), None);
}

#[test]
fn a_layer_that_belongs_to_its_chain_serves_no_other_stack() {
    let (_directory, cache) = store();
    let lowest = record(&["layer"], 0).snapshot;
    let (_run, staged) = stage(&cache, "x");
    let path = cache.publish_layer(&staged, &lowest, true).unwrap();

    assert_eq!(cache.layer_path(&lowest).unwrap().as_ref(), Some(&path));
    // The chain ID of a lowest layer is its diff ID: the two must not be taken for each other.
    let higher = record(&["base", "layer"], 0).snapshot;
    assert_eq!(cache.layer_path(&higher).unwrap(), None);
    let (_other_run, staged) = stage(&cache, "y");
    assert_ne!(cache.publish_layer(&staged, &higher, false).unwrap(), path);
}

#[test]
fn a_layer_of_another_ownership_map_is_not_seen() {
    let (directory, real) = store();
    let single = Cache::open(directory.path(), OwnershipMap::Single).unwrap();
    let snapshot = record(&["layer"], 0).snapshot;
    let (_run, staged) = stage(&real, "x");
    real.publish_layer(&staged, &snapshot, false).unwrap();
    assert_eq!(single.layer_path(&snapshot).unwrap(), None);
}

#[test]
fn a_layer_with_other_signs_for_deleted_names_is_not_seen() {
    let (directory, devices) = store();
    let open = || Cache::open(directory.path(), OwnershipMap::Real).unwrap();
    let sockets = open().with_deletions(Deletions::Sockets);
    let snapshot = record(&["layer"], 0).snapshot;
    let (_run, staged) = stage(&devices, "x");
    let path = devices.publish_layer(&staged, &snapshot, false).unwrap();
    assert_eq!(sockets.layer_path(&snapshot).unwrap(), None);
    let (_run, staged) = stage(&sockets, "y");
    let other = sockets.publish_layer(&staged, &snapshot, false).unwrap();
    assert_eq!(open().layer_path(&snapshot).unwrap(), Some(path.clone()));
    // A prune that keeps nothing knows both.
    drop((devices, sockets, _run));
    open().prune(&PruneOptions::default()).unwrap();
    assert!(!path.exists() && !other.exists());
}

#[test]
fn of_two_processes_that_publish_a_layer_one_wins_and_both_can_use_it() {
    let (directory, cache) = store();
    let snapshot = record(&["layer"], 0).snapshot;
    let paths = two_at_once(&directory, |cache, process| {
        let (_run, staged) = stage(&cache, &process.to_string());
        let path = cache.publish_layer(&staged, &snapshot, false).unwrap();
        assert!(!staged.exists());
        path
    });
    assert_eq!(paths[0], paths[1]);
    assert_eq!(cache.layer_path(&snapshot).unwrap().as_ref(), Some(&paths[0]));
    assert_eq!(fs::read_dir(&paths[0]).unwrap().count(), 1);
}

#[test]
fn a_layer_whose_process_died_before_it_could_tell_is_replaced() {
    let (directory, cache) = store();
    let snapshot = record(&["layer"], 0).snapshot;
    let orphan = directory.path().join("layers/real").join(Digest::of("layer").hex());
    fs::create_dir(&orphan).unwrap();
    assert_eq!(cache.layer_path(&snapshot).unwrap(), None);

    let (_run, staged) = stage(&cache, "x");
    fs::write(orphan.join("file"), "orphan").unwrap();
    let path = cache.publish_layer(&staged, &snapshot, false).unwrap();

    assert_eq!(path, orphan);
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "x");
    assert_eq!(cache.layer_path(&snapshot).unwrap(), Some(orphan));
}

#[test]
fn a_forgotten_layer_is_gone_and_can_be_published_again() {
    let (_directory, cache) = store();
    let snapshot = record(&["layer"], 0).snapshot;
    let (_first, staged) = stage(&cache, "damaged");
    cache.publish_layer(&staged, &snapshot, false).unwrap();

    cache.forget_layer(&snapshot).unwrap();

    assert_eq!(cache.layer_path(&snapshot).unwrap(), None);
    let (_second, staged) = stage(&cache, "whole");
    let path = cache.publish_layer(&staged, &snapshot, false).unwrap();
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "whole");
}

#[test]
fn only_blobs_that_are_here_are_forms_of_a_layer() {
    let (_directory, cache) = store();
    let digest = cache.add_blob(b"gzip").unwrap();
    let here = Descriptor::new(media_type::LAYER_GZIP, digest, 4);
    let elsewhere = Descriptor::of(media_type::LAYER_ZSTD, b"zstd");
    cache.remember_layer_blob(layer("a"), &here).unwrap();
    cache.remember_layer_blob(layer("a"), &elsewhere).unwrap();
    cache.remember_remote(layer("a"), &elsewhere, &reference("alpine")).unwrap();

    assert_eq!(cache.layer_blobs(layer("a")).unwrap(), [here]);
    let remotes = cache.remotes(layer("a")).unwrap();
    assert_eq!(remotes.len(), 1);
    assert_eq!((&remotes[0].descriptor, &remotes[0].reference), (&elsewhere, &reference("alpine")));
}

#[test]
fn a_blob_from_elsewhere_is_a_form_of_a_layer_but_not_one_that_was_made_here() {
    let (_directory, cache) = store();
    let add = |bytes: &[u8]| {
        cache.add_blob(bytes).unwrap();
        Descriptor::of(media_type::LAYER_GZIP, bytes)
    };
    let (made, foreign) = (add(b"made"), add(b"foreign"));
    let told = Descriptor { urls: vec!["http://evil.example/".to_owned()], ..foreign.clone() };
    cache.remember_layer_blob(layer("a"), &made).unwrap();
    for blob in [&told, &made] {
        cache.remember_foreign_blob(layer("a"), blob).unwrap();
    }

    assert_eq!(cache.made_layer_blobs(layer("a")).unwrap(), [made]);
    let all = cache.layer_blobs(layer("a")).unwrap();
    assert!(all.len() == 2 && all.contains(&foreign), "{all:?}");
    assert_eq!(cache.layer_blob(layer("a"), &foreign.digest).unwrap(), Some(foreign));
}

#[test]
fn small_facts_are_remembered() {
    let (directory, cache) = store();
    let (snapshot, selection, digest) =
        (record(&["a"], 0).snapshot, Digest::of("*.rs"), Digest::of("files"));
    let base = Some(ChainId(Digest::of("base")));
    cache.remember_files(&snapshot, selection, digest).unwrap();
    cache.remember_context_files(Path::new("/src"), selection, b"old").unwrap();
    cache.remember_context_files(Path::new("/src"), selection, b"stat").unwrap();
    cache.remember_document(&digest, b"{}").unwrap();
    cache.remember_pin("alpine", digest).unwrap();
    cache.remember_stamp(base, digest, layer("a"), b"times").unwrap();
    cache.remember_clamped_layer(layer("a"), 5, layer("b")).unwrap();

    let other = again(&directory);
    assert_eq!(other.files(&snapshot, selection).unwrap(), Some(digest));
    assert_eq!(other.files(&Snapshot::default(), selection).unwrap(), None);
    let stat = other.context_files(Path::new("/src"), selection).unwrap();
    assert_eq!(stat.as_deref(), Some(&b"stat"[..]));
    assert_eq!(other.context_files(Path::new("/"), selection).unwrap(), None);
    assert_eq!(other.document(&digest).unwrap().as_deref(), Some(&b"{}"[..]));
    assert_eq!(other.pin("alpine").unwrap().unwrap().digest, digest);
    assert!(other.pin("debian").unwrap().is_none());
    assert_eq!(other.stamp(base, digest).unwrap(), Some(layer("a")));
    assert_eq!(other.stamp(None, digest).unwrap(), None);
    assert_eq!(other.layer_times(layer("a")).unwrap().as_deref(), Some(&b"times"[..]));
    assert_eq!(other.clamped_layer(layer("a"), 5).unwrap(), Some(layer("b")));
    assert_eq!(other.clamped_layer(layer("a"), 6).unwrap(), None);
}

#[test]
fn index_json_names_each_image_in_full() {
    let (directory, cache) = store();
    let names = [reference("app:1"), reference("localhost:5000/x/app")];
    cache.tag_all(&names, &image("one")).unwrap();
    cache.tag(&names[0], &image("two")).unwrap();

    let index = index(directory.path());

    let names_and_digests: Vec<_> = index
        .manifests
        .iter()
        .map(|entry| {
            let name = &entry.annotations["org.opencontainers.image.ref.name"];
            assert_eq!(name, &entry.annotations["io.containerd.image.name"]);
            (name.as_str(), entry.digest)
        })
        .collect();
    let expected = [
        ("docker.io/library/app:1", image("two").digest),
        ("localhost:5000/x/app:latest", image("one").digest),
    ];
    assert_eq!(names_and_digests, expected);
    assert_eq!(cache.image(&names[0]).unwrap(), Some(image("two")));
    assert_eq!(cache.images().unwrap().len(), 2);
}

#[test]
fn a_name_that_is_taken_away_leaves_the_index() {
    let (directory, cache) = store();
    cache.tag(&reference("app"), &image("one")).unwrap();
    assert!(cache.untag(&reference("app")).unwrap());
    assert!(!cache.untag(&reference("app")).unwrap());
    assert_eq!(index(directory.path()).manifests, []);
}

#[test]
fn naming_an_image_as_it_is_named_already_writes_nothing() {
    let (directory, cache) = store();
    cache.tag(&reference("app"), &image("one")).unwrap();
    fs::remove_file(directory.path().join("index.json")).unwrap();

    cache.tag(&reference("app"), &image("one")).unwrap();

    assert!(!directory.path().join("index.json").exists());
}

#[test]
fn two_processes_name_images_at_once_and_the_index_has_all() {
    let (directory, _cache) = store();
    two_at_once(&directory, |cache, process| {
        for number in 0..20 {
            let name = reference(&format!("app{process}:{number}"));
            cache.tag(&name, &image("one")).unwrap();
            index(cache.root());
        }
    });
    assert_eq!(index(directory.path()).manifests.len(), 40);
}

#[test]
fn a_lease_is_one_process_s_and_free_when_it_is_dropped() {
    let (directory, cache) = store();
    let other = again(&directory);
    let lease = cache.lease(&key("make")).unwrap();
    assert!(other.try_lease(&key("make")).unwrap().is_none());
    assert!(other.try_lease(&key("test")).unwrap().is_some());

    drop(lease);

    assert!(other.try_lease(&key("make")).unwrap().is_some());
    assert_eq!(fs::read_dir(directory.path().join("locks")).unwrap().count(), 0);
}

#[test]
fn never_do_two_processes_hold_a_lease_at_once() {
    let (directory, _cache) = store();
    let holders = AtomicU32::new(0);
    two_at_once(&directory, |cache, _| {
        for _ in 0..500 {
            let lease = cache.lease(&key("make")).unwrap();
            holders.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            let seen = holders.fetch_sub(1, Ordering::SeqCst);
            drop(lease);
            assert_eq!(seen, 1);
        }
    });
}

#[test]
fn reclaiming_takes_what_is_dead_and_leaves_what_lives() {
    let (directory, cache) = store();
    let alive = cache.run_dir().unwrap();
    fs::write(alive.path().join("file"), "x").unwrap();
    // What a killed process leaves: its lock file, locked by nobody.
    let dead = directory.path().join("run/1-2-3");
    fs::create_dir_all(dead.join("upper/deep")).unwrap();
    fs::write(dead.join("lock"), "").unwrap();

    again(&directory).reclaim().unwrap();

    assert!(!dead.exists());
    assert!(alive.path().join("file").exists());
    drop(alive);
    assert_eq!(fs::read_dir(directory.path().join("run")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_removed_does_not_keep_the_rest() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (directory, cache) = store();
    let dead = |name: &str| directory.path().join("run").join(format!("dead-{name}"));
    for name in ["a", "b", "c"] {
        fs::create_dir_all(dead(name).join("mount")).unwrap();
    }
    rustix::mount::mount_bind(directory.path().join("locks"), dead("b").join("mount")).unwrap();

    let result = cache.reclaim();

    rustix::mount::unmount(dead("b").join("mount"), rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(result.unwrap_err().to_string().contains("dead-b"));
    assert_eq!(["a", "b", "c"].map(|name| dead(name).exists()), [false, true, false]);
}

#[test]
fn a_big_run_directory_is_dead_at_once_and_deleted_later() {
    let (directory, cache) = store();
    let run = cache.run_dir().unwrap();
    for number in 0..1000 {
        fs::write(run.path().join(number.to_string()), "").unwrap();
    }
    let path = run.path().to_owned();
    drop(run);
    assert!(!path.exists());
    assert_eq!(fs::read_dir(directory.path().join("run")).unwrap().count(), 1);

    cache.reclaim().unwrap();

    assert_eq!(fs::read_dir(directory.path().join("run")).unwrap().count(), 0);
}

#[test]
fn a_cache_mount_keeps_its_files_and_is_seeded_once() {
    let (_directory, cache) = store();
    let take = |text: &'static str| {
        cache.try_cache_mount("../../etc", Sharing::Shared, |new| -> Result<(), CacheError> {
            fs::write(new.join("seed"), text).unwrap();
            Ok(())
        })
    };
    let path = take("first").unwrap().expect("nobody uses it").path().to_owned();

    let again = take("second").unwrap().expect("nobody uses it");

    assert_eq!(again.path(), path);
    assert!(path.starts_with(cache.root().join("mounts")));
    assert_eq!(fs::read_to_string(path.join("seed")).unwrap(), "first");
}

/// Both have mounted it by then: replacing an empty directory would part them.
#[test]
fn of_two_who_make_a_shared_cache_mount_at_a_time_both_get_the_same_directory() {
    let (_directory, cache) = store();
    let mut of_the_faster = None;
    let slower = cache.try_cache_mount("id", Sharing::Shared, |_| -> Result<(), CacheError> {
        let faster = cache.try_cache_mount("id", Sharing::Shared, |_| Ok::<_, CacheError>(()))?;
        of_the_faster = faster.map(|mount| fs::metadata(mount.path()).unwrap().ino());
        Ok(())
    });
    let slower = slower.unwrap().expect("all may use it");
    assert_eq!(Some(fs::metadata(slower.path()).unwrap().ino()), of_the_faster);
}

/// A command of another process may be running in it.
#[test]
fn a_cache_mount_that_others_could_write_stays_whole_for_those_who_use_it() {
    let (directory, cache) = store();
    let take = |cache: &Cache| {
        let seed = |new: &Path| {
            fs::write(new.join("f"), "f").unwrap();
            Ok::<_, CacheError>(())
        };
        cache.try_cache_mount("id", Sharing::Shared, seed).unwrap().expect("all may use it")
    };
    let used = take(&cache);
    let inside = fs::File::open(used.path()).unwrap();
    cache.has_blob(&Digest::of("any")).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();

    let place = Place::find(directory.path(), None).unwrap();
    let other = Cache::open(&place.path, OwnershipMap::Real).unwrap();
    assert!(other.rebuilt().is_some(), "others could write it");
    other.reclaim().unwrap();

    let seen = format!("/proc/self/fd/{}/f", std::os::fd::AsRawFd::as_raw_fd(&inside));
    assert_eq!(fs::read_to_string(&seen).unwrap(), "f");
    assert_ne!(fs::metadata(take(&other).path()).unwrap().ino(), inside.metadata().unwrap().ino());
    drop((used, cache));
    other.reclaim().unwrap();
    assert!(!Path::new(&seen).exists());
}

#[test]
fn a_private_cache_mount_in_use_is_not_shared() {
    let (_directory, cache) = store();
    let take = || {
        let taken = cache.try_cache_mount("id", Sharing::Private, |_| Ok::<(), CacheError>(()));
        taken.unwrap().expect("there is always another one")
    };
    let (first, second) = (take(), take());
    assert_ne!(first.path(), second.path());
    let freed = first.path().to_owned();
    drop(first);
    assert_eq!(take().path(), freed);
}

#[test]
fn a_locked_cache_mount_is_for_one_at_a_time() {
    let (_directory, cache) = store();
    let take =
        |sharing| cache.try_cache_mount("id", sharing, |_| Ok::<(), CacheError>(())).unwrap();
    let locked = take(Sharing::Locked).expect("nobody uses it");
    assert!(take(Sharing::Locked).is_none());
    assert!(take(Sharing::Shared).is_none());
    drop(locked);
    let shared = take(Sharing::Shared).expect("it is free again");
    assert!(take(Sharing::Shared).is_some());
    assert!(take(Sharing::Locked).is_none());
    drop(shared);
}

#[test]
fn a_mount_that_could_not_be_seeded_is_not_there() {
    let (_directory, cache) = store();
    let failed = cache
        .try_cache_mount("id", Sharing::Locked, |_| Err(CacheError::MissingBlob(Digest::of("x"))));
    assert!(failed.is_err());
    let mut seeded = false;
    let seed = |_: &Path| {
        seeded = true;
        Ok::<(), CacheError>(())
    };
    assert!(cache.try_cache_mount("id", Sharing::Locked, seed).unwrap().is_some());
    assert!(seeded);
}

#[test]
fn somebody_else_s_directory_is_not_made_a_store() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.txt"), "").unwrap();
    let error = Cache::open(directory.path(), OwnershipMap::Real).unwrap_err();
    assert!(matches!(error, CacheError::NotAStore { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_store_from_the_future_is_left_alone() {
    let (directory, cache) = store();
    drop(cache);
    let database = rusqlite::Connection::open(directory.path().join("rbuild.db")).unwrap();
    database.pragma_update(None, "user_version", 999).unwrap();
    drop(database);

    let error = Cache::open(directory.path(), OwnershipMap::Real).unwrap_err();

    assert!(matches!(error, CacheError::FutureFormat { found: 999, .. }), "{error}");
    assert!(error.to_string().contains("format 999"), "{error}");
}

#[test]
fn a_missing_permission_is_named_with_its_path() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (directory, _cache) = store();
    let path = directory.path().to_owned();
    let as_nobody = move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        Cache::open(&path, OwnershipMap::Real).unwrap_err()
    };
    let error = std::thread::spawn(as_nobody).join().unwrap();

    let CacheError::Io { path, source, .. } = error else { panic!("{error}") };
    assert_eq!(path, directory.path().join("rbuild.db"));
    assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn a_new_store_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("share/rbuild");
    Cache::open(&root, OwnershipMap::Real).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("run")), 0o700);
    assert_eq!(mode(&root.join("rbuild.db")), 0o600);
}

#[test]
fn syncing_leaves_nothing_to_sync() {
    let (_directory, cache) = store();
    cache.add_blob(b"hello").unwrap();
    cache.sync(|| false).unwrap();
    cache.sync(|| false).unwrap();
    assert!(cache.has_blob(&Digest::of("hello")).unwrap());
}
