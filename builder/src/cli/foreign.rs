//! Flags of other builders that this one does not carry out: docker, podman and kaniko.
//!
//! A flag that asks for what is done anyway is taken, the others are refused with what to use
//! instead. They stand in no help; `docs/flags.md` lists them.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::csv;
use super::keys::truth;

/// What is done about a flag.
enum Answer {
    /// Taken, whatever its value.
    Always,
    /// Taken with one of these values; the text says what to do instead of another.
    Only(&'static [&'static str], &'static str),
    /// Taken if its value disables attestations of a type.
    Attestation,
    /// Refused; the text says what to do instead.
    NotYet(&'static str),
}

/// One flag.
struct Foreign {
    long: &'static str,
    short: Option<char>,
    takes_value: bool,
    answer: Answer,
}

use Answer::{Always, Attestation, NotYet, Only};

const fn switch(long: &'static str, answer: Answer) -> Foreign {
    Foreign { long, short: None, takes_value: false, answer }
}

const fn value(long: &'static str, answer: Answer) -> Foreign {
    Foreign { long, short: None, takes_value: true, answer }
}

const fn short(short: char, flag: Foreign) -> Foreign {
    let Foreign { long, short: _, takes_value, answer } = flag;
    Foreign { long, short: Some(short), takes_value, answer }
}

const YES: &[&str] = &["true"];
const NO: &[&str] = &["false"];
const LIMITS: &str = "limit rbuild itself: systemd-run --scope -p MemoryMax=1G rbuild …";
const STORE: &str =
    "builds share the cache in their store: keep the directory of --root from job to job";
const SANDBOX: &str =
    "--sandbox chooses the isolation of RUN, RUN --security=insecure turns it off";
const NETWORK: &str = "RUN uses the host's /etc/resolv.conf; --add-host adds a name";
const MOUNT: &str = "RUN --mount=type=bind,from=… takes files of a --build-context";
const LABELS: &str = "leave it out";
const CERTIFICATES: &str =
    "--cert-dir names a directory of certificates, --tls-verify=false trusts all";
const REGISTRIES: &str =
    "use --tls-verify=false, or `insecure = true` and mirrors in registries.conf";
const PROGRESS: &str = "--progress chooses what is shown";
const ATTESTATIONS: &str = "rbuild makes no attestations";
const DOCKERFILE: &str = "write it into the Dockerfile";
const DIGESTS: &str = "--metadata-file and --iidfile write digests";
const RETRIES: &str = "requests are tried four times already";

const FLAGS: &[Foreign] = &[
    // docker
    value("builder", Always),
    short('D', switch("debug", Always)),
    switch("rm", Always),
    switch("force-rm", Always),
    switch("compress", Always),
    switch("disable-content-trust", Only(YES, "signatures are not verified: pin images by digest")),
    value("annotation", NotYet("--label sets a label")),
    value("attest", Attestation),
    value("provenance", Only(NO, ATTESTATIONS)),
    value("sbom", Only(NO, ATTESTATIONS)),
    value("cache-from", NotYet(STORE)),
    value("cache-to", NotYet(STORE)),
    value("cgroup-parent", NotYet(LIMITS)),
    value("policy", NotYet("pin images by digest in the Dockerfile")),
    value("resource", NotYet(LIMITS)),
    short('m', value("memory", NotYet(LIMITS))),
    value("memory-swap", NotYet(LIMITS)),
    short('c', value("cpu-shares", NotYet(LIMITS))),
    value("cpu-period", NotYet(LIMITS)),
    value("cpu-quota", NotYet(LIMITS)),
    value("cpuset-cpus", NotYet(LIMITS)),
    value("cpuset-mems", NotYet(LIMITS)),
    value("isolation", NotYet(SANDBOX)),
    value("security-opt", NotYet(SANDBOX)),
    switch("squash", Only(NO, "COPY --from=… of a stage into one FROM scratch makes one layer")),
    switch(
        "squash-all",
        Only(NO, "COPY --from=… of a stage into one FROM scratch makes one layer"),
    ),
    switch("stream", Only(NO, LABELS)),
    value("invoke", NotYet("rbuild runs no debugger")),
    value("server-config", NotYet("rbuild has no server")),
    switch("detach", Only(NO, "builds run in the foreground: write & behind the command")),
    // podman
    switch("layers", Only(YES, "--no-cache runs every step")),
    value("format", Only(&["oci"], "images are always in OCI format")),
    switch("all-platforms", Only(NO, "name them: --platform=linux/amd64,linux/arm64")),
    switch("identity-label", Only(NO, LABELS)),
    switch("inherit-labels", Only(YES, LABELS)),
    switch("inherit-annotations", Only(NO, LABELS)),
    switch("omit-history", Only(NO, LABELS)),
    switch("created-annotation", Only(NO, LABELS)),
    switch("skip-unused-stages", Only(YES, "--target names the stage")),
    switch("rewrite-timestamp", Only(YES, "--source-date-epoch rewrites times")),
    switch("http-proxy", Only(NO, "--build-arg HTTP_PROXY passes the variable on")),
    switch("disable-compression", Only(NO, "-o type=oci,compression=uncompressed,dest=FILE")),
    switch("no-hosts", Only(NO, NETWORK)),
    switch("no-hostname", Only(NO, NETWORK)),
    switch("compat-volumes", Only(NO, LABELS)),
    switch("save-stages", Only(NO, "--target STAGE -t NAME keeps a stage")),
    switch("stdin", Only(NO, "RUN reads nothing from standard input")),
    switch("logsplit", Only(NO, PROGRESS)),
    value("logfile", NotYet("2>FILE writes the log into a file")),
    value("cap-add", NotYet(SANDBOX)),
    value("cap-drop", NotYet(SANDBOX)),
    value("cache-ttl", NotYet("rbuild prune --filter until=24h deletes what is older")),
    value("cgroupns", NotYet(SANDBOX)),
    value("cpp-flag", NotYet("cpp Dockerfile.in | rbuild -f - . reads what it prints")),
    value("cw", NotYet("images are not encrypted")),
    value("decryption-key", NotYet("images are not encrypted")),
    value("device", NotYet(SANDBOX)),
    value("dns", NotYet(NETWORK)),
    value("dns-option", NotYet(NETWORK)),
    value("dns-search", NotYet(NETWORK)),
    value("env", NotYet("write ENV into the Dockerfile, or use --build-arg")),
    value("from", NotYet("--build-context NAME=docker-image://REF replaces a base image")),
    value("group-add", NotYet(SANDBOX)),
    value("hooks-dir", NotYet(SANDBOX)),
    value("ipc", NotYet(SANDBOX)),
    value("pid", NotYet(SANDBOX)),
    value("uts", NotYet(SANDBOX)),
    value("userns", NotYet(SANDBOX)),
    value("userns-uid-map", NotYet(SANDBOX)),
    value("userns-gid-map", NotYet(SANDBOX)),
    value("userns-uid-map-user", NotYet(SANDBOX)),
    value("userns-gid-map-group", NotYet(SANDBOX)),
    value("layer-label", NotYet("--label sets a label of the image")),
    value("manifest", NotYet("--platform with several platforms makes an index, -t names it")),
    value("os-feature", NotYet("leave it out")),
    value("os-version", NotYet("leave it out")),
    value("retry", NotYet(RETRIES)),
    value("retry-delay", NotYet(RETRIES)),
    value("runtime", NotYet(SANDBOX)),
    value("runtime-flag", NotYet(SANDBOX)),
    value("sign-by", NotYet("sign the pushed digest with cosign")),
    value("source-policy-file", NotYet("pin images by digest in the Dockerfile")),
    value("transient-run-mounts", NotYet(MOUNT)),
    value("unsetannotation", NotYet(LABELS)),
    value("unsetenv", NotYet(DOCKERFILE)),
    value("unsetlabel", NotYet(DOCKERFILE)),
    short('v', value("volume", NotYet(MOUNT))),
    // kaniko
    switch("reproducible", Always),
    switch("force", Always),
    switch("cleanup", Always),
    switch("use-new-run", Always),
    switch("compressed-caching", Always),
    switch("cache", Only(YES, "--no-cache runs every step")),
    switch("cache-copy-layers", Only(YES, "--no-cache runs every step")),
    switch("cache-run-layers", Only(YES, "--no-cache runs every step")),
    switch("single-snapshot", Only(NO, "each instruction has its layer")),
    value("snapshot-mode", Only(&["full"], "full snapshots are always taken")),
    value("cache-dir", NotYet(STORE)),
    value("cache-repo", NotYet(STORE)),
    switch("no-push-cache", Always),
    value("context-sub-path", NotYet("a directory of a repository is URL#REF:DIRECTORY")),
    value("custom-platform", NotYet("--platform names it")),
    value("digest-file", NotYet(DIGESTS)),
    value("image-name-with-digest-file", NotYet(DIGESTS)),
    value("image-name-tag-with-digest-file", NotYet(DIGESTS)),
    value("oci-layout-path", NotYet("-o type=oci,tar=false,dest=DIR writes a layout")),
    value("tar-path", NotYet("-o type=docker,dest=FILE writes an archive")),
    value("git", NotYet("a repository is the context URL#REF")),
    value("ignore-path", NotYet("RUN --mount=type=tmpfs,target=PATH keeps PATH out of the layer")),
    switch("ignore-var-run", Always),
    value("image-fs-extract-retry", NotYet(RETRIES)),
    value("image-download-retry", NotYet(RETRIES)),
    value("push-retry", NotYet(RETRIES)),
    switch("insecure", Only(NO, REGISTRIES)),
    switch("insecure-pull", Only(NO, REGISTRIES)),
    value("insecure-registry", NotYet(REGISTRIES)),
    switch("skip-tls-verify", Only(NO, REGISTRIES)),
    switch("skip-tls-verify-pull", Only(NO, REGISTRIES)),
    value("skip-tls-verify-registry", NotYet(REGISTRIES)),
    value("registry-certificate", NotYet(CERTIFICATES)),
    value("registry-client-cert", NotYet(CERTIFICATES)),
    value("registry-map", NotYet(REGISTRIES)),
    value("registry-mirror", NotYet(REGISTRIES)),
    switch("skip-default-registry-fallback", Only(NO, REGISTRIES)),
    switch("skip-push-permission-check", Always),
    switch("push-ignore-immutable-tag-errors", Only(NO, REGISTRIES)),
    value("kaniko-dir", NotYet("--root names the store")),
    value("log-format", NotYet(PROGRESS)),
    switch("log-timestamp", Only(NO, PROGRESS)),
    value("verbosity", NotYet(PROGRESS)),
    value("compression", NotYet("use -o type=image,compression=zstd,push=true")),
    value("compression-level", NotYet("use -o type=image,compression-level=9,push=true")),
];

/// Whether `flag`, written as in `--squash` or `--memory <…>`, is one of them.
pub(super) fn has(flag: &str) -> bool {
    let name = flag.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default();
    FLAGS.iter().any(|foreign| foreign.long == name)
}

/// Adds the flags to a command that builds.
pub(super) fn known_to(command: Command) -> Command {
    let has: Vec<String> =
        command.get_arguments().filter_map(|arg| Some(arg.get_long()?.to_owned())).collect();
    let missing = FLAGS.iter().filter(|flag| !has.iter().any(|long| long == flag.long));
    command.args(missing.map(|flag| {
        let arg = Arg::new(flag.id()).long(flag.long).hide(true);
        let arg = match flag.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        match flag.takes_value {
            true => arg.action(ArgAction::Append).allow_hyphen_values(true),
            false => arg.action(ArgAction::SetTrue),
        }
    }))
}

/// Returns why one of the flags that were given is refused, if one is.
pub(super) fn refusal(matches: &ArgMatches) -> Option<String> {
    let given = |flag: &&Foreign| {
        let source = matches.try_contains_id(&flag.id()).is_ok_and(|is_there| is_there);
        source && matches.value_source(&flag.id()) == Some(ValueSource::CommandLine)
    };
    FLAGS.iter().filter(given).find_map(|flag| {
        let instead = flag.answer.refuses(&flag.values(matches))?;
        // Never its value: that may be a secret.
        Some(format!("--{} is not supported yet: {instead}", flag.long))
    })
}

impl Foreign {
    /// No flag of our own has such an id.
    fn id(&self) -> String {
        format!("foreign {}", self.long)
    }

    fn values(&self, matches: &ArgMatches) -> Vec<String> {
        match self.takes_value {
            true => matches.get_many(&self.id()).into_iter().flatten().cloned().collect(),
            false => vec![matches.get_flag(&self.id()).to_string()],
        }
    }
}

impl Answer {
    /// What to do instead of asking for `values`, unless that is taken.
    fn refuses(&self, values: &[String]) -> Option<&'static str> {
        let all = |takes: &dyn Fn(&str) -> bool| values.iter().all(|value| takes(value));
        let (is_taken, instead) = match self {
            Always => return None,
            NotYet(instead) => return Some(instead),
            Only(taken, instead) => (all(&|value| is_one_of(taken, value)), *instead),
            Attestation => (all(&disables), ATTESTATIONS),
        };
        (!is_taken).then_some(instead)
    }
}

/// Words for the same truth are one.
fn is_one_of(taken: &[&str], value: &str) -> bool {
    taken.iter().any(|word| *word == value || truth(word).is_some() && truth(word) == truth(value))
}

/// Whether `--attest` asks for no attestation: `type=sbom,disabled=true`.
fn disables(value: &str) -> bool {
    let pairs = csv::pairs(value).unwrap_or_default();
    let has = |key: &str, is: &dyn Fn(&str) -> bool| {
        pairs.iter().rfind(|(name, _)| name == key).is_some_and(|(_, value)| is(value))
    };
    let is_known = pairs.iter().all(|(name, _)| ["type", "disabled"].contains(&name.as_str()));
    is_known
        && has("type", &|kind| ["sbom", "provenance"].contains(&kind))
        && has("disabled", &|value| truth(value) == Some(true))
}
