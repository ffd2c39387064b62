//! Stores in which the kernel mounts no overlay: layers are copied, and images are the same.

use rustix::process::Signal;
use test_support::{Caller, Session, Started};

/// Every kind of op and of mount, and what steps do to files of the layers below.
const DOCKERFILE: &str = "\
FROM busybox AS tools
COPY file /kept/file
COPY dir /dir
RUN echo hello > /x && rm /kept/file && chmod 600 /x && ln /x /linked
WORKDIR /somewhere/else

FROM busybox
COPY --from=tools /x /x
COPY --from=tools --chmod=4755 /dir /dir
RUN mkdir /d2 && echo 1 > /d2/f && ln -s /x /d2/l && echo > /one && ln /one /other
RUN rm -r /var && mkdir /var && ls /dev /var
RUN mv /dir /moved && rm /moved/a && touch -d @5 /moved/sub
RUN echo a >> /d2/f && rm /d2/l && mkdir /d2/l && mkfifo /d2/p && ln /one /third
COPY dir /d2
RUN --mount=type=bind,from=tools,source=/kept,target=/mnt test ! -e /mnt/file
RUN --mount=type=bind,from=tools,source=/,target=/mnt test -e /mnt/linked
RUN --mount=type=bind,from=tools,source=/,target=/mnt,rw echo lost > /mnt/x && rm -r /mnt/dir
RUN --mount=type=bind,from=tools,source=/x,target=/mnt/x test \"$(cat /mnt/x)\" = hello
RUN --mount=type=bind,source=file,target=/mnt/f cat /mnt/f
RUN --mount=type=cache,target=/cache,from=tools,source=/dir echo 1 > /cache/1
RUN --mount=type=tmpfs,target=/tmp echo 1 > /tmp/1
WORKDIR /work
";

/// What only who has many ids can do.
const OTHER_IDS: &str = "\
RUN chown 7:8 /x /one /other /third && chown -h 9:9 /var && chmod u+s /x && chown -R 33 /d2
USER 33
RUN id -u > /tmp/id
";

const NOTE: &str = "lies on an overlay file system, so layers are copied instead of mounted";

fn session(caller: Caller) -> Session {
    let dockerfile = match caller {
        Caller::WithOneId => DOCKERFILE.to_owned(),
        Caller::Root
        | Caller::RootOfContainer
        | Caller::RootWithChrootAlone
        | Caller::WithSubordinateIds => {
            format!("{DOCKERFILE}{OTHER_IDS}")
        }
    };
    Session::new()
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .file("file", "content\n")
        .file("dir/a", "a")
        .file("dir/sub/b", "b")
        .dockerfile(&dockerfile)
        .run_by(caller)
}

#[test]
fn on_an_overlay_every_caller_builds_the_same_image_as_elsewhere() {
    for caller in
        [Caller::Root, Caller::RootOfContainer, Caller::WithSubordinateIds, Caller::WithOneId]
    {
        let elsewhere = session(caller);
        let mounted = elsewhere.build(&["-t", "x"]).succeeds();
        assert!(!mounted.stderr.contains(NOTE), "{mounted}");
        let here = session(caller).on_overlay();
        let copied = here.build(&["-t", "x"]).succeeds();
        assert_eq!(copied.stderr.matches(NOTE).count(), 1, "{caller:?}: {copied}");
        assert_eq!(here.image("x").digest, elsewhere.image("x").digest, "{caller:?}");
    }
}

#[test]
fn on_an_overlay_the_next_build_finds_all_steps_and_a_check_finds_no_fault() {
    let session = session(Caller::Root).on_overlay();
    session.build(&["-t", "x"]).succeeds();
    session.build_with_events(&["-t", "again"]).succeeds().steps().ran_only(&[]);
    assert_eq!(session.image("again").digest, session.image("x").digest);
    let checked = session.rbuild(&["store", "check"]).succeeds();
    assert!(checked.stdout.contains("all is well"), "{checked}");
    assert!(!checked.stdout.contains(" 0 unpacked layers"), "{checked}");
}

#[test]
fn on_an_overlay_a_step_that_fails_leaves_nothing_to_those_after_it() {
    let session = Session::new().on_overlay();
    let base = "FROM busybox\nRUN echo 1 > /1\n";
    session.write("Dockerfile", format!("{base}RUN echo 2 > /1 && rm -r /bin && false\n"));
    session.build(&[]).fails_with(&["exit code: 1"]);
    session.write("Dockerfile", format!("{base}RUN cat /1 > /2\n"));
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/2"), "1\n");
}

#[test]
fn on_an_overlay_a_command_that_may_remount_writes_to_no_layer() {
    let session = Session::new().on_overlay().dockerfile(
        "FROM busybox AS tools\nRUN echo kept > /f\nFROM busybox\n\
         RUN --security=insecure --mount=type=bind,from=tools,source=/,target=/mnt \\\n\
         mount -o remount,rw,bind /mnt && echo lost > /mnt/f\n\
         COPY --from=tools /f /f\n",
    );
    session.build(&["-t", "x", "--allow=security.insecure"]).succeeds();
    assert_eq!(session.image("x").text("/f"), "kept\n");
}

/// Else four binds of 20 MB leave 80 MB on the disk until the build ends.
#[test]
fn on_an_overlay_what_a_step_wrote_to_a_bound_stage_is_gone_after_it() {
    let bind = "RUN --mount=type=bind,from=tools,source=/,target=/mnt,rw";
    let session = Session::new().on_overlay().dockerfile(&format!(
        "FROM busybox AS tools\nRUN head -c 20000000 /dev/urandom > /big\n\
         FROM busybox\n{bind} echo 1 > /1\n{bind} echo 2 > /2\n{bind} echo 3 > /3\n\
         {bind} echo rea''dy && sleep 100\n"
    ));
    let mut build = Started::new(session.build_command("plain", &[]));
    build.wait_for(|line| line.ends_with(" ready"));
    let used = session.tool("du", &["-sm", session.store().to_str().unwrap()]);
    build.send(Signal::INT);
    build.wait();
    let used: u32 = used.split_whitespace().next().unwrap().parse().unwrap();
    // The layer, the tree that it was made in, and that of the last bind.
    assert!(used < 85, "{used} MB");
}
