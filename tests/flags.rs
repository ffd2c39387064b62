//! The flags of `docker buildx build` (0.36), `docker build`, and the named ones of podman and
//! kaniko, the keys of their outputs, and what rbuild does about each.
//!
//! `docs/flags.md` is made from the table: `RBUILD_WRITE_DOCS=1` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use builder::cli::{flags, understood};
use test_support::workspace;

use self::Does::{Done, Refused, Taken};

/// What rbuild does about a flag or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It is carried out.
    Done,
    /// It asks for what is done anyway.
    Taken,
    /// It is refused, with what to do instead.
    Refused,
}

/// A way of writing the flag, who has it (buildx, docker, podman, kaniko), and what is done.
type Row = (&'static str, &'static str, Does);

const FLAGS: &[Row] = &[
    ("--add-host=h:1.2.3.4", "buildx docker podman", Done),
    ("--add-host=h=host-gateway", "buildx docker podman", Done),
    ("--allow=network.host", "buildx", Done),
    ("--annotation=k=v", "buildx podman", Refused),
    ("--attest=type=sbom,disabled=true", "buildx", Taken),
    ("--attest=type=sbom", "buildx", Refused),
    ("--build-arg=A=b", "buildx docker podman kaniko", Done),
    ("--build-context=a=docker-image://b", "buildx podman", Done),
    ("--builder=default", "buildx", Taken),
    ("--cache-from=a", "buildx docker podman", Refused),
    ("--cache-to=a", "buildx podman", Refused),
    ("--call=check", "buildx", Done),
    ("--cgroup-parent=a", "buildx docker podman", Refused),
    ("--check", "buildx", Done),
    ("--compress", "docker", Taken),
    ("--cpu-period=1", "docker podman", Refused),
    ("--cpu-quota=1", "docker podman", Refused),
    ("--cpu-shares=1", "docker podman", Refused),
    ("--cpuset-cpus=1", "docker podman", Refused),
    ("--cpuset-mems=1", "docker podman", Refused),
    ("--debug", "buildx", Taken),
    ("--detach", "buildx", Refused),
    ("--disable-content-trust", "docker podman", Taken),
    ("--file=Dockerfile", "buildx docker podman", Done),
    ("--force-rm", "docker podman", Taken),
    ("--iidfile=a", "buildx docker podman", Done),
    ("--invoke=a", "buildx", Refused),
    ("--isolation=a", "docker podman", Refused),
    ("--label=a=b", "buildx docker podman kaniko", Done),
    ("--load", "buildx", Done),
    ("--memory=1g", "docker podman", Refused),
    ("--memory-swap=1g", "docker podman", Refused),
    ("--metadata-file=a", "buildx", Done),
    ("--network=none", "buildx docker podman", Done),
    ("--no-cache", "buildx docker podman", Done),
    ("--no-cache-filter=a", "buildx", Done),
    ("--output=a", "buildx podman", Done),
    ("--platform=linux/amd64", "buildx docker podman", Done),
    ("--policy=a", "buildx", Refused),
    ("--print=outline", "buildx", Done),
    ("--progress=plain", "buildx", Done),
    ("--provenance=false", "buildx", Taken),
    ("--provenance=mode=max", "buildx", Refused),
    ("--pull", "buildx docker podman", Done),
    ("--pull=always", "podman", Done),
    ("--pull=missing", "podman", Done),
    ("--pull=never", "podman", Done),
    ("--push", "buildx", Done),
    ("--quiet", "buildx docker podman", Done),
    ("--resource=memory=1g", "buildx", Refused),
    ("--rm=false", "docker podman", Taken),
    ("--sbom=false", "buildx", Taken),
    ("--sbom=true", "buildx podman", Refused),
    ("--secret=id=a,env=PATH", "buildx podman", Done),
    ("--security-opt=a", "docker podman", Refused),
    ("--server-config=a", "buildx", Refused),
    ("--shm-size=1.5g", "buildx docker podman", Done),
    ("--squash", "docker podman", Refused),
    ("--ssh=default", "buildx podman", Done),
    ("--stream", "docker", Refused),
    ("--tag=a", "buildx docker podman", Done),
    ("--target=a", "buildx docker podman kaniko", Done),
    ("--ulimit=nofile=1:2", "buildx docker podman", Done),
    ("--all-platforms", "podman", Refused),
    ("--arch=arm64", "podman", Done),
    ("--authfile=a", "podman", Done),
    ("--build-arg-file=/dev/null", "podman", Done),
    ("--cache-ttl=1h", "podman kaniko", Refused),
    ("--cap-add=a", "podman", Refused),
    ("--cap-drop=a", "podman", Refused),
    ("--cert-dir=a", "podman", Done),
    ("--cgroupns=a", "podman", Refused),
    ("--compat-volumes", "podman", Refused),
    ("--cpp-flag=a", "podman", Refused),
    ("--created-annotation", "podman", Refused),
    ("--creds=a:b", "podman", Done),
    ("--cw=a", "podman", Refused),
    ("--decryption-key=a", "podman", Refused),
    ("--device=a", "podman", Refused),
    ("--disable-compression=false", "podman", Taken),
    ("--disable-compression", "podman", Refused),
    ("--dns=1.2.3.4", "podman", Refused),
    ("--dns-option=a", "podman", Refused),
    ("--dns-search=a", "podman", Refused),
    ("--env=a=b", "podman", Refused),
    ("--format=oci", "podman", Taken),
    ("--format=docker", "podman", Refused),
    ("--from=a", "podman", Refused),
    ("--group-add=a", "podman", Refused),
    ("--hooks-dir=a", "podman", Refused),
    ("--http-proxy=false", "podman", Taken),
    ("--http-proxy", "podman", Refused),
    ("--identity-label=false", "podman", Taken),
    ("--identity-label", "podman", Refused),
    ("--ignorefile=a", "podman", Done),
    ("--inherit-annotations=false", "podman", Taken),
    ("--inherit-annotations", "podman", Refused),
    ("--inherit-labels", "podman", Taken),
    ("--inherit-labels=false", "podman", Refused),
    ("--ipc=a", "podman", Refused),
    ("--jobs=2", "podman", Done),
    ("--layer-label=a=b", "podman", Refused),
    ("--layers", "podman", Taken),
    ("--layers=false", "podman", Refused),
    ("--logfile=a", "podman", Refused),
    ("--logsplit", "podman", Refused),
    ("--manifest=a", "podman", Refused),
    ("--no-hostname", "podman", Refused),
    ("--no-hosts", "podman", Refused),
    ("--omit-history", "podman", Refused),
    ("--os=linux", "podman", Done),
    ("--os-feature=a", "podman", Refused),
    ("--os-version=a", "podman", Refused),
    ("--pid=a", "podman", Refused),
    ("--retry=3", "podman", Refused),
    ("--retry-delay=3s", "podman", Refused),
    ("--rewrite-timestamp", "podman", Taken),
    ("--runtime=a", "podman", Refused),
    ("--runtime-flag=a", "podman", Refused),
    ("--save-stages", "podman", Refused),
    ("--sign-by=a", "podman", Refused),
    ("--skip-unused-stages", "podman kaniko", Taken),
    ("--skip-unused-stages=false", "podman", Refused),
    ("--source-date-epoch=1", "podman", Done),
    ("--source-policy-file=a", "podman", Refused),
    ("--squash-all", "podman", Refused),
    ("--stdin", "podman", Refused),
    ("--timestamp=1", "podman", Done),
    ("--tls-verify=false", "podman", Done),
    ("--transient-run-mounts=a", "podman", Refused),
    ("--unsetannotation=a", "podman", Refused),
    ("--unsetenv=a", "podman", Refused),
    ("--unsetlabel=a", "podman", Refused),
    ("--userns=a", "podman", Refused),
    ("--userns-gid-map=a", "podman", Refused),
    ("--userns-gid-map-group=a", "podman", Refused),
    ("--userns-uid-map=a", "podman", Refused),
    ("--userns-uid-map-user=a", "podman", Refused),
    ("--uts=a", "podman", Refused),
    ("--variant=v7 --arch=arm", "podman", Done),
    ("--volume=a:b", "podman", Refused),
    ("--cache", "kaniko", Taken),
    ("--cache=false", "kaniko", Refused),
    ("--cache-copy-layers", "kaniko", Taken),
    ("--cache-dir=a", "kaniko", Refused),
    ("--cache-repo=a", "kaniko", Refused),
    ("--cache-run-layers", "kaniko", Taken),
    ("--cleanup", "kaniko", Taken),
    ("--compressed-caching=false", "kaniko", Taken),
    ("--compression=zstd", "kaniko", Refused),
    ("--compression-level=3", "kaniko", Refused),
    ("--context-sub-path=a", "kaniko", Refused),
    ("--custom-platform=a", "kaniko", Refused),
    ("--destination=r.io/a:1", "kaniko", Done),
    ("--digest-file=a", "kaniko", Refused),
    ("--dockerfile=Dockerfile", "kaniko", Done),
    ("--force", "kaniko", Taken),
    ("--git=a", "kaniko", Refused),
    ("--ignore-path=a", "kaniko", Refused),
    ("--ignore-var-run", "kaniko", Taken),
    ("--image-download-retry=1", "kaniko", Refused),
    ("--image-fs-extract-retry=1", "kaniko", Refused),
    ("--image-name-tag-with-digest-file=a", "kaniko", Refused),
    ("--image-name-with-digest-file=a", "kaniko", Refused),
    ("--insecure", "kaniko", Refused),
    ("--insecure-pull", "kaniko", Refused),
    ("--insecure-registry=a", "kaniko", Refused),
    ("--kaniko-dir=a", "kaniko", Refused),
    ("--log-format=text", "kaniko", Refused),
    ("--log-timestamp", "kaniko", Refused),
    ("--no-push", "kaniko", Done),
    ("--no-push-cache", "kaniko", Taken),
    ("--oci-layout-path=a", "kaniko", Refused),
    ("--push-ignore-immutable-tag-errors", "kaniko", Refused),
    ("--push-retry=1", "kaniko", Refused),
    ("--registry-certificate=a=b", "kaniko", Refused),
    ("--registry-client-cert=a=b", "kaniko", Refused),
    ("--registry-map=a=b", "kaniko", Refused),
    ("--registry-mirror=a", "kaniko", Refused),
    ("--reproducible", "kaniko", Taken),
    ("--single-snapshot", "kaniko", Refused),
    ("--skip-default-registry-fallback", "kaniko", Refused),
    ("--skip-push-permission-check", "kaniko", Taken),
    ("--skip-tls-verify", "kaniko", Refused),
    ("--skip-tls-verify-pull", "kaniko", Refused),
    ("--skip-tls-verify-registry=a", "kaniko", Refused),
    ("--snapshot-mode=full", "kaniko", Taken),
    ("--snapshot-mode=redo", "kaniko", Refused),
    ("--tar-path=a", "kaniko", Refused),
    ("--use-new-run", "kaniko", Taken),
    ("--verbosity=debug", "kaniko", Refused),
];

/// Flags that no other builder has, or that are more than one.
const OWN: [&str; 6] = ["context", "root", "sandbox", "explain", "help", "version"];

/// Keys of `-o`: the type, the pair, and what is done.
const KEYS: &[(&str, &str, Does)] = &[
    ("oci", "dest=a", Done),
    ("oci", "tar=true", Done),
    ("image", "name=a", Done),
    ("registry", "push=true", Done),
    ("registry", "push-by-digest=true", Done),
    ("registry", "name-canonical=true", Done),
    ("registry", "registry.insecure=true", Done),
    ("image", "store=true", Taken),
    ("image", "store=false", Refused),
    ("registry", "store=false", Taken),
    ("image", "unpack=false", Taken),
    ("image", "unpack=true", Refused),
    ("image", "dangling-name-prefix=a", Refused),
    ("image", "danging-name-empty-only=true", Refused),
    ("image", "oci-mediatypes=true", Taken),
    ("oci", "oci-mediatypes=false", Refused),
    ("image", "oci-artifact=true", Taken),
    ("image", "oci-artifact=false", Refused),
    ("image", "attestation-inline=false", Taken),
    ("image", "attestation-inline=true", Refused),
    ("local", "attestation-prefix=a", Refused),
    ("image", "compression=zstd", Done),
    ("image", "compression=estargz", Refused),
    ("image", "compression-level=3", Done),
    ("image", "force-compression=false", Taken),
    ("image", "force-compression=true", Refused),
    ("image", "rewrite-timestamp=true", Taken),
    ("image", "rewrite-timestamp=false", Refused),
    ("image", "source-date-epoch=1", Refused),
    ("image", "prefer-nondist-layers=false", Taken),
    ("image", "prefer-nondist-layers=true", Refused),
    ("image", "annotation.a=b", Refused),
    ("image", "annotation-index.a=b", Refused),
    ("image", "annotation[linux/amd64].a=b", Refused),
    ("image", "buildinfo=true", Refused),
    ("image", "buildinfo-attrs=true", Refused),
    ("docker", "context=a", Refused),
    ("local", "platform-split=false", Taken),
    ("local", "platform-split=true", Refused),
    ("local", "mode=copy", Taken),
    ("local", "mode=delete", Refused),
];

fn told(flags: &[&str]) -> Result<(), String> {
    understood(&[&["rbuild"], flags, &["."]].concat())
}

fn told_of_key(kind: &str, pair: &str) -> Result<(), String> {
    let dest =
        if ["oci", "docker", "local", "tar"].contains(&kind) { "dest=x" } else { "name=r.io/a" };
    let is_given = pair.split('=').next() == dest.split('=').next();
    let fields = if is_given { pair.to_owned() } else { format!("{dest},{pair}") };
    told(&["-o", &format!("type={kind},{fields}")])
}

/// What flags say that miss something else: a tag, or the file that they name.
const MISSING: [&str; 4] = [
    "tag is needed when pushing",
    "--creds: no name on the command line says for which registry",
    "--authfile: there is no file",
    "--cert-dir: cannot read the certificates",
];

#[test]
fn each_flag_and_key_is_done_or_refused_with_what_to_do_instead() {
    let flags = FLAGS
        .iter()
        .map(|(flag, _, does)| (*flag, *does, told(&flag.split(' ').collect::<Vec<_>>())));
    let keys = KEYS.iter().map(|(kind, pair, does)| (*pair, *does, told_of_key(kind, pair)));
    for (words, does, told) in flags.chain(keys) {
        match (does, told) {
            (Done | Taken, Ok(())) => {}
            (Done, Err(said)) if MISSING.iter().any(|missing| said.contains(missing)) => {}
            (Refused, Err(said)) => {
                let is_ours = said.contains("not supported yet") || said.contains("cacheonly");
                assert!(is_ours && !said.contains("similar argument"), "{words}: {said}");
            }
            (does, told) => panic!("{words}: {does:?}, but {told:?}"),
        }
    }
}

#[test]
fn every_flag_stands_in_the_table() {
    let in_table = FLAGS.iter().flat_map(|(flag, _, _)| flag.split(' ')).map(name_of);
    let in_table: BTreeSet<String> = in_table.chain(OWN.map(str::to_owned)).collect();
    let known: BTreeSet<String> = flags().into_iter().collect();
    let missing: Vec<_> = known.symmetric_difference(&in_table).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn name_of(flag: &str) -> String {
    let flag = flag.trim_start_matches('-');
    flag.split('=').next().unwrap_or(flag).to_owned()
}

#[test]
fn a_flag_with_a_typing_error_is_an_error() {
    let known: BTreeSet<String> = flags().into_iter().collect();
    for flag in &known {
        for edit in edits(flag).filter(|edit| !known.contains(edit)) {
            let words = format!("--{edit}=x");
            assert!(told(&[&words]).is_err(), "{words}");
        }
    }
}

#[test]
fn a_key_with_a_typing_error_is_an_error() {
    let known: BTreeSet<String> = KEYS.iter().map(|(_, pair, _)| name_of(pair)).collect();
    for (kind, pair, _) in KEYS.iter().filter(|(_, pair, _)| !pair.starts_with("annotation")) {
        let (key, value) = pair.split_once('=').unwrap();
        for edit in edits(key).filter(|edit| !known.contains(edit)) {
            assert!(told_of_key(kind, &format!("{edit}={value}")).is_err(), "{edit} of {kind}");
        }
    }
    for edit in edits("type").filter(|edit| !edit.contains('/')) {
        assert!(told(&["-o", &format!("{edit}=oci")]).is_err(), "{edit}=oci");
    }
}

/// All words that one typing error makes of `word`, with two letters that it may lack.
fn edits(word: &str) -> impl Iterator<Item = String> {
    let letters: Vec<char> = word.chars().collect();
    let mut edits = BTreeSet::new();
    for place in 0..letters.len() {
        let mut shorter = letters.clone();
        let gone = shorter.remove(place);
        edits.insert(shorter.iter().collect());
        if place > 0 {
            shorter.insert(place - 1, gone);
            edits.insert(shorter.iter().collect());
        }
        for letter in [gone, 'e', 'x'] {
            let mut other = letters.clone();
            other.insert(place, letter);
            edits.insert(other.iter().collect());
            other.remove(place + 1);
            edits.insert(other.iter().collect());
        }
    }
    edits.insert(format!("{word}s"));
    edits.remove(word);
    edits.remove("");
    edits.into_iter()
}

#[test]
fn the_page_of_flags_is_what_the_table_says() {
    let path = workspace().join("docs/flags.md");
    let page = page();
    if std::env::var_os("RBUILD_WRITE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, page, "RBUILD_WRITE_DOCS=1 writes it");
}

fn page() -> String {
    let mut page = String::from(
        "# Flags of other builders\n\n\
         What `rbuild build` does about the flags of `docker buildx build`, `docker build`, podman and \
         kaniko, and about the keys of `-o`. `tests/flags.rs` holds this table and writes this page. A \
         flag or key that is not here is an error.\n\n\
         | Flag | Known from | rbuild |\n| --- | --- | --- |\n",
    );
    for (flag, builders, does) in FLAGS {
        let answer = answer(*does, told(&flag.split(' ').collect::<Vec<_>>()));
        let builders = builders.replace(' ', ", ");
        writeln!(page, "| `{flag}` | {builders} | {answer} |").unwrap();
    }
    page += "\n| Key of `-o` | For example with | rbuild |\n| --- | --- | --- |\n";
    for (kind, pair, does) in KEYS {
        let answer = answer(*does, told_of_key(kind, pair));
        writeln!(page, "| `{pair}` | `type={kind}` | {answer} |").unwrap();
    }
    page
}

fn answer(does: Does, told: Result<(), String>) -> String {
    match (does, told) {
        (Done, _) => "does it".to_owned(),
        (Taken, _) => "takes it: that is done anyway".to_owned(),
        (Refused, Ok(())) => String::new(),
        (Refused, Err(said)) => {
            let first = said.lines().next().unwrap_or_default();
            let instead = first.split_once("not supported yet").map_or(first, |(_, rest)| rest);
            let instead = instead.split_once(": ").map_or(instead, |(_, rest)| rest);
            format!("refuses it: {instead}")
        }
    }
}
