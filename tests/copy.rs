//! COPY, as far as only an image shows it; the rest is tested beside the code.

use test_support::{Base, Kind, Outcome, Session, TestRegistry};

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

/// What the checks told of lines of the Dockerfile, as `line: what`.
fn findings(outcome: &Outcome) -> Vec<String> {
    let finding = |line: &str| {
        let (text, line) = line.strip_prefix(" - ")?.rsplit_once(" (line ")?;
        Some(format!("{}: {text}", line.trim_end_matches(')')))
    };
    let mut found: Vec<_> = outcome.stderr.lines().filter_map(finding).collect();
    found.sort();
    found
}

/// Issue 9, 2: the check counted the words of the instruction.
#[test]
fn files_that_overwrite_each_other_are_told_however_they_are_named() {
    let session = Session::new()
        .file("spam/1", "one")
        .file("spam/2", "two")
        .file("spam/3", "three")
        .file("a/x", "a")
        .file("b/x", "b")
        .dockerfile(
            "FROM busybox\n\
             RUN mkdir /there\n\
             COPY spam/* /spam\n\
             ADD spam/[12] /added\n\
             COPY spam/1* nothing* /alone\n\
             COPY spam/* /there\n\
             COPY */x /both/\n\
             COPY --parents */x /apart/\n\
             COPY <<one <<two /heredocs\n1\none\n2\ntwo\n",
        );
    let outcome = session.build(&["-t", "x"]).succeeds();
    let file = |line: u8, path: &str, sources: u8| {
        format!(
            "{line}: SourcesIntoOneFile: `{path}` is a file, each source overwrites the one \
             before: write `{path}/` for a directory ({sources} sources)"
        )
    };
    let expected = [
        file(3, "/spam", 3),
        file(4, "/added", 2),
        "7: SourcesIntoOneFile: of sources with one name the last one stays: copy each to a \
         directory of its own, or all with --parents (`/both/x` is written 2 times)"
            .to_owned(),
        file(9, "/heredocs", 2),
    ];
    assert_eq!(findings(&outcome), expected, "{outcome}");
    let rootfs = session.image("x").rootfs();
    assert_eq!((rootfs.text("/spam"), rootfs.text("/both/x")), ("three".into(), "b".into()));
}

/// Issue 9, 2: the image is BuildKit's, but the user should know.
#[test]
fn directories_that_a_link_replaces_are_told_with_what_they_were() {
    let session = Session::new().file("f", "").dockerfile(
        "FROM busybox AS base\n\
         RUN mkdir -p -m 1777 /a && mkdir -p /usual/below && mkdir /real && ln -s real /l\n\
         RUN mkdir /owned && chown 5:6 /owned\n\
         FROM base\n\
         COPY --link --chown=200 f /a/b\n\
         COPY --link f /owned/deep/f\n\
         COPY --link f /l/f\n\
         COPY --link f /usual/below/f\n\
         COPY --link f /f\n\
         COPY --link f /nothing/was/here/\n\
         COPY f /owned/deeper/f\n",
    );
    let outcome = session.build(&["-t", "x"]).succeeds();
    let told = |line: u8, what: &str| {
        format!(
            "{line}: LinkReplacesDirectories: --link knows nothing of the directories of the image \
             and makes those above its files itself: leave it out to keep them as they are ({what})"
        )
    };
    let expected = [
        told(5, "`/a`: mode 1777 of 0:0 in the image, now mode 755 of 200:200"),
        told(6, "`/owned`: mode 755 of 5:6 in the image, now mode 755 of 0:0"),
        told(7, "`/l`: a link to `real` in the image, now mode 755 of 0:0"),
    ];
    assert_eq!(findings(&outcome), expected, "{outcome}");
    assert_eq!(session.image("x").rootfs().file("/a").access(), "755 200:200");
}

/// Issue 9, 2: also where no step needs the files of the base image.
#[test]
fn a_link_is_compared_with_a_base_image_that_nothing_else_unpacks() {
    let registry = TestRegistry::start();
    Base::Busybox.push_to(&registry, "library/busybox");
    let session = Session::new().mirror(registry.host()).file("f", "");
    session.write("Dockerfile", "FROM busybox\nCOPY --link --chown=7 f /etc/f\n");
    let outcome = session.build(&["-t", "x"]).succeeds();
    assert_eq!(findings(&outcome).len(), 1, "{outcome}");
    assert!(findings(&outcome)[0].contains("`/etc`: mode 755 of 0:0"), "{outcome}");
}

/// Issue 9, 2: the image is BuildKit's, but the user should know.
#[test]
fn directories_that_chmod_closes_are_told() {
    let session = Session::new().file("f", "").file("src/sub/f", "").dockerfile(
        "FROM busybox\n\
         COPY --chmod=640 f /new/f\n\
         COPY --chmod=755 f /open/f\n\
         COPY --chmod=640 f /f\n\
         COPY --chmod=u=rw,go=r src /src\n\
         COPY --chmod=u=rwX,go=rX src /good\n\
         COPY --chmod=4744 src/ /src/\n",
    );
    let outcome = session.build(&["-t", "x"]).succeeds();
    let told = |line: u8, mode: &str, advice: &str, directories: &str| {
        format!(
            "{line}: ChmodClosesDirectories: --chmod={mode} is for directories too, which can't be \
             entered without x: {advice} ({directories})"
        )
    };
    let instead = |mode: &str| format!("write `--chmod={mode}`, where X is x for directories");
    let expected = [
        told(2, "640", &instead("u=rwX,g=rX,o="), "`/new`"),
        told(5, "u=rw,go=r", "add X, which is x for directories", "`/src/sub`"),
        told(7, "4744", &instead("u=rwxs,g=rX,o=rX"), "`/src/sub`"),
    ];
    assert_eq!(findings(&outcome), expected, "{outcome}");
    let rootfs = session.image("x").rootfs();
    assert_eq!(rootfs.file("/new").access(), "640 0:0");
    assert_eq!(rootfs.file("/good/sub").access(), "755 0:0");
}

/// Issue 9: directories that a step makes take after the one above, as those of `mkdir` do.
#[test]
fn directories_on_the_way_inherit_set_group_id_and_the_group() {
    let session = Session::new().file("f", "").file("tree/sub/g", "").dockerfile(
        "FROM busybox\n\
         RUN mkdir /s && chgrp 50 /s && chmod 2775 /s\n\
         RUN mkdir /s/by-run\n\
         WORKDIR /s/w/v\n\
         COPY f /s/c/\n\
         COPY tree /s/t\n\
         COPY --chown=7:8 f /s/given/\n\
         RUN --mount=type=tmpfs,target=/s/m/tmp touch /s/m/beside\n\
         USER 9:10\n\
         WORKDIR /s/mine\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    for (path, access) in [
        ("/s/by-run", "2755 0:50"),
        ("/s/w", "2755 0:50"),
        ("/s/w/v", "2755 0:50"),
        ("/s/c", "2755 0:50"),
        ("/s/c/f", "644 0:0"),
        ("/s/t", "2755 0:50"),
        ("/s/t/sub", "755 0:0"),
        ("/s/given", "2755 7:8"),
        ("/s/m", "2755 0:50"),
        ("/s/mine", "2755 9:10"),
    ] {
        assert_eq!(rootfs.file(path).access(), access, "{path}");
    }
}
