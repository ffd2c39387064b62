//! Contexts and Dockerfiles that were made to harm.

use std::os::unix::fs::symlink;

use test_support::{Kind, Session};

/// GHSA-vp35-85q5-9f25 (moby), GoogleContainerTools/kaniko#1553, osscontainertools/kaniko#1160,
/// GHSA-388v-wmr2-g2v2 (BuildKit): a link was followed to files of the host.
#[test]
fn a_link_of_the_context_leads_to_no_file_of_the_host() {
    let session = Session::new();
    let secret = session.path("secret");
    std::fs::write(&secret, "of the host").unwrap();
    symlink(&secret, session.context().join("absolute")).unwrap();
    symlink("../secret", session.context().join("relative")).unwrap();
    symlink("..", session.context().join("above")).unwrap();
    for source in ["absolute", "relative", "above/secret"] {
        for instruction in [
            format!("COPY {source} /x"),
            format!("ADD {source} /x"),
            format!("RUN --mount=type=bind,source={source},target=/x cat /x"),
            format!("RUN --mount=type=cache,from=files,source={source},target=/x cat /x"),
        ] {
            session.write("Dockerfile", format!("FROM busybox\n{instruction}\n"));
            session.build(&["--build-context", "files=."]).fails_with(&["not found"]);
        }
    }
    session.write("Dockerfile", "FROM scratch\nCOPY . /all/\n");
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    assert!(matches!(rootfs.file("/all/absolute").kind, Kind::Symlink(_)), "a link stays one");
}

/// CVE-2024-23650, CVE-2026-15792 (BuildKit): malformed input ended the program.
#[test]
fn malformed_dockerfiles_end_with_an_error() {
    let session = Session::new();
    for dockerfile in [
        &b"FROM \xff\xfe\nRUN \x00\n"[..],
        b"FROM scratch\nCOPY --from=99999999999999999999 / /\n",
        b"FROM scratch\nCOPY --from=-1 / /\n",
        b"FROM scratch\nRUN --mount=type=bind,from=18446744073709551616 x\n",
        b"FROM scratch\nRUN <<\n",
        b"FROM scratch\nRUN [\n",
        b"# escape=\nFROM scratch\\",
        b"ARG A=${A:?}${",
        b"FROM scratch\nEXPOSE 99999999999999999999-0\n",
        b"FROM scratch\nSTOPSIGNAL -99999999999999999999\n",
        b"FROM scratch\nUSER :\n",
    ] {
        session.write("Dockerfile", dockerfile);
        let outcome = session.build(&[]);
        let code = outcome.status.code();
        assert!(
            matches!(code, Some(0 | 1)),
            "{:?}: {outcome}",
            String::from_utf8_lossy(dockerfile)
        );
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    }
}
