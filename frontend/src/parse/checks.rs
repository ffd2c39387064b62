//! Build checks that need no more than the text: they look at every stage, also at those that
//! nobody builds.
//!
//! All findings are reported; which of them count is decided where `# check=` is read.

use std::collections::BTreeMap;

use oci::{Platform, Reference};

use super::lines::LogicalLine;
use crate::ast::{CommandLine, Escape, From, Instruction, Node, Run};
use crate::{Expansion, ExpansionError, Span, Warning, did_you_mean, expand};

/// Looks at lines before anything is known of what they say.
pub(super) fn run_on_lines<'l>(lines: impl Iterator<Item = &'l LogicalLine>) -> Vec<Warning> {
    let empty = lines.filter_map(|line| line.empty_continuation.clone());
    let warning = |span| {
        let message = "Empty continuation line".to_owned();
        Warning { rule: "NoEmptyContinuation", message, span }
    };
    empty.map(warning).collect()
}

/// Looks at a whole file.
pub(super) fn run(nodes: &[Node], escape: Escape) -> Vec<Warning> {
    let mut findings = Findings(run_alone(nodes));
    check_stage_names(nodes, &mut findings);
    check_casing(nodes, &mut findings);
    check_bases(nodes, escape, &mut findings);
    findings.0
}

/// Looks at each instruction alone: all that can be said of a file that ends in an error.
pub(super) fn run_alone(nodes: &[Node]) -> Vec<Warning> {
    let mut findings = Findings(Vec::new());
    for node in nodes {
        check_alone(node, &mut findings);
    }
    findings.0
}

struct Findings(Vec<Warning>);

impl Findings {
    fn add(&mut self, rule: &'static str, node: &Node, message: String) {
        let span: Span = node.span.clone();
        self.0.push(Warning { rule, message, span });
    }
}

/// What an instruction says of itself.
fn check_alone(node: &Node, findings: &mut Findings) {
    match &node.instruction {
        Instruction::From(from) => {
            check_from(node, from, findings);
            let name = from.name.as_ref().map(|name| name.to_lowercase());
            let names: Vec<&str> = name.as_deref().into_iter().collect();
            check_description(node, "FROM", &names, findings);
        }
        Instruction::Arg(arg) => {
            let names: Vec<&str> = arg.args.iter().map(|(name, _)| name.as_str()).collect();
            check_description(node, "ARG", &names, findings);
        }
        Instruction::Maintainer(_) => {
            let message = "Maintainer instruction is deprecated in favor of using label";
            findings.add("MaintainerDeprecated", node, message.to_owned());
        }
        Instruction::Run(Run { command, .. })
        | Instruction::Cmd(command)
        | Instruction::Entrypoint(command) => check_json_form(node, command, findings),
        Instruction::Label(_)
        | Instruction::Expose(_)
        | Instruction::Env(_)
        | Instruction::Add(_)
        | Instruction::Copy(_)
        | Instruction::Volume(_)
        | Instruction::User(_)
        | Instruction::Workdir(_)
        | Instruction::Onbuild(_)
        | Instruction::Stopsignal(_)
        | Instruction::Healthcheck(_)
        | Instruction::Shell(_) => {}
    }
}

/// Whoever writes `["a", 'b']` means no command of the shell.
fn check_json_form(node: &Node, command: &CommandLine, findings: &mut Findings) {
    let CommandLine::Shell(text) = command else { return };
    let Some(list) = text.strip_prefix('[') else { return };
    // `[ "$a" = b ]` is a command, `[ "a", "b" ]` and `["a" …` are none.
    let begins = list.starts_with(['"', '\'']);
    let goes_on = list.trim_start().starts_with(['"', '\''])
        && ["\",", "',"].iter().any(|comma| list.contains(comma));
    if !begins && !goes_on {
        return;
    }
    let problem = serde_json::from_str::<Vec<String>>(text).err();
    let problem = problem.map_or_else(String::new, |error| format!(": {error}"));
    let message = format!("The list is no valid JSON, so the shell gets it as text{problem}");
    findings.add("InvalidJSONForm", node, message);
}

fn check_from(node: &Node, from: &From, findings: &mut Findings) {
    if let Some(name) = from.name.as_ref().filter(|name| **name != name.to_lowercase()) {
        let message = format!("Stage name '{name}' should be lowercase");
        findings.add("StageNameCasing", node, message);
    }
    let keyword = &node.keyword;
    if let (Some(as_keyword), Some(case)) = (&from.as_keyword, Case::of(keyword))
        && Case::of(as_keyword) != Some(case)
    {
        let message = format!("'{as_keyword}' and '{keyword}' keywords' casing do not match");
        findings.add("FromAsCasing", node, message);
    }
}

/// The last line of the comment above a definition is to begin with a name that it defines.
fn check_description(node: &Node, what: &str, names: &[&str], findings: &mut Findings) {
    let Some(comment) = node.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    let example = match names {
        [] => return,
        [name] => *name,
        [_, ..] => "<arg_key>",
    };
    if !names.contains(&first) {
        let message =
            format!("Comment for {what} should follow the format: `# {example} <description>`");
        findings.add("InvalidDefinitionDescription", node, message);
    }
}

fn check_stage_names(nodes: &[Node], findings: &mut Findings) {
    let mut seen: Vec<String> = Vec::new();
    for (node, from) in stages(nodes) {
        let Some(name) = from.name.as_ref().map(|name| name.to_lowercase()) else { continue };
        if ["scratch", "context"].contains(&name.as_str()) {
            let message =
                format!("Stage name should not use the same name as reserved stage \"{name}\"");
            findings.add("ReservedStageName", node, message);
        }
        if seen.contains(&name) {
            let message = format!("Duplicate stage name \"{name}\", stage names should be unique");
            findings.add("DuplicateStageName", node, message);
        }
        seen.push(name);
    }
}

fn stages(nodes: &[Node]) -> impl Iterator<Item = (&Node, &From)> {
    nodes.iter().filter_map(|node| match &node.instruction {
        Instruction::From(from) => Some((node, from)),
        _ => None,
    })
}

/// How a keyword is written, if all its letters agree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
}

impl Case {
    fn of(keyword: &str) -> Option<Self> {
        if keyword.to_lowercase() == keyword {
            Some(Self::Lower)
        } else if keyword.to_uppercase() == keyword {
            Some(Self::Upper)
        } else {
            None
        }
    }
}

/// Global ARGs have no say and are not looked at.
fn check_casing(nodes: &[Node], findings: &mut Findings) {
    let in_stages =
        nodes.iter().skip_while(|node| !matches!(node.instruction, Instruction::From(_)));
    let count =
        |case| in_stages.clone().filter(|node| Case::of(&node.keyword) == Some(case)).count();
    let (majority, name) = match count(Case::Lower) > count(Case::Upper) {
        true => (Case::Lower, "lowercase"),
        false => (Case::Upper, "uppercase"),
    };
    for node in in_stages.filter(|node| Case::of(&node.keyword) != Some(majority)) {
        let message = format!(
            "Command '{}' should match the case of the command majority ({name})",
            node.keyword
        );
        findings.add("ConsistentInstructionCasing", node, message);
    }
}

/// The variables that a FROM may use, with the values they have if nobody sets any.
struct Defaults {
    /// `None` for those without a value.
    values: BTreeMap<String, Option<String>>,
    escape: Escape,
}

impl Defaults {
    /// Fails where a default can't be expanded; the build will say so.
    fn read(nodes: &[Node], escape: Escape) -> Result<Self, ExpansionError> {
        let mut defaults = Self { values: automatic(), escape };
        let global = nodes.iter().map_while(|node| match &node.instruction {
            Instruction::Arg(arg) => Some(&arg.args),
            _ => None,
        });
        for (name, default) in global.flatten() {
            let value = default.as_ref().map(|text| defaults.expand(text)).transpose()?;
            defaults.values.insert(name.clone(), value.map(|expansion| expansion.text));
        }
        Ok(defaults)
    }

    fn expand(&self, text: &str) -> Result<Expansion, ExpansionError> {
        expand(text, self.escape, &|name| self.values.get(name).cloned().flatten())
    }
}

/// The platform arguments, for some platform: the checks ask only whether a name is one.
fn automatic() -> BTreeMap<String, Option<String>> {
    let platform = Platform::host();
    let parts = |side: &str| {
        [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", String::new()),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", platform.variant.clone().unwrap_or_default()),
        ]
        .map(|(part, value)| (format!("{side}{part}"), Some(value)))
    };
    let stage = ("TARGETSTAGE".to_owned(), Some("default".to_owned()));
    parts("BUILD").into_iter().chain(parts("TARGET")).chain([stage]).collect()
}

fn check_bases(nodes: &[Node], escape: Escape, findings: &mut Findings) {
    let Ok(defaults) = Defaults::read(nodes, escape) else { return };
    check_default_bases(nodes, &defaults, findings);
    check_from_variables(nodes, &defaults, findings);
}

fn check_default_bases(nodes: &[Node], defaults: &Defaults, findings: &mut Findings) {
    for (node, from) in stages(nodes) {
        let Ok(base) = defaults.expand(&from.base) else { return };
        if base.text.parse::<Reference>().is_err() {
            let message = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                from.base
            );
            findings.add("InvalidDefaultArgInFrom", node, message);
        }
    }
}

fn check_from_variables(nodes: &[Node], defaults: &Defaults, findings: &mut Findings) {
    for (node, from) in stages(nodes) {
        let Ok(base) = defaults.expand(&from.base) else { return };
        check_declared(node, &base, defaults, findings);
        let Some(platform) = &from.platform else { continue };
        let Ok(expansion) = defaults.expand(platform) else { return };
        check_declared(node, &expansion, defaults, findings);
        check_platform(node, from, platform, &expansion, defaults, findings);
    }
}

fn check_declared(
    node: &Node,
    expansion: &Expansion,
    defaults: &Defaults,
    findings: &mut Findings,
) {
    for name in expansion.unmatched.iter().filter(|name| !defaults.values.contains_key(*name)) {
        let near = did_you_mean(name, defaults.values.keys().map(String::as_str));
        let hint = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        let message = format!("FROM argument '{name}' is not declared{hint}");
        findings.add("UndefinedArgInFrom", node, message);
    }
}

fn check_platform(
    node: &Node,
    from: &From,
    written: &str,
    expansion: &Expansion,
    defaults: &Defaults,
    findings: &mut Findings,
) {
    let Expansion { text, matched, unmatched } = expansion;
    let target = defaults.values.get("TARGETPLATFORM").and_then(Option::as_ref);
    if unmatched.is_empty() && matched.iter().eq(["TARGETPLATFORM"]) && target == Some(text) {
        let message = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        findings.add("RedundantTargetPlatform", node, message);
    }
    let Ok(platform) = text.parse::<Platform>() else { return };
    let name = from.name.as_deref().unwrap_or_default().to_lowercase();
    let constant = matched.is_empty() && unmatched.is_empty();
    if constant && !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let message = format!("FROM --platform flag should not use constant value \"{text}\"");
        findings.add("FromPlatformFlagConstDisallowed", node, message);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Source, parse};

    /// The checks that find something, with what they say and on which lines.
    fn found(text: &str) -> Vec<(&'static str, String, usize)> {
        let dockerfile = parse(Source::new("Dockerfile", text)).unwrap();
        let line = |span: &crate::Span| dockerfile.source.line_of(span.start);
        let warnings = dockerfile.warnings.iter();
        warnings.map(|w| (w.rule, w.message.clone(), line(&w.span))).collect()
    }

    fn one(text: &str) -> (&'static str, String, usize) {
        let mut all = found(text);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn a_clean_file_has_no_warnings() {
        let text = "ARG V=3\nARG W\nFROM --platform=$BUILDPLATFORM alpine:$V$W AS build\nRUN a\n\
                    FROM scratch\nCOPY --from=build / /\n";
        assert_eq!(found(text), []);
    }

    #[test]
    fn stage_names_are_lower_case_unique_and_not_reserved() {
        assert_eq!(
            one("FROM a AS B"),
            ("StageNameCasing", "Stage name 'B' should be lowercase".to_owned(), 1)
        );
        assert_eq!(
            one("FROM a AS b\nFROM a AS b"),
            (
                "DuplicateStageName",
                "Duplicate stage name \"b\", stage names should be unique".to_owned(),
                2
            )
        );
        for name in ["context", "scratch"] {
            let message =
                format!("Stage name should not use the same name as reserved stage \"{name}\"");
            assert_eq!(one(&format!("FROM a AS {name}")), ("ReservedStageName", message, 1));
        }
    }

    #[test]
    fn keywords_are_written_alike() {
        let message = "'as' and 'FROM' keywords' casing do not match";
        assert_eq!(one("FROM a as b"), ("FromAsCasing", message.to_owned(), 1));
        assert_eq!(one("from a As b").1, "'As' and 'from' keywords' casing do not match");
        assert_eq!(one("From a as b").0, "ConsistentInstructionCasing");
        let message = "Command 'Run' should match the case of the command majority (lowercase)";
        let text = "ARG x\nfrom a\nRun b\n";
        assert_eq!(one(text), ("ConsistentInstructionCasing", message.to_owned(), 3));
        let message = "Command 'run' should match the case of the command majority (uppercase)";
        let text = "FROM a\nrun b\n";
        assert_eq!(one(text), ("ConsistentInstructionCasing", message.to_owned(), 2));
    }

    #[test]
    fn an_empty_continuation_is_reported_once_at_the_last_line() {
        let text = "FROM a\nRUN a \\\n\n b \\\n\n c <<E\nx\nE\n";
        let message = "Empty continuation line".to_owned();
        assert_eq!(one(text), ("NoEmptyContinuation", message, 6));
    }

    #[test]
    fn variables_of_from_are_declared() {
        let message = "FROM argument 'MYARCH' is not declared (did you mean MY_ARCH?)";
        let text = "ARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH:-arm64} a\n";
        assert_eq!(one(text), ("UndefinedArgInFrom", message.to_owned(), 2));
        let message = "FROM argument 'NAME' is not declared".to_owned();
        assert_eq!(one("FROM a$NAME"), ("UndefinedArgInFrom", message, 1));
        assert_eq!(one("FROM a AS b\nARG NAME=x\nFROM a$NAME").0, "UndefinedArgInFrom");
        assert_eq!(found("ARG NAME\nFROM a$NAME$TARGETOSVERSION$TARGETSTAGE"), []);
    }

    #[test]
    fn defaults_alone_make_a_valid_base() {
        let message = "Default value for ARG $b results in empty or invalid base image name";
        assert_eq!(one("ARG b\nFROM $b"), ("InvalidDefaultArgInFrom", message.to_owned(), 2));
        assert_eq!(one("ARG b=:\nFROM a$b").0, "InvalidDefaultArgInFrom");
        assert_eq!(found("ARG b=c\nFROM $b"), []);
    }

    #[test]
    fn a_platform_is_neither_redundant_nor_constant() {
        let message = "Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior";
        let text = "FROM --platform=${TARGETPLATFORM} a";
        assert_eq!(one(text), ("RedundantTargetPlatform", message.to_owned(), 1));
        let message = "FROM --platform flag should not use constant value \"linux/arm64\"";
        let text = "FROM --platform=linux/arm64 a AS b";
        assert_eq!(one(text), ("FromPlatformFlagConstDisallowed", message.to_owned(), 1));
        for text in [
            "FROM --platform=linux/arm64 a AS for-arm64",
            "FROM --platform=linux/arm64 a AS on-linux",
            "FROM --platform=no/such/thing/there a",
            "FROM --platform=$TARGETOS/$TARGETARCH a",
            "ARG P=linux/arm64\nFROM --platform=$P a",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn descriptions_begin_with_the_name() {
        let message = "Comment for ARG should follow the format: `# a <description>`";
        let text = "# what a is\nARG a\n# b is it\nFROM c AS b\n";
        assert_eq!(one(text), ("InvalidDefinitionDescription", message.to_owned(), 2));
        for (text, format) in [
            ("# it\nFROM a AS b", "FROM should follow the format: `# b <description>`"),
            ("# b is\n# it\nFROM a AS b", "FROM should follow the format: `# b <description>`"),
            ("FROM a\n# it\nARG b c", "ARG should follow the format: `# <arg_key> <description>`"),
        ] {
            assert_eq!(one(text).1, format!("Comment for {format}"));
        }
        for text in ["# it\nFROM a", "# it\n#\nFROM a AS b", "FROM a\n# it\n# c is\nARG b c"] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn maintainer_is_deprecated() {
        let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
        assert_eq!(one("FROM a\nMAINTAINER me"), ("MaintainerDeprecated", message, 2));
    }
}
