//! What a Dockerfile may do to the set-up of its own commands, and to the commands beside them.

use test_support::{Caller, Session};

fn callers_secret(session: &Session) {
    std::fs::write(session.path("home/secret"), "of the caller\n").unwrap();
}

/// Issue 9, 1.5: a mount over `/dev` chose what the sandbox opened as the command's input, with all
/// its rights: a link of the kernel's own led to the files of the host.
#[test]
fn the_input_of_a_command_is_the_null_device_of_the_sandbox_whatever_is_mounted_over_dev() {
    let levels = [
        (Caller::Root, "root"),
        (Caller::Root, "outer-proc"),
        (Caller::WithSubordinateIds, "auto"),
        (Caller::WithOneId, "auto"),
        (Caller::RootWithChrootAlone, "chroot"),
    ];
    let nodes = "bind,from=nodes,source";
    let reads = "wc -c >> /tmp/read; test ! -e /proc/self || stat -Lc %F:%t:%T /proc/self/fd/0 >> /tmp/kind";
    for (caller, level) in levels {
        let session = Session::new().run_by(caller).dockerfile(&format!(
            "FROM busybox AS nodes\n\
             RUN mkdir /secret /tree /fifo && ln -s /sec /secret/null && \
                 ln -s /proc/self/root /tree/null && mkfifo /fifo/null\n\
             FROM busybox\n\
             USER nobody\n\
             RUN --mount=type=secret,id=s,target=/sec,mode=0400 \
                 --mount=type={nodes}=/secret,target=/dev {reads}\n\
             RUN --mount=type={nodes}=/tree,target=/dev {reads}\n\
             RUN --mount=type={nodes}=/fifo,target=/dev {reads}\n\
             RUN --mount=type=bind,from=nodes,source=/bin/busybox,target=/dev/null {reads}\n"
        ));
        callers_secret(&session);
        session.build(&["-t", "x", "--secret=id=s,src=home/secret", "--sandbox", level]).succeeds();
        let image = session.image("x");
        assert_eq!(image.text("/tmp/read"), "0\n".repeat(4), "{caller:?}");
        if level != "chroot" {
            let null = "character special file:1:3\n";
            assert_eq!(image.text("/tmp/kind"), null.repeat(4), "{caller:?}");
        }
    }
}

/// Two commands at once, of which one looks into the other, which has the name `nap` in `/proc`.
fn attack(nap: &str, network: &str) -> String {
    let script = format!(
        "touch /tmp/seen; for i in $(seq 25); do \
             for p in $(grep -l '^{nap}$' /proc/[0-9]*/comm); do \
                 p=${{p%/comm}}; touch /tmp/found; \
                 for f in root/sec root/tmp/{nap} cwd/etc/passwd task/${{p#/proc/}}/root/sec \
                          environ maps auxv mem; do \
                     head -c 1 $p/$f && echo $f >> /tmp/seen; \
                 done; \
                 for f in exe fd/1 ns/mnt root; do readlink $p/$f && echo $f >> /tmp/seen; done; \
                 touch $p/root/poison; exit 0; \
             done; sleep 0.05; \
         done 2> /dev/null"
    );
    format!(
        "FROM busybox AS victim\n\
         RUN printf '#!/bin/sh\\nsleep 0.8\\n' > /tmp/{nap} && chmod +x /tmp/{nap}\n\
         RUN --mount=type=secret,id=s,target=/sec --mount=type=secret,id=s,env=TOKEN \
             /tmp/{nap}; ls / > /tmp/listing\n\
         FROM busybox AS attacker\n\
         RUN true\n\
         RUN --network={network} {script}\n\
         FROM busybox\n\
         COPY --from=victim /tmp/listing /victims\n\
         COPY --from=attacker /tmp/ /attackers/\n"
    )
}

const AT_ONCE: [&str; 5] =
    ["--sandbox=outer-proc", "-t", "x", "--jobs=2", "--secret=id=s,src=home/secret"];

/// Whether the attacker saw the victim, which it must not have looked into.
#[track_caller]
fn has_seen_and_no_more(session: &Session) -> bool {
    let image = session.image("x");
    assert_eq!(image.text("/attackers/seen"), "");
    assert!(!image.text("/victims").contains("poison"));
    image.rootfs().has("/attackers/found")
}

/// Issue 9, 1.2: where `/proc` is that of the container around, a command without a network read
/// secrets of another one that ran at the same time, and wrote to its files, which were cached.
#[test]
fn a_command_looks_into_no_other_one_that_it_sees_in_proc() {
    for network in ["none", "default"] {
        let session = Session::new().dockerfile(&attack(&format!("nap-{network}"), network));
        callers_secret(&session);
        session.build(&AT_ONCE).succeeds();
        assert!(has_seen_and_no_more(&session), "there was nothing to look into");
    }
}

/// Becomes a command for which the kernel has no Landlock.
const WITHOUT_LANDLOCK: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sock_filter filter[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, 0},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_landlock_create_ruleset},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    struct sock_fprog program = {4, filter};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) return 99;
    execv(argv[1], argv + 1);
    return 98;
}
"#;

/// Issue 9, 1.2.
#[test]
fn where_nothing_parts_commands_that_see_each_other_they_take_turns() {
    let session = Session::new().dockerfile(&attack("nap-turn", "none"));
    callers_secret(&session);
    session.write("without.c", WITHOUT_LANDLOCK);
    session.tool("gcc", &["-static", "-w", "-o", "without", "context/without.c"]);
    let build = session.build_command("plain", &AT_ONCE);
    let mut command = session.command(session.path("without"));
    command.arg(build.get_program()).args(build.get_args());
    session.run(&mut command).succeeds();
    assert!(!has_seen_and_no_more(&session), "both ran at once");
}

/// Issue 9, 1.1: the `/sys` of the host that a user namespace gets, and the host's devices.
#[test]
fn what_the_host_mounts_meanwhile_is_in_no_command() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN cat /proc/self/mountinfo > /before; echo st''arted; sleep 1; \
             cat /proc/self/mountinfo > /after\n",
    );
    let script = r#"
        mount --make-rshared /
        "$@" 2> "$0/log" & build=$!
        until grep -q started "$0/log"; do kill -0 $build || break; sleep 0.02; done
        mount -t tmpfs -o mode=777 leaked /sys/kernel && mount --bind /dev/zero /dev/full
        wait $build"#;
    let build = session.build_command("plain", &["--sandbox=subordinate-ids", "-t", "x"]);
    let mut command = session.command("unshare");
    command.args(["--mount", "bash", "-c", script]).arg(session.path(""));
    command.arg(build.get_program()).args(build.get_args());
    session.run(&mut command).succeeds();
    let image = session.image("x");
    assert_eq!(image.text("/before"), image.text("/after"));
}

/// Issue 9, section 2: what is wrong and what to do, not what the kernel says.
#[test]
fn a_user_whom_the_namespace_lacks_is_told_with_the_ids_that_there_are() {
    let session = Session::new().run_by(Caller::WithSubordinateIds);
    for instruction in [
        "USER 99999\nRUN true",
        "USER 5:99999\nRUN true",
        "RUN --mount=type=secret,id=s,target=/s,uid=99999 true",
    ] {
        session.write("Dockerfile", format!("FROM busybox\n{instruction}\n"));
        callers_secret(&session);
        session.build(&["--secret=id=s,src=home/secret"]).fails_with(&[
            "99999",
            "0 to 65536",
            "/etc/subuid",
        ]);
    }
}
