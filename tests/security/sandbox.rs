//! What a RUN may do to the machine that it runs on.

use std::process::Command;
use std::time::{Duration, Instant};

use test_support::{Base, Caller, Outcome, Session, Started};

/// Gives the command a `/dev` that only it has, which stands for the host's: without the defence a
/// test would do to this machine what it wants to see refused. Tells nodes that are not as before.
const WITH_DEVICES_OF_ITS_OWN: &str = r#"
set -eu
dev=$0
mkdir -p "$dev"
mount -t tmpfs -o mode=755 devices "$dev"
mkdir "$dev/shm" "$dev/pts" "$dev/mqueue"
make() { mknod -m 666 "$dev/$1" c "$2" "$3"; }
make null 1 3; make zero 1 5; make full 1 7; make random 1 8; make urandom 1 9; make tty 5 0
mount --bind "$dev" /dev
look() { stat -c '%n %a %u:%g %X %Y %Z' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; }
before=$(look)
"$@" || exit
test "$before" = "$(look)" || { echo "the host's devices have changed:" >&2; look >&2; exit 99; }
"#;

/// Builds where the host's devices are others than this machine's; none of them may change.
fn build_beside_devices(session: &Session, args: &[&str]) -> Outcome {
    let build = session.build_command("plain", args);
    let mut command = session.command("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", WITH_DEVICES_OF_ITS_OWN]);
    command.arg(session.path("dev")).arg(build.get_program()).args(build.get_args());
    session.run(&mut command)
}

/// Issue 9, 1.1.
#[test]
fn what_a_run_does_to_its_devices_is_not_done_to_the_hosts() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN chmod 600 /dev/null && chown 5:6 /dev/zero && touch -d @0 /dev/full && \
             chmod 000 /dev/tty && chmod 641 /proc/keys && echo x > /proc/keys && \
             chmod -R o-rwx /dev && touch /dev/null && mv /dev/ptmx /dev/moved && \
             stat -c %a /dev/null /dev/full /proc/keys > /modes\n\
         RUN stat -c %a:%u:%t:%T /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty > /fresh\n\
         RUN chmod -R o-rwx /dev /proc /sys /etc || true\n\
         RUN echo x > /dev/null && head -c 4 /dev/urandom | wc -c > /read && \
             head -c 4 /dev/zero | wc -c >> /read && ! echo x > /dev/full\n",
    );
    build_beside_devices(&session, &["-t", "x"]).succeeds();
    let image = session.image("x");
    assert_eq!(image.text("/modes"), "600\n660\n641\n");
    assert_eq!(
        image.text("/fresh"),
        "666:0:1:3\n666:0:1:5\n666:0:1:7\n666:0:1:8\n666:0:1:9\n666:0:5:0\n"
    );
    assert_eq!(image.text("/read"), "4\n4\n");
}

/// Issue 9, 1.1: in a user namespace no node can be made. Root of a container, where the devices are
/// its own, must not break that; others could not anyway.
#[test]
fn whoever_cannot_make_devices_does_not_change_the_hosts() {
    for caller in [Caller::RootOfContainer, Caller::WithSubordinateIds, Caller::WithOneId] {
        let session = Session::new().run_by(caller).dockerfile(
            "FROM busybox\n\
             RUN chmod 600 /dev/null; chown 5 /dev/zero; chmod -R o-rwx /dev; \
                 chmod 600 /proc/keys; echo x > /dev/null && cat /proc/keys | wc -c > /hidden && \
                 head -c 4 /dev/urandom > /random\n",
        );
        build_beside_devices(&session, &["-t", "x"]).succeeds();
        assert_eq!(session.image("x").text("/hidden"), "0\n", "{caller:?}");
    }
}

/// The mode of a file in `/proc` as a `/proc` that is mounted now has it: others have it from before.
fn mode_of_process_file(path: &str) -> String {
    let script = format!("stat -c %a {path}");
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--mount-proc", "sh", "-c", &script]);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// Issue 9, 1.1: the files of `/proc` beside the processes are the same for the whole machine.
#[test]
fn a_run_cannot_change_what_all_share_in_proc() {
    let file = "/proc/execdomains";
    for caller in [Caller::Root, Caller::RootOfContainer] {
        let session = Session::new().run_by(caller).dockerfile(&format!(
            "FROM busybox\n\
             RUN chmod 600 {file}; chown 5 {file}; echo 500 > /proc/self/oom_score_adj && cat {file}\n"
        ));
        let before = mode_of_process_file(file);
        let outcome = session.build(&[]);
        let after = mode_of_process_file(file);
        let restore = format!("chmod 444 {file}; chown 0 {file}");
        let args = ["--fork", "--pid", "--mount-proc", "sh", "-c", &restore];
        Command::new("unshare").args(args).status().unwrap();
        outcome.succeeds();
        assert_eq!((&*before, &*after), ("444\n", "444\n"), "{caller:?}");
    }
}

/// Runs a command in a network namespace that stands for the host's. Tells files of `/proc/net` that are
/// not as before.
const WITH_A_NETWORK_OF_ITS_OWN: &str = r#"
set -eu
ip link set lo up
look() { find /proc/self/net/ -mindepth 1 -printf '%P %m %U:%G\n' | sort; }
before=$(look)
"$@" || exit
test "$before" = "$(look)" || { echo "the host's /proc/net has changed:" >&2; look >&2; exit 99; }
"#;

/// Issue 9, 1.1: the files of `/proc/net` belong to the network namespace, and each process has a way to
/// them.
#[test]
fn a_run_cannot_change_the_files_of_the_hosts_network() {
    for caller in [Caller::Root, Caller::RootOfContainer, Caller::WithSubordinateIds] {
        let session = Session::new().run_by(caller).dockerfile(
            "FROM busybox\n\
             RUN chmod -R o-rwx /proc 2> /dev/null || true\n\
             RUN for net in /proc/net /proc/self/net /proc/thread-self/net /proc/1/net \
                     /proc/1/task/1/net /proc/$$/task/$$/net; do \
                     chmod 600 $net/dev; chmod 700 $net/stat; chown 5:6 $net/route; chown -R 5:6 $net; \
                 done 2> /dev/null || true\n\
             RUN cat /proc/net/dev /proc/self/net/route > /dev/null && chown -R 0:0 /proc/self/net || \
                     test $(id -u nobody) != 0\n",
        );
        let build = session.build_command("plain", &[]);
        let mut command = session.command("unshare");
        command.args(["--net", "sh", "-c", WITH_A_NETWORK_OF_ITS_OWN, "sh"]);
        command.arg(build.get_program()).args(build.get_args());
        session.run(&mut command).succeeds();
    }
}

/// Asks for sockets in ways that differ from call to call, and prints what came of each.
const SOCKETS: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
int main() {
    int cases[][3] = {
        {AF_INET, SOCK_STREAM, 0},
        {AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0},
        {AF_NETLINK, SOCK_RAW, 0},
        {AF_UNIX, SOCK_STREAM, 0},
        {AF_INET, SOCK_RAW, IPPROTO_ICMP},
        {AF_INET, SOCK_RAW, IPPROTO_TCP},
        {AF_INET, SOCK_STREAM, 99},
        {AF_INET, SOCK_STREAM | 0x10000000, 0},
        {AF_NETLINK, SOCK_RAW, 9},
    };
    for (int i = 0; i < sizeof cases / sizeof *cases; i++) {
        int s = socket(cases[i][0], cases[i][1], cases[i][2]);
        struct stat found;
        if (s < 0) { printf("error %d\n", errno); continue; }
        fstat(s, &found);
        printf("%d %d %d:%d\n", fcntl(s, F_GETFD), fcntl(s, F_GETFL) & O_NONBLOCK ? 1 : 0,
               found.st_uid, found.st_gid);
        close(s);
    }
    int first = 3, last = 3;
    while (socket(AF_INET, SOCK_STREAM, 0) >= 0) last++;
    printf("%d of 20 descriptors, error %d\n", last, errno);
}
"#;

/// Issue 9, 1.1: root's sockets are made outside the container, and must be what the kernel would have
/// made inside: EPERM is 1, EMFILE 24, EINVAL 22, EPROTONOSUPPORT 93, EAFNOSUPPORT 97.
#[test]
fn a_socket_from_outside_is_as_one_made_by_the_command() {
    let session = Session::new().file("sockets.c", SOCKETS).dockerfile(
        "FROM busybox\nCOPY sockets /\n\
         RUN ulimit -n 20; /sockets > /tmp/root\nRUN --network=none ulimit -n 20; /sockets > /alone\n\
         USER 5:6\nRUN ulimit -n 20; /sockets > /tmp/user\n",
    );
    session.tool("gcc", &["-static", "-w", "-o", "context/sockets", "context/sockets.c"]);
    session.build(&["-t", "x"]).succeeds();
    let image = session.image("x");
    let seen = |owner: &str, icmp: &str, tcp: &str| {
        format!(
            "0 0 {owner}\n1 1 {owner}\n0 0 {owner}\n0 0 {owner}\n{icmp}\n{tcp}\nerror 93\nerror 22\n\
             error 97\n20 of 20 descriptors, error 24\n"
        )
    };
    assert_eq!(image.text("/tmp/root"), seen("0:0", "0 0 0:0", "error 1"));
    assert_eq!(image.text("/alone"), seen("0:0", "0 0 0:0", "0 0 0:0"));
    assert_eq!(image.text("/tmp/user"), seen("5:6", "error 1", "error 1"));
}

/// Becomes a command that has a listener of system calls above it, as in some containers.
const UNDER_A_LISTENER: &str = r#"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    struct sock_fprog program = {1, &allow};
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0 || dup(listener) < 0) return 99;
    execv(argv[1], argv + 1);
    return 98;
}
"#;

/// The kernel gives a process one listener; with another above it, a command is in the host's namespace,
/// as with BuildKit.
#[test]
fn where_sockets_cannot_be_made_outside_a_command_makes_them() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || server.incoming().for_each(drop));
    let session = Session::new().file("listener.c", UNDER_A_LISTENER).dockerfile(&format!(
        "FROM busybox\n\
         RUN nc 127.0.0.1 {port} < /dev/null && readlink /proc/self/ns/net > /namespace\n"
    ));
    session.tool("gcc", &["-static", "-w", "-o", "listener", "context/listener.c"]);
    let build = session.build_command("plain", &["-t", "under"]);
    let mut command = session.command(session.path("listener"));
    command.arg(build.get_program()).args(build.get_args());
    session.run(&mut command).succeeds();
    session.build(&["-t", "alone", "--no-cache"]).succeeds();
    let host = format!("{}\n", std::fs::read_link("/proc/self/ns/net").unwrap().display());
    assert_eq!(session.image("under").text("/namespace"), host);
    assert_ne!(session.image("alone").text("/namespace"), host);
}

/// Sends each argument, bytes in hexadecimal, to the agent in one conversation and prints of each
/// answer what it is and, if that is a list, how many keys are in it.
const ASK: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_un address = {AF_UNIX};
    static unsigned char bytes[1 << 20];
    int agent = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, getenv("SSH_AUTH_SOCK"));
    if (connect(agent, (struct sockaddr *)&address, sizeof address)) { perror("connect"); return 1; }
    for (int i = 1; i < argc; i++) {
        size_t length = strlen(argv[i]) / 2;
        for (size_t at = 0; at < length; at++) sscanf(argv[i] + 2 * at, "%2hhx", bytes + at);
        if (write(agent, bytes, length) < 0) { puts("closed"); return 0; }
        ssize_t got = read(agent, bytes, sizeof bytes);
        if (got <= 0) { puts("closed"); return 0; }
        printf("%d:%d ", bytes[4], bytes[4] == 12 ? bytes[8] : 0);
    }
    puts("");
    return 0;
}
"#;

/// An ssh-agent of the caller's with one key.
struct CallersAgent(std::process::Child, std::path::PathBuf);

impl CallersAgent {
    fn start(session: &Session) -> Self {
        session.tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "home/key"]);
        let socket = session.path("callers-agent");
        let mut command = session.command("ssh-agent");
        let agent = command.arg("-D").arg("-a").arg(&socket).spawn().unwrap();
        let started = Self(agent, socket);
        while !started.1.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        started.add(session, &["home/key"]);
        started
    }

    fn add(&self, session: &Session, args: &[&str]) -> String {
        let mut command = session.command("ssh-add");
        let outcome = session.run(command.env("SSH_AUTH_SOCK", &self.1).args(args));
        outcome.succeeds().stdout
    }
}

impl Drop for CallersAgent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Issue 9, 1.4.
#[test]
fn a_run_can_list_keys_and_sign_and_do_nothing_else_to_an_agent() {
    let session = Session::new().file("ask.c", ASK);
    session.tool("gcc", &["-static", "-w", "-o", "context/ask", "context/ask.c"]);
    let agent = CallersAgent::start(&session);
    let list = "000000010b";
    // Lock with the passphrase `p`, remove all of either version, an extension.
    let changes = "00000006160000000170 0000000113 0000000109 000000021b00";
    let huge = "ffffffff0b";
    session.write(
        "Dockerfile",
        format!(
            "FROM busybox\nCOPY ask /ask\n\
             RUN --mount=type=ssh /ask {list} {changes} {list} > /seen; /ask {list}{list} >> /seen; \
                 /ask {huge} >> /seen; for i in $(seq 99); do (/ask 0000 &) ; done; sleep 0.2\n\
             RUN --mount=type=ssh /ask {list} > /again\n"
        ),
    );
    let running = format!("--ssh=default={}", agent.1.display());
    for (name, ssh) in [("running", &*running), ("own", "--ssh=default=home/key")] {
        session.build(&["-t", name, "--no-cache", ssh]).succeeds();
        let image = session.image(name);
        assert_eq!(image.text("/seen"), "12:1 5:0 5:0 5:0 5:0 12:1 \n12:1 \nclosed\n", "{name}");
        assert_eq!(image.text("/again"), "12:1 \n", "{name}");
    }
    assert_eq!(agent.add(&session, &["-l"]).lines().count(), 1);
}

/// Issue 9, section 3: a key that is never read to its end.
#[test]
fn an_interrupt_is_heard_while_keys_are_loaded() {
    let session = Session::new().dockerfile("FROM busybox\n");
    session.tool("mkfifo", &["home/key"]);
    let build = Started::new(session.build_command("quiet", &["--ssh=default=home/key"]));
    let waits = format!("ssh-add\0-q\0{}", session.path("home/key").display());
    let began = Instant::now();
    while !crate::signal::is_running(&waits) {
        assert!(began.elapsed() < Duration::from_secs(20), "it loads no key");
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupted = Instant::now();
    build.send(rustix::process::Signal::INT);
    assert_eq!(build.wait().0.code(), Some(130));
    assert!(interrupted.elapsed() < Duration::from_secs(2));
    while crate::signal::is_running(&waits) {
        assert!(interrupted.elapsed() < Duration::from_secs(5), "ssh-add lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Issue 9, 1.6: they ask the kernel's audit over netlink, and give up if it says EPERM.
#[test]
fn users_and_groups_are_added_on_debian() {
    let session = Session::new().base(Base::Debian).dockerfile(
        "FROM debian\n\
         RUN groupadd --system --gid 4243 team && useradd --create-home --uid 4242 --gid team someone && \
             usermod -aG audio someone && id -G someone > /groups && userdel someone && groupdel team\n",
    );
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/groups"), "4243 29\n");
}

/// Issue 9, 1.13; CVE-2024-40635, CVE-2026-46680: numbers that wrap to root, or that a file of the
/// image has as the name of an account.
#[test]
fn a_number_that_is_no_id_is_refused_wherever_an_id_may_be() {
    let passwd =
        "root:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\nevil:x:4294967295:0::/:/bin/sh\n";
    let session = Session::new().file("passwd", passwd).file("f", "");
    for instruction in [
        "COPY --chown=4294967296 f /f",
        "COPY --chown=4294967295 f /f",
        "COPY --chown=0:4294967295 f /f",
        "COPY --link --chown=-1 f /f",
        "ADD --chown=99999999999999999999 f /f",
        "ARG ID=4294967296\nCOPY --chown=$ID f /f",
        "USER 4294967296\nRUN true",
        "USER 0:4294967295\nRUN true",
        "USER 2147483648\nRUN true",
        "USER evil\nRUN true",
        "USER 4294967295\nWORKDIR /new",
        "RUN --mount=type=cache,target=/c,uid=4294967295 true",
        "RUN --mount=type=secret,id=x,gid=4294967296 true",
        "RUN --mount=type=ssh,uid=-1 true",
    ] {
        session
            .write("Dockerfile", format!("FROM busybox\nCOPY passwd /etc/passwd\n{instruction}\n"));
        session.build(&[]).fails_with(&["error: "]);
    }
}

/// Issue 9, 1.5; CVE-2024-21626. What a caller passes on purpose is still read.
#[test]
fn a_directory_that_rbuild_inherited_is_in_no_container() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN --security=insecure ls -l /proc/1/fd && test -z \"$(cat /proc/*/fd/*/Dockerfile)\"\n\
         RUN --mount=type=secret,id=s test \"$(cat /run/secrets/s)\" = passed\n",
    );
    let args = ["--allow=security.insecure", "--secret=id=s,src=/dev/fd/8"];
    let build = session.build_command("plain", &args);
    let mut command = session.command("bash");
    command.args(["-c", "exec 7<context 8< <(echo passed); exec \"$@\"", "bash"]);
    command.arg(build.get_program()).args(build.get_args());
    session.run(&mut command).succeeds();
}

/// A directory of the host that no build may touch or read, with a file in it.
fn hosts_directory(session: &Session) -> std::path::PathBuf {
    let directory = session.path("host");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("secret"), "of the host\n").unwrap();
    directory
}

fn assert_untouched(directory: &std::path::Path) {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["secret"]);
    assert_eq!(std::fs::read_to_string(directory.join("secret")).unwrap(), "of the host\n");
}

/// CVE-2025-31133, CVE-2025-52565, CVE-2025-62161, CVE-2025-62596: what hides a file, and what is
/// bound to `/dev`, is not looked up in the image.
#[test]
fn nothing_in_an_image_stands_in_for_a_device_or_a_mask() {
    let session = Session::new().file("dev/zero", "x");
    let host = hosts_directory(&session);
    for name in ["null", "console", "ptmx", "tty", "pts"] {
        let link = session.context().join("dev").join(name);
        std::os::unix::fs::symlink(host.join("secret"), link).unwrap();
    }
    session.write(
        "Dockerfile",
        "FROM busybox\nCOPY dev /dev/\n\
         RUN test -c /dev/null && test -c /dev/tty && test -c /dev/zero && test -c /dev/ptmx && \
             echo x > /dev/null && echo x > /proc/keys && cat /proc/keys /proc/kcore | wc -c > /hidden\n",
    );
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/hidden"), "0\n");
    assert_untouched(&host);
}

/// GHSA-q6r4-3wmg-fwcq (CVE-2026-55686), CVE-2022-23648, CVE-2018-15664; osscontainertools/kaniko#560,
/// #586, #587: a stage with files at paths of the builder's own.
#[test]
fn a_link_of_the_image_leads_no_instruction_to_the_host() {
    let session = Session::new().file("f", "f");
    let host = hosts_directory(&session);
    session.write(
        "Dockerfile",
        format!(
            "FROM busybox AS evil\nRUN mkdir -p {host} && echo evil > {host}/secret\n\
             FROM busybox\nRUN ln -s {host} /link && ln -s ../../../../../../../..{host} /v\n\
             COPY --chown=5 f /link/copied\nADD f /v/added\nVOLUME /v\n\
             USER 5:6\nWORKDIR /link/made\nRUN test ! -e /v/secret && stat -c %u {host}/made > /tmp/owner\n\
             COPY f ../../../../../../../../../../..{host}/executor\nCOPY --from=evil / /\n",
            host = host.display()
        ),
    );
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/tmp/owner"), "5\n");
    assert_untouched(&host);
}

/// CVE-2024-23651 (GHSA-m3r6-h7wv-7xxv), CVE-2024-11218 (GHSA-5vpc-35f4-r8w6), CVE-2024-1753,
/// CVE-2024-9675, GHSA-388v-wmr2-g2v2 (there a junction of Windows).
#[test]
fn a_mount_has_its_source_inside_and_a_cache_its_place_in_the_store() {
    let session = Session::new();
    let host = hosts_directory(&session);
    let before = "FROM busybox AS stage\n";
    let link = format!("RUN ln -s {} /link && mkdir /d && ln -s /link /d/link\n", host.display());
    for mount in [
        "from=stage,source=/link,target=/m",
        "from=stage,source=/d/link/secret,target=/m",
        "type=cache,from=stage,source=/link,target=/m",
    ] {
        let run = format!("FROM busybox\nRUN --mount={mount} cat /m /m/secret\n");
        session.write("Dockerfile", format!("{before}{link}{run}"));
        session.build(&[]).fails_with(&["not found"]);
    }
    // One command swaps directories and links for another that has the same cache.
    let swap = format!("ln -sfn {} /c/x && rm /c/x && mkdir /c/x && rmdir /c/x", host.display());
    session.write(
        "Dockerfile",
        format!(
            "FROM busybox AS one\nRUN --mount=type=cache,id=../../../host,target=/c \
                 for i in $(seq 50); do {swap}; done && touch /one\n\
             FROM busybox AS two\nRUN --mount=type=cache,id=../../../host,target=/c \
                 for i in $(seq 50); do ! cat /c/x/secret /c/secret || exit 1; done; touch /two\n\
             FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
        ),
    );
    session.build(&["--jobs", "2"]).succeeds();
    assert_untouched(&host);
}

/// GHSA-7236-3392-c5c6, CVE-2024-9407 (GHSA-fhqq-8f65-5xfc), CVE-2021-20206: what is not known is no
/// default, and no path of the host.
#[test]
fn a_mode_or_an_option_that_is_not_known_is_refused() {
    for flag in [
        "--security=none",
        "--security=2",
        "--security=",
        "--network=container:x",
        "--network=../../etc/cni",
        "--mount=type=bind,target=/m,bind-propagation=shared",
        "--mount=type=bind,target=/m,bind-propagation=rslave",
        "--mount=type=proc,target=/m",
        "--device=/dev/kmsg",
    ] {
        let session = Session::new().dockerfile(&format!("FROM busybox\nRUN {flag} true\n"));
        session.build(&[]).fails_with(&["Dockerfile:2"]);
    }
}

/// CVE-2024-23653 (GHSA-wr6v-9f75-vh2g): containers that a frontend asked for skipped the check. Each way
/// to a command passes it here; there is none beside RUN.
#[test]
fn every_way_to_a_command_passes_the_entitlements() {
    for (flag, entitlement) in
        [("--security=insecure", "security.insecure"), ("--network=host", "network.host")]
    {
        let run = format!("RUN {flag} touch /ran");
        let session = Session::new().dockerfile(&format!("FROM busybox\nONBUILD {run}\n"));
        session.build(&["-t", "trigger"]).succeeds();
        let refused = format!("{entitlement} is not allowed");
        for dockerfile in [
            "FROM trigger\n".to_owned(),
            format!("FROM busybox\n{run}\n"),
            format!("FROM busybox\nRUN {flag} <<E\ntouch /ran\nE\n"),
            format!("FROM busybox\nRUN {flag} [\"touch\", \"/ran\"]\n"),
            format!("FROM busybox AS a\n{run}\nFROM scratch\nCOPY --from=a /ran /\n"),
            format!("FROM busybox AS a\n{run}\nFROM busybox\nRUN --mount=from=a,target=/a true\n"),
        ] {
            session.write("Dockerfile", dockerfile);
            session.build(&["-t", "x"]).fails_with(&[&refused]);
        }
        // A Dockerfile that grants it to itself.
        let own = format!(
            "# allow={entitlement}\nARG BUILDKIT_ALLOW={entitlement}\nFROM busybox\n{run}\n"
        );
        session.write("Dockerfile", own);
        session.build(&["-t", "x"]).fails_with(&[&refused]);
    }
}

/// Gives the command a `/sys` in which something is wherever a host has what its root alone may see, or
/// what tells how busy it is.
const WITH_SECRETS_IN_SYS: &str = r#"
set -eu
mount -t tmpfs sys /sys/devices/virtual
mount -t tmpfs sys /sys/devices/system/cpu
mkdir -p /sys/devices/virtual/powercap /sys/devices/system/cpu/cpu0/thermal_throttle
for directory in /sys/fs/bpf /sys/fs/pstore /sys/kernel/config /sys/kernel/debug /sys/kernel/security     /sys/kernel/tracing /sys/firmware /sys/devices/virtual/powercap     /sys/devices/system/cpu/cpu0/thermal_throttle; do
    test -d "$directory" || continue
    mount -t tmpfs sys "$directory"
    echo secret > "$directory/of-the-host"
done
exec "$@"
"#;

/// GHSA-jq35-85cj-fj4p (powercap), GHSA-6fw5-f8r9-fgfm (thermal_throttle), and what hosts mount in `/sys`:
/// root of a container gets that of the host, others a new one.
#[test]
fn what_is_mounted_in_sys_of_the_host_is_not_seen() {
    for caller in [Caller::RootOfContainer, Caller::WithSubordinateIds, Caller::Root] {
        let session = Session::new().run_by(caller).dockerfile(
            "FROM busybox\n             RUN find /sys -name of-the-host 2> /dev/null > /found;                  cat /sys/fs/pstore/* /sys/firmware/* 2> /dev/null >> /found; true\n",
        );
        let build = session.build_command("plain", &["-t", "x"]);
        let mut command = session.command("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", WITH_SECRETS_IN_SYS, "sh"]);
        command.arg(build.get_program()).args(build.get_args());
        session.run(&mut command).succeeds();
        assert_eq!(session.image("x").text("/found"), "", "{caller:?}");
    }
}

/// CVE-2023-25809.
#[test]
fn control_groups_of_the_host_cannot_be_changed() {
    for caller in [Caller::Root, Caller::WithSubordinateIds, Caller::WithOneId] {
        let session = Session::new().run_by(caller).dockerfile(
            "FROM busybox\n\
             RUN for d in /sys/fs/cgroup /sys/fs/cgroup/*; do \
                     if mkdir $d/x || echo 1 > $d/cgroup.procs; then exit 1; fi; done; ! mkdir /sys/x\n",
        );
        session.build(&[]).succeeds();
    }
}

/// CVE-2026-57231 (GHSA-4hq8-gpf5-8p68), CVE-2026-53488 (GHSA-xhf5-7wjv-pqxp): what an image says of
/// itself brings nothing of the caller in, and steers nothing.
#[test]
fn variables_without_a_value_and_labels_of_an_image_are_words() {
    let registry = test_support::TestRegistry::start();
    let layout = Base::Busybox.layout();
    let image = test_support::validate_image(&layout, "latest");
    let read = |digest: oci::Digest| {
        std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap()
    };
    for layer in &image.manifest.layers {
        registry.put_blob("library/odd", read(layer.digest));
    }
    let mut config: serde_json::Value =
        serde_json::from_slice(&read(image.manifest.config.digest)).unwrap();
    config["config"]["Env"] = serde_json::json!(["PATH=/bin", "CALLERS", "*", "HOME"]);
    config["config"]["Labels"] = serde_json::json!({
        "security.insecure": "true", "io.containerd.hook": "/bin/touch /hooked",
        "org.opencontainers.runtime.privileged": "true",
    });
    let config = serde_json::to_vec(&config).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&read(image.digest)).unwrap();
    manifest["config"]["size"] = config.len().into();
    manifest["config"]["digest"] = registry.put_blob("library/odd", config).to_string().into();
    let manifest = serde_json::to_vec(&manifest).unwrap();
    registry.put_manifest("library/odd", "latest", &image.manifest.media_type, manifest);
    let session = Session::new()
        .mirror(registry.host())
        .env("CALLERS", "marker-of-the-caller")
        .dockerfile("FROM odd\nRUN env > /seen && grep CapEff /proc/self/status >> /seen && test ! -e /hooked\n");
    session.build(&["-t", "x"]).succeeds();
    let image = session.image("x");
    let seen = image.text("/seen");
    assert!(!seen.contains("marker") && seen.contains("CapEff:\t00000000a80425fb"), "{seen}");
    assert!(!serde_json::to_string(&image.config).unwrap().contains("marker"));
}

/// Issue 9, section 3: the kernel calls it "no space left on device". Without a network namespace a
/// command could change the files of the host's network, so it does not run.
#[test]
fn a_limit_on_namespaces_is_not_a_full_disk() {
    let session = Session::new().dockerfile("FROM busybox\nRUN true\n");
    for kind in ["mnt", "pid", "uts", "net"] {
        let build = session.build_command("plain", &["--no-cache"]);
        let script = format!("echo 0 > /proc/sys/user/max_{kind}_namespaces; exec \"$@\"");
        let mut command = session.command("unshare");
        // In that namespace there is one level alone.
        command.env_remove("RBUILD_SANDBOX");
        command.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
        command.arg(build.get_program()).args(build.get_args());
        let told = session.run(&mut command).fails_with(&["user.max_", "sysctl"]);
        assert!(!told.stderr.contains("disk") && !told.stderr.contains("o space"), "{told}");
    }
}

/// A caller that ignores SIGCHLD hands that down: no command was ever seen to end.
#[test]
fn a_caller_that_ignores_its_children_gets_its_build() {
    let session = Session::new().dockerfile("FROM busybox\nRUN true\n");
    let build = session.build_command("plain", &[]);
    let mut command = session.command("timeout");
    command.args(["60", "sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"]);
    command.arg(build.get_program()).args(build.get_args());
    session.run(&mut command).succeeds();
}
