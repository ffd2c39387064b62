//! Names, ARG scopes, the target and what it reaches.
//!
//! Here FROM lines get their meaning, and nothing else does: which stage, named context or image
//! each stage stands on. That takes the ARGs above the first FROM and the platform, and no pin, so
//! every stage is looked at, needed or not: a blank base or a bad platform fails anywhere.

use std::collections::{BTreeSet, HashMap};

use oci::Platform;

use crate::ast::{From, Instruction, Node};
use crate::plan::contexts::{Found, NamedContexts};
use crate::plan::history;
use crate::plan::mounts::{self, MountError};
use crate::plan::variables::Variables;
use crate::{Diagnostic, Dockerfile, Expansion, PlanRequest, Span, did_you_mean, expand};

/// The stages of a Dockerfile for one platform.
#[derive(Debug)]
pub(crate) struct Stages<'a> {
    /// In the order of the Dockerfile.
    pub(crate) list: Vec<Stage<'a>>,
    /// What FROM lines see, and what `ARG name` in a stage takes its value from.
    pub(crate) globals: Variables,
    /// The ARGs above the first FROM, in order; a name may be there more than once.
    pub(crate) global_args: Vec<GlobalArg<'a>>,
    /// For each name the last stage that has it.
    last_by_name: HashMap<String, usize>,
}

/// A stage: FROM and what follows.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    /// Its place in the Dockerfile, from 0.
    pub(crate) index: usize,
    /// Its name in lower case.
    pub(crate) name: Option<String>,
    /// Its FROM.
    pub(crate) node: &'a Node,
    /// What follows; nothing if a named context replaces the stage.
    pub(crate) instructions: &'a [Node],
    /// What it stands on.
    pub(crate) base: Base<'a>,
    /// Whether a named context of its own name replaces it.
    pub(crate) replaced: bool,
    /// `--platform`, expanded.
    pub(crate) platform: Option<Platform>,
    /// Whose files it copies or mounts, and where it says so.
    pub(crate) references: Vec<(Named, Span)>,
}

/// An ARG above the first FROM.
#[derive(Debug)]
pub(crate) struct GlobalArg<'a> {
    /// The instruction.
    pub(crate) node: &'a Node,
    /// Its name.
    pub(crate) name: &'a str,
    /// The value that it is given here.
    pub(crate) value: Option<String>,
    /// The variables that the value is made of.
    pub(crate) parts: BTreeSet<String>,
}

/// What a stage stands on.
#[derive(Clone, Debug)]
pub(crate) enum Base<'a> {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// A `--build-context`.
    Context(Found<'a>),
    /// An image by name.
    Image(String),
}

/// What a `from` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A stage.
    Stage(usize),
    /// A named context or an image.
    Other(String),
}

/// A FROM line before it means anything, and what belongs to it.
type Section<'a> = (&'a Node, &'a From, &'a [Node]);

impl<'a> Stages<'a> {
    /// Gives every FROM its meaning.
    pub(crate) fn resolve(
        dockerfile: &'a Dockerfile,
        request: &PlanRequest,
        contexts: &NamedContexts<'a>,
        platform: &Platform,
    ) -> Result<Self, Diagnostic> {
        let (above, sections) = sections(dockerfile);
        let globals = Globals { dockerfile, request };
        let last_name = sections.last().and_then(|(_, from, _)| from.name.as_deref());
        let last_name = last_name.map(str::to_lowercase);
        let (globals, global_args) = globals.collect(above, last_name.as_deref(), platform)?;
        let last_by_name = HashMap::new();
        let mut stages = Self { list: vec![], globals, global_args, last_by_name };
        for section in &sections {
            let stage = stages.stage(dockerfile, contexts, platform, section)?;
            if let Some(name) = &stage.name {
                stages.last_by_name.insert(name.clone(), stage.index);
            }
            stages.list.push(stage);
        }
        // `from` binds to the last stage of a name in the whole file, so this needs them all.
        for index in 0..stages.list.len() {
            stages.list[index].references =
                stages.references_of(dockerfile, stages.list[index].instructions)?;
        }
        Ok(stages)
    }

    fn stage(
        &self,
        dockerfile: &Dockerfile,
        contexts: &NamedContexts<'a>,
        target_platform: &Platform,
        &(node, from, instructions): &Section<'a>,
    ) -> Result<Stage<'a>, Diagnostic> {
        let line = FromLine { dockerfile, node, globals: &self.globals };
        let platform = from.platform.as_deref().map(|text| line.platform(text)).transpose()?;
        let name = from.name.as_deref().map(str::to_lowercase);
        let base = line.base(&from.base)?;
        let platform_or_target = platform.as_ref().unwrap_or(target_platform);
        let replacement = name.as_deref().and_then(|name| contexts.find(name, platform_or_target));
        let base = match (replacement, self.last_by_name.get(&base)) {
            (Some(found), _) => Base::Context(found),
            (None, Some(&stage)) => Base::Stage(stage),
            (None, None) if base == "scratch" => Base::Scratch,
            (None, None) => match contexts.find(&base, platform_or_target) {
                Some(found) => Base::Context(found),
                None => Base::Image(base),
            },
        };
        let replaced = replacement.is_some();
        Ok(Stage {
            index: self.list.len(),
            name,
            node,
            instructions: if replaced { &[] } else { instructions },
            base,
            replaced,
            platform,
            references: vec![],
        })
    }

    fn references_of(
        &self,
        dockerfile: &Dockerfile,
        instructions: &[Node],
    ) -> Result<Vec<(Named, Span)>, Diagnostic> {
        let mut references = vec![];
        for node in instructions {
            let error =
                |message: String| Diagnostic::new(&dockerfile.source, node.span.clone(), message);
            match &node.instruction {
                Instruction::Copy(copy) => {
                    // One with a variable is an error, though only where the stage is needed.
                    if let Some(from) = copy.from.as_deref().filter(|from| is_plain(from)) {
                        let named = self.copied_from(from).map_err(error)?;
                        references.push((named, node.span.clone()));
                    }
                }
                Instruction::Run(run) => {
                    for mount in &run.mounts {
                        let from = mounted_from(mount).map_err(|refusal| {
                            error(refusal.to_string()).suggest(refusal.suggestion())
                        })?;
                        references
                            .extend(from.map(|from| (self.mounted_from(&from), node.span.clone())));
                    }
                }
                Instruction::From(_)
                | Instruction::Arg(_)
                | Instruction::Cmd(_)
                | Instruction::Label(_)
                | Instruction::Maintainer(_)
                | Instruction::Expose(_)
                | Instruction::Env(_)
                | Instruction::Add(_)
                | Instruction::Entrypoint(_)
                | Instruction::Volume(_)
                | Instruction::User(_)
                | Instruction::Workdir(_)
                | Instruction::Onbuild(_)
                | Instruction::Stopsignal(_)
                | Instruction::Healthcheck(_)
                | Instruction::Shell(_) => {}
            }
        }
        Ok(references)
    }

    /// What `COPY --from` names: a stage by name or number, or something else.
    pub(crate) fn copied_from(&self, from: &str) -> Result<Named, String> {
        match from.parse::<i64>() {
            Ok(index) => usize::try_from(index)
                .ok()
                .filter(|index| *index < self.list.len())
                .map(Named::Stage)
                .ok_or_else(|| format!("invalid stage index {index}")),
            Err(_) => Ok(self.mounted_from(from)),
        }
    }

    /// What `RUN --mount from` names: numbers are names there.
    pub(crate) fn mounted_from(&self, from: &str) -> Named {
        match self.last_by_name.get(&from.to_lowercase()) {
            Some(&stage) => Named::Stage(stage),
            None => Named::Other(from.to_owned()),
        }
    }

    /// The stage to build.
    pub(crate) fn target(
        &self,
        dockerfile: &Dockerfile,
        name: Option<&str>,
    ) -> Result<usize, Diagnostic> {
        let Some(last) = self.list.last() else {
            let message = "dockerfile contains no stages to build";
            return Err(Diagnostic::new(&dockerfile.source, 0..0, message).in_no_line());
        };
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(last.index) };
        self.last_by_name.get(&name.to_lowercase()).copied().ok_or_else(|| {
            let message = format!("target stage {} could not be found", history::quote(name));
            let names = self.list.iter().filter_map(|stage| stage.name.as_deref());
            Diagnostic::new(&dockerfile.source, last.node.span.clone(), message)
                .in_no_line()
                .suggest(did_you_mean(name, names))
                .help(self.which_there_are(name))
        })
    }

    /// What to name instead of `name`.
    fn which_there_are(&self, name: &str) -> String {
        let names = || self.list.iter().filter_map(|stage| stage.name.as_deref());
        let all: Vec<_> = names().map(|name| format!("`{name}`")).collect();
        let all = match all.as_slice() {
            [] => return "no stage has a name; name one with `FROM image AS name`".to_owned(),
            [one] => format!("the only stage with a name is {one}"),
            several => format!("the stages are {}", several.join(", ")),
        };
        match did_you_mean(name, names()) {
            Some(near) => {
                format!("did you mean `{near}`? {}{}", all[..1].to_uppercase(), &all[1..])
            }
            None => all,
        }
    }

    /// Which stages `target` needs, itself included: for each one whether it does.
    pub(crate) fn needed_by(&self, target: usize) -> Vec<bool> {
        let mut needed = vec![false; self.list.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut needed[index], true) {
                let stage = &self.list[index];
                if let Base::Stage(base) = stage.base {
                    open.push(base);
                }
                open.extend(stage.references.iter().filter_map(|(named, _)| match named {
                    Named::Stage(stage) => Some(*stage),
                    Named::Other(_) => None,
                }));
            }
        }
        needed
    }

    /// How people know a stage: by name or number, or not at all where there is only one.
    pub(crate) fn label(&self, stage: &Stage<'_>) -> Option<String> {
        let numbered = || format!("stage-{}", stage.index);
        (self.list.len() > 1).then(|| stage.name.clone().unwrap_or_else(numbered))
    }
}

/// The ARGs above the first FROM, and each FROM with the instructions below it.
fn sections(dockerfile: &Dockerfile) -> (&[Node], Vec<Section<'_>>) {
    let nodes = dockerfile.instructions.as_slice();
    let starts: Vec<(usize, &From)> = nodes
        .iter()
        .enumerate()
        .filter_map(|(index, node)| {
            let Instruction::From(from) = &node.instruction else { return None };
            Some((index, from))
        })
        .collect();
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([nodes.len()]);
    let above = starts.first().map_or(nodes, |(first, _)| &nodes[..*first]);
    let sections = starts.iter().zip(ends);
    let sections =
        sections.map(|(&(start, from), end)| (&nodes[start], from, &nodes[start + 1..end]));
    (above, sections.collect())
}

/// Whether a `from` names something: it is not empty and has no variable.
fn is_plain(from: &str) -> bool {
    !from.is_empty() && !from.contains('$')
}

/// The stage or image that a mount names.
fn mounted_from(mount: &str) -> Result<Option<String>, MountError> {
    let fields = mounts::fields(mount)?;
    let from = fields.into_iter().rev().find(|field| field.key == "from");
    Ok(from.and_then(|field| field.value).filter(|from| !from.is_empty()))
}

/// Collects the variables of the global scope.
struct Globals<'a> {
    dockerfile: &'a Dockerfile,
    request: &'a PlanRequest,
}

impl Globals<'_> {
    fn collect<'a>(
        &self,
        above: &'a [Node],
        last_name: Option<&str>,
        platform: &Platform,
    ) -> Result<(Variables, Vec<GlobalArg<'a>>), Diagnostic> {
        let mut globals = self.automatic(last_name, platform);
        let mut args = vec![];
        for node in above {
            let Instruction::Arg(arg) = &node.instruction else { continue };
            for (name, default) in &arg.args {
                let (value, parts) = match (self.request.build_args.get(name), default) {
                    (Some(value), _) => (Some(value.clone()), BTreeSet::new()),
                    (None, Some(default)) => {
                        let value = expand_global(self.dockerfile, node, default, &globals)?;
                        (Some(value.text), value.matched)
                    }
                    (None, None) => (None, BTreeSet::new()),
                };
                if let Some(value) = &value {
                    globals.set(name, value);
                }
                args.push(GlobalArg { node, name, value, parts });
            }
        }
        Ok((globals, args))
    }

    /// The variables that need no ARG above the first FROM.
    fn automatic(&self, last_name: Option<&str>, platform: &Platform) -> Variables {
        let mut globals = Variables::default();
        for (prefix, platform) in [("BUILD", &self.request.build_platform), ("TARGET", platform)] {
            let version = platform.os_version.clone().unwrap_or_default();
            for (name, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("OSVERSION", version),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant().to_owned()),
            ] {
                globals.set(format!("{prefix}{name}"), value);
            }
        }
        let target = self.request.target.as_deref().filter(|target| !target.is_empty());
        globals.set("TARGETSTAGE", target.or(last_name).unwrap_or("default"));
        let names: Vec<String> = globals.names().map(str::to_owned).collect();
        for name in names {
            if let Some(value) = self.request.build_args.get(&name) {
                globals.set(name, value);
            }
        }
        globals
    }
}

fn expand_global(
    dockerfile: &Dockerfile,
    node: &Node,
    word: &str,
    globals: &Variables,
) -> Result<Expansion, Diagnostic> {
    let value = |name: &str| globals.get(name).map(str::to_owned);
    expand(word, dockerfile.directives.escape, &value).map_err(|error| {
        let message = format!("failed to process {}: {error}", history::quote(word));
        Diagnostic::new(&dockerfile.source, node.span.clone(), message)
    })
}

/// Expands the words of one FROM.
struct FromLine<'l> {
    dockerfile: &'l Dockerfile,
    node: &'l Node,
    globals: &'l Variables,
}

impl FromLine<'_> {
    fn base(&self, word: &str) -> Result<String, Diagnostic> {
        let expansion = self.expand(word)?;
        if expansion.text.is_empty() {
            let error = self.error(format!("base name ({word}) should not be blank"));
            return Err(match self.meant(&expansion) {
                Some(meant) => error.help(format!("did you mean `{meant}`?")),
                None => self.undeclared(error, &expansion),
            });
        }
        Ok(expansion.text)
    }

    fn platform(&self, word: &str) -> Result<Platform, Diagnostic> {
        let expansion = self.expand(word)?;
        if expansion.text.is_empty() {
            let error = self.error(format!("empty platform value from expression {word}"));
            return Err(self.undeclared(error, &expansion));
        }
        expansion.text.parse().map_err(|error| {
            let error = self.error(format!("failed to parse platform {word}: {error}"));
            self.undeclared(error, &expansion)
        })
    }

    fn expand(&self, word: &str) -> Result<Expansion, Diagnostic> {
        expand_global(self.dockerfile, self.node, word, self.globals)
    }

    fn error(&self, message: String) -> Diagnostic {
        Diagnostic::new(&self.dockerfile.source, self.node.span.clone(), message)
    }

    /// Says what a variable without a value was probably meant to be.
    fn undeclared(&self, error: Diagnostic, expansion: &Expansion) -> Diagnostic {
        match (self.meant(expansion), expansion.unmatched.first()) {
            (Some(meant), _) => error.suggest(Some(meant)),
            (None, Some(name)) => {
                error.help(format!("FROM sees only ARGs above the first FROM: `ARG {name}`"))
            }
            (None, None) => error,
        }
    }

    /// What the first variable that has no value was probably meant to be.
    fn meant(&self, expansion: &Expansion) -> Option<&str> {
        did_you_mean(expansion.unmatched.first()?, self.globals.names())
    }
}
