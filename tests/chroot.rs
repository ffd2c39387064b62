//! Root of a container that permits no namespace: commands run by chroot alone.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use test_support::{Base, Caller, Session, Started};

fn session(dockerfile: &str) -> Session {
    Session::new().dockerfile(dockerfile).run_by(Caller::RootWithChrootAlone)
}

/// Mounts of all kinds, in each other, over what the image has, by links of the image.
const MOUNTS: &str = "FROM busybox AS other
RUN mkdir /dir && echo other > /dir/f && chown 5:6 /dir/f && chmod 751 /dir && ln -s /dir /link \\
    && mknod /dir/pipe p && ln -s f /dir/to-f
FROM busybox
RUN mkdir -p /full/below && echo of-the-image > /full/f && ln -s ../full /by-link
COPY src/a /etc/hosts
RUN --mount=type=bind,target=/c ls /c > /tmp/context && echo x > /etc/beside
RUN --mount=source=src/a,target=/w/file cat /w/file > /tmp/file
RUN --mount=from=other,target=/o stat -c %u:%g /o/dir/f > /tmp/owner && ls -A /o/dir > /tmp/names
RUN --mount=from=other,source=link,target=/o stat -c %a /o > /tmp/mode && cat /o/to-f > /tmp/linked
RUN --mount=from=other,source=dir,target=/o,rw echo changed > /o/f && cp /o/f /tmp/changed
RUN --mount=from=other,source=dir,target=/o cp /o/f /tmp/unchanged
RUN --mount=type=tmpfs,target=/by-link --mount=type=tmpfs,target=/full/below/t \\
    ! test -e /full/f && echo x > /full/below/t/x && ls -A /full > /tmp/nested
RUN --mount=type=cache,target=/full --mount=type=bind,source=src,target=/full/src \\
    ls -A /full /full/src > /tmp/cache && echo kept > /full/kept
RUN --mount=type=cache,target=/full cat /full/kept > /tmp/kept
RUN --mount=type=secret,id=s,mode=0440,uid=7,gid=8 --mount=type=secret,id=s,target=/etc/new/s \\
    stat -c %a:%u:%g /run/secrets/s > /tmp/secret && cat /etc/new/s | wc -c >> /tmp/secret
RUN --mount=type=cache,target=/root/.cache,uid=1000 stat -c %u /root/.cache > /tmp/user
RUN <<X
echo 'of the document' > /tmp/document
X
RUN cat /etc/hosts | wc -l > /tmp/hosts; readlink /dev/stdout > /tmp/links; echo x > /dev/null
";

#[test]
fn commands_and_mounts_make_the_layers_that_root_makes() {
    let digest = |caller| {
        let session = Session::new()
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .file("src/a", "context")
            .file("secret", "hush")
            .dockerfile(MOUNTS)
            .run_by(caller);
        session.build(&["-t", "x", "--secret", "id=s,src=context/secret"]).succeeds();
        let image = session.image("x");
        let rootfs = image.rootfs();
        let hosts = rootfs.text("/etc/hosts");
        assert_eq!(
            (hosts.as_str(), rootfs.text("/full/f").as_str()),
            ("context", "of-the-image\n")
        );
        assert!(
            !["/o", "/run/secrets", "/etc/new", "/root/.cache", "/w/file", "/c"]
                .iter()
                .any(|path| rootfs.has(path))
        );
        image.digest.to_string()
    };
    assert_eq!(digest(Caller::RootWithChrootAlone), digest(Caller::Root));
}

#[test]
fn what_commands_do_without_is_said_once() {
    let session = session("FROM busybox\nRUN true\nRUN false || true\nRUN echo\n");
    let said = session.build(&["--shm-size", "1m"]).succeeds().stderr;
    assert_eq!(said.matches("commands run by chroot, which keeps").count(), 1, "{said}");
    assert_eq!(said.matches("--shm-size has no effect").count(), 1, "{said}");
}

#[test]
fn a_command_without_a_network_is_refused() {
    let session = session("FROM busybox\nRUN --network=none true\n");
    session.build(&[]).fails_with(&["without a network", "seccomp=unconfined"]);
}

#[test]
fn where_no_device_can_be_made_the_option_is_named() {
    let session = session("FROM busybox\nRUN true\n");
    let mut command = session.build_command("plain", &[]);
    let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    let words = words.iter().map(|word| word.replace("+mknod,", ""));
    let mut without = session.command("setpriv");
    session.run(without.args(words)).fails_with(&["--cap-add MKNOD"]);
    session.run(&mut command).succeeds();
}

/// pnpm and uv link from their caches where they can.
#[test]
fn a_layer_shares_no_file_with_a_cache() {
    let session = session(
        "FROM busybox AS one
         RUN --mount=type=cache,target=/cache echo one > /cache/f && ln /cache/f /linked
         FROM busybox
         COPY --from=one /linked /first
         RUN --mount=type=cache,target=/cache echo two > /cache/f && ln /cache/f /linked
         RUN --mount=type=cache,target=/cache echo three > /cache/f; cat /linked > /second
         RUN cp /linked /third\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    for (name, content) in [("/first", "one\n"), ("/linked", "two\n"), ("/third", "two\n")] {
        assert_eq!(rootfs.text(name), content, "{name}");
    }
    session.rbuild(&["store", "check"]).succeeds();
}

#[test]
fn a_cache_that_commands_share_is_had_by_one_at_a_time() {
    let session = session(
        "FROM busybox AS a
         RUN --mount=type=cache,target=/c test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy; echo a >> /c/log
         FROM busybox AS b
         RUN --mount=type=cache,target=/c test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy; echo b >> /c/log
         FROM busybox
         COPY --from=a /bin/busybox /a
         COPY --from=b /bin/busybox /b
         RUN --mount=type=cache,target=/c wc -l < /c/log > /count\n",
    );
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/count").trim(), "2");
    session.write("Dockerfile", "FROM busybox\nRUN --mount=type=cache,id=c,target=/c --mount=type=cache,id=c,target=/d true\n");
    session.build(&[]).fails_with(&["cannot put the cache c to two places"]);
}

#[test]
fn an_agent_is_reached_by_its_socket() {
    let session = session(
        "FROM busybox\nRUN --mount=type=ssh,mode=0666,uid=3 stat -c '%F %a %u' $SSH_AUTH_SOCK && \
         printf '\\0\\0\\0\\1\\13' | timeout 5 nc -w 3 local:$SSH_AUTH_SOCK | wc -c; true\n",
    );
    let path = session.path("agent");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut near, _)) = listener.accept() {
            let _asked = near.read(&mut [0; 5]);
            let _gone = near.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]);
        }
    });
    let agent = format!("default={}", path.display());
    let said = session.build(&["--ssh", &agent]).succeeds().stderr;
    assert!(said.contains("socket 666 3"), "{said}");
}

/// A command line that no other process has.
fn processes_with(mark: &str) -> usize {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let lines = numbers.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(mark)).count()
}

/// What has a secret's bytes in it; of a file with many names the first.
fn files_with(directory: &Path, secret: &str) -> Vec<PathBuf> {
    let (mut todo, mut seen, mut found) = (vec![directory.to_owned()], HashSet::new(), vec![]);
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if metadata.is_file() && seen.insert(metadata.ino()) {
            let content = fs::read(&path).unwrap();
            if String::from_utf8_lossy(&content).contains(secret) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_of_a_command_when_rbuild_is_killed_or_asked_to_end() {
    for (number, signal) in [Signal::KILL, Signal::INT, Signal::TERM].into_iter().enumerate() {
        let mark = format!("16180.{number}");
        let session = session(&format!(
            "FROM busybox
             RUN --mount=type=cache,target=/c echo old > /c/f
             RUN --mount=type=cache,target=/c --mount=type=secret,id=s echo new > /c/f; trap '' TERM INT HUP; \
             (setsid sh -c \"trap '' TERM; sleep {mark} & sleep {mark}\" &); nohup sleep {mark} & \
             (while :; do setsid true & done) & echo rea''dy; sleep {mark}; sleep {mark}\n"
        ))
        .file("secret", "hush-hush-hush");
        let args = ["--secret", "id=s,src=context/secret", "--no-cache"];
        let mut started = Started::new(session.build_command("plain", &args));
        started.wait_for(|line| line.ends_with(" ready"));
        let begin = Instant::now();
        started.send(signal);
        started.wait();
        while processes_with(&mark) > 0 {
            assert!(begin.elapsed() < Duration::from_secs(2), "{signal:?}: still there");
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("{signal:?}: {:?}", begin.elapsed());
        session
            .write("Dockerfile", "FROM busybox\nRUN --mount=type=cache,target=/c cat /c/f > /f\n");
        session.build(&["-t", "x"]).succeeds();
        assert_eq!(session.image("x").text("/f"), "new\n", "{signal:?}");
        session.build(&["-t", "x"]).succeeds();
        assert_eq!(files_with(&session.store(), "hush-hush-hush"), [] as [PathBuf; 0]);
    }
}

#[test]
fn packages_are_installed_that_set_owners() {
    let session = session(
        "FROM debian
         RUN useradd -m -u 1234 someone && su someone -c 'id -u > ~/id' && chown :shadow /etc/issue
         USER someone
         RUN cat ~/id && ! touch /etc/x\n",
    )
    .base(Base::Debian);
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/home/someone/id"), "1234\n");
}
