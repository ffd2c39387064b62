//! What each check is about, in the words that other programs show for it.

/// Where the pages about the checks are.
const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule/";

/// A check: its name, the name of its page if it has one, and what it is about.
pub(super) struct Rule {
    pub(super) name: &'static str,
    page: Option<&'static str>,
    description: &'static str,
}

const fn rule(name: &'static str, page: &'static str, description: &'static str) -> Rule {
    Rule { name, page: Some(page), description }
}

const fn ours(name: &'static str, description: &'static str) -> Rule {
    Rule { name, page: None, description }
}

const RULES: [Rule; 22] = [
    rule("StageNameCasing", "stage-name-casing", "Stage names should be lowercase"),
    rule(
        "FromAsCasing",
        "from-as-casing",
        "The 'as' keyword should match the case of the 'from' keyword",
    ),
    rule(
        "NoEmptyContinuation",
        "no-empty-continuation",
        "Empty continuation lines will become errors in a future release",
    ),
    rule(
        "ConsistentInstructionCasing",
        "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    rule("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique"),
    rule(
        "ReservedStageName",
        "reserved-stage-name",
        "Reserved words should not be used as stage names",
    ),
    rule(
        "MaintainerDeprecated",
        "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    ),
    rule("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs"),
    rule(
        "InvalidDefaultArgInFrom",
        "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name",
    ),
    rule(
        "RedundantTargetPlatform",
        "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    rule(
        "FromPlatformFlagConstDisallowed",
        "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value",
    ),
    rule(
        "InvalidDefinitionDescription",
        "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    ),
    rule(
        "JSONArgsRecommended",
        "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    ),
    rule(
        "WorkdirRelativePath",
        "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    ),
    rule("UndefinedVar", "undefined-var", "Variables should be defined before their use"),
    rule(
        "MultipleInstructionsDisallowed",
        "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage",
    ),
    rule(
        "LegacyKeyValueFormat",
        "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used",
    ),
    Rule {
        name: "InvalidBaseImagePlatform",
        page: None,
        description: "Base image platform does not match expected target platform",
    },
    rule(
        "SecretsUsedInArgOrEnv",
        "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands",
    ),
    rule(
        "CopyIgnoredFile",
        "copy-ignored-file",
        "Attempting to Copy file that is excluded by .dockerignore",
    ),
    rule(
        "ExposeProtoCasing",
        "expose-proto-casing",
        "Protocol in EXPOSE instruction should be lowercase",
    ),
    rule(
        "ExposeInvalidFormat",
        "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    ),
];

/// Checks that no other builder makes; the README says what each is good for.
pub(super) const OURS: [Rule; 9] = [
    ours("InvalidJSONForm", "A list that is no valid JSON is not run: the shell gets it as text"),
    ours(
        "CopyDirectoryContents",
        "COPY and ADD of a directory copy what is in it, not the directory itself",
    ),
    ours("UnknownOwner", "Files that are given to an unknown user or group belong to root"),
    ours("SourcesIntoOneFile", "Of several sources that are copied to one file the last one stays"),
    ours(
        "LinkReplacesDirectories",
        "--link makes the directories above its files without a look at those of the image",
    ),
    ours(
        "ChmodClosesDirectories",
        "An octal --chmod is for directories too, which can't be entered without x",
    ),
    ours(
        "HeredocWithoutErrexit",
        "Only the last command of a heredoc decides whether RUN succeeds",
    ),
    ours(
        "HeredocWithCrlf",
        "A shell takes the carriage return before a line end as a part of the command",
    ),
    ours(
        "SecretInUrl",
        "The history of an image shows the whole query of a URL that ADD downloads",
    ),
];

/// What the check `name` is about.
pub(super) fn description(name: &str) -> Option<&'static str> {
    find(name).map(|rule| rule.description)
}

/// The address of the page about the check `name`.
pub(super) fn url(name: &str) -> Option<String> {
    find(name).and_then(|rule| rule.page).map(|page| format!("{PAGES}{page}/"))
}

fn find(name: &str) -> Option<&'static Rule> {
    RULES.iter().chain(&OURS).find(|rule| rule.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_called_like_their_checks() {
        for Rule { name, page, .. } in RULES {
            let Some(page) = page else { continue };
            assert_eq!(page.replace('-', ""), name.to_lowercase());
        }
        let url = url("JSONArgsRecommended").unwrap();
        assert_eq!(url, "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/");
        assert_eq!(super::url("InvalidBaseImagePlatform"), None);
        assert_eq!(description("Unknown"), None);
    }
}
