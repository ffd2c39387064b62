//! What is mounted where.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::time::Duration;

use builder::sandbox::{ContainerMount, MountSource, bind_path, tmpfs};
use rustix::fs::{Mode, OFlags};

use crate::support::{BUSYBOX, Fixture};
#[test]
fn resolv_conf_and_hosts_are_given_and_read_only() {
    let Some(fixture) = Fixture::new() else { return };
    let seen = fixture.prints("cat /etc/resolv.conf /etc/hosts");
    assert_eq!(seen, "nameserver 192.0.2.1\n127.0.0.1 localhost\n");
    let ran = fixture.run(fixture.shell("echo x >/etc/resolv.conf"));
    assert!(ran.stderr.contains("Read-only file system"), "{ran:?}");
    assert_eq!(fs::read(fixture.path("etc/resolv.conf")).unwrap(), b"");
}

#[test]
fn terminals_shared_memory_and_queues_are_there() {
    let Some(fixture) = Fixture::new() else { return };
    let seen = fixture.prints(
        "test -c /dev/ptmx && grep -E ' /dev/(pts|shm|mqueue) ' /proc/mounts | wc -l; \
         grep ' /dev/shm ' /proc/mounts | grep -o 'size=[0-9]*k'; echo x >/dev/shm/x; stat -c %a /dev/shm",
    );
    assert_eq!(seen, "3\nsize=65536k\n1777\n");
}

/// CVE-2021-30465, CVE-2024-9341 (GHSA-mc76-5925-c5p6), CVE-2025-9566: a target that is a link of the
/// image, that of a secret too.
#[test]
fn mounts_are_attached_in_order_and_follow_links_inside_only() {
    let Some(fixture) = Fixture::new() else { return };
    symlink("/../../home", fixture.path("link")).unwrap();
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "content").unwrap();
    let mut container = fixture.shell("cat /home/below/file; cat /home/secret; stat -c %a /home/secret; ! echo x >/home/below/file");
    container.mounts = vec![
        ContainerMount {
            source: MountSource::Mount(tmpfs(Some(1 << 20), 0o755).unwrap()),
            target: "/link".into(),
        },
        ContainerMount {
            source: MountSource::Mount(bind_path(source.path(), true).unwrap()),
            target: "/home/below".into(),
        },
        ContainerMount {
            source: MountSource::File {
                data: b" secret ".to_vec(),
                mode: 0o400,
                uid: 0,
                gid: 0,
                read_only: true,
            },
            target: "/link/secret".into(),
        },
    ];
    assert_eq!(fixture.run(container).succeeded(), "content secret 400\n");
    assert_eq!(fs::read_dir(fixture.path("home")).unwrap().count(), 0);
}

#[test]
fn files_in_memory_can_do_no_more_than_they_must() {
    let Some(fixture) = Fixture::new() else { return };
    let mut container = fixture.shell(
        "while read -r what where kind options rest; do case $where in \
         /plain|/script) echo $where $kind $options; esac; done </proc/mounts; /script",
    );
    container.mounts = [("/plain", 0o444, true), ("/script", 0o755, false)]
        .map(|(target, mode, read_only)| {
            let data = b"#!/bin/sh\necho ran\n".to_vec();
            let source = MountSource::File { data, mode, uid: 0, gid: 0, read_only };
            ContainerMount { source, target: target.into() }
        })
        .into();
    let seen = fixture.run(container).succeeded();
    let lines: Vec<_> = seen.lines().collect();
    assert!(lines[0].starts_with("/plain tmpfs ro,nosuid,nodev,noexec,"), "{seen}");
    assert!(lines[1].starts_with("/script tmpfs rw,nosuid,nodev,relatime,"), "{seen}");
    assert_eq!(lines[2..], ["ran"]);
}

/// CVE-2025-52881: nothing of an image stands in for a file of `/proc`.
#[test]
fn mounts_over_the_root_or_inside_proc_are_refused() {
    let Some(fixture) = Fixture::new() else { return };
    symlink("/proc/self", fixture.path("link")).unwrap();
    let cases = [
        ("/", "cannot mount /: it is the root"),
        ("/proc", "cannot mount /proc: it is inside /proc"),
        ("/proc/sys", "cannot mount /proc/sys: it is inside /proc"),
        ("/etc/hosts", "cannot mount /etc/hosts: it is a file, and what is mounted a directory"),
    ];
    for (target, expected) in cases {
        let mut container = fixture.shell("true");
        let source = MountSource::Mount(tmpfs(None, 0o755).unwrap());
        container.mounts = vec![ContainerMount { source, target: target.into() }];
        let error = fixture.run(container).failed();
        assert_eq!(error, format!("cannot set up the container: {expected}"));
    }
}

/// CVE-2023-27561, CVE-2023-28642, CVE-2025-54867, CVE-2026-41579 (GHSA-xjvp-4fhw-gc47,
/// GHSA-7vwr-4279-7gq5).
#[test]
fn a_proc_that_is_a_link_is_refused() {
    let Some(fixture) = Fixture::new() else { return };
    for name in ["proc", "dev", "sys"] {
        fs::remove_dir(fixture.path(name)).unwrap();
        symlink(format!("/{name}"), fixture.path(name)).unwrap();
        let error = fixture.run(fixture.shell("true")).failed();
        assert_eq!(
            error,
            format!(
                "cannot set up the container: /{name} of the image is a symbolic link; \
                 a command needs an ordinary directory there"
            )
        );
        fs::remove_file(fixture.path(name)).unwrap();
        fs::create_dir(fixture.path(name)).unwrap();
    }
}

#[test]
fn mount_points_that_were_missing_are_taken_away_again() {
    let Some(fixture) = Fixture::new() else { return };
    for name in ["proc", "dev", "sys", "home"] {
        fs::remove_dir(fixture.path(name)).unwrap();
    }
    fs::remove_file(fixture.path("etc/resolv.conf")).unwrap();
    symlink("../run/resolve/stub.conf", fixture.path("etc/resolv.conf")).unwrap();
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(fixture.root.path()).unwrap().set_modified(long_ago).unwrap();
    // A daemon that is left behind must not hold them.
    let mut container =
        fixture.shell("cat /run/resolve/stub.conf; setsid sleep 100 & echo y >/kept/y");
    container.mounts = ["/home/cache", "/kept"]
        .map(|target| ContainerMount {
            source: MountSource::Mount(tmpfs(None, 0o755).unwrap()),
            target: target.into(),
        })
        .into();
    assert_eq!(fixture.run(container).succeeded(), "nameserver 192.0.2.1\n");
    let mut left: Vec<_> = fs::read_dir(fixture.root.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["bin", "etc", "tmp"]);
    assert_eq!(fs::metadata(fixture.root.path()).unwrap().modified().unwrap(), long_ago);
}

#[test]
fn the_root_need_not_be_a_directory_of_the_host() {
    let Some(fixture) = Fixture::new() else { return };
    let root = tmpfs(Some(8 << 20), 0o755).unwrap();
    rustix::fs::mkdirat(root.as_fd(), "bin", Mode::from_raw_mode(0o755)).unwrap();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&root, "bin/echo", flags, Mode::from_raw_mode(0o755)).unwrap();
    std::io::copy(&mut fs::File::open(BUSYBOX).unwrap(), &mut fs::File::from(file)).unwrap();
    let mut container = fixture.container(&["echo", "from", "memory"]);
    container.root = root;
    assert_eq!(fixture.run(container).succeeded(), "from memory\n");
}
