//! What was given for a build that its Dockerfile has no use for: most often a name with a typing
//! error.

use std::collections::BTreeSet;

use frontend::ast::Instruction;
use frontend::{Dockerfile, PlanRequest, did_you_mean};

/// Build arguments with a meaning that no ARG declares.
const PREDEFINED: [&str; 6] =
    ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy", "source_date_epoch"];

/// Those that a build takes itself (spec dockerfile.md, "BuildKit args" and "Platform args").
const OF_THE_BUILD: [&str; 14] = [
    "BUILDKIT_SYNTAX",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_DOCKERFILE_CHECK",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];

/// Says of each build argument and each stage of `--no-cache-filter` that there is none.
pub(crate) fn unused(dockerfile: &Dockerfile, request: &PlanRequest) -> Vec<String> {
    let instructions = || dockerfile.instructions.iter().map(|node| &node.instruction);
    let declared: BTreeSet<&str> = instructions()
        .filter_map(|instruction| match instruction {
            Instruction::Arg(arg) => Some(arg.args.iter().map(|(name, _)| name.as_str())),
            _ => None,
        })
        .flatten()
        .collect();
    let stages: BTreeSet<String> = instructions()
        .filter_map(|instruction| match instruction {
            Instruction::From(from) => Some(from.name.as_deref()?.to_lowercase()),
            _ => None,
        })
        .collect();
    // What a base image triggers may declare more.
    let unknown = request.build_args.keys().filter(|name| !is_known(name, &declared));
    let unknown: Vec<_> = unknown.map(String::as_str).collect();
    let mut said = vec![];
    if !unknown.is_empty() {
        let meant = unknown.first().and_then(|name| did_you_mean(name, declared.iter().copied()));
        let names = unknown.join(" ");
        said.push(format!("One or more build-args [{names}] were not consumed{}", question(meant)));
    }
    for stage in request.no_cache_stages.iter().filter(|stage| !stages.contains(*stage)) {
        let meant = did_you_mean(stage, stages.iter().map(String::as_str));
        said.push(format!("--no-cache-filter: no stage is called `{stage}`{}", question(meant)));
    }
    said
}

fn question(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}

fn is_known(name: &str, declared: &BTreeSet<&str>) -> bool {
    declared.contains(name)
        || PREDEFINED.contains(&name.to_lowercase().as_str())
        || OF_THE_BUILD.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dockerfile_does_not_know_is_told() {
        let text = "ARG base=scratch\nFROM $base AS Build\nARG version other=1\n";
        let dockerfile = frontend::parse(frontend::Source::new("Dockerfile", text)).unwrap();
        let said = |args: &[&str], stages: &[&str]| {
            let build_args = args.iter().map(|&name| (name.to_owned(), String::new())).collect();
            let request = PlanRequest::new(oci::Platform::host());
            let no_cache_stages = stages.iter().map(|&stage| stage.to_owned()).collect();
            unused(&dockerfile, &PlanRequest { build_args, no_cache_stages, ..request })
        };
        let known = ["base", "version", "HTTP_PROXY", "BUILDKIT_SYNTAX", "TARGETARCH"];
        assert!(said(&known, &["build"]).is_empty());
        let inline = said(&["BUILDKIT_INLINE_CACHE"], &[]);
        assert!(inline[0].contains("[BUILDKIT_INLINE_CACHE] were not consumed"), "{inline:?}");
        assert!(said(&["BUILDX"], &[])[0].contains("BUILDX"));
        assert_eq!(
            said(&["vesion", "x"], &["buld"]),
            [
                "One or more build-args [vesion x] were not consumed; did you mean \
                 `version`?",
                "--no-cache-filter: no stage is called `buld`; did you mean `build`?"
            ]
        );
    }
}
