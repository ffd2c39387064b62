//! Archives that were made to harm: layers, what ADD unpacks, contexts on standard input.
//!
//! Most attacks are tried beside the code, in `builder/src/archive`, `layer` and `files`; here are
//! those that must be seen from outside: what is told, and that nothing outside was touched.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use test_support::{Caller, Kind, Outcome, Session};

/// A tar of entries: type, name, target, content.
fn tar(entries: &[(u8, &str, &str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (kind, name, target, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(if *kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        if matches!(kind, b'3' | b'4') {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Writes an image of `layers` into the session, and returns the option that calls it `base`.
fn base_of(session: &Session, layers: &[Vec<u8>]) -> String {
    let layout = session.path("layers");
    let blobs = layout.join("blobs/sha256");
    let _gone_if_it_was_there = fs::remove_dir_all(&layout);
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| -> Value {
        let digest = oci::Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{media_type}");
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| oci::Digest::of(layer).to_string()).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put("config.v1+json", config.to_string().as_bytes()),
        "layers": layers.iter().map(|layer| put("layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    let mut manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    "--build-context=base=oci-layout://layers:latest".to_owned()
}

/// Builds on an image of `layers`.
fn build_on(session: &Session, layers: &[Vec<u8>]) -> Outcome {
    let base = base_of(session, layers);
    session.build(&["-t", "x", &base])
}

/// Builds what an archive on standard input says.
fn build_from_stdin(session: &Session, archive: &Path) -> Outcome {
    let mut arguments = session.build_arguments("plain", &["-t", "x"]);
    *arguments.last_mut().unwrap() = "-".to_owned();
    let mut command = session.command(test_support::rbuild());
    session.run(command.args(arguments).stdin(File::open(archive).unwrap()))
}

/// A file with holes in a tar of each sparse format, made by GNU tar; and what is in the file.
fn sparse_tars(session: &Session) -> (Vec<PathBuf>, Vec<u8>) {
    let script = "mkdir sparse && cd sparse && truncate -s 3M holes \
        && printf head | dd of=holes conv=notrunc status=none \
        && printf tail | dd of=holes bs=1M seek=2 conv=notrunc status=none \
        && printf 'FROM scratch\\nCOPY holes /holes\\n' > Dockerfile \
        && tar --format=gnu -cSf ../gnu.tar holes Dockerfile \
        && for v in 0.0 0.1 1.0; do \
            tar --format=posix --sparse-version=$v -cSf ../$v.tar holes Dockerfile; done";
    session.tool("sh", &["-c", script]);
    let content = fs::read(session.path("sparse/holes")).unwrap();
    let tars = ["gnu.tar", "0.0.tar", "0.1.tar", "1.0.tar"].map(|name| session.path(name));
    (tars.to_vec(), content)
}

/// Issue 9: all three doors refused what `tar --sparse --format=posix` writes.
#[test]
fn sparse_files_come_in_by_every_door() {
    let session = Session::new();
    let (tars, content) = sparse_tars(&session);
    for tar in tars {
        let check = || {
            let rootfs = session.image("x").rootfs();
            let found = &rootfs.file("/holes").kind;
            assert!(*found == Kind::Regular(content.clone()), "{}", tar.display());
        };
        let bytes = fs::read(&tar).unwrap();
        assert!(bytes.len() < 100_000, "it is sparse: {}", tar.display());
        session.write("a.tar", &bytes);
        session.write("Dockerfile", "FROM scratch\nADD a.tar /\n");
        session.build(&["-t", "x"]).succeeds();
        check();
        build_from_stdin(&session, &tar).succeeds();
        check();
        session.write("Dockerfile", "FROM base AS base2\nFROM scratch\nCOPY --from=base2 / /\n");
        build_on(&session, &[bytes]).succeeds();
        check();
    }
}

/// An archive that begins with PAX records of this size for this key.
fn with_record(key: &str, size: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    let value = "d/".repeat(size / 2) + "f";
    tar.append_pax_extensions([(key, value.as_bytes())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("f").unwrap();
    header.set_size(0);
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
    tar.into_inner().unwrap()
}

/// Issue 9, 1.8: ADD took gigabytes for the first and minutes for the second.
#[test]
fn huge_records_and_names_are_refused_at_once_by_every_door() {
    for (archive, told) in
        [(with_record("comment", 8 << 20), "1 MiB"), (with_record("path", 60_000), "4095 bytes")]
    {
        let session = Session::new().dockerfile("FROM scratch\nADD a.tar /\n");
        session.write("a.tar", &archive);
        let added = session.build(&["-t", "x"]).fails_with(&[told]);
        let given = build_from_stdin(&session, &session.context().join("a.tar"));
        let given = given.fails_with(&[told]);
        session.write("Dockerfile", "FROM base\nCOPY Dockerfile /\n");
        let pulled = build_on(&session, &[archive]).fails_with(&[told]);
        for outcome in [added, given, pulled] {
            assert!(outcome.took < Duration::from_secs(10), "{outcome}");
            assert!(outcome.stderr.len() < 10_000, "not all of the name is told");
        }
    }
}

/// What the attacks below would write to or read, were they to get out.
struct Outside {
    session: Session,
    directory: PathBuf,
}

impl Outside {
    fn new(dockerfile: &str) -> Self {
        let session = Session::new().dockerfile(dockerfile);
        let directory = session.path("tmp/outside");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("secret"), "secret").unwrap();
        Self { session, directory }
    }

    fn at(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Entries that lead out by a link, by dots, by an absolute name and by a hard link.
    fn attacks(&self) -> Vec<Vec<u8>> {
        let (secret, directory) = (self.at("secret"), self.at(""));
        let dots = "../".repeat(12) + self.directory.strip_prefix("/").unwrap().to_str().unwrap();
        vec![
            tar(&[(b'2', "l", &directory, ""), (b'0', "l/written", "", "x")]),
            tar(&[(b'2', "l", &dots, ""), (b'0', "l/written", "", "x")]),
            tar(&[(b'2', "l", &secret, ""), (b'0', "l", "", "overwritten")]),
            tar(&[(b'2', "l", &directory, ""), (b'5', "l", "", ""), (b'0', "l/written", "", "x")]),
            tar(&[(b'0', &format!("{dots}/written"), "", "x")]),
            tar(&[(b'0', &self.at("written"), "", "x")]),
            tar(&[(b'1', "h", &secret, ""), (b'0', "h", "", "overwritten")]),
            tar(&[(b'1', "h", &format!("{dots}/secret"), "")]),
            tar(&[(b'2', "l", &directory, ""), (b'1', "h", "l/secret", "")]),
            tar(&[(b'2', ".", &directory, ""), (b'0', "written", "", "x")]),
        ]
    }

    fn is_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read(self.at("secret")).unwrap(), b"secret");
        let meta = fs::metadata(&self.directory).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, 0o755);
    }
}

/// CVE-2021-32760, CVE-2025-47290 (containerd), CVE-2020-10696, CVE-2025-11395 (buildah, podman),
/// CVE-2021-29136 (umoci), RUSTSEC-2018-0002, RUSTSEC-2021-0080 and CVE-2026-33056 (Rust's tar).
#[test]
fn layers_stay_within_their_directory() {
    let outside = Outside::new("FROM base\nCOPY Dockerfile /\n");
    for attack in outside.attacks() {
        let outcome = build_on(&outside.session, &[attack]);
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        outside.is_untouched();
    }
}

/// CVE-2026-17106, CVE-2018-15664 (moby), CVE-2026-28406 (kaniko).
#[test]
fn what_add_unpacks_stays_within_its_destination() {
    let outside = Outside::new("FROM scratch\nADD a.tar /dest/\n");
    for attack in outside.attacks() {
        outside.session.write("a.tar", &attack);
        let outcome = outside.session.build(&["-t", "x"]);
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        outside.is_untouched();
        if outcome.status.success() {
            let rootfs = outside.session.image("x").rootfs();
            let out = rootfs.0.keys().find(|path| !path.starts_with("/dest"));
            assert_eq!(out, None, "all is below the destination");
        }
    }
}

/// CVE-2026-28406 (kaniko), GHSA-g2h8-426c-7976 (BuildKit): a context that is an archive.
#[test]
fn contexts_on_standard_input_stay_within_their_directory() {
    let outside = Outside::new("");
    for attack in outside.attacks() {
        let archive = outside.session.path("context.tar");
        fs::write(&archive, &attack).unwrap();
        let outcome = build_from_stdin(&outside.session, &archive);
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        outside.is_untouched();
    }
}

/// CVE-2026-28406, CVE-2026-17106, CVE-2026-41568: the first mends refused these, which are fine.
#[test]
fn links_with_many_dots_and_absolute_hard_links_are_none_of_the_attacks() {
    let layer = tar(&[
        (b'5', "run/", "", ""),
        (b'5', "var/", "", ""),
        (b'2', "var/run", "../../../../../run", ""),
        (b'0', "var/run/pid", "", "1"),
        (b'1', "var/again", "/run/pid", ""),
        (b'2', "var/dots", "../../../../../../../../../etc/x", ""),
    ]);
    let expected = ["/run", "/run/pid", "/var", "/var/again", "/var/dots", "/var/run"];
    let session = Session::new().dockerfile("FROM scratch\nADD a.tar /\n");
    session.write("a.tar", &layer);
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").rootfs().below("/"), expected);
    session.write("Dockerfile", "FROM base AS b\nFROM scratch\nCOPY --from=b / /\n");
    build_on(&session, &[layer]).succeeds();
    assert_eq!(session.image("x").rootfs().below("/"), expected);
}

/// CVE-2026-41567 (GHSA-x86f-5xw2-fm2r, moby): `xz` of the image's path was run. CVE-2019-14271
/// (moby): a helper that had entered the image loaded its libraries to look users up.
#[test]
fn no_program_of_the_image_unpacks() {
    let session = Session::new().dockerfile(
        "FROM busybox\n\
         RUN echo /lib/evil.so > /etc/ld.so.preload && echo 'passwd: evil' > /etc/nsswitch.conf && \
             echo someone:x:5:6::/: >> /etc/passwd && mkdir -p /lib && \
             for p in xz unxz gzip gunzip unpigz zstd bzip2 tar id getent cp chown mkdir; do \
             rm -f /bin/$p; printf '#!/bin/sh\\ntouch /run-by-add\\n' > /bin/$p; \
             cat /bin/$p > /lib/evil.so; /bin/busybox chmod 755 /bin/$p; done\n\
         ADD --chown=someone a.tar.xz /unpacked/\n\
         COPY --chown=someone:6 Dockerfile /copied\n\
         USER someone\n\
         WORKDIR /made\n",
    );
    session.write("a.tar", tar(&[(b'0', "f", "", "x")]));
    session.tool("xz", &["context/a.tar"]);
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    assert!(rootfs.has("/unpacked/f") && !rootfs.has("/run-by-add"));
    assert_eq!(rootfs.file("/copied").access(), "644 5:6");
}

/// Issue 9: a file that no layer can hold was left out without a word.
#[test]
fn what_no_layer_can_hold_is_told() {
    let session = Session::new()
        .file(".wh.copied", "")
        .dockerfile("FROM busybox\nCOPY . /d/\nRUN touch /d/.wh.made /kept\n");
    let outcome = session.build(&["-t", "x", "--no-cache"]).succeeds();
    for path in ["`/d/.wh.copied`", "`/d/.wh.made`"] {
        assert!(outcome.stderr.contains(path), "{path} is told:\n{outcome}");
    }
    let rootfs = session.image("x").rootfs();
    assert!(rootfs.has("/kept") && !rootfs.has("/d/.wh.made"));
}

/// Issue 9: device nodes that this user can't make were left out without a word.
#[test]
fn devices_that_are_left_out_are_told_once_for_a_layer() {
    let names: Vec<_> = (0..9).map(|number| format!("null{number}")).collect();
    let mut entries: Vec<_> = names.iter().map(|name| (b'3', name.as_str(), "", "")).collect();
    entries.push((b'0', "kept", "", "x"));
    let session = Session::new()
        .dockerfile("FROM base\nCOPY Dockerfile /\n")
        .run_by(Caller::WithSubordinateIds);
    let base = base_of(&session, &[tar(&entries)]);
    let outcome = session.build(&["-t", "x", &base]).succeeds();
    let told = outcome.stderr.lines().filter(|line| line.contains("`/null0`"));
    let told: Vec<_> = told.filter(|line| line.contains("4 more")).collect();
    assert!(!told.is_empty(), "{outcome}");
    assert!(session.image("x").rootfs().has("/kept"));
}

/// Issue 9, 1.8: such a layer was written, and nobody could unpack it; rbuild refused it as a base.
#[test]
fn a_path_that_no_layer_can_hold_fails_the_step_that_made_it() {
    let half = vec!["n".repeat(200); 11].join("/");
    let session = Session::new()
        .file(&format!("{half}/f"), "")
        .dockerfile(&format!("FROM busybox\nCOPY {} /{half}/\n", "n".repeat(200)));
    let copied = session.build(&["-t", "x"]);
    let run = format!(
        "FROM busybox\nWORKDIR /w\nRUN mkdir -p {half} a/{half} && mv a/{0} {half}/ && mv {0} /\n",
        "n".repeat(200)
    );
    session.write("Dockerfile", run);
    let made = session.build(&["-t", "x"]);
    for outcome in [copied, made] {
        outcome.fails_with(&["the path `/n", "n` has 4", "at most 4095"]);
    }
}

/// BuildKit leaves device nodes out where it has no right to make them; so do we with a layer's.
#[test]
fn devices_of_an_archive_are_left_out_and_told() {
    let session = Session::new().dockerfile("FROM scratch\nADD a.tar /d/\n");
    let session = session.run_by(Caller::WithSubordinateIds);
    session.write(
        "a.tar",
        tar(&[(b'3', "null", "", ""), (b'4', "disk", "", ""), (b'0', "kept", "", "x")]),
    );
    let outcome = session.build(&["-t", "x"]).succeeds();
    assert!(outcome.stderr.contains("`/null`, `/disk`"), "{outcome}");
    assert_eq!(session.image("x").rootfs().below("/"), ["/d", "/d/kept"]);
}

/// Issue 9, 1.11: the name of a member is part of a message, and says nothing of its own.
#[test]
fn a_line_end_in_the_name_of_a_member_is_shown_as_one() {
    let name = "x\nerror: all is lost\x1b[31m";
    let shown = r"x\nerror: all is lost\u{1b}[31m";
    let broken = tar(&[(b'1', name, "missing", "")]);
    let session = Session::new().dockerfile("FROM scratch\nADD a.tar /\n");
    session.write("a.tar", &broken);
    let added = session.build(&["-t", "x"]).fails_with(&[shown]);
    session.write("Dockerfile", "FROM base\nCOPY Dockerfile /\n");
    let pulled = build_on(&session, &[broken]).fails_with(&[shown]);
    for outcome in [added, pulled] {
        assert!(outcome.stderr.lines().all(|line| !line.starts_with("error: all")), "{outcome}");
    }
}

/// Issue 9, 1.8: a path of many names, again and again, took a walk over all of them each time, and
/// its memory each time.
#[test]
fn a_deep_directory_that_comes_again_and_again_costs_little() {
    let deep = "d/".repeat(900);
    let member = |name: &str| {
        let mut tar = tar::Builder::new(vec![]);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, name, &[][..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        bytes[..bytes.len() - 1024].to_vec()
    };
    let pair = [member(&deep), member("elsewhere/")].concat();
    let session = Session::new().dockerfile("FROM scratch\nADD a.tar /\n");
    session.write("a.tar", [pair.repeat(3_000), vec![0; 1024]].concat());
    let outcome = session.build(&["-t", "x"]).succeeds();
    assert!(outcome.took < Duration::from_secs(40), "{outcome}");
}

/// Issue 9: `Invalid argument` was all that was told.
#[test]
fn an_owner_that_the_user_can_not_give_is_named() {
    let mut entry = tar(&[(b'0', "f", "", "x")]);
    let mut header = tar::Header::from_byte_slice(&entry[..512]).clone();
    header.set_uid(70_000);
    header.set_cksum();
    entry[..512].copy_from_slice(header.as_bytes());
    let session =
        Session::new().dockerfile("FROM scratch\nADD a.tar /\n").run_by(Caller::WithSubordinateIds);
    session.write("a.tar", &entry);
    let told = ["user id 70000 is none of the 65537", "/etc/subuid"];
    session.build(&["-t", "x"]).fails_with(&told);
    session.write("Dockerfile", "FROM scratch\nCOPY --chown=70000 a.tar /\n");
    session.build(&["-t", "x"]).fails_with(&told);
    session.write("Dockerfile", "FROM base\nCOPY Dockerfile /\n");
    build_on(&session, &[entry]).fails_with(&told);
}

/// Issue 9: a layer that containerd and umoci unpack was refused.
#[test]
fn a_member_below_a_link_that_leads_nowhere_is_where_the_link_leads() {
    let session = Session::new().dockerfile("FROM base AS b\nFROM scratch\nCOPY --from=b / /\n");
    let layer = tar(&[
        (b'2', "lib", "usr/lib", ""),
        (b'0', "lib/f", "", "x"),
        (b'2', "run", "/../var/run", ""),
        (b'0', "run/f", "", "x"),
    ]);
    build_on(&session, &[layer]).succeeds();
    let rootfs = session.image("x").rootfs();
    assert!(rootfs.has("/usr/lib/f") && rootfs.has("/var/run/f") && rootfs.has("/lib"));
}

/// Issue 9: such an archive was a whole one.
#[test]
fn a_context_that_breaks_off_behind_its_last_entry_is_an_error() {
    let session = Session::new();
    fs::write(session.path("a.tar"), tar(&[(b'0', "Dockerfile", "", "FROM scratch\n")])).unwrap();
    session.tool("gzip", &["a.tar"]);
    let archive = session.path("a.tar.gz");
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..whole.len() - 5]).unwrap();
    build_from_stdin(&session, &archive).fails_with(&["cannot unpack `standard input`"]);
    fs::write(&archive, [&whole[..], b"more"].concat()).unwrap();
    build_from_stdin(&session, &archive);
}
