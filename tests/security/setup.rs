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
        (Caller::RootOfContainer, "auto"),
        (Caller::WithSubordinateIds, "auto"),
        (Caller::WithOneId, "auto"),
        (Caller::RootWithChrootAlone, "chroot"),
    ];
    let nodes = "bind,from=nodes,source";
    let reads = "wc -c >> /tmp/read; test ! -e /proc/self || stat -Lc %F:%t:%T /proc/self/fd/0 >> /tmp/kind";
    for (caller, level) in levels {
        let session = Session::new().run_by(caller).dockerfile(&format!(
            "FROM busybox AS nodes\n\
             RUN mkdir /secret /tree /kernel /fifo /none && ln -s /sec /secret/null && \
                 ln -s /proc/self/root /tree/null && ln -s /proc/version /kernel/null && mkfifo /fifo/null\n\
             FROM busybox\n\
             USER nobody\n\
             RUN --mount=type=secret,id=s,target=/sec,mode=0400 \
                 --mount=type={nodes}=/secret,target=/dev {reads}\n\
             RUN --mount=type={nodes}=/tree,target=/dev {reads}\n\
             RUN --mount=type={nodes}=/kernel,target=/dev {reads}\n\
             RUN --mount=type={nodes}=/fifo,target=/dev {reads}\n\
             RUN --mount=type={nodes}=/none,target=/dev {reads}\n\
             RUN --mount=type=tmpfs,target=/dev {reads}\n\
             RUN --mount=type=bind,from=nodes,source=/bin/busybox,target=/dev/null {reads}\n"
        ));
        callers_secret(&session);
        session.build(&["-t", "x", "--secret=id=s,src=home/secret", "--sandbox", level]).succeeds();
        let image = session.image("x");
        assert_eq!(image.text("/tmp/read"), "0\n".repeat(7), "{caller:?}");
        if level != "chroot" {
            let null = "character special file:1:3\n";
            assert_eq!(image.text("/tmp/kind"), null.repeat(7), "{caller:?}");
        }
    }
}
