//! What is written from an AST is read as the same AST, however it is laid out.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::string::string_regex;
use proptest::test_runner::TestCaseError;

use super::print::{self, Style};
use super::*;
use crate::ast::{Add, Arg, CommandLine, Copy, From, Healthcheck, Operand, Pairs, Run};

/// Some letters, and all that means something somewhere.
const ODD: &str = r#"[a-cA-Z0-9é\x{a0}_${}:/.@'"\\`#=<,\[\]!*?|&;-]"#;

const BACKSLASH: Escape = Escape('\\');

proptest! {
    #[test]
    fn what_is_printed_is_read_as_it_was((directives, instructions) in file(), style in style()) {
        let text = print::file(&directives, &instructions, &style);
        let parsed = read_again(parse(Source::new("Dockerfile", &text)), &text)?;
        let read: Vec<_> = parsed.instructions.into_iter().map(|node| node.instruction).collect();
        prop_assert_eq!(parsed.directives, directives, "{}", text);
        prop_assert_eq!(read, instructions, "{}", text);
    }

    #[test]
    fn a_trigger_is_read_as_what_it_was_made_of(instruction in triggered(BACKSLASH)) {
        let text = print::instruction(&instruction, BACKSLASH, &Style::default());
        let node = read_again(parse_trigger(&text), &text)?;
        prop_assert_eq!(node.instruction, instruction, "{}", text);
    }
}

fn read_again<T>(found: Result<T, Diagnostic>, text: &str) -> Result<T, TestCaseError> {
    found.map_err(|error| TestCaseError::fail(format!("{error}\nin\n{text}")))
}

fn style() -> impl Strategy<Value = Style> {
    (any::<[bool; 5]>(), vec(any::<usize>(), 0..4)).prop_map(|(flags, folds)| {
        let [lower_case, json, indented, comments, carriage_returns] = flags;
        Style { lower_case, json, indented, comments, carriage_returns, folds }
    })
}

/// A file: ARGs, then stages.
fn file() -> impl Strategy<Value = (Directives, Vec<Instruction>)> {
    prop_oneof![Just(BACKSLASH), Just(Escape('`'))].prop_flat_map(|escape| {
        let stage = (from().prop_map(Instruction::From), vec(instruction(escape), 0..5))
            .prop_map(|(from, instructions)| [vec![from], instructions].concat());
        let args = vec(arg(escape).prop_map(Instruction::Arg), 0..3);
        let stages = vec(stage, 1..3).prop_map(|stages| stages.concat());
        (directives(escape), args, stages)
            .prop_map(|(directives, args, stages)| (directives, [args, stages].concat()))
    })
}

fn directives(escape: Escape) -> impl Strategy<Value = Directives> {
    let value = || option::of("[a-z0-9/.:@=;,-]{1,8}");
    (value(), value()).prop_map(move |(syntax, check)| Directives { syntax, escape, check })
}

/// What stands behind FROM.
fn instruction(escape: Escape) -> impl Strategy<Value = Instruction> {
    let kept = triggered(escape)
        .prop_map(move |trigger| print::instruction(&trigger, escape, &Style::default()));
    prop_oneof![
        8 => triggered(escape),
        1 => text().prop_map(Instruction::Maintainer),
        1 => kept.prop_map(Instruction::Onbuild),
    ]
}

/// What may stand behind ONBUILD.
fn triggered(escape: Escape) -> impl Strategy<Value = Instruction> {
    prop_oneof![
        run().prop_map(Instruction::Run),
        copy().prop_map(Instruction::Copy),
        add().prop_map(Instruction::Add),
        arg(escape).prop_map(Instruction::Arg),
        pairs(escape).prop_map(Instruction::Env),
        pairs(escape).prop_map(Instruction::Label),
        prop_oneof![command(), Just(shell(""))].prop_map(Instruction::Cmd),
        prop_oneof![command(), Just(exec(&[]))].prop_map(Instruction::Entrypoint),
        vec(word(), 1..3).prop_map(Instruction::Expose),
        vec(trimmed(json_word().boxed()), 1..3).prop_map(Instruction::Volume),
        text().prop_map(Instruction::User),
        text().prop_map(Instruction::Workdir),
        text().prop_map(Instruction::Stopsignal),
        healthcheck().prop_map(Instruction::Healthcheck),
        vec(json_word(), 1..3).prop_map(Instruction::Shell),
    ]
}

fn from() -> impl Strategy<Value = From> {
    let name = option::of(("[aA][sS]", "[a-zA-Z][a-zA-Z0-9._-]{0,5}"));
    (option::of(flag_value()), word(), name).prop_map(|(platform, base, name)| {
        let (as_keyword, name) = name.unzip();
        From { platform, base, name, as_keyword }
    })
}

fn arg(escape: Escape) -> impl Strategy<Value = Arg> {
    vec((name(), option::of(shell_word(escape))), 1..4).prop_map(|args| Arg { args })
}

fn pairs(escape: Escape) -> impl Strategy<Value = Pairs> {
    let pairs = |legacy| move |pairs| Pairs { pairs, legacy };
    prop_oneof![
        vec((name(), shell_word(escape)), 1..4).prop_map(pairs(false)),
        vec((name(), text()), 1).prop_map(pairs(true)),
    ]
}

fn command() -> impl Strategy<Value = CommandLine> {
    prop_oneof![
        text().prop_map(CommandLine::Shell),
        vec(json_word(), 1..4).prop_map(CommandLine::Exec),
    ]
}

fn run() -> impl Strategy<Value = Run> {
    let alone = (run_flags(flag_value().boxed()), prop_oneof![command(), Just(shell(""))])
        .prop_map(|(flags, command)| Run { command, ..flags });
    let with_heredocs = (run_flags(plain_word().boxed()), vec(plain_word(), 1..4), heredocs())
        .prop_map(|(flags, words, heredocs)| {
            let command = shell(&mixed(words, heredocs.iter().map(print::heredoc_word)).join(" "));
            Run { command, heredocs, ..flags }
        });
    prop_oneof![alone, with_heredocs]
}

fn run_flags(value: BoxedStrategy<String>) -> impl Strategy<Value = Run> {
    let network = option::of(prop_oneof!["default", "none", "host"]);
    let security = option::of(prop_oneof!["sandbox", "insecure"]);
    (vec(value.clone(), 0..3), network, security, vec(value, 0..3)).prop_map(
        |(mounts, network, security, devices)| Run {
            mounts,
            network,
            security,
            devices,
            ..super::run(shell(""))
        },
    )
}

fn copy() -> impl Strategy<Value = Copy> {
    let with_operands = |(flags, (sources, dest))| Copy { sources, dest, ..flags };
    prop_oneof![
        (copy_flags(flag_value().boxed()), paths()).prop_map(with_operands),
        (copy_flags(plain_word().boxed()), files()).prop_map(with_operands),
    ]
}

fn copy_flags(value: BoxedStrategy<String>) -> impl Strategy<Value = Copy> {
    let one = || option::of(value.clone());
    (one(), one(), one(), any::<bool>(), any::<bool>(), vec(value.clone(), 0..3)).prop_map(
        |(from, chown, chmod, link, parents, exclude)| {
            let (sources, dest) = (vec![], String::new());
            Copy { from, chown, chmod, link, parents, exclude, sources, dest }
        },
    )
}

fn add() -> impl Strategy<Value = Add> {
    let with_operands = |(flags, (sources, dest))| Add { sources, dest, ..flags };
    prop_oneof![
        (add_flags(flag_value().boxed()), paths()).prop_map(with_operands),
        (add_flags(plain_word().boxed()), files()).prop_map(with_operands),
    ]
}

fn add_flags(value: BoxedStrategy<String>) -> impl Strategy<Value = Add> {
    let one = || option::of(value.clone());
    let switch = option::of(any::<bool>());
    (one(), one(), one(), any::<bool>(), switch.clone(), switch, vec(value.clone(), 0..3)).prop_map(
        |(chown, chmod, checksum, link, keep_git_dir, unpack, exclude)| {
            let (sources, dest) = (vec![], String::new());
            Add { chown, chmod, link, exclude, keep_git_dir, checksum, unpack, sources, dest }
        },
    )
}

fn healthcheck() -> impl Strategy<Value = Healthcheck> {
    let time = || prop_oneof![Just(0), 1_000_000..=i64::MAX];
    let retries = 0..=i64::from(i32::MAX);
    let cmd = (command(), time(), time(), time(), time(), retries).prop_map(
        |(command, interval, timeout, start_period, start_interval, retries)| Healthcheck::Cmd {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        },
    );
    prop_oneof![1 => Just(Healthcheck::None), 4 => cmd]
}

/// Sources and a destination.
fn paths() -> impl Strategy<Value = (Vec<Operand>, String)> {
    let source = json_word().prop_map(Operand::Path);
    (vec(source, 1..4), json_word())
}

/// The same with heredocs among the sources.
fn files() -> impl Strategy<Value = (Vec<Operand>, String)> {
    (vec(plain_word(), 0..3), heredocs(), plain_word()).prop_map(|(paths, heredocs, dest)| {
        let paths = paths.into_iter().map(Operand::Path).collect();
        (mixed(paths, heredocs.into_iter().map(Operand::Heredoc)), dest)
    })
}

/// Takes by turns from both.
fn mixed<T>(first: Vec<T>, second: impl Iterator<Item = T>) -> Vec<T> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let turn = || {
        let turn = [first.next(), second.next()];
        turn.iter().any(Option::is_some).then_some(turn)
    };
    std::iter::from_fn(turn).flatten().flatten().collect()
}

/// Heredocs of one instruction: no name is there twice, no body has its terminator in it.
fn heredocs() -> impl Strategy<Value = Vec<Heredoc>> {
    let name = r#"E|[A-Za-z0-9_./é#$'"][A-Za-z0-9_./é#$'"-]{0,4}"#;
    let line = "\t{0,2}(E[01]|[a-cE$ '\"\\\\#<\\[`]{0,6})\r?\n";
    let body = vec(line, 0..4).prop_map(|lines| lines.concat());
    let heredoc = (name, 0..12_u32, any::<bool>(), any::<bool>(), body).prop_map(
        |(name, descriptor, expand, strip_tabs, body)| Heredoc {
            name,
            descriptor,
            expand,
            strip_tabs,
            body,
        },
    );
    vec(heredoc, 1..3).prop_map(|heredocs| {
        let numbered = heredocs.into_iter().enumerate();
        numbered.map(|(number, heredoc)| distinct(number, heredoc)).collect()
    })
}

fn distinct(number: usize, heredoc: Heredoc) -> Heredoc {
    let name = format!("{}{number}", heredoc.name);
    let tabs: &[char] = if heredoc.strip_tabs { &['\t'] } else { &[] };
    let is_body = |line: &&str| line.trim_start_matches(tabs).trim_end() != name;
    let body = heredoc.body.split_inclusive('\n').filter(is_body).collect();
    Heredoc { name, body, ..heredoc }
}

/// A text within a line: no blanks at its ends, nothing at its end that would continue the line.
fn text() -> impl Strategy<Value = String> {
    let text = trimmed(any_text(12).boxed());
    text.prop_filter("is a command as JSON", |text| words::json(text) == words::Json::Other)
}

/// A word between blanks.
fn word() -> impl Strategy<Value = String> {
    trimmed(any_of(&format!("(--)?{ODD}{{1,8}}")).boxed())
}

/// A word that JSON alone can hold.
fn json_word() -> impl Strategy<Value = String> {
    prop_oneof![word(), any_text(6), "[a\n\r\\\\\"\u{1}]{0,4}"]
}

/// A flag's value.
fn flag_value() -> impl Strategy<Value = String> {
    any_text(8).prop_filter("announces a heredoc", |text| !text.contains("<<"))
}

/// A word on a line with heredocs, of which quotes and variables would make something else.
fn plain_word() -> impl Strategy<Value = String> {
    "[a-z0-9/.:=>;é][a-z0-9/.:=>;é#-]{0,5}"
}

/// The name of a variable.
fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_.é$/{}][a-zA-Z0-9_.é$/{}-]{0,5}"
}

/// A word that quotes and escapes hold together.
fn shell_word(escape: Escape) -> impl Strategy<Value = String> {
    let Escape(escape) = escape;
    let piece = prop_oneof![
        "[a-z0-9é$:/.@=,!*?|&;#\\[\\]{}<-]{1,4}",
        "[ a-c\"$`\\\\\u{a0}]{0,4}".prop_map(|inner| format!("'{inner}'")),
        "[ a-c'$#\t]{0,4}".prop_map(|inner| format!("\"{inner}\"")),
        "[ \"'$\\\\`]".prop_map(move |c| format!("{escape}{c}x")),
        Just(format!("{escape}{escape}")),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn any_text(longest: usize) -> impl Strategy<Value = String> {
    any_of(&format!("(--)?({ODD}|[ \t]){{0,{longest}}}"))
}

fn any_of(pattern: &str) -> impl Strategy<Value = String> + use<> {
    string_regex(pattern).unwrap()
}

fn trimmed(text: BoxedStrategy<String>) -> impl Strategy<Value = String> {
    let trim = |text: String| {
        let ends = |c: char| c.is_whitespace() || matches!(c, '\\' | '`');
        text.trim_start().trim_end_matches(ends).to_owned()
    };
    text.prop_map(trim).prop_filter("is blank, or announces a heredoc", |text| {
        !text.is_empty() && !text.contains("<<")
    })
}
