//! `RUN --mount`: what a command sees, what it may do to it, and what of it counts for the cache.

use test_support::{Caller, Session};

#[test]
fn files_of_stages_and_of_the_context_are_shown_and_never_changed() {
    let session = Session::new().file("src/a", "context").file("top", "").dockerfile(
        "FROM busybox AS other\n\
         RUN mkdir /dir && echo other > /dir/f && chown 5:6 /dir/f && ln -s /dir /link\n\
         FROM busybox\n\
         WORKDIR /w\n\
         RUN --mount=type=bind ls > /tmp/whole\n\
         RUN --mount=source=src/a,target=file cat file > /tmp/file && ! echo x > file\n\
         RUN --mount=from=other,target=/o stat -c %u:%g /o/dir/f > /tmp/owner && ! touch /o/x\n\
         RUN --mount=from=other,source=link/f,target=/o cat /o > /tmp/linked\n\
         RUN --mount=from=other,source=dir,target=/o,rw echo changed > /o/f && cp /o/f /tmp/changed\n\
         RUN --mount=from=other,source=dir,target=/o cp /o/f /tmp/unchanged\n\
         RUN --mount=type=tmpfs,target=/t/in --mount=type=tmpfs,target=/t grep -c ' /t' /proc/mounts > /tmp/nested\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    for (name, content) in [
        ("whole", "Dockerfile\nsrc\ntop\n"),
        ("file", "context"),
        ("owner", "5:6\n"),
        ("linked", "other\n"),
        ("changed", "changed\n"),
        ("unchanged", "other\n"),
        ("nested", "2\n"),
    ] {
        assert_eq!(rootfs.text(&format!("/tmp/{name}")), content, "{name}");
    }
    assert!(!["/o", "/t", "/w/file"].iter().any(|path| rootfs.has(path)), "mount points are gone");
}

/// CVE-2024-1753 (GHSA-pmf3-c36m-g5cf).
#[test]
fn no_link_leads_a_mount_out_of_its_source() {
    let session = Session::new()
        .dockerfile("FROM busybox\nRUN --mount=source=out/hostname,target=/o cat /o\n");
    session.tool("ln", &["-s", "/etc", "context/out"]);
    session.build(&[]).fails_with(&["out/hostname\": not found", "Dockerfile:2"]);
}

#[test]
fn memory_is_limited_to_its_size() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN --mount=type=tmpfs,target=/t,size=2m grep ' /t ' /proc/mounts > /mounts; \
         ! dd if=/dev/zero of=/t/big bs=1M count=4\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let mounts = session.image("x").text("/mounts");
    assert!(mounts.contains(" rw,nosuid,nodev,") && mounts.contains("size=2048k"), "{mounts}");
}

#[test]
fn a_secret_is_a_file_or_a_variable_with_all_its_bytes() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN --mount=type=secret,id=s,target=/s,mode=0440,uid=5,gid=6 \
         stat -c '%a %u:%g' /s > /stat; grep ' /s ' /proc/mounts > /mounts; wc -c < /s > /length; ! echo x > /s\n\
         RUN --mount=type=secret,id=s,env=S printf %s \"$S\" | wc -c > /variable; test ! -e /run/secrets\n\
         RUN --mount=type=secret,id=s,env=S,target=/s printf %s \"$S\" | cmp - /s\n\
         RUN --mount=type=secret,target=/run/x/s test -s /run/x/s\n\
         RUN --mount=type=secret,id=absent,env=S test \"${S-unset}\" = ''\n\
         ENV S=mine\n\
         RUN --mount=type=secret,id=s,env=S test \"$S\" != mine\n",
    );
    let build = |value: &str| {
        std::fs::write(session.path("secret"), value).unwrap();
        session.build_with_events(&["-t", "x", "--secret", "id=s,src=secret"]).succeeds().steps()
    };
    build("four\n");
    let image = session.image("x");
    for (path, content) in [("/stat", "440 5:6\n"), ("/length", "5\n"), ("/variable", "5\n")] {
        assert_eq!(image.text(path), content, "{path}");
    }
    let mounts = image.text("/mounts");
    assert!(mounts.contains(" tmpfs ro,nosuid,nodev,noexec,"), "{mounts}");
    build("another").ran_only(&[]);
}

#[test]
fn an_agent_that_is_missing_and_not_required_leaves_its_variable() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN --mount=type=ssh test ! -e $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /socket\n",
    );
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/socket"), "/run/buildkit/ssh_agent.0\n");
}

#[test]
fn a_new_cache_is_shaped_and_filled_as_its_mount_says() {
    // A cache is its id and how it begins: the last two of one name are others.
    let session = Session::new().dockerfile(
        "FROM busybox AS seed\n\
         RUN mkdir -p /s/d && echo seed > /s/d/f && chown 5:6 /s/d/f\n\
         FROM busybox\n\
         WORKDIR /w\n\
         RUN --mount=type=cache,target=c,mode=0711,uid=5,gid=6 stat -c '%a %u:%g' c > /tmp/shape; echo kept > c/f\n\
         RUN --mount=type=cache,target=/e,id=c,mode=0711,uid=5,gid=6 cp /e/f /tmp/same\n\
         RUN --mount=type=cache,target=/c ls -A /c > /tmp/other; stat -c '%a %u:%g' /c > /tmp/plain\n\
         RUN --mount=type=cache,from=seed,source=/s/d,target=/e,uid=7 stat -c %u:%g /e/f > /tmp/owner; echo more >> /e/f\n\
         RUN --mount=type=cache,from=seed,source=/s/d,target=/e cp /e/f /tmp/seeded\n\
         RUN --mount=type=cache,target=/e test ! -e /e/f\n\
         RUN --mount=type=cache,target=/e,id=c test ! -e /e/f\n\
         RUN --mount=type=cache,target=/c,ro ! touch /c/f\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    for (name, content) in [
        ("shape", "711 5:6\n"),
        ("same", "kept\n"),
        ("other", ""),
        ("plain", "755 0:0\n"),
        ("owner", "5:6\n"),
        ("seeded", "seed\nmore\n"),
    ] {
        assert_eq!(rootfs.text(&format!("/tmp/{name}")), content, "{name}");
    }
}

#[test]
fn two_commands_share_a_cache_as_it_says() {
    // Two that run at once wait for each other in a cache that both see.
    let meet = |me: &str, other: &str| {
        let wait = format!("until test -e /met/{other}; do sleep 0.1; done");
        format!("touch /met/{me} && timeout 20 sh -c '{wait}'")
    };
    for (sharing, script) in [
        ("private", "mkdir /c/mine && MEET"),
        ("locked", "mkdir /c/mine && sleep 0.7 && rmdir /c/mine"),
        ("shared", "touch /c/ME && MEET && test -e /c/OTHER"),
    ] {
        let stage = |me: &str, other: &str| {
            let script = script.replace("MEET", &meet(me, other));
            let script = script.replace("ME", me).replace("OTHER", other);
            format!(
                "FROM busybox AS {me}\n\
                 RUN --mount=type=cache,target=/met --mount=type=cache,target=/c,sharing={sharing} \
                 {script} && touch /{me}\n"
            )
        };
        let last = "FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
        let text = stage("one", "two") + &stage("two", "one") + last;
        Session::new().dockerfile(&text).build(&["--jobs", "2"]).succeeds();
    }
}

#[test]
fn what_a_mount_shows_counts_and_what_a_cache_holds_does_not() {
    let session = Session::new()
        .file(".dockerignore", "src/*.log\n")
        .file("src/a", "a")
        .file("staged", "a")
        .file("unused", "a")
        .dockerfile(
            "FROM busybox AS stage\n\
             COPY staged unused /d/\n\
             FROM busybox\n\
             RUN --mount=source=src,target=/m cat /m/a\n\
             RUN --mount=from=stage,source=/d/staged,target=/m cat /m\n\
             RUN --mount=type=cache,target=/c date >> /c/log\n",
        );
    let build = || session.build_with_events(&[]).succeeds().steps();
    build();
    build().ran_only(&[]);
    session.write("src/x.log", "hidden");
    build().ran_only(&[]);
    session.write("src/a", "changed");
    build().ran_only(&["RUN --mount=source=src"]);
    session.write("unused", "changed");
    build().ran_only(&["COPY staged"]);
    session.write("staged", "changed");
    build().ran_only(&["COPY staged", "RUN --mount=from=stage"]);
}

#[test]
fn whoever_has_one_id_has_cache_mounts_too() {
    let session = Session::new().run_by(Caller::WithOneId).dockerfile(
        "FROM busybox AS seed\n\
         RUN mkdir /s && echo seed > /s/f\n\
         FROM busybox\n\
         RUN --mount=type=cache,target=/c echo kept > /c/f\n\
         RUN --mount=type=cache,target=/c cp /c/f /plain\n\
         RUN --mount=type=cache,target=/c,mode=0711,uid=5,gid=6 stat -c %a /c > /shape\n\
         RUN --mount=type=cache,target=/c,from=seed,source=/s,sharing=locked cp /c/f /seeded\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    for (path, content) in [("/plain", "kept\n"), ("/shape", "711\n"), ("/seeded", "seed\n")] {
        assert_eq!(rootfs.text(path), content, "{path}");
    }
}

/// Two commands that share a cache took each other's mount points away: the mounts on them went too.
#[test]
fn a_mount_point_inside_a_cache_stays_there() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/c/in/side touch /c/in/side/x\n\
         RUN --mount=type=cache,target=/c find /c > /tmp/found\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let image = session.image("x");
    assert_eq!(image.text("/tmp/found"), "/c\n/c/in\n/c/in/side\n");
    assert!(!image.rootfs().has("/c"));
}
