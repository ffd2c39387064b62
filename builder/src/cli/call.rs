//! `--call`: tells what [`frontend::call`] has to say of a Dockerfile, and runs nothing.

mod text;

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::process::ExitCode;

use frontend::call::{self, Calling, Check, Outline, Targets};
use frontend::{Dockerfile, PlanRequest, Source, csv_fields};
use serde::Serialize;

use super::args::BuildArgs;
use super::report;
use super::visible::{visible, visible_lines};
use crate::build::{self, BuildError, Lookup, Request, Services, Unknown};
use crate::pin::PinError;

/// What is asked for instead of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    method: Method,
    form: Form,
    ignore_status: bool,
    /// Whether JSON has also what no other builder checks.
    extra: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Check,
    Outline,
    Targets,
}

/// How the answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Text,
    Json,
}

/// Why a call is refused, or its answer lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No CSV record.
    #[error("invalid --call `{0}`: {1}")]
    Csv(String, frontend::CsvError),
    /// An unknown method.
    #[error("unknown --call method \"{0}\": it is build, check, outline or targets")]
    Method(String),
    /// More than one method.
    #[error("--call takes one method, not both {0} and {1}")]
    Methods(String, String),
    /// An unknown option.
    #[error(
        "unknown --call option \"{0}\": it is format=text|json, ignorestatus=true|false or extra=true|false"
    )]
    Option(String),
    /// The answer can't be printed.
    #[error("cannot write standard output")]
    Print(#[source] io::Error),
}

impl Call {
    /// What the flags ask for; `None` for a build.
    pub(crate) fn of(args: &BuildArgs) -> Result<Option<Self>, CallError> {
        match &args.call {
            Some(text) => Self::parse(text),
            None if args.check => Self::parse("check"),
            None => Ok(None),
        }
    }

    /// Reads `METHOD[,format=json][,ignorestatus=true][,extra=true]`.
    fn parse(text: &str) -> Result<Option<Self>, CallError> {
        let fields = csv_fields(text).map_err(|error| CallError::Csv(text.to_owned(), error))?;
        let (mut name, mut form) = (None::<&str>, Form::default());
        let (mut ignore_status, mut extra) = (false, false);
        for field in &fields {
            match (field.split_once('='), name) {
                (None, _) if field == "ignorestatus" => ignore_status = true,
                (None, _) if field == "extra" => extra = true,
                (None, None) => name = Some(field),
                (None, Some(first)) => {
                    return Err(CallError::Methods(first.to_owned(), field.clone()));
                }
                (Some(("format", "json")), _) => form = Form::Json,
                (Some(("format", "text")), _) => form = Form::Text,
                (Some(("ignorestatus", value)), _) => {
                    ignore_status = truth(value).ok_or_else(|| CallError::Option(field.clone()))?;
                }
                (Some(("extra", value)), _) => {
                    extra = truth(value).ok_or_else(|| CallError::Option(field.clone()))?;
                }
                (Some(_), _) => return Err(CallError::Option(field.clone())),
            }
        }
        let method = match name.unwrap_or_default() {
            "" | "build" => return Ok(None),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            unknown => return Err(CallError::Method(unknown.to_owned())),
        };
        Ok(Some(Self { method, form, ignore_status, extra }))
    }

    /// Finds the answer. Base images are looked up as for a build; none is downloaded.
    pub(crate) async fn answer(
        self,
        request: &Request,
        services: &Services,
    ) -> Result<Answer, BuildError> {
        build::refuse_foreign_syntax(request)?;
        let source = request.dockerfile.clone();
        let mut lookup = Lookup::new(request, services);
        let said = match self.method {
            Method::Check => {
                let mut check = find_faults(&mut lookup, source, &request.plan).await?;
                check.settle(|condition| build::holds(condition, &request.contexts));
                let is_for_others = self.form == Form::Json && !self.extra;
                Said::Check(if is_for_others { check.without_ours() } else { check })
            }
            Method::Outline => {
                let dockerfile = frontend::parse(source)?;
                Said::Outline(outline(&mut lookup, &dockerfile, &request.plan).await?)
            }
            Method::Targets => Said::Targets(call::targets(&frontend::parse(source)?)),
        };
        let warning = report::not_looked_at(&lookup.unknown);
        Ok(Answer { call: self, said, warning })
    }
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Checks a Dockerfile. A base that is known not to exist is why a build would fail; of one that
/// can't be reached nothing is said here.
async fn find_faults(
    lookup: &mut Lookup<'_>,
    source: Source,
    plan: &PlanRequest,
) -> Result<Check, BuildError> {
    let (dockerfile, _) = frontend::parse_until_error(source.clone());
    let check = loop {
        match call::check(source.clone(), plan, &lookup.pins) {
            Calling::Ready(check) => break check,
            Calling::Needs(needs) => lookup.add(needs, &dockerfile).await?,
        }
    };
    let is_refused = |unknown: &&Unknown| !is_out_of_reach(&unknown.error);
    let Some(place) = lookup.unknown.iter().position(|unknown| is_refused(&unknown)) else {
        return Ok(check);
    };
    let Unknown { span, similar_name, error } = lookup.unknown.remove(place);
    let message = refusal(&error, similar_name.as_deref());
    Ok(check.without_base(source, plan, &span, &message))
}

async fn outline(
    lookup: &mut Lookup<'_>,
    dockerfile: &Dockerfile,
    plan: &PlanRequest,
) -> Result<Outline, BuildError> {
    loop {
        match call::outline(dockerfile, plan, &lookup.pins)? {
            Calling::Ready(outline) => return Ok(outline),
            Calling::Needs(needs) => lookup.add(needs, dockerfile).await?,
        }
    }
}

/// Whether nothing is known of the image, not even whether there is one.
fn is_out_of_reach(error: &PinError) -> bool {
    match error {
        PinError::Registry { source, .. } => !source.is_found_nowhere(),
        PinError::Download(_) | PinError::Git(_) => true,
        PinError::Manifest { .. }
        | PinError::Platform { .. }
        | PinError::TooManyLayers { .. }
        | PinError::Layers { .. }
        | PinError::Layout { .. }
        | PinError::LayoutDigest { .. }
        | PinError::LayoutName { .. }
        | PinError::Cache(_) => false,
    }
}

/// Why an image can't be had, as other programs read it.
fn refusal(error: &PinError, similar_name: Option<&str>) -> String {
    let reason = match error {
        PinError::Registry { image, source } if source.is_found_nowhere() => {
            unresolved(image, &format!("{image}: not found"))
        }
        PinError::Registry { image, source } => unresolved(image, &report::chain(source)),
        PinError::Platform { image, .. } => {
            unresolved(image, "no match for platform in manifest: not found")
        }
        PinError::Manifest { .. }
        | PinError::TooManyLayers { .. }
        | PinError::Layers { .. }
        | PinError::Layout { .. }
        | PinError::LayoutDigest { .. }
        | PinError::LayoutName { .. }
        | PinError::Download(_)
        | PinError::Git(_)
        | PinError::Cache(_) => report::chain(error),
    };
    match similar_name {
        Some(name) => format!("{reason} (did you mean {name}?)"),
        None => reason,
    }
}

fn unresolved(image: &str, reason: &str) -> String {
    format!("failed to resolve source metadata for {image}: {reason}")
}

/// What a call found out, and how it is to be told.
pub(crate) struct Answer {
    call: Call,
    said: Said,
    /// What to say of it on standard error.
    warning: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said {
    Check(Check),
    Outline(Outline),
    Targets(Targets),
}

impl Answer {
    /// Prints it. The exit code says whether there is nothing to find fault with.
    #[allow(clippy::print_stderr, reason = "the command line is what prints")]
    pub(crate) fn print(&self, dockerfile: &Source) -> Result<ExitCode, CallError> {
        let text = match (self.call.form, &self.said) {
            (Form::Json, said) => {
                serde_json::to_string_pretty(said).expect("plain data serialises") + "\n"
            }
            (Form::Text, Said::Check(check)) => {
                text::check(&check.warnings, check.build_error.as_ref(), dockerfile)
            }
            (Form::Text, Said::Outline(outline)) => text::outline(outline),
            (Form::Text, Said::Targets(targets)) => text::targets(targets),
        };
        let text = match self.call.form {
            Form::Json => Cow::Borrowed(&*text),
            Form::Text => visible_lines(&text),
        };
        io::stdout().write_all(text.as_bytes()).map_err(CallError::Print)?;
        if let Some(warning) = &self.warning {
            eprintln!("warning: {}", visible(warning));
        }
        let Said::Check(check) = &self.said else { return Ok(ExitCode::SUCCESS) };
        if let Some(error) = &check.build_error {
            eprint!("{}", visible_lines(&text::build_error(error, dockerfile)));
        }
        let passes = check.is_clean() || self.call.ignore_status;
        Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(Method, Form, bool)> {
        Call::parse(text).unwrap().map(|call| (call.method, call.form, call.ignore_status))
    }

    #[test]
    fn a_call_is_a_method_with_options() {
        assert_eq!(read("check"), Some((Method::Check, Form::Text, false)));
        assert_eq!(read("lint,format=json"), Some((Method::Check, Form::Json, false)));
        assert_eq!(read("format=json,outline"), Some((Method::Outline, Form::Json, false)));
        assert_eq!(read("targets,ignorestatus=1"), Some((Method::Targets, Form::Text, true)));
        assert_eq!(read("check,ignorestatus=false"), Some((Method::Check, Form::Text, false)));
        assert_eq!((read("build"), read("")), (None, None));
    }

    #[test]
    fn what_is_wrong_with_a_call_is_said() {
        let refusal = |text: &str| Call::parse(text).unwrap_err().to_string();
        assert!(refusal("chek").contains("\"chek\""));
        assert!(refusal("check,outline").contains("both check and outline"));
        assert!(refusal("check,ignorestatus=maybe").contains("ignorestatus=maybe"));
        assert!(refusal("check,format=xml").contains("format=xml"));
        assert!(refusal("check,x=1").contains("x=1"));
        assert!(refusal("\"check").contains("closing quote"));
    }
}
