//! Containers where nothing can be mounted and no namespace be made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use builder::sandbox::{ContainerMount, Exit, MountSource, Network, SandboxError};
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, processes_with};

/// Every path below a root with all that a layer says of it.
fn listing(root: &Path) -> Vec<String> {
    let entries = walk(root).into_iter();
    let line = |(path, found): (PathBuf, fs::Metadata)| {
        format!("{} {} {}", describe(root, &path, &found), found.mtime(), found.mtime_nsec())
    };
    entries.map(line).collect()
}

/// The same without times.
fn contents(root: &Path) -> Vec<String> {
    walk(root).into_iter().map(|(path, found)| describe(root, &path, &found)).collect()
}

fn describe(root: &Path, path: &Path, found: &fs::Metadata) -> String {
    let content = if found.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    let content = String::from_utf8_lossy(&content[..content.len().min(20)]).into_owned();
    let (path, mode) = (path.strip_prefix(root).unwrap().display(), found.mode());
    format!("{path} {mode:o} {}:{} {content:?}", found.uid(), found.gid())
}

fn walk(directory: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = vec![(directory.to_owned(), fs::symlink_metadata(directory).unwrap())];
    let mut below: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    below.sort();
    for path in below {
        match fs::symlink_metadata(&path).unwrap() {
            directory if directory.is_dir() => found.extend(walk(&path)),
            other => found.push((path, other)),
        }
    }
    found
}

/// A fixture whose files are all older than anything that happens to them.
fn old() -> Option<Fixture> {
    let fixture = Fixture::by_chroot()?;
    fs::write(fixture.path("etc/hosts"), "the image's\n").unwrap();
    fs::write(fixture.path("dev/of-the-image"), "a device\n").unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for path in ["etc/hosts", "dev/of-the-image", "dev", "proc", "sys", "etc", "tmp", "."] {
        fs::File::open(fixture.path(path)).unwrap().set_modified(time).unwrap();
    }
    Some(fixture)
}

fn tree(fixture: &Fixture, name: &str) -> PathBuf {
    let path = fixture.beside.path().join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn secret(target: &str) -> ContainerMount {
    let (data, mode, uid, gid) = (b"hush\n".to_vec(), 0o440, 1000, 1001);
    let source = MountSource::File { data, mode, uid, gid, read_only: true };
    ContainerMount { source, target: target.to_owned() }
}

fn moved(path: &Path, target: &str, returns: bool) -> ContainerMount {
    let source = MountSource::Moved { path: path.to_owned(), returns };
    ContainerMount { source, target: target.to_owned() }
}

#[test]
fn a_command_finds_what_it_expects_and_nothing_of_it_stays() {
    let Some(fixture) = old() else { return };
    let before = listing(fixture.root.path());
    let seen = fixture.prints(
        "cat /etc/resolv.conf /etc/hosts; for f in null zero full random urandom tty; do \
         test -c /dev/$f && stat -c '%n %a %u:%g %t,%T' /dev/$f; done; echo x >/dev/null; \
         dd if=/dev/zero of=/dev/shm/zeroes bs=3 count=1 2>/dev/null; stat -c %a /dev/shm; \
         test -e /dev/of-the-image || echo hidden; echo new >/dev/new; echo x >/etc/hosts; \
         grep processor /proc/cpuinfo >/dev/null && ls /sys | wc -l; pwd; id -u; stat -c %Y /etc",
    );
    let expected = "nameserver 192.0.2.1\n127.0.0.1 localhost\n/dev/null 666 0:0 1,3\n\
                    /dev/zero 666 0:0 1,5\n/dev/full 666 0:0 1,7\n/dev/random 666 0:0 1,8\n\
                    /dev/urandom 666 0:0 1,9\n/dev/tty 666 0:0 5,0\n1777\nhidden\n0\n/\n0\n\
                    1000000000\n";
    assert_eq!(seen, expected);
    assert_eq!(listing(fixture.root.path()), before);
}

#[test]
fn what_a_command_does_beside_the_places_stays() {
    let Some(fixture) = old() else { return };
    let mut container = fixture.shell("rm -r /etc /dev; mkdir /dev; echo made >/made; pwd");
    container.cwd = "/work/here".to_owned();
    assert_eq!(fixture.run(container).succeeded(), "/work/here\n");
    assert!(!fixture.path("etc").exists());
    assert_eq!(fs::read_to_string(fixture.path("made")).unwrap(), "made\n");
    // The image's own is what the layer has.
    assert_eq!(fs::read_to_string(fixture.path("dev/of-the-image")).unwrap(), "a device\n");
}

#[test]
fn a_time_that_the_command_changes_is_its_own() {
    let Some(fixture) = old() else { return };
    fixture.prints("touch -d @1234567890 /etc; touch /tmp/new");
    assert_eq!(fs::metadata(fixture.path("etc")).unwrap().mtime(), 1_234_567_890);
    assert!(fs::metadata(fixture.path("tmp")).unwrap().mtime() > 1_500_000_000);
}

#[test]
fn mounts_are_put_in_order_inside_each_other_and_taken_out_again() {
    let Some(fixture) = old() else { return };
    fs::create_dir(fixture.path("home/of-the-image")).unwrap();
    symlink("/home", fixture.path("link")).unwrap();
    let (cache, bound) = (tree(&fixture, "cache"), tree(&fixture, "bound"));
    fs::write(cache.join("kept"), "kept\n").unwrap();
    fs::write(bound.join("file"), "bound\n").unwrap();
    let before = listing(fixture.root.path());
    let tmpfs = MountSource::Tmpfs { size: Some(1), mode: 0o1777 };
    let mut container = fixture.shell(
        "cat /home/kept /home/below/file /run/secrets/key; stat -c '%a %u:%g' /run/secrets/key; \
         ls -A /tmp; stat -c %a /tmp; test -e /home/of-the-image || echo hidden; \
         echo new >/home/new; echo x >/home/below/file; echo x >/tmp/x; rm /run/secrets/key",
    );
    container.mounts = vec![
        moved(&cache, "/link", true),
        moved(&bound, "/home/below", false),
        ContainerMount { source: tmpfs, target: "/tmp".to_owned() },
        secret("/run/secrets/key"),
    ];
    let seen = fixture.run(container).succeeded();
    assert_eq!(seen, "kept\nbound\nhush\n440 1000:1001\n1777\nhidden\n");
    assert_eq!(listing(fixture.root.path()), before);
    let names = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["kept", "new"]);
    assert!(!bound.exists());
}

#[test]
fn a_place_that_the_command_replaces_is_no_part_of_its_result() {
    let Some(fixture) = old() else { return };
    let cache = tree(&fixture, "cache");
    let before = contents(fixture.root.path());
    let mut container = fixture.shell(
        "rm -r /home; mkdir /home; echo new >/home/new; rm /run/key; mkdir /run/key; \
         echo x >/run/key/x; rm /etc/hosts; mv /etc/resolv.conf /etc/hosts",
    );
    container.mounts = vec![moved(&cache, "/home", true), secret("/run/key")];
    fixture.run(container).succeeded();
    assert_eq!(contents(fixture.root.path()), before);
    assert_eq!(fs::read_to_string(cache.join("new")).unwrap(), "new\n");
}

/// Issue 9, section 2: a secret must not become part of a layer, whoever owns the directory that it is
/// shown in, and neither must what is mounted otherwise.
#[test]
fn what_is_lent_to_a_command_stays_under_no_name_that_the_command_gives_it() {
    let Some(fixture) = old() else { return };
    for script in [
        "mv /home/key /home/leak",
        "ln /home/key /home/leak",
        "ln /home/key /home/leak; rm /home/key",
        "mkdir /home/d; mv /home/key /home/d; echo other >/home/key",
        "mv /home/key /leak; mkdir /home/key",
        "mv /etc/resolv.conf /home/leak",
    ] {
        let mut container = fixture.shell(script);
        container.mounts = vec![secret("/home/key")];
        let said = fixture.run(container).failed();
        assert!(said.contains("has moved /"), "{script}: {said}");
        for line in contents(fixture.root.path()) {
            assert!(!line.contains("hush") && !line.contains("192.0.2.1"), "{script}: {line}");
        }
        fixture.prints("rm -rf /home/* /leak");
    }
    for (script, returns) in [
        ("mv /home/dir /home/leak", false),
        ("mv /home/dir /leak", true),
        ("mv /home/dir /leak; mkdir /home/dir", true),
        ("mv /home/file /leak", false),
        ("mv /home/dir /tmp/leak", true),
        ("mv /dev /leak", false),
    ] {
        let (dir, beside) = (tree(&fixture, "dir"), tree(&fixture, "file-s"));
        fs::write(beside.join("file"), "bound\n").unwrap();
        let tmpfs = MountSource::Tmpfs { size: None, mode: 0o755 };
        let mut container = fixture.shell(script);
        container.mounts = vec![
            moved(&dir, "/home/dir", returns),
            moved(&beside.join("file"), "/home/file", false),
            ContainerMount { source: tmpfs, target: "/tmp".to_owned() },
        ];
        let said = fixture.run(container).failed();
        assert!(said.contains("has moved /"), "{script}: {said}");
        fixture.prints("rm -rf /home/* /leak");
        let _moved_away = fs::remove_dir(dir);
        fs::remove_dir(beside).unwrap();
    }
}

/// CVE-2021-30465, CVE-2024-21626, CVE-2024-9341: links of the image, before and while it runs.
#[test]
fn no_link_leads_a_place_out_of_the_root() {
    let Some(fixture) = old() else { return };
    let (cache, outside) = (tree(&fixture, "cache"), tree(&fixture, "outside"));
    symlink(format!("/../../..{}", outside.display()), fixture.path("out")).unwrap();
    let mut container = fixture.shell(
        "echo inside >/out/file; mv /run /elsewhere; mkdir /run; echo own >/run/key; echo old >/etc/old",
    );
    container.mounts = vec![moved(&cache, "/out", true), secret("/run/key")];
    fixture.run(container).succeeded();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(cache.join("file")).unwrap(), "inside\n");
    assert!(!fixture.path("elsewhere/key").exists());
    assert_eq!(fs::read_to_string(fixture.path("run/key")).unwrap(), "own\n");
}

#[test]
fn what_cannot_be_mounted_is_told_and_what_was_before_it_taken_out() {
    let Some(fixture) = old() else { return };
    let before = listing(fixture.root.path());
    let mut container = fixture.shell("true");
    container.mounts = vec![secret("/run/key"), secret("/home")];
    let said = fixture.run(container).failed();
    assert!(said.contains("cannot mount /home: it is a directory"), "{said}");
    let mut container = fixture.shell("true");
    container.mounts = vec![moved(&tree(&fixture, "cache"), "/", true)];
    let said = fixture.run(container).failed();
    assert!(said.contains("cannot mount /: it is the root"), "{said}");
    assert_eq!(listing(fixture.root.path()), before);
    let mut container = fixture.shell("true");
    container.network = Network::None;
    let said = fixture.run(container).failed();
    assert!(said.contains("seccomp=unconfined"), "{said}");
}

#[test]
fn a_user_who_is_not_root_has_its_rights_alone() {
    let Some(fixture) = old() else { return };
    let mut container = fixture.shell(
        "id -u; id -g; id -G; grep -c . /proc/version; echo x >/etc/new || echo refused; \
         echo x >/home/mine; cat /run/key || echo hidden; ulimit -n; echo x >/dev/null",
    );
    std::os::unix::fs::chown(fixture.path("home"), Some(1000), Some(1000)).unwrap();
    container.mounts = vec![secret("/run/key")];
    container.ulimits = vec![("nofile".to_owned(), 33, 44)];
    (container.uid, container.gid, container.groups) = (1000, 1000, vec![1000, 7]);
    let seen = fixture.run(container).succeeded();
    assert_eq!(seen, "1000\n1000\n1000 7\n1\nrefused\nhush\n33\n");
    assert_eq!(fs::metadata(fixture.path("home/mine")).unwrap().uid(), 1000);
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let Some(fixture) = old() else { return };
    let mark = "27182.1";
    let script = format!(
        "(setsid sh -c \"trap '' TERM HUP; sleep {mark} & sleep {mark}\" &) & sleep 0.1; echo done; exit 3"
    );
    let ran = fixture.run(fixture.shell(&script));
    ran.ended_with(Exit::Code(3));
    assert_eq!(ran.stdout, "done\n");
    assert_eq!(processes_with(mark), 0);
}

/// Issue 9, 1.10: root of the container can kill what sees to that.
#[test]
fn what_a_command_leaves_running_ends_even_if_it_kills_its_supervisor() {
    let Some(fixture) = old() else { return };
    let mark = "27182.3";
    let script = format!(
        "(setsid sh -c 'sleep {mark} & sleep {mark}' &); sleep 0.1; kill -9 $PPID; sleep {mark}"
    );
    let said = fixture.run(fixture.shell(&script)).failed();
    assert!(said.contains("ended without a report"), "{said}");
    assert_eq!(processes_with(mark), 0);
}

#[test]
fn stopping_ends_even_what_does_not_want_to() {
    let Some(fixture) = old() else { return };
    let before = listing(fixture.root.path());
    let mark = "27182.2";
    let script = format!(
        "trap '' TERM INT; (setsid sh -c \"trap '' TERM; sleep {mark} & sleep {mark}\" &); echo ready; \
         sleep {mark}; sleep {mark}; sleep {mark}"
    );
    let stop = CancellationToken::new();
    let (told, mut stopped_at) = (stop.clone(), None);
    let output = |_stderr: bool, _bytes: &[u8]| {
        stopped_at = Some(Instant::now());
        told.cancel();
    };
    let mut container = fixture.shell(&script);
    container.mounts = vec![secret("/run/key")];
    let running = fixture.sandbox.run(container, output, stop);
    let result = fixture.runtime.block_on(running);
    assert!(matches!(result, Err(SandboxError::Stopped)), "{result:?}");
    assert_eq!(processes_with(mark), 0);
    let took = stopped_at.unwrap().elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(listing(fixture.root.path()), before);
}

#[test]
fn stopping_lets_a_command_clean_up() {
    let Some(fixture) = old() else { return };
    let script = "trap 'echo bye >/tmp/bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let stop = CancellationToken::new();
    let told = stop.clone();
    let running = fixture.sandbox.run(fixture.shell(script), |_, _| told.cancel(), stop);
    assert!(matches!(fixture.runtime.block_on(running), Err(SandboxError::Stopped)));
    assert_eq!(fs::read_to_string(fixture.path("tmp/bye")).unwrap(), "bye\n");
}

#[test]
fn processes_that_fork_without_end_are_ended() {
    let Some(fixture) = old() else { return };
    let mark = "27182.3";
    // Each one starts the next and ends, so none of them lives for long.
    fs::write(fixture.path("bin/hop"), "#!/bin/sh\ntrap '' TERM\nsetsid /bin/sh /bin/hop $1 &\n")
        .unwrap();
    let script =
        format!("for i in 1 2 3 4 5 6 7 8; do sh /bin/hop {mark} & done; sleep 0.2; echo on");
    let begin = Instant::now();
    let ran = fixture.run(fixture.shell(&script));
    assert_eq!(ran.succeeded(), "on\n");
    assert_eq!(processes_with(mark), 0);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn the_end_of_rbuild_ends_all_and_puts_everything_back() {
    let Some(fixture) = old() else { return };
    let cache = tree(&fixture, "cache");
    let before = listing(fixture.root.path());
    let mark = "27182.4";
    let script = format!("(setsid sleep {mark} &); echo x >/home/x; echo ready; sleep {mark}");
    let mut container = fixture.shell(&script);
    container.mounts = vec![moved(&cache, "/home", true), secret("/run/key")];
    let lock = fs::File::create(fixture.beside.path().join("lock")).unwrap();
    lock.lock().unwrap();
    container.beside.as_mut().unwrap().locks.push(lock.into());
    fixture.runtime.block_on(async {
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        let output = |_: bool, _: &[u8]| _ = ready.take().map(|ready| ready.send(()));
        let running = fixture.sandbox.run(container, output, CancellationToken::new());
        // The life line ends with the future.
        tokio::select! {
            result = running => panic!("{result:?}"),
            _ = is_ready => (),
        }
    });
    let begin = Instant::now();
    fs::File::open(fixture.beside.path().join("lock")).unwrap().lock().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(processes_with(mark), 0);
    assert_eq!(listing(fixture.root.path()), before);
    assert_eq!(fs::read_to_string(cache.join("x")).unwrap(), "x\n");
}
