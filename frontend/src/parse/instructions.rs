//! Words to instructions: how many there must be, which flags there are, what they may be.

use super::Refusal;
use super::duration;
use super::flags::{Flags, Kind};
use super::heredoc;
use super::statement::{Arguments, KEYWORDS, Statement};
use super::words::Part;
use crate::ast::{
    Add, Arg, CommandLine, Copy, From, Healthcheck, Heredoc, Instruction, Operand, Pairs, Run,
};
use crate::did_you_mean;

/// Makes an instruction of a line's `text`, cut as `statement` says.
pub(super) fn understand(
    text: &str,
    statement: &Statement,
    heredocs: &[Heredoc],
) -> Result<Instruction, Refusal> {
    let line = Line { text, statement, heredocs };
    match statement.name.as_str() {
        "ADD" => line.add().map(Instruction::Add),
        "ARG" => line.arg().map(Instruction::Arg),
        "CMD" => line.command().map(Instruction::Cmd),
        "COPY" => line.copy().map(Instruction::Copy),
        "ENTRYPOINT" => line.command().map(Instruction::Entrypoint),
        "ENV" => line.pairs().map(Instruction::Env),
        "EXPOSE" => line.words().map(Instruction::Expose),
        "FROM" => line.from().map(Instruction::From),
        "HEALTHCHECK" => line.healthcheck().map(Instruction::Healthcheck),
        "LABEL" => line.pairs().map(Instruction::Label),
        "MAINTAINER" => line.rest_of_line().map(Instruction::Maintainer),
        "ONBUILD" => line.onbuild().map(Instruction::Onbuild),
        "RUN" => line.run().map(Instruction::Run),
        "SHELL" => line.shell().map(Instruction::Shell),
        "STOPSIGNAL" => line.rest_of_line().map(Instruction::Stopsignal),
        "USER" => line.rest_of_line().map(Instruction::User),
        "VOLUME" => line.volume().map(Instruction::Volume),
        "WORKDIR" => line.rest_of_line().map(Instruction::Workdir),
        _ => Err(line.unknown()),
    }
}

/// One line on its way to an instruction.
struct Line<'a> {
    text: &'a str,
    statement: &'a Statement,
    heredocs: &'a [Heredoc],
}

impl Line<'_> {
    fn owned(&self, part: &Part) -> String {
        self.text[part.clone()].to_owned()
    }

    fn rest(&self) -> String {
        self.owned(&self.statement.rest)
    }

    /// Refuses the arguments, or the keyword where there are none.
    fn refuse(&self, message: impl Into<String>) -> Refusal {
        let part = match self.statement.rest.is_empty() {
            true => self.statement.keyword.clone(),
            false => self.statement.rest.clone(),
        };
        Refusal::at(part, message)
    }

    fn needs_argument(&self) -> Refusal {
        let name = &self.statement.name;
        self.refuse(format!("{name} requires at least one argument"))
    }

    fn flags(&self, known: &[(&str, Kind)]) -> Result<Flags, Refusal> {
        Flags::check(&self.statement.flags, known)
    }

    fn no_flags(&self) -> Result<(), Refusal> {
        self.flags(&[]).map(drop)
    }

    /// The arguments one by one, as text.
    fn arguments(&self) -> Vec<String> {
        match &self.statement.arguments {
            Arguments::Words(words) => words.iter().map(|word| self.owned(word)).collect(),
            Arguments::Json(strings) => strings.clone(),
            Arguments::Text
            | Arguments::Pairs { .. }
            | Arguments::Check { .. }
            | Arguments::Trigger(_) => Vec::new(),
        }
    }

    fn unknown(&self) -> Refusal {
        let keyword = self.owned(&self.statement.keyword);
        let lower = !keyword.contains(char::is_uppercase);
        let near = usual_word(&keyword).or_else(|| did_you_mean(&keyword, KEYWORDS));
        Refusal::at(self.statement.keyword.clone(), format!("unknown instruction: {keyword}"))
            .suggest(near.map(|near| if lower { near.to_lowercase() } else { near.to_owned() }))
    }

    fn from(&self) -> Result<From, Refusal> {
        let words = self.arguments();
        let (base, as_keyword, name) = match words.as_slice() {
            [base] => (base, None, None),
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
                if !is_stage_name(&name.to_lowercase()) {
                    return Err(self.refuse(format!(
                        "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                    )));
                }
                (base, Some(keyword.clone()), Some(name.clone()))
            }
            _ => {
                return Err(self
                    .refuse("FROM requires either one or three arguments")
                    .help("write `FROM image` or `FROM image AS name`"));
            }
        };
        let flags = self.flags(&[("platform", Kind::Text)])?;
        Ok(From { platform: flags.text("platform"), base: base.clone(), name, as_keyword })
    }

    fn arg(&self) -> Result<Arg, Refusal> {
        let words = self.arguments();
        if words.is_empty() {
            return Err(self.needs_argument());
        }
        self.no_flags()?;
        let args: Vec<(String, Option<String>)> = words
            .iter()
            .map(|word| match word.split_once('=') {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word.clone(), None),
            })
            .collect();
        if args.iter().any(|(name, _)| name.is_empty()) {
            return Err(self.refuse("ARG names can not be blank"));
        }
        Ok(Arg { args })
    }

    fn pairs(&self) -> Result<Pairs, Refusal> {
        self.no_flags()?;
        let Arguments::Pairs { pairs, legacy } = &self.statement.arguments else {
            return Err(self.needs_argument());
        };
        if pairs.is_empty() {
            return Err(self.needs_argument());
        }
        if let Some((_, value)) = pairs.iter().find(|(name, _)| name.is_empty()) {
            let message = format!("{} names can not be blank", self.statement.name);
            return Err(Refusal::at(value.start - 1..value.end, message));
        }
        let pairs =
            pairs.iter().map(|(name, value)| (self.owned(name), self.owned(value))).collect();
        Ok(Pairs { pairs, legacy: *legacy })
    }

    /// The one argument of USER and others: all that is left of the line.
    fn rest_of_line(&self) -> Result<String, Refusal> {
        if self.statement.rest.is_empty() {
            let name = &self.statement.name;
            return Err(self.refuse(format!("{name} requires exactly one argument")));
        }
        self.no_flags()?;
        Ok(self.rest())
    }

    fn words(&self) -> Result<Vec<String>, Refusal> {
        let words = self.arguments();
        if words.is_empty() {
            return Err(self.needs_argument());
        }
        self.no_flags()?;
        Ok(words)
    }

    fn volume(&self) -> Result<Vec<String>, Refusal> {
        let volumes: Vec<String> =
            self.words()?.iter().map(|word| word.trim().to_owned()).collect();
        if volumes.iter().any(String::is_empty) {
            return Err(self.refuse("VOLUME specified can not be an empty string"));
        }
        Ok(volumes)
    }

    fn shell(&self) -> Result<Vec<String>, Refusal> {
        self.no_flags()?;
        match &self.statement.arguments {
            Arguments::Json(strings) if !strings.is_empty() => Ok(strings.clone()),
            Arguments::Text if !self.statement.rest.is_empty() => Err(self
                .refuse("SHELL requires the arguments to be in JSON form")
                .help("write `SHELL [\"/bin/bash\", \"-c\"]`")),
            _ => Err(self.needs_argument()),
        }
    }

    fn command_line(&self) -> CommandLine {
        match &self.statement.arguments {
            Arguments::Json(strings) => CommandLine::Exec(strings.clone()),
            Arguments::Text
            | Arguments::Words(_)
            | Arguments::Pairs { .. }
            | Arguments::Check { .. }
            | Arguments::Trigger(_) => CommandLine::Shell(self.rest()),
        }
    }

    fn command(&self) -> Result<CommandLine, Refusal> {
        self.no_flags()?;
        Ok(self.command_line())
    }

    fn run(&self) -> Result<Run, Refusal> {
        let flags = self.flags(&[
            ("mount", Kind::List),
            ("network", Kind::Text),
            ("security", Kind::Text),
            ("device", Kind::List),
        ])?;
        let network = flags.text("network");
        if let Some(mode) = &network
            && !matches!(mode.as_str(), "default" | "none" | "host")
        {
            let refusal =
                Refusal::at(flags.part("network"), format!("invalid network mode {mode:?}"));
            return Err(refusal.help("it is one of `default`, `none` and `host`"));
        }
        let security = flags.text("security");
        if let Some(mode) = &security
            && !matches!(mode.as_str(), "sandbox" | "insecure")
        {
            let refusal =
                Refusal::at(flags.part("security"), format!("security {mode:?} is not valid"));
            return Err(refusal.help("it is `sandbox` or `insecure`"));
        }
        let command = self.command_line();
        if command == CommandLine::Exec(Vec::new()) {
            return Err(self.needs_argument());
        }
        Ok(Run {
            mounts: flags.list("mount"),
            network,
            security,
            devices: flags.list("device"),
            command,
            heredocs: self.heredocs.to_vec(),
        })
    }

    fn copy(&self) -> Result<Copy, Refusal> {
        let words = self.at_least_two()?;
        let flags = self.flags(&[
            ("from", Kind::Text),
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("parents", Kind::Bool),
            ("exclude", Kind::List),
        ])?;
        let (sources, dest) = self.sources_and_dest(words)?;
        Ok(Copy {
            from: flags.text("from"),
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.boolean("link").unwrap_or_default(),
            parents: flags.boolean("parents").unwrap_or_default(),
            exclude: flags.list("exclude"),
            sources,
            dest,
        })
    }

    fn add(&self) -> Result<Add, Refusal> {
        let words = self.at_least_two()?;
        let flags = self.flags(&[
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("keep-git-dir", Kind::Bool),
            ("checksum", Kind::Text),
            ("unpack", Kind::Bool),
            ("exclude", Kind::List),
        ])?;
        let (sources, dest) = self.sources_and_dest(words)?;
        Ok(Add {
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.boolean("link").unwrap_or_default(),
            exclude: flags.list("exclude"),
            keep_git_dir: flags.boolean("keep-git-dir"),
            checksum: flags.text("checksum"),
            unpack: flags.boolean("unpack"),
            sources,
            dest,
        })
    }

    fn at_least_two(&self) -> Result<Vec<String>, Refusal> {
        let words = self.arguments();
        if words.len() < 2 {
            let name = &self.statement.name;
            return Err(self
                .refuse(format!("{name} requires at least two arguments, but only one was provided. Destination could not be determined"))
                .help(format!("write `{name} SOURCE DESTINATION`")));
        }
        Ok(words)
    }

    fn sources_and_dest(&self, mut words: Vec<String>) -> Result<(Vec<Operand>, String), Refusal> {
        let dest = words.pop().unwrap_or_default();
        if self.heredoc(&dest).is_some() {
            let name = &self.statement.name;
            return Err(self.refuse(format!("{name} cannot accept a heredoc as a destination")));
        }
        let operand = |word: String| match self.heredoc(&word) {
            Some(heredoc) => Operand::Heredoc(heredoc),
            None => Operand::Path(word),
        };
        Ok((words.into_iter().map(operand).collect(), dest))
    }

    /// The heredoc that a word stands for. Of two with the same name the last has the body.
    fn heredoc(&self, word: &str) -> Option<Heredoc> {
        if matches!(self.statement.arguments, Arguments::Json(_)) {
            return None;
        }
        let mut heredoc = heredoc::parse(word).ok().flatten()?;
        let read = self.heredocs.iter().rev().find(|read| read.name == heredoc.name);
        heredoc.body = read.map(|read| read.body.clone()).unwrap_or_default();
        Some(heredoc)
    }

    fn onbuild(&self) -> Result<String, Refusal> {
        if self.statement.rest.is_empty() {
            return Err(self.needs_argument());
        }
        self.no_flags()?;
        let Arguments::Trigger(trigger) = &self.statement.arguments else {
            return Err(self.refuse("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
        };
        if matches!(trigger.name.as_str(), "FROM" | "MAINTAINER") {
            let message = format!("{} isn't allowed as an ONBUILD trigger", trigger.name);
            return Err(Refusal::at(trigger.keyword.clone(), message));
        }
        let mut text = self.text[self.statement.rest.start..].to_owned();
        for heredoc in self.heredocs {
            text = text + "\n" + &heredoc.body + &heredoc.name;
        }
        Ok(text)
    }

    fn healthcheck(&self) -> Result<Healthcheck, Refusal> {
        let Arguments::Check { kind, command, json } = &self.statement.arguments else {
            return Err(self.needs_argument());
        };
        let name = self.text[kind.clone()].to_uppercase();
        match name.as_str() {
            "" => return Err(self.needs_argument()),
            "NONE" if command.is_empty() => return Ok(Healthcheck::None),
            "NONE" => return Err(self.refuse("HEALTHCHECK NONE takes no arguments")),
            _ => {}
        }
        let flags = self.flags(&[
            ("interval", Kind::Text),
            ("timeout", Kind::Text),
            ("start-period", Kind::Text),
            ("start-interval", Kind::Text),
            ("retries", Kind::Text),
        ])?;
        if name != "CMD" {
            let message = format!("Unknown type {name:?} in HEALTHCHECK (try CMD)");
            return Err(Refusal::at(kind.clone(), message));
        }
        let command = match json {
            Some(strings) => CommandLine::Exec(strings.clone()),
            None => CommandLine::Shell(self.owned(command)),
        };
        if matches!(&command, CommandLine::Exec(strings) if strings.is_empty())
            || command == CommandLine::Shell(String::new())
        {
            return Err(self.refuse("Missing command after HEALTHCHECK CMD"));
        }
        Ok(Healthcheck::Cmd {
            command,
            interval: interval(&flags, "interval")?,
            timeout: interval(&flags, "timeout")?,
            start_period: interval(&flags, "start-period")?,
            start_interval: interval(&flags, "start-interval")?,
            retries: retries(&flags)?,
        })
    }
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
        })
}

/// A duration in nanoseconds; 0 if the flag is absent or empty.
fn interval(flags: &Flags, name: &str) -> Result<i64, Refusal> {
    let refuse = |message| Refusal::at(flags.part(name), message);
    let Some(text) = flags.text(name).filter(|text| !text.is_empty()) else { return Ok(0) };
    let duration =
        duration::parse(&text).map_err(|message| refuse(message).help("write `30s` or `1m30s`"))?;
    if duration != 0 && duration < 1_000_000 {
        return Err(refuse(format!("Interval {name:?} cannot be less than 1ms")));
    }
    Ok(duration)
}

fn retries(flags: &Flags) -> Result<i64, Refusal> {
    let Some(text) = flags.text("retries").filter(|text| !text.is_empty()) else { return Ok(0) };
    let refuse = |message| Refusal::at(flags.part("retries"), message);
    match text.parse::<i32>() {
        Ok(number) if number < 0 => Err(refuse(format!("--retries cannot be negative ({number})"))),
        Ok(number) => Ok(i64::from(number)),
        Err(_) => Err(refuse(format!("--retries must be a number, not {text:?}"))),
    }
}

/// The instruction that does what other tools, shells and languages call `word`.
fn usual_word(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_uppercase().as_str() {
        "PORT" | "PORTS" | "LISTEN" | "PUBLISH" => "EXPOSE",
        "CP" | "MV" | "MOVE" | "FILE" | "FILES" => "COPY",
        "DOWNLOAD" | "FETCH" | "GET" | "WGET" | "CURL" | "UNPACK" | "EXTRACT" => "ADD",
        "SH" | "BASH" | "EXEC" | "EXECUTE" | "INSTALL" | "SCRIPT" | "SUDO" | "APT" | "APT-GET"
        | "APK" | "YUM" | "DNF" | "PIP" | "NPM" | "ECHO" | "MKDIR" | "CHMOD" | "CHOWN" | "MAKE" => {
            "RUN"
        }
        "COMMAND" | "START" | "ARGS" => "CMD",
        "INIT" | "MAIN" => "ENTRYPOINT",
        "CD" | "CHDIR" | "DIR" | "DIRECTORY" | "PWD" | "WORKINGDIR" => "WORKDIR",
        "MOUNT" | "VOLUMES" => "VOLUME",
        "SET" | "EXPORT" | "VAR" | "ENVIRONMENT" | "SETENV" => "ENV",
        "BASE" | "IMAGE" | "IMPORT" | "USE" | "EXTENDS" | "INHERIT" => "FROM",
        "PARAM" | "PARAMETER" | "ARGUMENT" | "VARIABLE" => "ARG",
        "AUTHOR" | "META" | "METADATA" | "TAG" | "ANNOTATION" | "DESCRIPTION" | "VERSION" => {
            "LABEL"
        }
        "HEALTH" | "CHECK" => "HEALTHCHECK",
        "SIGNAL" | "KILLSIGNAL" => "STOPSIGNAL",
        "UID" | "GROUP" => "USER",
        _ => return None,
    })
}
