//! `rbuild graph`: shows what a build would do.

use clap::{CommandFactory as _, Parser, ValueEnum};
use frontend::drawing::Drawing;

use super::args::BuildArgs;
use super::report;
use super::visible::visible_lines;
use crate::build::{self, BuildError, Request, Services};

/// The arguments of `rbuild graph`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "rbuild graph",
    bin_name = "rbuild graph",
    about = "Shows the steps of a build, what they take from each other, and which of them a cache \
             would answer; runs none",
    after_help = "Flags of rbuild build about outputs may be given, too; they mean nothing here.",
    override_usage = "rbuild graph [FLAGS] PATH|-",
    next_line_help = false,
    max_term_width = 110,
    args_override_self = true
)]
pub(crate) struct GraphArgs {
    /// What to show.
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// text, dot for Graphviz, or json
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORM",
        hide_possible_values = true,
        help_heading = "Display"
    )]
    pub(crate) format: GraphForm,
}

/// How the graph is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphForm {
    /// A tree of text.
    #[default]
    Text,
    /// In the language of Graphviz.
    Dot,
    /// All of it.
    Json,
}

impl GraphArgs {
    /// The command, with the flags in its help that mean something here.
    pub(crate) fn shown() -> clap::Command {
        Self::command().mut_args(|arg| {
            let is_meant = arg.is_positional()
                || matches!(arg.get_help_heading(), Some("Input" | "Cache" | "RUN"))
                || ["format", "progress"].contains(&arg.get_id().as_str());
            let is_hidden = arg.is_hide_set();
            arg.hide(!is_meant || is_hidden)
        })
    }
}

/// A graph, and what to say of it on standard error.
pub(crate) struct Drawn {
    pub(crate) text: String,
    pub(crate) warning: Option<String>,
}

/// Plans as a build does, and draws the plan.
pub(crate) async fn draw(
    form: GraphForm,
    request: &Request,
    services: &Services,
) -> Result<Drawn, BuildError> {
    let preview = build::preview(request, services).await?;
    let expected = |id| preview.expected.get(&id).copied();
    let drawing = Drawing { plan: &preview.plan, expected: &expected };
    let text = match form {
        GraphForm::Text => visible_lines(&drawing.text()).into_owned(),
        GraphForm::Dot => visible_lines(&drawing.dot()).into_owned(),
        GraphForm::Json => drawing.json(&request.dockerfile),
    };
    Ok(Drawn { text, warning: report::not_looked_at(&preview.unknown) })
}
