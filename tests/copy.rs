//! COPY, as far as only an image shows it; the rest is tested beside the code.

use test_support::{Kind, Session};

#[test]
fn owners_are_looked_up_in_the_image_as_it_is_by_then() {
    let session = Session::new().file("f", "").dockerfile(
        "FROM busybox\n\
         COPY --chown=app f /before\n\
         RUN echo 'app:x:4242:4343::/:' >> /etc/passwd && echo 'web:x:55:' >> /etc/group\n\
         ARG ID=8\n\
         COPY --chown=app f /user\n\
         COPY --chown=app:web f /both\n\
         COPY --chown=7:nobody-knows f /unknown\n\
         COPY --chown=$ID --chmod=a=,u+r f /number\n\
         ADD --chown=:web f /group\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    for (path, access) in [
        ("/before", "644 0:0"),
        ("/user", "644 4242:4343"),
        ("/both", "644 4242:55"),
        ("/unknown", "644 7:0"),
        ("/number", "400 8:8"),
        ("/group", "644 0:55"),
    ] {
        assert_eq!(rootfs.file(path).access(), access, "{path}");
    }
}

#[test]
fn sources_are_below_the_root_and_destinations_below_the_workdir() {
    let session = Session::new().file("one", "one").file("two", "two").dockerfile(
        "FROM busybox AS stage\n\
         RUN mkdir -p /d/sub && echo in > /d/sub/f && ln -s sub /d/link\n\
         WORKDIR /d\n\
         FROM scratch\n\
         WORKDIR /w\n\
         COPY --from=stage d/sub/f from-root\n\
         COPY --from=stage /d/link/ linked\n\
         COPY ../one nomatch* two last\n\
         COPY nomatch* /nothing/\n\
         COPY one two /\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    let expected = ["/one", "/two", "/w", "/w/from-root", "/w/last", "/w/linked", "/w/linked/f"];
    assert_eq!(rootfs.below("/"), expected);
    assert_eq!(rootfs.text("/w/last"), "two", "several files of one name overwrite each other");
}

#[test]
fn a_layer_has_files_of_every_kind_with_their_modes_and_whole_seconds() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY d /d\n");
    let script = "mkdir context/d && cd context/d && echo x > f && chown 7:8 f && chmod 4751 f \
        && touch -d @1000000000.5 f && ln f hard && ln -s f soft && mkfifo pipe && mknod null c 1 3";
    session.tool("sh", &["-c", script]);
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    let file = rootfs.file("/d/f");
    assert_eq!((file.access().as_str(), file.mtime), ("4751 0:0", 1_000_000_000));
    for (path, kind) in [
        ("/d/hard", Kind::HardLink("/d/f".to_owned())),
        ("/d/soft", Kind::Symlink("f".to_owned())),
        ("/d/pipe", Kind::Fifo),
        ("/d/null", Kind::CharacterDevice(1, 3)),
    ] {
        assert_eq!(rootfs.0[path].kind, kind, "{path}");
    }
}

#[test]
fn a_link_knows_nothing_of_what_is_below_it() {
    let session = Session::new().file("f", "content");
    let build = |base: &str| {
        let text = format!(
            "FROM busybox\n\
             RUN mkdir -m 700 /d /existing && ln -s /d /l && echo {base} > /base\n\
             COPY --link f /d/\n\
             COPY --link f /l/\n\
             COPY --link f /existing\n\
             COPY --link --chown=5 f /new/dir/\n"
        );
        session.write("Dockerfile", text);
        session.build_with_events(&["-t", "x"]).succeeds().steps()
    };
    build("one");
    let rootfs = session.image("x").rootfs();
    assert_eq!(rootfs.file("/d").access(), "755 0:0", "the directories above are made anew");
    assert_eq!(rootfs.file("/new").access(), "755 5:5");
    assert_eq!(rootfs.file("/l").kind, Kind::Directory, "no link is followed");
    assert_eq!(rootfs.text("/existing"), "content", "no directory is known");

    build("two").ran_only(&["RUN mkdir"]);
    assert_eq!(session.image("x").text("/base"), "two\n");
    assert_eq!(session.image("x").text("/l/f"), "content");
}
