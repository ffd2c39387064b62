//! Ordinary users: the same images as root's, in stores of their own.

use std::os::unix::fs::MetadataExt as _;

use test_support::{Base, Caller, Session};

/// Owners that RUN and COPY set, and nothing that differs from one run to the next.
const OF_ALL: &str = "FROM debian AS build
RUN touch /made && chown 5:6 /made && ln -s made /link && chown -h 7:8 /link \\
    && mkdir -p /d/e && chown 9 /d && mkfifo /d/pipe && chown 1000:1000 /d/pipe
FROM debian
COPY --chown=11:12 f /f
COPY --from=build /d /copied
COPY --from=build /etc /etc-again
USER 1000:1001
WORKDIR /work
RUN id > /tmp/id && touch /tmp/mine
";

/// Owners that the base image has and that COPY sets.
const OF_COPIES: &str = "FROM debian AS build
RUN chmod u+s /etc/gshadow && mkdir -p /new /links/d && echo > /new/f && \
    ln -s /new /links/a && ln -s b /links/d/c && mkfifo /links/pipe
FROM debian AS linked
COPY --from=build --chown=21:22 /links /links
FROM debian
COPY --chown=11:12 f /f
COPY --chown=13 --chmod=4755 f /d/f
COPY --from=build /etc /etc-again
COPY --from=build --chown=1:2 /new /new
COPY --from=linked /links /links-again
COPY --from=linked --chown=33 /links /links-given-away
RUN mv /f /moved && cp -a /new /new-again && chmod 755 /d
";

/// The digest of the image that the caller builds.
fn digest(caller: Caller, dockerfile: &str) -> String {
    let session = Session::new()
        .base(Base::Debian)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .file("f", "content")
        .dockerfile(dockerfile)
        .run_by(caller);
    session.build(&["-t", "x"]).succeeds();
    session.image("x").digest.to_string()
}

#[test]
fn whoever_builds_has_the_image_that_root_builds() {
    let digest = |caller| digest(caller, OF_ALL);
    let roots = digest(Caller::Root);
    assert_eq!(digest(Caller::WithSubordinateIds), roots);
    assert_eq!(digest(Caller::RootOfContainer), roots);
    assert_eq!(digest(Caller::WithOneId), roots);
    assert_eq!(digest(Caller::RootWithChrootAlone), roots);
}

#[test]
fn the_level_that_is_asked_for_is_the_one_that_is_entered() {
    let session = Session::new().dockerfile(
        "FROM busybox
         RUN echo $(cat /proc/self/uid_map) > /map && readlink /proc/self > /pid && echo $$ > /own
",
    );
    let build = |level: &str| {
        session.build(&["--sandbox", level, "--no-cache", "-t", "x"]).succeeds();
        let image = session.image("x");
        ["/map", "/pid", "/own"].map(|name| image.text(name))
    };
    let every_id = "0 0 4294967295\n";
    let [map, pid, _] = build("root");
    assert!(map == every_id && pid.len() <= 2, "{map} {pid}");
    let [map, _, _] = build("subordinate-ids");
    assert_eq!(map, every_id);
    let [map, _, _] = build("single-id");
    assert_eq!(map, "0 0 1\n");
    let [_, pid, own] = build("outer-proc");
    assert_ne!(pid, own, "the number outside and the one inside");
}

#[test]
fn a_level_that_the_machine_refuses_is_an_error() {
    let session = Session::new().dockerfile("FROM busybox\nRUN true\n").run_by(Caller::WithOneId);
    session.build(&["--sandbox=root"]).fails_with(&["cannot enter a mount namespace"]);
    session.build(&["--sandbox=subordinate-ids"]).fails_with(&["/etc/subuid"]);
    session.build(&["--sandbox=chroot"]).fails_with(&["SYS_CHROOT"]);
}

/// What other processes have is not to be seen through the `/proc` that they are in.
#[test]
fn the_proc_from_outside_leads_to_no_process_outside() {
    let session = Session::new().dockerfile(
        "FROM busybox
         RUN --security=insecure for p in /proc/[0-9]*; do readlink $p/root && cat $p/environ && ls $p/fd; done \\
             2>/dev/null | grep -v '^/$' > /seen; true
",
    );
    let insecure = "--allow=security.insecure";
    session.build(&["--sandbox=outer-proc", insecure, "-t", "x"]).succeeds();
    let seen = session.image("x").text("/seen");
    assert!(!seen.contains("CARGO"), "{seen}");
}

/// Their place in the queue for memory, and their files of the network, are root's to change.
#[test]
fn through_the_proc_from_outside_root_changes_nothing() {
    let session = Session::new().dockerfile("FROM busybox\nRUN ! echo x > /proc/self/comm\n");
    session.build(&["--sandbox=outer-proc"]).succeeds();
}

#[test]
fn root_of_a_container_needs_no_tool_to_have_many_ids() {
    let session = Session::new()
        .dockerfile("FROM busybox\nRUN echo $(cat /proc/self/uid_map) > /map\n")
        .run_by(Caller::RootOfContainer);
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/map"), "0 0 4294967295\n");
}

#[test]
fn where_there_is_one_id_owners_of_bases_and_copies_are_kept() {
    let digest = |caller| digest(caller, OF_COPIES);
    assert_eq!(digest(Caller::WithOneId), digest(Caller::Root));
}

#[test]
fn what_was_built_with_one_id_answers_nobody_who_has_more() {
    let dockerfile = "FROM busybox\nRUN grep -c . /proc/self/uid_map > /f\n";
    let session = Session::new().dockerfile(dockerfile).run_by(Caller::WithOneId);
    session.build(&["-t", "one"]).succeeds();
    let session = session.run_by(Caller::WithSubordinateIds);
    let steps = session.build_with_events(&["-t", "many"]).succeeds().steps();
    steps.ran_only(&["RUN grep"]);
    assert_eq!(["one", "many"].map(|name| session.image(name).text("/f")), ["1\n", "2\n"]);
}

#[test]
fn where_there_is_one_id_links_keep_their_owners_from_build_to_build() {
    let session = Session::new().run_by(Caller::WithOneId).dockerfile(
        "FROM busybox AS build\nRUN mkdir /d && ln -s to /d/link && mkfifo /d/pipe\n\
         FROM busybox\nCOPY --from=build --chown=5:6 /d /d\n",
    );
    session.build(&["-t", "base"]).succeeds();
    let owners = |image: &str, directory: &str| {
        let rootfs = session.image(image).rootfs();
        ["link", "pipe"].map(|name| rootfs.file(&format!("{directory}/{name}")).access())
    };
    let want = owners("base", "/d");
    assert!(want.iter().all(|access| access.ends_with(" 5:6")), "{want:?}");
    // Another process has them from the layer's directory, and one more from the blob.
    session.write("Dockerfile", "FROM base\nCOPY --from=base /d /again\n");
    session.build(&["-t", "again"]).succeeds();
    assert_eq!(owners("again", "/again"), want);
    session.rbuild(&["store", "check"]).succeeds();
    session.rbuild(&["prune", "-f"]).succeeds();
    session.build(&["-t", "pruned", "--no-cache"]).succeeds();
    assert_eq!(owners("pruned", "/again"), want);
}

#[test]
fn an_ordinary_users_store_is_below_the_home_directory() {
    for caller in [Caller::WithSubordinateIds, Caller::WithOneId] {
        let session = Session::new().dockerfile("FROM busybox\nRUN echo > /f\n").run_by(caller);
        let mut build = session.build_command("plain", &["-t", "x"]);
        session.run(build.env_remove("RBUILD_ROOT")).succeeds();
        let index = session.path("home/.local/share/rbuild/index.json");
        assert_ne!(std::fs::metadata(index).unwrap().uid(), 0);
    }
}

/// Issue 9, section 3: tokio panics where it gets no thread. Other tests have processes of this user
/// too, so that each limit is hit at another place from time to time.
#[test]
fn a_user_who_may_have_few_processes_is_told_so() {
    let session = Session::new().dockerfile("FROM busybox\nRUN true\n").run_by(Caller::WithOneId);
    let build = session.build_command("plain", &["--no-cache"]);
    for limit in (1..12).chain((12..48).step_by(4)) {
        let mut command = session.command("prlimit");
        command.arg(format!("--nproc={limit}")).arg(build.get_program()).args(build.get_args());
        let outcome = session.run(&mut command);
        let told = ["ulimit -u", "setpriv: failed to execute", "can't fork"];
        let is_told = told.iter().any(|words| outcome.stderr.contains(words));
        assert!(outcome.status.success() || is_told, "{limit}: {outcome}");
        assert!(!outcome.stderr.contains("panicked"), "{limit}: {outcome}");
    }
}
