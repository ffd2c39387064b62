//! Text to AST.
//!
//! Three steps, each blind to the others: [`lines`] joins what belongs together, [`statement`]
//! cuts it into words as the keyword demands, [`instructions`] makes an [`Instruction`] of it.
//! An error of the last step says `dockerfile parse error on line N: `, those before don't: other
//! programs match on that.

mod checks;
mod directives;
mod duration;
mod flags;
mod heredoc;
mod instructions;
mod lines;
mod statement;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::sync::Arc;

use crate::ast::{Directives, Escape, Heredoc, Instruction, Node};
use crate::{Diagnostic, Dockerfile, Source};
use lines::{LogicalLine, Reader};
use statement::Statement;
use words::Part;

pub use directives::refuse_foreign_syntax;

/// Parses a Dockerfile.
pub fn parse(source: Source) -> Result<Dockerfile, Diagnostic> {
    match parse_until_error(source) {
        (dockerfile, None) => Ok(dockerfile),
        (_, Some(error)) => Err(error),
    }
}

/// Parses a Dockerfile as far as it goes: returns the instructions before the first error, with
/// what the checks say of each, and the error. For those who show warnings also then.
pub fn parse_until_error(source: Source) -> (Dockerfile, Option<Diagnostic>) {
    let source = Arc::new(source);
    let mut dockerfile = Dockerfile {
        source: Arc::clone(&source),
        directives: Directives::default(),
        instructions: Vec::new(),
        warnings: Vec::new(),
    };
    let statements = match read_file(&source, &mut dockerfile.directives) {
        Ok(statements) => statements,
        Err(error) => return (dockerfile, Some(error)),
    };
    // Those of the lines are found in the whole file, whatever an instruction says.
    dockerfile.warnings = checks::run_on_lines(statements.iter().map(|read| &read.line));
    let (instructions, error) = understand(&source, statements);
    dockerfile.warnings.extend(match error {
        None => checks::run(&instructions, dockerfile.directives.escape),
        Some(_) => checks::run_alone(&instructions),
    });
    dockerfile.instructions = instructions;
    (dockerfile, error)
}

fn read_file(source: &Source, directives: &mut Directives) -> Result<Vec<Read>, Diagnostic> {
    if source.text.is_empty() {
        return Err(Diagnostic::new(source, 0..0, "the Dockerfile cannot be empty").in_no_line());
    }
    let lines;
    (*directives, lines) = directives::read(source)?;
    let statements = read(source, directives.escape, lines)?;
    if statements.is_empty() {
        return Err(Diagnostic::new(source, 0..0, "file with no instructions")
            .in_no_line()
            .help("begin with `FROM image`"));
    }
    Ok(statements)
}

/// Parses the text of an ONBUILD trigger, as the image config holds it. The places in the node
/// are those in `text`; its escape character is the backslash, whatever file it is run in.
pub fn parse_trigger(text: &str) -> Result<Node, Diagnostic> {
    let source = Source::new("ONBUILD", text);
    let statements = read(&source, Escape::default(), 0)?;
    let mut statements = statements.into_iter();
    let (Some(read), None) = (statements.next(), statements.next()) else {
        let message = "onbuild trigger should be a single expression";
        return Err(Diagnostic::new(&source, 0..text.len(), message));
    };
    let place = |refusal: Refusal| refusal.into_diagnostic(&source, &read.line);
    let instruction = instructions::understand(&read.line.text, &read.statement, &read.heredocs)
        .map_err(place)?;
    if matches!(instruction, Instruction::From(_)) {
        let refusal = Refusal::at(0..0, "FROM isn't allowed as an ONBUILD trigger");
        return Err(refusal.into_diagnostic(&source, &read.line));
    }
    Ok(read.into_node(instruction))
}

/// What is wrong with a line, before it is known where that stands in the file.
#[derive(Debug)]
struct Refusal {
    message: String,
    help: Option<String>,
    suggestion: Option<String>,
    part: Part,
}

impl Refusal {
    fn at(part: Part, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, suggestion: None, part }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn suggest(self, suggestion: Option<impl fmt::Display>) -> Self {
        Self { suggestion: suggestion.map(|suggestion| suggestion.to_string()), ..self }
    }

    fn on_line(mut self, number: usize) -> Self {
        self.message = format!("dockerfile parse error on line {number}: {}", self.message);
        self
    }

    fn into_diagnostic(self, source: &Source, line: &LogicalLine) -> Diagnostic {
        let span = match self.part.is_empty() {
            true => line.span.clone(),
            false => line.span_of(&self.part),
        };
        let diagnostic = Diagnostic::new(source, span, self.message)
            .in_lines(line.numbers.clone())
            .suggest(self.suggestion);
        match self.help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }
}

/// A line with all that belongs to it, not yet understood.
struct Read {
    line: LogicalLine,
    statement: Statement,
    heredocs: Vec<Heredoc>,
}

impl Read {
    fn into_node(self, instruction: Instruction) -> Node {
        Node {
            instruction,
            keyword: self.line.text[self.statement.keyword].to_owned(),
            text: self.line.text.trim().to_owned(),
            span: self.line.span,
            lines: self.line.numbers,
            comments: self.line.comments,
        }
    }
}

fn read(source: &Source, escape: Escape, directives: usize) -> Result<Vec<Read>, Diagnostic> {
    let mut reader = Reader::new(source, escape.0, directives);
    let mut found = Vec::new();
    while let Some(mut line) = reader.next_line()? {
        let statement = Statement::cut(&line.text, 0..line.text.len(), escape.0)
            .map_err(|refusal| refusal.into_diagnostic(source, &line))?;
        let heredocs = match statement.may_have_heredocs() {
            true => read_heredocs(source, &mut reader, &mut line)?,
            false => Vec::new(),
        };
        found.push(Read { line, statement, heredocs });
    }
    Ok(found)
}

fn read_heredocs(
    source: &Source,
    reader: &mut Reader<'_>,
    line: &mut LogicalLine,
) -> Result<Vec<Heredoc>, Diagnostic> {
    let refuse = |line: &LogicalLine, message: &str| {
        Refusal::at(0..line.text.len(), message).into_diagnostic(source, line)
    };
    let mut heredocs =
        heredoc::announced(&line.text).map_err(|error| refuse(line, &error.to_string()))?;
    for heredoc in &mut heredocs {
        let body = reader.heredoc_body(&heredoc.name, heredoc.strip_tabs, line)?;
        heredoc.body = body.ok_or_else(|| {
            refuse(line, "unterminated heredoc")
                .help(format!("end it with a line that is `{}` alone", heredoc.name))
        })?;
    }
    Ok(heredocs)
}

/// Makes instructions of statements, up to the first error.
fn understand(source: &Source, statements: Vec<Read>) -> (Vec<Node>, Option<Diagnostic>) {
    let mut in_stage = false;
    let mut nodes = Vec::with_capacity(statements.len());
    for read in statements {
        let instruction = match understand_one(&read, &mut in_stage) {
            Ok(instruction) => instruction,
            Err(refusal) => return (nodes, Some(refusal.into_diagnostic(source, &read.line))),
        };
        nodes.push(read.into_node(instruction));
    }
    let no_stage = (!in_stage).then(|| {
        Diagnostic::new(source, 0..0, "dockerfile contains no stages to build")
            .in_no_line()
            .help("add `FROM image`")
    });
    (nodes, no_stage)
}

fn understand_one(read: &Read, in_stage: &mut bool) -> Result<Instruction, Refusal> {
    let Read { line, statement, heredocs } = read;
    let instruction = instructions::understand(&line.text, statement, heredocs)
        .map_err(|refusal| refusal.on_line(*line.numbers.start()))?;
    *in_stage |= matches!(instruction, Instruction::From(_));
    if !*in_stage && !matches!(instruction, Instruction::Arg(_)) {
        let refusal = Refusal::at(statement.keyword.clone(), "no build stage in current context");
        return Err(refusal.help("begin with `FROM image`; only ARG can stand before it"));
    }
    Ok(instruction)
}
