//! Comparison with the tables from BuildKit's own tests, where they are there.

use std::fmt::Write as _;

use serde::Deserialize;

use super::*;
use crate::parse::statement::Arguments;
use crate::parse::words::Part;
use crate::test_data::{test_data, test_text};

const TEST_FILES: [&str; 33] = [
    "ADD-COPY-with-JSON",
    "args",
    "brimstone-consuldock",
    "brimstone-docker-consul",
    "continue-at-eof",
    "continueIndent",
    "cpuguy83-nagios",
    "docker",
    "env",
    "escape",
    "escape-after-comment",
    "escape-nonewline",
    "escape-with-syntax",
    "escapes",
    "flags",
    "health",
    "influxdb",
    "jeztah-invalid-json-json-inside-string",
    "jeztah-invalid-json-json-inside-string-double",
    "jeztah-invalid-json-single-quotes",
    "jeztah-invalid-json-unterminated-bracket",
    "jeztah-invalid-json-unterminated-string",
    "json",
    "kartar-entrypoint-oddities",
    "lk4d4-the-edge-case-generator",
    "mail",
    "multiple-volumes",
    "mumble",
    "nginx",
    "tf2",
    "trailing-backslash",
    "weechat",
    "znc",
];

fn statements(text: &str) -> Result<Vec<Read>, Diagnostic> {
    let source = Source::new("Dockerfile", text);
    let (directives, lines) = directives::read(&source)?;
    read(&source, directives.escape, lines)
}

/// Writes a statement as the tables do: `(copy ["--from=a"] "b" "c")`.
fn dump(text: &str, statement: &Statement) -> String {
    let mut out = format!("({}", text[statement.keyword.clone()].to_lowercase());
    if !statement.flags.is_empty() {
        let flags: Vec<String> = statement.flags.iter().map(|flag| quoted(&flag.text)).collect();
        write!(out, " [{}]", flags.join(" ")).unwrap();
    }
    let word = |part: &Part| text[part.clone()].to_owned();
    let words: Vec<String> = match &statement.arguments {
        Arguments::Text if statement.rest.is_empty() => vec![],
        Arguments::Text => vec![word(&statement.rest)],
        Arguments::Words(words) => words.iter().map(word).collect(),
        Arguments::Json(strings) => strings.clone(),
        Arguments::Pairs { pairs, legacy } => {
            let sign = if *legacy { "" } else { "=" };
            pairs
                .iter()
                .flat_map(|(name, value)| [word(name), word(value), sign.to_owned()])
                .collect()
        }
        Arguments::Check { kind, .. } if kind.is_empty() => vec![],
        Arguments::Check { kind, json: Some(strings), .. } => {
            [vec![word(kind)], strings.clone()].concat()
        }
        Arguments::Check { kind, command, .. } if command.is_empty() => vec![word(kind)],
        Arguments::Check { kind, command, .. } => vec![word(kind), word(command)],
        Arguments::Trigger(trigger) => {
            write!(out, " {}", dump(text, trigger)).unwrap();
            vec![]
        }
    };
    for word in words {
        write!(out, " {}", quoted(&word)).unwrap();
    }
    out + ")"
}

/// Quotes a text as Go does.
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '\u{8}' => "\\b".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

#[test]
fn cuts_the_test_files_as_buildkit_does() {
    for name in TEST_FILES {
        let part = |part: &str| test_text(&format!("parser/testfiles/{name}/{part}"));
        let (Some(text), Some(expected)) = (part("Dockerfile"), part("result")) else { continue };
        let found: Vec<String> =
            statements(&text).unwrap().iter().map(|r| dump(&r.line.text, &r.statement)).collect();
        assert_eq!(found.join("\n"), expected.trim(), "{name}");
    }
}

#[test]
fn refuses_the_negative_test_files() {
    for name in ["empty_dockerfile", "env_no_value", "only_comments", "shykes-nested-json"] {
        let file = format!("parser/testfiles-negative/{name}/Dockerfile");
        let Some(text) = test_text(&file) else { return };
        assert!(parse(Source::new("Dockerfile", text)).is_err(), "{name}");
    }
}

#[test]
fn numbers_lines_as_buildkit_does() {
    #[derive(Deserialize)]
    struct Expected {
        children: Vec<(usize, usize)>,
    }
    let Some(text) = test_text("parser/testfile-line/Dockerfile") else { return };
    let expected: Expected = test_data("parser/testfile-line/expected.json").unwrap();
    let nodes = file(&text).instructions;
    let found: Vec<_> = nodes.iter().map(|n| (*n.lines.start(), *n.lines.end())).collect();
    assert_eq!(found, expected.children);
}

#[test]
fn finds_the_heredocs_that_buildkit_finds() {
    #[derive(Deserialize)]
    struct Expected {
        name: String,
        #[serde(default)]
        filedescriptor: u32,
        #[serde(default)]
        expand: bool,
        #[serde(default)]
        chomp: bool,
        content: String,
    }
    #[derive(Deserialize)]
    struct Table {
        dockerfile: String,
        #[serde(rename = "heredocs_of_each_instruction_after_FROM")]
        heredocs: Vec<Vec<Expected>>,
    }
    let Some(table) = test_data::<Table>("parser/heredocs.json") else { return };
    let found = statements(&table.dockerfile).unwrap();
    for (read, expected) in found.iter().skip(1).zip(table.heredocs) {
        let expected: Vec<Heredoc> = expected
            .into_iter()
            .map(|e| Heredoc {
                name: e.name,
                descriptor: e.filedescriptor,
                expand: e.expand,
                strip_tabs: e.chomp,
                body: e.content,
            })
            .collect();
        assert_eq!(read.heredocs, expected, "{}", read.line.text);
    }
}

#[test]
fn finds_the_empty_continuations_that_buildkit_finds() {
    #[derive(Deserialize)]
    struct Table {
        dockerfile: String,
        about: Vec<String>,
    }
    let Some(table) = test_data::<Table>("parser/empty_continuation.json") else { return };
    let found = statements(&table.dockerfile).unwrap();
    let about: Vec<&str> = found
        .iter()
        .filter(|read| read.line.empty_continuation.is_some())
        .map(|read| read.line.text.as_str())
        .collect();
    assert_eq!(about, table.about);
}

#[test]
fn refuses_the_instructions_that_buildkit_refuses() {
    #[derive(Deserialize)]
    struct Row {
        dockerfile: String,
        error_has: String,
    }
    let Some(rows) = test_data::<Vec<Row>>("instructions/errors.json") else { return };
    for row in rows {
        let found = wrong(&row.dockerfile);
        assert!(found.contains(&row.error_has), "{}: {found}", row.dockerfile);
    }
}

#[test]
fn reads_names_and_values_as_buildkit_does() {
    #[derive(Deserialize)]
    struct Row {
        instruction: String,
        input: String,
        expected: Option<Vec<String>>,
    }
    let Some(rows) = test_data::<Vec<Row>>("parser/nameval.json") else { return };
    for row in rows {
        let text = format!("{} {}", row.instruction, row.input);
        let found = statements(&text).ok().map(|found| dump(&text, &found[0].statement));
        let expected = row.expected.map(|words| {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            format!("({} {})", row.instruction.to_lowercase(), words.join(" "))
        });
        assert_eq!(found, expected);
    }
}

#[test]
fn reads_heredocs_of_copy_as_buildkit_does() {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Content {
        path: String,
        data: String,
        expand: bool,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Expected {
        dest_path: String,
        #[serde(default)]
        source_paths: Vec<String>,
        #[serde(default)]
        source_contents: Vec<Content>,
    }
    #[derive(Deserialize)]
    struct Row {
        dockerfile: String,
        #[serde(rename = "sourcesAndDest")]
        expected: Expected,
    }
    let Some(rows) = test_data::<Vec<Row>>("instructions/copy_heredoc.json") else { return };
    for Row { dockerfile, expected } in rows {
        let Instruction::Copy(copy) = only(&dockerfile) else { panic!("no COPY") };
        let (mut paths, mut contents) = (vec![], vec![]);
        for source in copy.sources {
            match source {
                Operand::Path(path) => paths.push(path),
                Operand::Heredoc(h) => contents.push((h.name.clone(), h.content(), h.expand)),
            }
        }
        let expected_contents: Vec<_> =
            expected.source_contents.into_iter().map(|c| (c.path, c.data, c.expand)).collect();
        assert_eq!((copy.dest, paths), (expected.dest_path, expected.source_paths));
        assert_eq!(contents, expected_contents);
    }
}

#[test]
fn reads_heredocs_of_run_as_buildkit_does() {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Content {
        name: String,
        data: String,
        #[serde(default)]
        chomp: bool,
    }
    #[derive(Deserialize)]
    struct Row {
        dockerfile: String,
        command: Vec<String>,
        shell: bool,
        #[serde(default)]
        files: Vec<Content>,
    }
    let Some(rows) = test_data::<Vec<Row>>("instructions/run_heredoc.json") else { return };
    for row in rows {
        let Instruction::Run(run) = only(&row.dockerfile) else { panic!("no RUN") };
        let command = match row.shell {
            true => CommandLine::Shell(row.command.concat()),
            false => CommandLine::Exec(row.command),
        };
        assert_eq!(run.command, command);
        let found: Vec<_> =
            run.heredocs.into_iter().map(|h| (h.name, h.body, h.strip_tabs)).collect();
        let expected: Vec<_> =
            row.files.into_iter().map(|file| (file.name, file.data, file.chomp)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn reads_healthchecks_as_buildkit_does() {
    #[derive(Deserialize)]
    struct Row {
        value: String,
        error_has: Option<String>,
    }
    #[derive(Deserialize)]
    struct Table {
        interval: Vec<Row>,
    }
    let Some(table) = test_data::<Table>("instructions/healthcheck.json") else { return };
    for row in table.interval {
        let text = format!("HEALTHCHECK --interval={} CMD a", row.value);
        match row.error_has {
            Some(expected) => assert!(wrong(&text).contains(&expected)),
            None => assert!(matches!(only(&text), Instruction::Healthcheck(_))),
        }
    }
}

#[test]
fn reads_descriptions_as_buildkit_does() {
    #[derive(Deserialize)]
    struct Described {
        key: String,
        comment: String,
    }
    #[derive(Deserialize)]
    struct Table {
        dockerfile: String,
        stage_comment: String,
        meta_args: Vec<Described>,
        stage_args: Vec<Described>,
    }
    let Some(table) = test_data::<Table>("instructions/comments.json") else { return };
    let nodes = file(&table.dockerfile).instructions;
    let mut found = Vec::new();
    for node in &nodes {
        match &node.instruction {
            Instruction::Arg(arg) => found.extend(arg.args.iter().map(|(name, _)| {
                (name.clone(), node.description(name).unwrap_or_default().to_owned())
            })),
            Instruction::From(from) => {
                let name = from.name.as_deref().unwrap();
                assert_eq!(node.description(name), Some(table.stage_comment.as_str()));
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<_> = table.meta_args.into_iter().chain(table.stage_args).collect();
    let expected: Vec<_> = expected.into_iter().map(|d| (d.key, d.comment)).collect();
    assert_eq!(found, expected);
}
