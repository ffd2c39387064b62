//! What a Dockerfile becomes: files, config and history of the image.

use test_support::{Kind, Session};

#[test]
fn an_image_has_the_files_and_the_config_that_its_dockerfile_says() {
    let session = Session::new().file("greeting", "hello\n").dockerfile(
        "FROM busybox\n\
         LABEL kind=test\n\
         ENV NAME=world\n\
         WORKDIR /srv/app\n\
         COPY greeting .\n\
         RUN echo \"$(cat greeting) $NAME\" > answer\n\
         EXPOSE 80\n\
         USER nobody\n\
         CMD [\"cat\", \"answer\"]\n",
    );
    session.build(&["-t", "app:1.2"]).succeeds();

    let image = session.image("app:1.2");
    let config = &image.config.config;
    assert_eq!(image.text("/srv/app/answer"), "hello world\n");
    assert_eq!(image.rootfs().file("/srv/app").access(), "755 0:0");
    assert_eq!(image.env("NAME"), Some("world"));
    assert!(image.env("PATH").is_some(), "the base's environment is kept");
    assert_eq!(config.labels["kind"], "test");
    assert_eq!(config.working_dir, "/srv/app");
    assert_eq!(config.user, "nobody");
    assert!(config.exposed_ports.contains_key("80/tcp"));
    assert_eq!(config.cmd.as_ref().unwrap(), &["cat", "answer"]);
    // WORKDIR, COPY, RUN on the base's one.
    assert_eq!(image.layers.len(), 4);
    assert_eq!(image.config.history.len(), 9);
}

#[test]
fn a_layer_holds_only_what_its_step_changed() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN mkdir /d && echo one > /d/a && echo two > /d/b && ln /d/a /d/link\n\
         RUN rm /d/b && echo three > /d/c\n\
         RUN rm -r /d && mkdir /d && echo four > /d/e\n\
         RUN chmod 600 /etc/passwd\n",
    );
    session.build(&["-t", "x"]).succeeds();

    let image = session.image("x");
    assert_eq!(image.layers[1].paths(), ["/d", "/d/a", "/d/b", "/d/link"]);
    assert_eq!(image.layers[1].entries[3].1.kind, Kind::HardLink("/d/a".into()));
    assert_eq!(image.layers[2].paths(), ["/d", "/d/.wh.b", "/d/c"]);
    assert_eq!(image.layers[3].paths(), ["/d", "/d/.wh..wh..opq", "/d/e"]);
    assert_eq!(image.layers[4].paths(), ["/etc", "/etc/passwd"]);
    assert_eq!(image.rootfs().below("/d"), ["/d/e"]);
    assert_eq!(image.rootfs().file("/etc/passwd").access(), "600 0:0");
}

#[test]
fn what_the_sandbox_mounts_is_not_in_the_image() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN test -s /etc/resolv.conf && test -s /etc/hosts && test -d /proc/self && test -d /sys/class\n",
    );
    session.build(&["-t", "x"]).succeeds();

    let image = session.image("x");
    assert_eq!(image.layers[1].paths(), [""; 0], "a RUN that changes nothing makes an empty layer");
    for path in ["/proc", "/sys", "/etc/resolv.conf", "/etc/hosts"] {
        assert!(!image.rootfs().has(path), "{path}");
    }
}

#[test]
fn files_come_from_other_stages() {
    let session = Session::new().dockerfile(
        "FROM busybox AS tools\n\
         RUN mkdir -p /out/bin && echo tool > /out/bin/tool && chmod 751 /out/bin/tool\n\
         FROM busybox AS unused\n\
         RUN false\n\
         FROM scratch\n\
         COPY --from=tools --chown=12:34 /out/ /usr/\n\
         COPY --from=0 --chmod=600 /out/bin/tool /other\n",
    );
    session.build(&["-t", "x"]).succeeds();

    let rootfs = session.image("x").rootfs();
    assert_eq!(rootfs.below("/"), ["/other", "/usr", "/usr/bin", "/usr/bin/tool"]);
    assert_eq!(rootfs.file("/usr/bin/tool").access(), "751 12:34");
    assert_eq!(rootfs.file("/other").access(), "600 0:0");
}

#[test]
fn a_stage_nobody_needs_never_starts_nor_is_its_base_looked_up() {
    let session = Session::new().dockerfile(
        "FROM 127.0.0.1:1/does/not/exist AS broken\n\
         RUN exit 1\n\
         FROM busybox AS wanted\n\
         RUN echo wanted > /which\n\
         FROM broken\n",
    );
    let steps = session.build_with_events(&["-t", "x", "--target", "wanted"]).succeeds().steps();
    assert_eq!(session.image("x").text("/which"), "wanted\n");
    assert!(steps.all().all(|step| !step.name.contains("exist")), "{steps}");
}

#[test]
fn arguments_and_variables_have_their_scopes() {
    let session = Session::new().dockerfile(
        "ARG BASE=nothing\n\
         ARG GLOBAL=global\n\
         FROM ${BASE}\n\
         ARG GLOBAL\n\
         ARG OWN=default\n\
         ARG ABSENT\n\
         ENV A=${OWN:-none} B=${ABSENT:-none} C=${GLOBAL%al}\n\
         RUN echo \"$GLOBAL $OWN $A $B $C\" > /values\n",
    );
    session
        .build(&["-t", "x", "--build-arg", "BASE=busybox", "--build-arg", "OWN=given"])
        .succeeds();

    let image = session.image("x");
    assert_eq!(image.text("/values"), "global given given none glob\n");
    assert_eq!(image.env("A"), Some("given"));
    assert_eq!(image.env("OWN"), None, "an ARG is not in the image's environment");
}

#[test]
fn heredocs_are_scripts_and_files() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         ENV WHO=me\n\
         RUN <<EOF\n\
         echo first > /script\n\
         echo \"$WHO\" >> /script\n\
         EOF\n\
         COPY <<one <<'two' /files/\n\
         for $WHO\n\
         one\n\
         for $WHO\n\
         two\n",
    );
    session.build(&["-t", "x"]).succeeds();

    let image = session.image("x");
    assert_eq!(image.text("/script"), "first\nme\n");
    assert_eq!(image.text("/files/one"), "for me\n");
    assert_eq!(image.text("/files/two"), "for $WHO\n");
    assert_eq!(image.rootfs().file("/files/one").access(), "644 0:0");
}

#[test]
fn dockerignore_hides_files_from_copy() {
    let session = Session::new()
        .file(".dockerignore", "# comment\n**/*.log\n!keep.log\nsecret\n")
        .file("a.txt", "a")
        .file("a.log", "a")
        .file("keep.log", "k")
        .file("deep/b.log", "b")
        .file("deep/b.txt", "b")
        .file("secret/key", "s")
        .dockerfile("FROM scratch\nCOPY . /\n");
    session.build(&["-t", "x"]).succeeds();

    let rootfs = session.image("x").rootfs();
    let files: Vec<_> = rootfs.below("/").into_iter().filter(|path| path.contains('.')).collect();
    assert_eq!(files, ["/.dockerignore", "/a.txt", "/deep/b.txt", "/keep.log"]);
    assert!(!rootfs.has("/secret"));
}

#[test]
fn add_unpacks_a_local_archive_and_copy_does_not() {
    let session = Session::new()
        .file("in/file", "content")
        .dockerfile("FROM scratch\nADD in.tar.gz /added/\nCOPY in.tar.gz /copied/\n");
    session.tool("tar", &["-C", "context/in", "-czf", "context/in.tar.gz", "."]);
    session.build(&["-t", "x"]).succeeds();

    let rootfs = session.image("x").rootfs();
    assert_eq!(rootfs.text("/added/file"), "content");
    assert!(rootfs.has("/copied/in.tar.gz"));
}

#[test]
fn an_image_built_before_can_be_the_base_of_the_next() {
    let session =
        Session::new().dockerfile("FROM busybox\nRUN echo base > /base\nENV FROM_BASE=1\n");
    session.build(&["-t", "my/base:7"]).succeeds();
    session.write("Dockerfile", "FROM my/base:7\nRUN cat /base > /copy\n");
    session.build(&["-t", "next"]).succeeds();

    let image = session.image("next");
    assert_eq!(image.text("/copy"), "base\n");
    assert_eq!(image.env("FROM_BASE"), Some("1"));
    assert_eq!(image.layers.len(), session.image("my/base:7").layers.len() + 1);
}

#[test]
fn the_dockerfile_may_be_anywhere_below_the_working_directory() {
    let session = Session::new().file("file", "content");
    std::fs::write(session.path("Other"), "FROM scratch\nCOPY file /\n").unwrap();
    session.build(&["-t", "x", "-f", "Other"]).succeeds();
    assert_eq!(session.image("x").text("/file"), "content");
}

#[test]
fn a_build_of_the_same_files_gives_the_same_image_in_another_store() {
    let build = || {
        let session = Session::new()
            .file("a/b", "content")
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .dockerfile("FROM busybox\nCOPY a /a\nRUN echo built > /built\n");
        let args = ["-t", "x", "-o", "type=oci,dest=out,tar=false,rewrite-timestamp=true"];
        session.build(&args).succeeds();
        let image = test_support::validate_image(&session.path("out"), "");
        assert_eq!(image.config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
        assert!(image.rootfs().file("/built").mtime <= 1_700_000_000);
        image.digest
    };
    assert_eq!(build(), build());
}
