//! `SOURCE_DATE_EPOCH`: a number, or the name of something whose time it is.
//!
//! A name is the main context, a named context, or a stage that holds nothing but one download or
//! one repository. What planning goes on with is always the number, so that an ARG of that name has
//! it, too.

use std::collections::BTreeMap;

use super::variables::Variables;
use super::{Facts, NamedContext, PlanRequest, Planning, remote};
use crate::ast::{Add, Instruction, Node, Operand};
use crate::stages::{Base, Stage, Stages};
use crate::{Diagnostic, GitSource, Pinned, RemoteUrl, SourceRef, Span, expand};

const NAME: &str = "SOURCE_DATE_EPOCH";

/// What is known of the time.
pub(super) enum Epoch {
    /// Everything.
    Known(Option<i64>),
    /// Everything: a request in which the name is replaced by the number, or by nothing.
    Named(Box<PlanRequest>),
    /// What must be looked up for it.
    Unknown(Planning),
}

impl<'a> Facts<'a> {
    /// Finds the time out, from the command line or from an ARG above the first FROM.
    pub(super) fn epoch(&self, stages: &Stages<'a>) -> Result<Epoch, Diagnostic> {
        let given = self.request.build_args.get(NAME).map(String::as_str);
        let value = given.or(stages.globals.get(NAME)).filter(|value| !value.is_empty());
        let Some(value) = value else { return Ok(Epoch::Known(None)) };
        if let Ok(seconds) = value.parse() {
            return Ok(Epoch::Known(Some(seconds)));
        }
        let seconds = match value {
            "context" => self.request.context_time,
            name => {
                let (source, span) = self.source_named(name, stages)?;
                match self.pin(&source) {
                    Some(Pinned::File { modified: time, .. } | Pinned::Time(time)) => Some(*time),
                    Some(Pinned::Unknown) => None,
                    Some(_) => return Err(self.invalid_epoch(name)),
                    None => {
                        let needs = BTreeMap::from([(source, span)]);
                        return Ok(Epoch::Unknown(Planning::Needs(needs)));
                    }
                }
            }
        };
        let mut request = self.request.clone();
        let text = seconds.map_or_else(String::new, |seconds| seconds.to_string());
        request.build_args.insert(NAME.to_owned(), text);
        Ok(Epoch::Named(Box::new(request)))
    }

    /// What a named context or a stage consists of.
    fn source_named(
        &self,
        name: &str,
        stages: &Stages<'a>,
    ) -> Result<(SourceRef, Span), Diagnostic> {
        let platform = &self.request.build_platform;
        if let Some(found) = self.contexts.find(name, platform) {
            return match found.context {
                NamedContext::Http(url) => Ok((download(url.clone()), 0..0)),
                NamedContext::Git(source) => Ok((commit(source.clone()), 0..0)),
                _ => Err(self.invalid_epoch(name)),
            };
        }
        let is_it = |stage: &&Stage<'a>| stage.name.as_deref() == Some(&*name.to_lowercase());
        stages
            .list
            .iter()
            .find(is_it)
            .and_then(|stage| self.only_source(stage, &stages.globals))
            .ok_or_else(|| self.invalid_epoch(name))
    }

    /// What is fetched in a stage on `scratch` that does nothing else.
    fn only_source(&self, stage: &Stage<'a>, globals: &Variables) -> Option<(SourceRef, Span)> {
        if !matches!(stage.base, Base::Scratch) {
            return None;
        }
        let is_arg = |node: &&Node| matches!(node.instruction, Instruction::Arg(_));
        let mut others = stage.instructions.iter().filter(|node| !is_arg(node));
        let (Some(node), None) = (others.next(), others.next()) else { return None };
        let Instruction::Add(Add { sources, .. }) = &node.instruction else { return None };
        let [Operand::Path(url)] = sources.as_slice() else { return None };
        let args = stage.instructions.iter().take_while(is_arg);
        let url = self.expand_behind(args, globals, url)?;
        let source = if remote::is_git(&url) {
            commit(GitSource::parse(&url).ok()?)
        } else if remote::is_url(&url) {
            download(url.as_str().into())
        } else {
            return None;
        };
        Some((source, node.span.clone()))
    }

    /// Expands a word as a stage does behind these ARGs; `None` if one of them can't be.
    fn expand_behind<'n>(
        &self,
        args: impl Iterator<Item = &'n Node>,
        globals: &Variables,
        word: &str,
    ) -> Option<String> {
        let expanded = |word: &str, known: &Variables| {
            let value = |name: &str| known.get(name).map(str::to_owned);
            expand(word, self.dockerfile.directives.escape, &value).ok().map(|found| found.text)
        };
        let mut known = Variables::default();
        for node in args {
            let Instruction::Arg(arg) = &node.instruction else { continue };
            for (name, default) in &arg.args {
                let given = self.request.build_args.get(name).cloned();
                let value = match (given, default) {
                    (Some(given), _) => Some(given),
                    (None, Some(default)) => Some(expanded(default, &known)?),
                    (None, None) => globals.get(name).map(str::to_owned),
                };
                value.into_iter().for_each(|value| known.set(name, value));
            }
        }
        expanded(word, &known)
    }

    fn invalid_epoch(&self, value: &str) -> Diagnostic {
        self.error(&(0..0), format!("invalid {NAME}: {value}")).in_no_line().help(
            "give the number of seconds since 1970, `context`, the name of a context by URL or from \
             git, or that of a stage on scratch with one ADD of such a source",
        )
    }
}

fn download(url: RemoteUrl) -> SourceRef {
    SourceRef::Http { url, checksum: None }
}

fn commit(source: GitSource) -> SourceRef {
    let GitSource { remote, reference, checksum, .. } = source;
    SourceRef::GitTime { remote, reference, checksum }
}
