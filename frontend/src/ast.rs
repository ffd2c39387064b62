//! What a Dockerfile says, instruction by instruction, before it means anything.
//!
//! Words are kept as they are written, quotes and variables included: only planning knows what a
//! variable stands for. Every flag is there as text, in the order written, so that nothing is lost
//! between the text and the plan.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::{Source, Span, Warning};

/// A parsed Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its text.
    pub source: Arc<Source>,
    /// `# syntax=`, `# escape=`, `# check=`.
    pub directives: Directives,
    /// Its instructions, in order: ARGs, then stages that each begin with FROM.
    pub instructions: Vec<Node>,
    /// What the parse-level checks found.
    pub warnings: Vec<Warning>,
}

impl Dockerfile {
    /// The lines (from 1) of the instruction in which `span` stands, or those of `span` itself
    /// where there is none.
    pub fn lines_at(&self, span: &Span) -> RangeInclusive<usize> {
        let next = self.instructions.partition_point(|node| node.span.start <= span.start);
        let node = next.checked_sub(1).map(|index| &self.instructions[index]);
        match node.filter(|node| span.start < node.span.end) {
            Some(node) if span.end <= node.span.end => node.lines.clone(),
            Some(_) | None => self.source.lines_of(span),
        }
    }
}

/// Parser directives: the comments at the very top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the first word of its value.
    pub syntax: Option<String>,
    /// `# escape=`: `\` or `` ` ``.
    pub escape: Escape,
    /// `# check=`, unparsed.
    pub check: Option<String>,
}

/// The character that continues lines and escapes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escape(pub char);

impl Default for Escape {
    fn default() -> Self {
        Self('\\')
    }
}

/// An instruction and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it says.
    pub instruction: Instruction,
    /// Its keyword as written, `Copy` for instance.
    pub keyword: String,
    /// Its logical line as written: continuations joined, comments dropped, heredocs left out.
    pub text: String,
    /// Where it stands, heredocs included.
    pub span: Span,
    /// Its lines (from 1), heredocs included.
    pub lines: RangeInclusive<usize>,
    /// The comment block right above it, without `#` and the blank behind it.
    pub comments: Vec<String>,
}

impl Node {
    /// What the comments above say of `name`, an ARG's or the stage's: what follows the name on
    /// the first line that begins with it.
    pub fn description(&self, name: &str) -> Option<&str> {
        self.comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `FROM`.
    From(From),
    /// `ARG`.
    Arg(Arg),
    /// `RUN`.
    Run(Run),
    /// `CMD`.
    Cmd(CommandLine),
    /// `LABEL`.
    Label(Pairs),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `EXPOSE`: its words.
    Expose(Vec<String>),
    /// `ENV`.
    Env(Pairs),
    /// `ADD`.
    Add(Add),
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `VOLUME`: its words.
    Volume(Vec<String>),
    /// `USER`: the rest of the line.
    User(String),
    /// `WORKDIR`: the rest of the line.
    Workdir(String),
    /// `ONBUILD`: the trigger as the image config holds it, heredocs included.
    Onbuild(String),
    /// `STOPSIGNAL`: the rest of the line.
    Stopsignal(String),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `SHELL`.
    Shell(Vec<String>),
}

/// `FROM [--platform=P] image [AS name]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// `--platform`, unexpanded.
    pub platform: Option<String>,
    /// An image or an earlier stage, unexpanded.
    pub base: String,
    /// The stage's name as written; it counts in lower case.
    pub name: Option<String>,
    /// `as` as written.
    pub as_keyword: Option<String>,
}

/// `ARG name[=default] …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The names and, unexpanded, their defaults.
    pub args: Vec<(String, Option<String>)>,
}

/// Names and values of ENV and LABEL, unexpanded, quotes kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// In order.
    pub pairs: Vec<(String, String)>,
    /// Whether it was written in the old form `ENV name value`.
    pub legacy: bool,
}

/// A command in shell or exec form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell. `CMD` and `ENTRYPOINT` may be empty.
    Shell(String),
    /// A JSON array.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `--mount`, in order, unexpanded.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: Option<String>,
    /// `--security`.
    pub security: Option<String>,
    /// `--device`, in order.
    pub devices: Vec<String>,
    /// The command. Where there are heredocs: the line with its `<<` words.
    pub command: CommandLine,
    /// The heredocs, in order.
    pub heredocs: Vec<Heredoc>,
}

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; the file's name in COPY and ADD.
    pub name: String,
    /// The descriptor before `<<`, 0 where there is none.
    pub descriptor: u32,
    /// Whether variables in it are expanded: no part of the delimiter is quoted.
    pub expand: bool,
    /// Whether leading tabs are stripped: `<<-`.
    pub strip_tabs: bool,
    /// The body as written, with tabs and line ends.
    pub body: String,
}

impl Heredoc {
    /// The body that counts: tabs stripped where `<<-` asks for it.
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// A source of COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A path, a URL or a git reference, unexpanded.
    Path(String),
    /// A file that stands in the Dockerfile.
    Heredoc(Heredoc),
}

/// `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`, unexpanded.
    pub chown: Option<String>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// The sources, in order.
    pub sources: Vec<Operand>,
    /// The destination, unexpanded.
    pub dest: String,
}

/// `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// `--chown`, unexpanded.
    pub chown: Option<String>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, unexpanded.
    pub checksum: Option<String>,
    /// `--unpack`.
    pub unpack: Option<bool>,
    /// The sources, in order.
    pub sources: Vec<Operand>,
    /// The destination, unexpanded.
    pub dest: String,
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`.
    None,
    /// `HEALTHCHECK [flags] CMD …`; durations in nanoseconds, 0 where the flag is absent.
    Cmd {
        /// The test.
        command: CommandLine,
        /// `--interval`.
        interval: i64,
        /// `--timeout`.
        timeout: i64,
        /// `--start-period`.
        start_period: i64,
        /// `--start-interval`.
        start_interval: i64,
        /// `--retries`.
        retries: i64,
    },
}
