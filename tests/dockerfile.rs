//! What a Dockerfile becomes: files, config and history of the image.

use std::time::{SystemTime, UNIX_EPOCH};

use test_support::{Base, Kind, Session, validate_image};

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
    let (_, whiteout) = &image.layers[2].entries[1];
    assert_eq!((whiteout.mtime, whiteout.access()), (0, "0 0:0".to_owned()));
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
    assert_eq!(
        image.config.rootfs.diff_ids[1].to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        "the one that every builder makes"
    );
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
fn a_script_goes_on_after_a_command_that_fails_and_may_have_an_interpreter() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         ARG WHO=me\n\
         RUN <<-EOF\n\
         \tfalse\n\
         \techo went on > /failed\n\
         \tEOF\n\
         RUN <<script\n\
         #!/bin/sh -e\n\
         echo \"$0 $(stat -c %a $0)\" > /named\n\
         if touch \"$0\"; then exit 1; fi\n\
         script\n\
         RUN cat <<one > /one && cat <<'two' > /two\n\
         $WHO\n\
         one\n\
         $WHO\n\
         two\n\
         RUN cat 3<<three <&3 > /three\n\
         3\n\
         three\n",
    );
    session.build(&["-t", "x"]).succeeds();

    let image = session.image("x");
    assert_eq!(image.text("/failed"), "went on\n");
    assert_eq!(image.text("/named"), "/dev/pipes/script 755\n");
    assert_eq!((image.text("/one"), image.text("/two")), ("me\n".into(), "$WHO\n".into()));
    assert_eq!(image.text("/three"), "3\n");
    assert!(!image.rootfs().has("/dev/pipes"));
}

#[test]
fn a_file_of_the_dockerfile_lands_like_any_other_and_is_as_old_as_its_build() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let start = now();
    let session = Session::new().file("b", "b").dockerfile(
        "FROM busybox\n\
         COPY --chown=5:6 --chmod=640 <<a /new/file\n\
         text\n\
         a\n\
         ADD <<b b <<-\"c\" /dir/\n\
         over\n\
         b\n\
         \ttabs\n\
         c\n",
    );
    session.build(&["-t", "x"]).succeeds();

    let rootfs = session.image("x").rootfs();
    assert_eq!(
        (rootfs.text("/new/file"), rootfs.file("/new/file").access()),
        ("text\n".into(), "640 5:6".into())
    );
    assert_eq!(rootfs.below("/dir"), ["/dir/b", "/dir/c"]);
    assert_eq!(rootfs.text("/dir/b"), "over\n", "paths are copied first");
    assert_eq!(
        (rootfs.text("/dir/c"), rootfs.file("/dir/c").access()),
        ("tabs\n".into(), "644 0:0".into())
    );
    assert!((start..=now()).contains(&rootfs.file("/dir/c").mtime));
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
fn the_builder_reads_files_that_are_hidden_from_copies() {
    let session = Session::new()
        .file(".dockerignore", "Dockerfile\n.dockerignore\n")
        .file("file", "")
        .dockerfile("FROM scratch\nCOPY . /\n");
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").rootfs().below("/"), ["/file"]);
}

#[test]
fn every_context_has_an_ignore_file_of_its_own() {
    let session = Session::new()
        .file(".dockerignore", "a\n")
        .file("web.dockerfile.dockerignore", "b\n")
        .file("web.dockerfile", "FROM scratch\nCOPY a* b* /main/\nCOPY --from=other . /other/\n")
        .dockerfile(
            "FROM busybox\n\
             COPY a* b* /main/\n\
             COPY --from=other . /other/\n\
             RUN --mount=from=other,target=/mounted cp -r /mounted /copied\n",
        );
    for file in ["context/a", "context/b", "other/a", "other/b", "other/.dockerignore"] {
        std::fs::create_dir_all(session.path(file).parent().unwrap()).unwrap();
        std::fs::write(session.path(file), "b\n").unwrap();
    }
    session.build(&["-t", "x", "--build-context=other=other"]).succeeds();
    let rootfs = session.image("x").rootfs();
    assert_eq!(rootfs.below("/main"), ["/main/b"]);
    assert_eq!(rootfs.below("/other"), ["/other/.dockerignore", "/other/a"]);
    assert_eq!(rootfs.below("/copied"), ["/copied/.dockerignore", "/copied/a"]);

    let args = ["-t", "y", "--build-context=other=other", "-f", "context/web.dockerfile"];
    session.build(&args).succeeds();
    let rootfs = session.image("y").rootfs();
    assert_eq!(rootfs.below("/main"), ["/main/a"], "the file beside the Dockerfile counts instead");
    assert_eq!(rootfs.below("/other"), ["/other/.dockerignore", "/other/a"]);
}

#[test]
fn working_directories_are_made_for_their_users() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN mkdir -m 700 /existing && ln -s /real /link && echo 'app:x:42:43::/:' >> /etc/passwd\n\
         USER app\n\
         WORKDIR /existing\n\
         WORKDIR /link/new\n\
         USER 7\n\
         WORKDIR deeper/\n\
         USER nobody-knows\n\
         WORKDIR /unknown\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let image = session.image("x");
    let rootfs = image.rootfs();
    for (path, access) in [
        ("/existing", "700 0:0"),
        ("/real", "755 42:43"),
        ("/real/new", "755 42:43"),
        ("/real/new/deeper", "755 7:7"),
        ("/unknown", "755 0:0"),
    ] {
        assert_eq!(rootfs.file(path).access(), access, "{path}");
    }
    assert_eq!(image.layers.len(), 6);
    assert_eq!(image.layers[2].paths(), [""; 0], "a layer also for a directory that was there");
    assert_eq!(image.config.config.user, "nobody-knows", "who is not looked up before a RUN");
}

#[test]
fn what_is_written_below_a_volume_stays() {
    let session =
        Session::new().dockerfile("FROM busybox\nVOLUME /v\nRUN mkdir -p /v && echo kept > /v/f\n");
    session.build(&["-t", "x"]).succeeds();
    let image = session.image("x");
    assert_eq!(image.text("/v/f"), "kept\n");
    assert!(image.config.config.volumes.contains_key("/v"));
}

#[test]
fn triggers_of_an_image_run_in_builds_on_top_of_it() {
    let session = Session::new().file("f", "content").dockerfile(
        "FROM busybox\n\
         WORKDIR /app\n\
         ONBUILD COPY f .\n\
         ONBUILD RUN <<EOF\n\
         cat f > copied\n\
         EOF\n\
         ONBUILD USER www-data\n",
    );
    session.build(&["-t", "parent"]).succeeds();
    assert!(!session.image("parent").rootfs().has("/app/f"));
    session.write("Dockerfile", "FROM parent\nRUN id -un > /tmp/user\n");
    session.build(&["-t", "child"]).succeeds();
    session.write("Dockerfile", "FROM child\nRUN true\n");
    session.build(&["-t", "grandchild"]).succeeds();

    let [parent, child, grandchild] =
        ["parent", "child", "grandchild"].map(|name| session.image(name));
    assert_eq!(parent.config.config.on_build.len(), 3);
    assert_eq!(
        (child.text("/app/copied"), child.text("/tmp/user")),
        ("content".into(), "www-data\n".into())
    );
    assert_eq!(child.layers.len(), parent.layers.len() + 3);
    assert_eq!(child.config.config.on_build, [""; 0]);
    assert_eq!(grandchild.layers.len(), child.layers.len() + 1);
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
            .dockerfile("FROM busybox\nWORKDIR /w/d\nCOPY a /a\nRUN echo built > /built\n");
        let args = ["-t", "x", "-o", "type=oci,dest=out,tar=false,rewrite-timestamp=true"];
        session.build(&args).succeeds();
        let image = test_support::validate_image(&session.path("out"), "");
        assert_eq!(image.config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(image.rootfs().file("/built").mtime, 1_700_000_000);
        assert_eq!(image.rootfs().file("/w/d").mtime, 1_700_000_000);
        image.digest
    };
    assert_eq!(build(), build());
}

#[test]
fn no_time_of_what_is_new_is_later_than_the_epoch() {
    let session = Session::new()
        .file("early", "")
        .file("late", "")
        .env("SOURCE_DATE_EPOCH", "1000")
        .dockerfile("FROM busybox\nCOPY early late /new/\nENV A=1\n");
    session.tool("touch", &["-d", "@500", "context/early"]);
    session.build(&["-t", "x"]).succeeds();
    let (image, base) = (session.image("x"), validate_image(&Base::Busybox.layout(), "latest"));
    assert_eq!(image.config.history[0], base.config.history[0]);
    for entry in &image.config.history[1..] {
        assert_eq!(entry.created.as_deref(), Some("1970-01-01T00:16:40Z"), "{entry:?}");
        assert_eq!(entry.comment, "buildkit.dockerfile.v0");
    }
    assert_eq!(image.config.created.as_deref(), Some("1970-01-01T00:16:40Z"));
    let times = ["/new", "/new/early", "/new/late"].map(|path| image.rootfs().file(path).mtime);
    assert_eq!(times, [1000, 500, 1000]);

    let session = session.env("SOURCE_DATE_EPOCH", "10");
    session.write("Dockerfile", "FROM x\nCOPY late /newer\n");
    session.build(&["-t", "y"]).succeeds();
    let newer = session.image("y");
    assert_eq!(newer.config.rootfs.diff_ids[..2], image.config.rootfs.diff_ids, "as they were");
    assert_eq!(newer.rootfs().file("/newer").mtime, 10);
}
