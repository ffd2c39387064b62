//! AST to text, the other way round from parsing.
//!
//! It writes every instruction that a Dockerfile can say, and refuses none; what no text says, such
//! as a command with a line break, is for the caller not to ask.

use crate::ast::{
    Add, Arg, CommandLine, Copy, Directives, Escape, From, Healthcheck, Heredoc, Instruction,
    Operand, Pairs, Run,
};

/// How a Dockerfile is written where that must make no difference.
#[derive(Clone, Debug, Default)]
pub(super) struct Style {
    /// Keywords in lower case.
    pub(super) lower_case: bool,
    /// Lists of words as JSON, where both forms are there.
    pub(super) json: bool,
    /// Tabs before terminators, where `<<-` has them stripped.
    pub(super) indented: bool,
    /// Comments and blank lines between instructions, and comments within folded ones.
    pub(super) comments: bool,
    /// Lines end in `\r\n`, those of heredocs aside: these are content.
    pub(super) carriage_returns: bool,
    /// Where to try and break an instruction's line, modulo its length.
    pub(super) folds: Vec<usize>,
}

/// Writes a file.
pub(super) fn file(directives: &Directives, instructions: &[Instruction], style: &Style) -> String {
    let Directives { syntax, escape, check } = directives;
    let line_end = style.line_end();
    let mut text = String::new();
    let escape_text = escape.0.to_string();
    let lines =
        [("syntax", syntax.as_ref()), ("escape", Some(&escape_text)), ("check", check.as_ref())];
    for (name, value) in lines {
        text.extend(value.map(|value| format!("# {name}={value}{line_end}")));
    }
    for instruction in instructions {
        if style.comments {
            text += &format!("  # about it{line_end}{line_end}");
        }
        let written = self::instruction(instruction, *escape, style);
        let (line, bodies) = written.split_once('\n').unwrap_or((&written, ""));
        text += &format!("{}{line_end}{bodies}", style.fold(line, *escape));
        if !bodies.is_empty() {
            text += line_end;
        }
    }
    text
}

/// Writes an instruction: its line and, each with its terminator, its heredocs. This is also how
/// ONBUILD keeps it.
pub(super) fn instruction(instruction: &Instruction, escape: Escape, style: &Style) -> String {
    let shape = Shape::of(instruction, escape, style);
    let keyword = match style.lower_case {
        true => shape.keyword.to_lowercase(),
        false => shape.keyword.to_owned(),
    };
    let mut words = vec![keyword];
    words.extend(shape.flags);
    if shape.rest.starts_with("--") {
        words.push("--".to_owned());
    }
    if !shape.rest.is_empty() {
        words.push(shape.rest);
    }
    let body = |heredoc: &Heredoc| {
        let tabs = if heredoc.strip_tabs && style.indented { "\t\t" } else { "" };
        format!("\n{}{tabs}{}", heredoc.body, heredoc.name)
    };
    words.join(" ") + &shape.heredocs.into_iter().map(body).collect::<String>()
}

/// Writes the word that announces a heredoc.
pub(super) fn heredoc_word(heredoc: &Heredoc) -> String {
    let Heredoc { name, descriptor, expand, strip_tabs, body: _ } = heredoc;
    let descriptor = if *descriptor == 0 { String::new() } else { descriptor.to_string() };
    let dash = if *strip_tabs { "-" } else { "" };
    let delimiter = match (expand, name.contains('\'')) {
        (true, _) => escaped(name, &['\'', '"'], '\\'),
        (false, false) => format!("'{name}'"),
        (false, true) => format!("\"{}\"", escaped(name, &['"'], '\\')),
    };
    format!("{descriptor}<<{dash}{delimiter}")
}

impl Style {
    fn line_end(&self) -> &'static str {
        if self.carriage_returns { "\r\n" } else { "\n" }
    }

    /// Breaks a line where it may be broken.
    fn fold(&self, line: &str, escape: Escape) -> String {
        let mut places: Vec<usize> = self.folds.iter().map(|fold| fold % line.len()).collect();
        places.sort_unstable();
        let mut folded = String::new();
        let mut rest = line;
        for place in places {
            let place = place.saturating_sub(line.len() - rest.len());
            let Some((before, behind)) = rest.split_at_checked(place) else { continue };
            if before.ends_with(escape.0) || !stands_alone(before) || !stands_alone(behind) {
                continue;
            }
            folded += &format!("{before}{}{}", escape.0, self.line_end());
            if self.comments {
                folded += &format!("\t# more {}{}", escape.0, self.line_end());
            }
            rest = behind;
        }
        folded + rest
    }
}

/// Whether a piece of a line is neither blank nor a comment.
fn stands_alone(piece: &str) -> bool {
    let text = piece.trim_start();
    !text.is_empty() && !text.starts_with('#')
}

/// An instruction in the parts that all have.
struct Shape<'a> {
    keyword: &'static str,
    flags: Vec<String>,
    rest: String,
    heredocs: Vec<&'a Heredoc>,
}

impl<'a> Shape<'a> {
    fn new(keyword: &'static str, rest: impl Into<String>) -> Self {
        Self { keyword, flags: vec![], rest: rest.into(), heredocs: vec![] }
    }

    fn of(instruction: &'a Instruction, escape: Escape, style: &Style) -> Self {
        let flags = Flags { escape, given: vec![] };
        match instruction {
            Instruction::From(from) => Self::from(from, flags),
            Instruction::Arg(arg) => Self::new("ARG", arguments(arg)),
            Instruction::Run(run) => Self::run(run, flags),
            Instruction::Cmd(command) => Self::new("CMD", command_line(command)),
            Instruction::Label(label) => Self::new("LABEL", pairs(label)),
            Instruction::Maintainer(text) => Self::new("MAINTAINER", text),
            Instruction::Expose(ports) => Self::new("EXPOSE", ports.join(" ")),
            Instruction::Env(env) => Self::new("ENV", pairs(env)),
            Instruction::Add(add) => Self::add(add, flags, style),
            Instruction::Copy(copy) => Self::copy(copy, flags, style),
            Instruction::Entrypoint(command) => Self::new("ENTRYPOINT", command_line(command)),
            Instruction::Volume(paths) => {
                let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                Self::new("VOLUME", words(&paths, style))
            }
            Instruction::User(text) => Self::new("USER", text),
            Instruction::Workdir(text) => Self::new("WORKDIR", text),
            Instruction::Onbuild(trigger) => Self::new("ONBUILD", trigger),
            Instruction::Stopsignal(text) => Self::new("STOPSIGNAL", text),
            Instruction::Healthcheck(check) => Self::healthcheck(check, flags),
            Instruction::Shell(words) => Self::new("SHELL", json(words)),
        }
    }

    fn from(from: &From, flags: Flags) -> Self {
        let From { platform, base, name, as_keyword } = from;
        let words = [Some(base), as_keyword.as_ref(), name.as_ref()];
        let rest: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
        let flags = flags.text("platform", platform.as_deref());
        Self { flags: flags.given, ..Self::new("FROM", rest.join(" ")) }
    }

    fn run(run: &'a Run, flags: Flags) -> Self {
        let Run { mounts, network, security, devices, command, heredocs } = run;
        let flags = flags
            .list("mount", mounts)
            .text("network", network.as_deref())
            .text("security", security.as_deref())
            .list("device", devices);
        let heredocs = heredocs.iter().collect();
        Self { flags: flags.given, heredocs, ..Self::new("RUN", command_line(command)) }
    }

    fn copy(copy: &'a Copy, flags: Flags, style: &Style) -> Self {
        let Copy { from, chown, chmod, link, parents, exclude, sources, dest } = copy;
        let flags = flags
            .text("from", from.as_deref())
            .text("chown", chown.as_deref())
            .text("chmod", chmod.as_deref())
            .switch("link", *link)
            .switch("parents", *parents)
            .list("exclude", exclude);
        Self::transfer("COPY", flags, sources, dest, style)
    }

    fn add(add: &'a Add, flags: Flags, style: &Style) -> Self {
        let Add { chown, chmod, link, exclude, keep_git_dir, checksum, unpack, sources, dest } =
            add;
        let flags = flags
            .text("chown", chown.as_deref())
            .text("chmod", chmod.as_deref())
            .switch("link", *link)
            .list("exclude", exclude)
            .text("keep-git-dir", keep_git_dir.map(boolean))
            .text("checksum", checksum.as_deref())
            .text("unpack", unpack.map(boolean));
        Self::transfer("ADD", flags, sources, dest, style)
    }

    fn transfer(
        keyword: &'static str,
        flags: Flags,
        sources: &'a [Operand],
        dest: &str,
        style: &Style,
    ) -> Self {
        let mut operands = vec![];
        let mut heredocs = vec![];
        for source in sources {
            match source {
                Operand::Path(path) => operands.push(path.clone()),
                Operand::Heredoc(heredoc) => {
                    operands.push(heredoc_word(heredoc));
                    heredocs.push(heredoc);
                }
            }
        }
        operands.push(dest.to_owned());
        let rest = match heredocs.is_empty() {
            true => words(&operands.iter().map(String::as_str).collect::<Vec<_>>(), style),
            false => operands.join(" "),
        };
        Self { flags: flags.given, heredocs, ..Self::new(keyword, rest) }
    }

    fn healthcheck(check: &Healthcheck, flags: Flags) -> Self {
        let Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } =
            check
        else {
            return Self::new("HEALTHCHECK", "NONE");
        };
        let retries = (*retries != 0).then(|| retries.to_string());
        let flags = flags
            .text("interval", duration(*interval).as_deref())
            .text("timeout", duration(*timeout).as_deref())
            .text("start-period", duration(*start_period).as_deref())
            .text("start-interval", duration(*start_interval).as_deref())
            .text("retries", retries.as_deref());
        let rest = format!("CMD {}", command_line(command));
        Self { flags: flags.given, ..Self::new("HEALTHCHECK", rest) }
    }
}

/// Flags as they are written.
struct Flags {
    escape: Escape,
    given: Vec<String>,
}

impl Flags {
    fn text(mut self, name: &str, value: Option<&str>) -> Self {
        let plain = |c: char| c.is_alphanumeric() || "=,:/.-${}".contains(c);
        self.given.extend(value.map(|value| match value.chars().all(plain) {
            true => format!("--{name}={value}"),
            false => {
                format!("--{name}=\"{}\"", escaped(value, &['"', self.escape.0], self.escape.0))
            }
        }));
        self
    }

    fn list(self, name: &str, values: &[String]) -> Self {
        values.iter().fold(self, |flags, value| flags.text(name, Some(value)))
    }

    fn switch(mut self, name: &str, on: bool) -> Self {
        self.given.extend(on.then(|| format!("--{name}")));
        self
    }
}

fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn duration(nanoseconds: i64) -> Option<String> {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    (nanoseconds != 0)
        .then(|| format!("{}h{}m{}s{rest}ns", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

fn escaped(text: &str, special: &[char], escape: char) -> String {
    let mut out = String::new();
    for c in text.chars() {
        out.extend(special.contains(&c).then_some(escape));
        out.push(c);
    }
    out
}

fn arguments(arg: &Arg) -> String {
    let word = |(name, default): &(String, Option<String>)| match default {
        Some(default) => format!("{name}={default}"),
        None => name.clone(),
    };
    arg.args.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn pairs(pairs: &Pairs) -> String {
    let sign = if pairs.legacy { " " } else { "=" };
    let pair = |(name, value): &(String, String)| format!("{name}{sign}{value}");
    pairs.pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
}

fn command_line(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => text.clone(),
        CommandLine::Exec(words) => json(words),
    }
}

/// Writes words with blanks between them or, where one would not come back so, as JSON.
fn words(words: &[&str], style: &Style) -> String {
    let plain = |word: &&str| {
        let alone = !word.is_empty() && !word.contains(char::is_whitespace);
        alone && !word.starts_with('[') && !word.contains("<<") && !word.ends_with(['\\', '`'])
    };
    match words.iter().all(plain) && !style.json {
        true => words.join(" "),
        false => json(words),
    }
}

fn json(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    serde_json::to_string(&words).unwrap()
}
