//! RUN: what a command finds around it, what it may do, what is left of it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use test_support::{Base, Caller, Outcome, Session};

/// Builds `FROM busybox` with these instructions and returns what the only RUN printed.
fn output_of(session: Session, instructions: &str) -> String {
    let session = session.dockerfile(&format!("FROM busybox\n{instructions}"));
    log_of(&session.build_with_events(&[]).succeeds())
}

fn log_of(outcome: &Outcome) -> String {
    outcome.steps().step("RUN").log.clone()
}

#[test]
fn root_may_make_a_block_device_and_cannot_open_it() {
    // The disk that holds this very file, so that a hole would show.
    let device = rustix::fs::stat(test_support::workspace()).unwrap().st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let session = Session::new().dockerfile(&format!(
        "FROM busybox\n\
         RUN mknod /disk b {major} {minor} && test -b /disk && \
         if dd if=/disk of=/dev/null count=1; then echo it can be read; exit 1; fi\n",
    ));
    let outcome = session.build_with_events(&["-t", "x"]).succeeds();
    let log = log_of(&outcome);
    assert!(log.contains("can't open '/disk'"), "{log}");
    let kind = session.image("x").rootfs().file("/disk").kind.clone();
    assert_eq!(kind, test_support::Kind::BlockDevice(major, minor));
}

#[test]
fn a_command_has_few_capabilities_a_seccomp_filter_and_masked_paths() {
    let log = output_of(
        Session::new(),
        "RUN grep -E '^(CapEff|Seccomp):' /proc/self/status; wc -c < /proc/timer_list; \
         echo x > /proc/sys/kernel/hostname; true\n",
    );
    // Docker's default set.
    assert!(log.contains("CapEff:\t00000000a80425fb"), "{log}");
    assert!(log.contains("Seccomp:\t2"), "{log}");
    assert!(log.contains("\n0\n"), "/proc/timer_list is masked: {log}");
    assert!(log.contains("Read-only file system"), "/proc/sys is read-only: {log}");
}

#[test]
fn standard_input_is_empty_and_output_comes_line_by_line() {
    let log = output_of(Session::new(), "RUN cat; echo out; echo err >&2; printf unfinished\n");
    for words in ["out\n", "err\n", "unfinished"] {
        assert!(log.contains(words), "{log}");
    }
}

/// CVE-2021-3602 (GHSA-7638-r9r3-rmjj): no variable of the caller.
#[test]
fn user_working_directory_and_environment_are_those_of_the_stage() {
    let log = output_of(
        Session::new().env("LEAK", "from the caller"),
        "ENV KEY=value\nWORKDIR /home/me\nUSER www-data\nRUN id -u; id -g; pwd; echo \"$KEY$LEAK\"; umask; echo $HOME\n",
    );
    assert_eq!(
        log.lines().collect::<Vec<_>>(),
        ["33", "33", "/home/me", "value", "0022", "/var/www"]
    );
}

#[test]
fn proxies_reach_a_command_and_nothing_else() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         ENTRYPOINT [\"false\"]\n\
         ENV HOME=/elsewhere\n\
         RUN echo $http_proxy $HTTP_PROXY $no_proxy $HOME > /seen\n",
    );
    let args = ["--build-arg", "HTTP_PROXY=http://proxy", "--build-arg", "no_proxy=host"];
    session.build(&[&["-t", "x"], &args[..]].concat()).succeeds();
    let image = session.image("x");
    assert_eq!(image.text("/seen"), "http://proxy http://proxy host /elsewhere\n");
    let config = serde_json::to_string(&image.config).unwrap();
    assert!(!config.contains("http://proxy") && !config.contains("=host"), "{config}");
    // Another proxy is no reason to run it again.
    session.build_with_events(&[]).succeeds().steps().ran_only(&[]);
}

#[test]
fn the_network_is_the_hosts_unless_there_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _length = connection.read(&mut request).unwrap();
        connection.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    });
    let log = output_of(Session::new(), &format!("RUN wget -qO- http://127.0.0.1:{port}/\n"));
    assert_eq!(log, "hello");
    server.join().unwrap();

    let log = output_of(Session::new(), "RUN --network=none tail -n +3 /proc/net/dev | wc -l\n");
    assert_eq!(log, "1\n", "only the loopback device");
    let session = Session::new().dockerfile("FROM busybox\nRUN tail -n +3 /proc/net/dev | wc -l\n");
    assert_eq!(log_of(&session.build_with_events(&["--network=none"]).succeeds()), "1\n");
}

/// CVE-2025-4953 (GHSA-m68q-4hqr-mc6f).
#[test]
fn a_bind_mount_shows_the_context_and_forgets_what_is_written() {
    let session = Session::new().file("src/a", "content").file(".dockerignore", "src/hidden\n").file("src/hidden", "h").dockerfile(
        "FROM busybox\n\
         RUN --mount=type=bind,source=src,target=/src cat /src/a > /copy; ls /src > /names; \
         if touch /src/new; then exit 1; fi\n\
         RUN --mount=type=bind,source=src,target=/src,rw echo changed > /src/a && cat /src/a > /changed\n",
    );
    session.build(&["-t", "x"]).succeeds();

    let image = session.image("x");
    assert_eq!(image.text("/copy"), "content");
    assert_eq!(image.text("/names"), "a\n");
    assert_eq!(image.text("/changed"), "changed\n");
    assert!(!image.rootfs().has("/src"), "the mount point is gone");
    assert_eq!(std::fs::read_to_string(session.context().join("src/a")).unwrap(), "content");
}

#[test]
fn a_cache_mount_outlives_the_build_and_is_not_in_the_image() {
    let session = Session::new();
    let build = |round: &str| {
        session.write(
            "Dockerfile",
            format!("FROM busybox\nRUN --mount=type=cache,target=/cache echo {round} >> /cache/log; cp /cache/log /log\n"),
        );
        session.build(&["-t", "x"]).succeeds();
        let image = session.image("x");
        assert!(!image.rootfs().has("/cache"));
        image.text("/log")
    };
    assert_eq!(build("one"), "one\n");
    assert_eq!(build("two"), "one\ntwo\n");
}

#[test]
fn a_tmpfs_mount_is_empty_and_forgotten() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN --mount=type=tmpfs,target=/scratch grep -c ' /scratch tmpfs' /proc/mounts && echo x > /scratch/x\n",
    );
    session.build(&["-t", "x"]).succeeds();
    assert!(!session.image("x").rootfs().has("/scratch"));
}

#[test]
fn a_secret_is_seen_by_its_command_only() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN --mount=type=secret,id=token sha256sum < /run/secrets/token > /sum; stat -c %a /run/secrets/token\n\
         RUN --mount=type=secret,id=token,env=TOKEN echo ${#TOKEN} > /length\n\
         RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent\n\
         RUN --mount=type=secret,id=absent,env=ABSENT test \"${ABSENT-unset}\" = ''\n\
         RUN test ! -e /run/secrets/token\n",
    );
    std::fs::write(session.path("token"), "hunter2-hunter2").unwrap();
    let outcome = session.build(&["-t", "x", "--secret", "id=token,src=token"]).succeeds();

    let image = session.image("x");
    assert_eq!(image.text("/length"), "15\n");
    assert!(!image.rootfs().has("/run/secrets"));
    let config = serde_json::to_string(&image.config).unwrap();
    assert!(!config.contains("hunter2") && !outcome.stderr.contains("hunter2"));
    // Neither does the store keep it.
    let grep = session.command("grep").args(["-rl", "hunter2", "store"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
}

#[test]
fn a_secret_that_is_required_and_missing_fails_the_step() {
    let session = Session::new().dockerfile(
        "FROM busybox\nRUN --mount=type=secret,id=token,required cat /run/secrets/token\n",
    );
    session.build(&[]).fails_with(&["token", "Dockerfile:2"]);
}

#[test]
fn the_error_tells_the_exit_code_or_the_signal() {
    let session = Session::new().dockerfile("FROM busybox\nRUN echo last words; exit 7\n");
    session.build(&[]).fails_with(&["exit code: 7", "last words", "Dockerfile:2"]);
    session.write("Dockerfile", "FROM busybox\nRUN [\"sh\", \"-c\", \"kill -KILL $$\"]\n");
    session.build(&[]).fails_with(&["SIGKILL"]);
    session.write("Dockerfile", "FROM busybox\nRUN [\"/no/such/program\"]\n");
    session.build(&[]).fails_with(&["/no/such/program", "no such file"]);
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    // Nobody else on this machine sleeps for this long.
    let seconds = format!("98{}", std::process::id());
    let session =
        Session::new().dockerfile(&format!("FROM busybox\nRUN sleep {seconds} & echo started\n"));
    session.build(&[]).succeeds();
    assert!(!crate::signal::is_running(&format!("sleep\0{seconds}")));
}

#[test]
fn apt_installs_a_package_on_debian() {
    let session = Session::new().base(Base::Debian).dockerfile(
        "FROM debian\n\
         RUN apt-get update && apt-get install -y --no-install-recommends bc\n\
         RUN echo '6*7' | bc > /answer\n\
         RUN useradd --create-home --uid 4242 someone && touch /home/someone/file && \
         chown someone: /home/someone/file\n",
    );
    session.build(&["-t", "x"]).succeeds();

    let image = session.image("x");
    assert_eq!(image.text("/answer"), "42\n");
    assert_eq!(image.rootfs().file("/home/someone/file").access(), "644 4242:4242");
}

#[test]
fn a_command_may_see_one_locked_cache_at_two_places() {
    let mount = "--mount=type=cache,id=twice,sharing=locked,target=";
    let text = format!("FROM busybox\nRUN {mount}/a {mount}/b touch /a/f && test -e /b/f\n");
    Session::new().dockerfile(&text).build(&[]).succeeds();
}

#[test]
fn directories_may_be_nested_deeper_than_files_may_be_open() {
    let session = Session::new().dockerfile(
        "FROM busybox AS deep\nRUN ulimit -Sn; mkdir /deep && cd /deep && \
         for i in $(seq 600); do mkdir d && cd d || exit 1; done\nFROM busybox\nCOPY --from=deep /deep /again\n",
    );
    let build = session.build_command("plain", &["-t", "x"]);
    let mut limited = session.command("sh");
    limited.args(["-c", "ulimit -Sn 300 && exec \"$@\"", "sh"]);
    limited.arg(build.get_program()).args(build.get_args());
    let outcome = session.run(&mut limited).succeeds();
    assert!(outcome.stderr.lines().any(|line| line.ends_with(" 300")), "the caller's: {outcome}");
    let deepest = format!("/again{}", "/d".repeat(600));
    assert!(session.image("x").rootfs().get(&deepest).is_some());
}

/// A control group that holds its processes to so many bytes of memory.
struct MemoryLimit(std::path::PathBuf);

impl MemoryLimit {
    fn new(bytes: u64) -> Self {
        let first_version = std::path::Path::new("/sys/fs/cgroup/memory");
        let (root, limits) = if first_version.exists() {
            (first_version, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"])
        } else {
            let root = std::path::Path::new("/sys/fs/cgroup");
            std::fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
            (root, ["memory.max", "memory.swap.max"])
        };
        let group = root.join(format!("rbuild-test-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        std::fs::write(group.join(limits[0]), bytes.to_string()).unwrap();
        // Kernels that don't count swap don't have it.
        let _no_swap = std::fs::write(group.join(limits[1]), bytes.to_string());
        Self(group)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _busy_after_a_failure = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_command_that_the_kernel_kills_for_its_memory_is_told_so() {
    let limit = MemoryLimit::new(200 << 20);
    let session = Session::new().dockerfile("FROM busybox\nRUN exec tail /dev/zero\n");
    let build = session.build_command("plain", &[]);
    let mut limited = session.command("sh");
    limited
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&limit.0)
        .arg(build.get_program())
        .args(build.get_args());
    session
        .run(&mut limited)
        .fails_with(&["exit code: 137: the kernel ran out of memory and killed it"]);
}

/// Has the agent that `SSH_AUTH_SOCK` names sign its argument, and prints the answer.
const ASK: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_un address = {AF_UNIX};
    char answer[100] = "", request[100] = {0, 0, 0, 1 + strlen(argv[1]), 13};
    int agent = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, getenv("SSH_AUTH_SOCK"));
    if (connect(agent, (struct sockaddr *)&address, sizeof address)) { perror("connect"); return 1; }
    strcpy(request + 5, argv[1]);
    if (write(agent, request, 5 + strlen(argv[1])) < 0 || read(agent, answer, 99) < 5) return 2;
    puts(answer + 5);
    return 0;
}
"#;

#[test]
fn a_command_talks_to_the_users_ssh_agent() {
    for caller in [Caller::Root, Caller::WithSubordinateIds] {
        let session = Session::new().file("ask.c", ASK).run_by(caller);
        session.tool("gcc", &["-static", "-o", "context/ask", "context/ask.c"]);
        let socket = session.path("agent");
        let agent = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
        std::thread::spawn(move || {
            for conversation in agent.incoming() {
                let mut conversation = conversation.unwrap();
                let mut question = [0; 100];
                let length = conversation.read(&mut question).unwrap();
                let said = String::from_utf8_lossy(&question[5..length]);
                let answer = format!("\x0eyou said {said}");
                let head = u32::try_from(answer.len()).unwrap().to_be_bytes();
                conversation.write_all(&[&head, answer.as_bytes()].concat()).unwrap();
            }
        });
        session.write(
            "Dockerfile",
            "FROM busybox\nCOPY ask /ask\n\
             RUN --mount=type=ssh /ask one > /one; stat -c '%a %u:%g' $SSH_AUTH_SOCK > /socket\n\
             RUN --mount=type=ssh,id=other,uid=7,gid=8,mode=0640,target=/agent.sock \
             SSH_AUTH_SOCK=/agent.sock /ask two > /two; stat -c '%a %u:%g' /agent.sock > /other\n\
             RUN test ! -e /agent.sock\n",
        );
        let given = |id: &str| format!("--ssh={id}={}", socket.display());
        session.build(&["-t", "x", &given("default"), &given("other")]).succeeds();
        let image = session.image("x");
        assert_eq!(image.text("/one"), "you said one\n");
        assert_eq!(image.text("/two"), "you said two\n");
        assert_eq!(
            (image.text("/socket"), image.text("/other")),
            ("600 0:0\n".into(), "640 7:8\n".into())
        );
        session.write("Dockerfile", "FROM busybox\nRUN --mount=type=ssh,required true\n");
        session
            .build(&["--no-cache"])
            .fails_with(&["ssh agent default: not found", "--ssh default"]);
        session.build(&["--ssh=default=none"]).fails_with(&["cannot open `none`", "No such file"]);
        let both = format!("{},context/ask.c", given("default"));
        session.build(&[&both]).fails_with(&["invalid combination of keys and sockets"]);
    }
}

/// Asks the agent at $SSH_AUTH_SOCK for its keys and prints how many there are.
const COUNT_KEYS: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    unsigned char answer[9];
    size_t length = 0;
    int agent = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(address.sun_path, getenv("SSH_AUTH_SOCK"), sizeof address.sun_path - 1);
    if (connect(agent, (struct sockaddr *) &address, sizeof address) || write(agent, "\0\0\0\1\13", 5) != 5)
        return 1;
    while (length < sizeof answer) {
        ssize_t got = read(agent, answer + length, sizeof answer - length);
        if (got <= 0)
            return 2;
        length += got;
    }
    printf("%d\n", answer[8]);
    return 0;
}
"#;

#[test]
fn keys_in_files_get_an_agent_for_the_time_of_the_build() {
    for caller in [Caller::Root, Caller::WithSubordinateIds] {
        let session = Session::new().file("count.c", COUNT_KEYS).run_by(caller);
        session.tool("gcc", &["-static", "-o", "context/count", "context/count.c"]);
        for (key, passphrase) in [("one", ""), ("two", ""), ("locked", "secret")] {
            let path = format!("home/{key}");
            session.tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", passphrase, "-f", &path]);
        }
        session.write(
            "Dockerfile",
            "FROM busybox\nCOPY count /count\nRUN --mount=type=ssh /count > /keys\n",
        );
        session.build(&["-t", "x", "--ssh=default=home/one,home/two"]).succeeds();
        assert_eq!(session.image("x").text("/keys"), "2\n");
        let locked = session.build(&["--ssh=default=home/locked"]);
        locked.fails_with(&["failed to parse", "home/locked"]);
        session
            .build(&["--ssh=default=context/count.c"])
            .fails_with(&["failed to parse", "count.c"]);
        assert_eq!(std::fs::read_dir(session.store().join("run")).unwrap().count(), 0);
        let agents = || {
            let processes = std::fs::read_dir("/proc").unwrap();
            let places =
                processes.flat_map(|entry| std::fs::read_link(entry.unwrap().path().join("cwd")));
            places.filter(|place| place.starts_with(session.store())).count()
        };
        // They end when the broker does, which nobody waits for.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while agents() > 0 {
            assert!(std::time::Instant::now() < deadline, "an agent lives on");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
