//! Builds on the kernels that Debian ships, the stable one's older than ours, in a virtual machine.

use std::fmt::Write as _;
use std::process::Command;

use test_support::{Base, Session, rbuild, workspace};

/// Every kind of op and of mount, owners and users.
const DOCKERFILE: &str = "\
FROM busybox AS tools
COPY file /kept/file
RUN echo hello > /x && rm /kept/file && chmod 600 /x
WORKDIR /somewhere/else

FROM busybox
COPY --from=tools /x /x
RUN rm -r /var && mkdir /var && ls /dev /var
RUN --mount=type=bind,from=tools,source=/kept,target=/mnt test ! -e /mnt/file
RUN --mount=type=bind,from=tools,source=/,target=/mnt,rw echo lost > /mnt/x
RUN --mount=type=bind,source=file,target=/mnt/f cat /mnt/f
RUN --mount=type=bind,source=.,target=/mnt,rw cat /mnt/file
RUN --mount=type=cache,target=/cache echo 1 > /cache/1
RUN --mount=type=tmpfs,target=/tmp echo 1 > /tmp/1
RUN --mount=type=secret,id=secret cat /run/secrets/secret > /dev/null
RUN --network=none ifconfig lo | grep -q 127.0.0.1
RUN mkdir /owned && chown 7:8 /owned && ln -s to /link && chown -h 9:10 /link && mv /link /moved
RUN su -s /bin/sh www-data -c 'id > /tmp/su; mkdir /tmp/d; mkfifo /tmp/p' && stat -c %u:%g /tmp/* > /stat
USER 33
RUN id > /tmp/id
";

/// Runs `script` in a machine that has rbuild and the kernel of `release`, or of this machine's Debian
/// if it is empty; returns what its console showed.
fn boot(release: &str, script: &str) -> String {
    let session = Session::new()
        .file("file", "content\n")
        .file("secret", "hunter2-hunter2\n")
        .dockerfile(DOCKERFILE);
    let path = session.path("script");
    let program = rbuild().file_name().unwrap().to_str().unwrap();
    std::fs::write(&path, format!("ln -s /files/{program} /bin/rbuild\n{script}")).unwrap();
    let base = Base::Busybox.layout();
    let output = Command::new(workspace().join("fixtures/vm/boot.sh"))
        .args([&path, rbuild(), &session.context(), &base])
        .env("RELEASE", release)
        .output()
        .unwrap();
    let console = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(output.status.success(), "{console}{}", String::from_utf8_lossy(&output.stderr));
    console
}

/// The digest that the build named `name` printed.
fn digest<'a>(console: &'a str, name: &str) -> &'a str {
    let digest = console.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" built "));
    digest.unwrap_or_else(|| panic!("{name} has built nothing:\n{console}"))
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the machine is an x86-64 one")]
fn the_kernel_of_debian_builds_for_root_and_for_users() {
    builds_for_all("");
}

#[test]
#[ignore = "fetches kernels of other releases of Debian"]
fn other_kernels_build_for_root_and_for_users() {
    for release in ["bookworm-backports", "trixie", "forky"] {
        let script = workspace().join("fixtures/vm/make.sh");
        let made = Command::new(script).arg(release).status().unwrap();
        assert!(made.success(), "the kernel of {release} can't be fetched");
        builds_for_all(release);
    }
}

/// Root and users build on the kernel of `release`.
fn builds_for_all(release: &str) {
    let mut script = "uname -r\n".to_owned();
    // Each sees the same epoch, so that the digests are the same.
    for caller in ["root", "ids", "one"] {
        let _infallible = writeln!(
            script,
            "su {caller} -c 'cd /files/context && PATH=/bin:/usr/bin SOURCE_DATE_EPOCH=1 rbuild -q \
             --root $HOME/store --build-context busybox=oci-layout:///files/busybox \
             --secret id=secret,src=secret .' > /tmp/digest && \
             echo {caller} built $(cat /tmp/digest)",
        );
    }
    let console = boot(release, &script);
    for caller in ["ids", "one"] {
        assert_eq!(digest(&console, caller), digest(&console, "root"), "{caller}\n{console}");
    }
}
