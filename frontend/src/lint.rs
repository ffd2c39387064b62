//! Build checks: what a Dockerfile should not do.
//!
//! The parser and the planner each report what they see in passing; what is done with it is
//! decided here, by `# check=` lines and the build argument that replaces them.

mod rules;

use crate::ast::Node;
use crate::{Diagnostic, Dockerfile, PlanRequest, Source, Span, VertexId};

/// What a build check found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Warning {
    /// The check, such as `StageNameCasing`.
    pub rule: &'static str,
    /// What it found.
    pub message: String,
    /// Where.
    pub span: Span,
}

impl Warning {
    /// What the check is about.
    pub fn description(&self) -> Option<&'static str> {
        rules::description(self.rule)
    }

    /// The address of the page about the check; some have none.
    pub fn url(&self) -> Option<String> {
        rules::url(self.rule)
    }

    /// Whether no other builder knows the check. Such a finding never fails a build: what others
    /// build, this one does, too.
    pub fn is_ours(&self) -> bool {
        rules::OURS.iter().any(|rule| rule.name == self.rule)
    }
}

/// A finding that holds only if the files are so that it does; whoever sees them can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// When it holds.
    pub condition: Condition,
    /// The finding.
    pub warning: Warning,
}

/// What only files can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `path` is a directory of the context of that name.
    IsDirectory {
        /// The context's name.
        context: String,
        /// The path below its root.
        path: String,
    },
    /// The file system that this vertex copies onto has no such user or group.
    OwnerIsUnknown(VertexId),
    /// Several sources of this vertex became the one file that it copies to.
    DestinationIsFile(VertexId),
    /// Several sources of this vertex have one name in the directory that it copies to.
    SourcesShareName(VertexId),
    /// `--chmod` of this vertex left directories that some who may read them can't enter.
    DirectoriesAreClosed(VertexId),
    /// Directories that `copied` made on an empty file system are not what they were in `base`,
    /// on top of which they go.
    DirectoriesDiffer {
        /// The vertex that copies.
        copied: VertexId,
        /// The file system that they hide.
        base: VertexId,
    },
}

impl Condition {
    /// The vertex that can tell once it has run; none for what a look at a context tells.
    pub fn vertex(&self) -> Option<VertexId> {
        match self {
            Self::IsDirectory { .. } => None,
            Self::OwnerIsUnknown(vertex)
            | Self::DestinationIsFile(vertex)
            | Self::SourcesShareName(vertex)
            | Self::DirectoriesAreClosed(vertex)
            | Self::DirectoriesDiffer { copied: vertex, .. } => Some(*vertex),
        }
    }
}

/// Checks that only run where a file asks for them.
const EXPERIMENTAL: [&str; 1] = ["InvalidDefinitionDescription"];

/// Which checks count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    skip: Rules,
    experimental: Rules,
    /// Whether a finding fails the build.
    error: bool,
}

/// A set of checks, `all` of them included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules(Vec<String>);

impl Rules {
    fn contains(&self, rule: &str) -> bool {
        self.0.iter().any(|known| known == "all" || known.eq_ignore_ascii_case(rule))
    }
}

impl Checks {
    /// What `# check=` says, or `BUILDKIT_DOCKERFILE_CHECK` in its place.
    pub(crate) fn of(dockerfile: &Dockerfile, request: &PlanRequest) -> Result<Self, Diagnostic> {
        let argument = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
        match argument.or(dockerfile.directives.check.as_ref()) {
            Some(text) => Self::parse(text).map_err(|option| {
                let message = format!("invalid check option {option:?}");
                Diagnostic::new(&dockerfile.source, first_check(&dockerfile.source), message)
                    .in_no_line()
                    .help("known options are skip=, error= and experimental=")
            }),
            None => Ok(Self::default()),
        }
    }

    /// Reads `skip=A,B;error=true`, or says which option is wrong.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.split_whitespace().next().unwrap_or_default();
        let mut checks = Self::default();
        for option in text.splitn(3, ';').filter(|option| !option.is_empty()) {
            let rules =
                |list: &str| Rules(list.split(',').map(|rule| rule.trim().to_owned()).collect());
            match option.split_once('=') {
                Some(("skip", list)) => checks.skip = rules(list),
                Some(("experimental", list)) => checks.experimental = rules(list),
                Some(("error", "true" | "TRUE" | "True" | "1" | "t" | "T")) => checks.error = true,
                Some(("error", "false" | "FALSE" | "False" | "0" | "f" | "F")) => {
                    checks.error = false;
                }
                Some(_) | None => return Err(option.to_owned()),
            }
        }
        Ok(checks)
    }

    /// Keeps the warnings that count, the parser's included, each once and in the order of the
    /// file. Where the file says that they are errors, they are one.
    pub(crate) fn apply(
        &self,
        dockerfile: &Dockerfile,
        planned: Vec<Warning>,
    ) -> Result<Vec<Warning>, Diagnostic> {
        let mut kept = self.keep(dockerfile, planned);
        kept.sort_by(|a, b| {
            (a.span.start, a.rule, &a.message).cmp(&(b.span.start, b.rule, &b.message))
        });
        kept.dedup();
        self.violation(dockerfile, &kept).map_or(Ok(kept), Err)
    }

    /// Keeps the warnings that count, the parser's first, in the order in which they were found.
    pub(crate) fn keep(&self, dockerfile: &Dockerfile, planned: Vec<Warning>) -> Vec<Warning> {
        let all = dockerfile.warnings.iter().cloned().chain(planned);
        all.filter(|warning| self.counts(&dockerfile.instructions, warning)).collect()
    }

    /// Keeps the suspicions that count.
    pub(crate) fn keep_suspicions(
        &self,
        dockerfile: &Dockerfile,
        suspicions: Vec<Suspicion>,
    ) -> Vec<Suspicion> {
        let counts = |s: &Suspicion| self.counts(&dockerfile.instructions, &s.warning);
        suspicions.into_iter().filter(counts).collect()
    }

    /// The error that warnings are where the file says so.
    pub(crate) fn violation(
        &self,
        dockerfile: &Dockerfile,
        warnings: &[Warning],
    ) -> Option<Diagnostic> {
        let warnings: Vec<_> = warnings.iter().filter(|warning| !warning.is_ours()).collect();
        let first = warnings.first().filter(|_| self.error)?;
        let mut rules: Vec<&str> = warnings.iter().map(|warning| warning.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let message = format!("lint violation found for rules: {}", rules.join(", "));
        let error = Diagnostic::new(&dockerfile.source, first.span.clone(), message);
        Some(error.in_no_line().help(first.message.clone()))
    }

    fn counts(&self, nodes: &[Node], warning: &Warning) -> bool {
        let next = nodes.partition_point(|node| node.span.start <= warning.span.start);
        let node = next.checked_sub(1).map(|index| &nodes[index]);
        let own = node.filter(|node| warning.span.start < node.span.end).and_then(Self::of_node);
        let own = own.unwrap_or_default();
        if EXPERIMENTAL.contains(&warning.rule) {
            return [&self.experimental, &own.experimental]
                .into_iter()
                .any(|rules| rules.contains(warning.rule));
        }
        ![&self.skip, &own.skip].into_iter().any(|rules| rules.contains(warning.rule))
    }

    /// What the comments above an instruction say about it.
    fn of_node(node: &Node) -> Option<Self> {
        let check = node.comments.iter().find_map(|comment| comment.trim().strip_prefix("check="));
        check.and_then(|text| Self::parse(text).ok())
    }
}

/// Where the directive stands.
fn first_check(source: &Source) -> Span {
    let start = source.text.find("check").unwrap_or(0);
    start..source.text[start..].find('\n').map_or(source.text.len(), |end| start + end)
}

/// Whether a variable of this name probably holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
    has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_up_to_the_first_blank() {
        let checks = Checks::parse("skip=A,B;error=true ;x").unwrap();
        assert!(checks.error && checks.skip.contains("B") && !checks.skip.contains("C"));
        assert!(Checks::parse("skip=all").unwrap().skip.contains("C"));
        assert_eq!(Checks::parse("skip=A;foo=1"), Err("foo=1".to_owned()));
        assert_eq!(Checks::parse("error=maybe"), Err("error=maybe".to_owned()));
        assert_eq!(Checks::parse("Skip=A"), Err("Skip=A".to_owned()));
        let checks = Checks::parse("skip=A;error=FALSE;experimental=B,C;skip=D").unwrap();
        assert!(!checks.error && checks.experimental.contains("B") && !checks.skip.contains("D"));
    }

    #[test]
    fn secrets_are_known_by_the_words_of_their_names() {
        for word in [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ] {
            for name in [word.to_uppercase(), format!("my_{word}"), format!("{word}_x")] {
                assert!(is_secret_name(&name), "{name}");
            }
        }
        for name in ["keyboard", "PUBLIC_KEY", "TOKEN_FILE", "secret_version", "monkey"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
