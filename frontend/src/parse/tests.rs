mod print;
mod round_trip;
mod tables;

use proptest::prelude::*;

use super::*;
use crate::ast::{
    Add, Arg, CommandLine, Copy, From, Healthcheck, Instruction, Operand, Pairs, Run,
};

fn file(text: &str) -> Dockerfile {
    parse(Source::new("Dockerfile", text)).unwrap()
}

fn refused(text: &str) -> Diagnostic {
    parse(Source::new("Dockerfile", text)).unwrap_err()
}

/// The instruction that stands alone in a stage.
fn only(text: &str) -> Instruction {
    let mut nodes = file(&format!("FROM scratch\n{text}")).instructions;
    assert_eq!(nodes.len(), 2);
    nodes.remove(1).instruction
}

/// What is wrong with an instruction in a stage, without the line number.
fn wrong(text: &str) -> String {
    let message = refused(&format!("FROM scratch\n{text}")).message;
    message.replace("dockerfile parse error on line 2: ", "")
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn shell(text: &str) -> CommandLine {
    CommandLine::Shell(text.to_owned())
}

fn exec(args: &[&str]) -> CommandLine {
    CommandLine::Exec(strings(args))
}

fn pairs(pairs: &[(&str, &str)], legacy: bool) -> Pairs {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Pairs { pairs: pairs.iter().map(owned).collect(), legacy }
}

fn run(command: CommandLine) -> Run {
    let (network, security) = (None, None);
    Run { mounts: vec![], network, security, devices: vec![], command, heredocs: vec![] }
}

fn heredoc(name: &str, body: &str) -> Heredoc {
    let (name, body) = (name.to_owned(), body.to_owned());
    Heredoc { name, body, descriptor: 0, expand: true, strip_tabs: false }
}

#[test]
fn from_has_an_image_and_perhaps_a_platform_and_a_name() {
    let node = &file("FROM --platform=$P a:$V As Base-1\n").instructions[0];
    let from = From {
        platform: Some("$P".to_owned()),
        base: "a:$V".to_owned(),
        name: Some("Base-1".to_owned()),
        as_keyword: Some("As".to_owned()),
    };
    assert_eq!(node.instruction, Instruction::From(from));
    for text in ["FROM", "FROM a b", "FROM a is b", "FROM a AS b c"] {
        assert!(refused(text).message.ends_with("FROM requires either one or three arguments"));
    }
    for name in ["a", "Z9", "a-b_c.d"] {
        assert_eq!(file(&format!("FROM a AS {name}")).instructions.len(), 1);
    }
    for name in ["1a", "-a", "a/b", "$X", "ä"] {
        assert_eq!(
            refused(&format!("FROM a AS {name}")).message,
            format!(
                "dockerfile parse error on line 1: invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            )
        );
    }
}

#[test]
fn arg_tells_no_default_from_an_empty_one() {
    let args = vec![
        ("a".to_owned(), None),
        ("b".to_owned(), Some(String::new())),
        ("c".to_owned(), Some("\"1 2\"".to_owned())),
    ];
    assert_eq!(only("ARG a b= c=\"1 2\""), Instruction::Arg(Arg { args }));
    assert_eq!(wrong("ARG =x"), "ARG names can not be blank");
    assert_eq!(wrong("ARG"), "ARG requires at least one argument");
}

#[test]
fn env_has_a_new_and_an_old_form() {
    let new = pairs(&[("a", "1"), ("b", "\"2 3\""), ("c", "4\\ 5")], false);
    assert_eq!(only("ENV a=1 b=\"2 3\" c=4\\ 5"), Instruction::Env(new));
    assert_eq!(only("ENV a   b = c"), Instruction::Env(pairs(&[("a", "b = c")], true)));
    assert_eq!(only("LABEL a = 1"), Instruction::Label(pairs(&[("a", "= 1")], true)));
    assert_eq!(wrong("ENV a"), "ENV must have two arguments");
    assert_eq!(
        wrong("ENV a=1 B"),
        "Syntax error - can't find = in \"B\". Must be of the form: name=value"
    );
    assert_eq!(wrong("ENV =1"), "ENV names can not be blank");
    assert_eq!(wrong("LABEL a"), "LABEL must have two arguments");
    assert_eq!(
        wrong("LABEL a=1 B c"),
        "Syntax error - can't find = in \"B\". Must be of the form: name=value"
    );
    assert_eq!(wrong("LABEL =1"), "LABEL names can not be blank");
    assert_eq!(wrong("LABEL"), "LABEL requires at least one argument");
}

#[test]
fn commands_are_json_or_text_for_the_shell() {
    assert_eq!(only("CMD [ \"a\",\"b\" ] "), Instruction::Cmd(exec(&["a", "b"])));
    assert_eq!(only("CMD []"), Instruction::Cmd(exec(&[])));
    assert_eq!(only("CMD"), Instruction::Cmd(shell("")));
    assert_eq!(only("CMD ['a']"), Instruction::Cmd(shell("['a']")));
    assert_eq!(only("ENTRYPOINT []x"), Instruction::Entrypoint(shell("[]x")));
    assert_eq!(only("SHELL [\"a\"]"), Instruction::Shell(strings(&["a"])));
    assert_eq!(wrong("SHELL a"), "SHELL requires the arguments to be in JSON form");
    assert_eq!(wrong("SHELL []"), "SHELL requires at least one argument");
    assert_eq!(
        wrong("CMD [\"a\", 1]"),
        "when using JSON array syntax, arrays must be comprised of strings only"
    );
}

#[test]
fn an_array_of_other_things_than_strings_is_an_error_for_all_that_take_json() {
    for keyword in [
        "RUN",
        "CMD",
        "ENTRYPOINT",
        "SHELL",
        "COPY",
        "ADD",
        "VOLUME",
        "HEALTHCHECK CMD",
        "ONBUILD RUN",
    ] {
        assert_eq!(
            wrong(&format!("{keyword} [\"a\", 1]")),
            "when using JSON array syntax, arrays must be comprised of strings only",
            "{keyword}"
        );
    }
}

#[test]
fn what_is_not_json_from_end_to_end_is_text_or_words() {
    for text in ["['a', 'b']", "[\"a\", \"b\",]", "[\"a\", \"b\"] c", "[a, b]"] {
        let words: Vec<&str> = text.split(' ').collect();
        let (dest, sources) = words.split_last().unwrap();
        assert_eq!(only(&format!("RUN {text}")), Instruction::Run(run(shell(text))));
        assert_eq!(only(&format!("CMD {text}")), Instruction::Cmd(shell(text)));
        assert_eq!(only(&format!("ENTRYPOINT {text}")), Instruction::Entrypoint(shell(text)));
        assert_eq!(only(&format!("VOLUME {text}")), Instruction::Volume(strings(&words)));
        let check = only(&format!("HEALTHCHECK CMD {text}"));
        let Instruction::Healthcheck(Healthcheck::Cmd { command, .. }) = check else {
            panic!("{check:?}")
        };
        assert_eq!(command, shell(text));
        let Instruction::Copy(copy) = only(&format!("COPY {text}")) else { panic!("no COPY") };
        let paths: Vec<_> = sources.iter().map(|path| Operand::Path((*path).into())).collect();
        assert_eq!((copy.sources, copy.dest.as_str()), (paths, *dest));
    }
}

#[test]
fn run_keeps_its_flags_and_the_flags_of_its_command() {
    let text = "RUN --mount=type=tmpfs --network=none --mount=\"a b\" --device=c --security=insecure x --y # z";
    let expected = Run {
        mounts: strings(&["type=tmpfs", "a b"]),
        network: Some("none".to_owned()),
        security: Some("insecure".to_owned()),
        devices: strings(&["c"]),
        ..run(shell("x --y # z"))
    };
    assert_eq!(only(text), Instruction::Run(expected));
    assert_eq!(only("RUN -- --y"), Instruction::Run(run(shell("--y"))));
    assert_eq!(wrong("RUN --network=x a"), "invalid network mode \"x\"");
    assert_eq!(wrong("RUN --security=x a"), "security \"x\" is not valid");
    assert_eq!(wrong("RUN []"), "RUN requires at least one argument");
}

#[test]
fn flags_are_known_given_once_and_have_a_value_of_their_kind() {
    for (text, message) in [
        ("ENV --x a=1", "unknown flag: --x"),
        ("RUN --network=none --network=none x", "duplicate flag specified: --network"),
        ("COPY --from=a --from=a b c", "duplicate flag specified: --from"),
        ("ADD --link --link a b", "duplicate flag specified: --link"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --parents=1 a b", "expecting boolean value for flag --parents, not: 1"),
        ("COPY --link=$L a b", "expecting boolean value for flag --link, not: $L"),
        ("RUN --network=$N x", "invalid network mode \"$N\""),
        ("RUN --security=$S x", "security \"$S\" is not valid"),
    ] {
        assert_eq!(wrong(text), message, "{text}");
    }
    let several =
        Run { mounts: strings(&["a", "a"]), devices: strings(&["b", "b"]), ..run(shell("x")) };
    let text = "RUN --mount=a --device=b --mount=a --device=b x";
    assert_eq!(only(text), Instruction::Run(several));
    let Instruction::Copy(copy) = only("COPY --from= --link=TRUE --parents=False a b") else {
        panic!("no COPY")
    };
    assert_eq!((copy.from.as_deref(), copy.link, copy.parents), (Some(""), true, false));
}

#[test]
fn copy_splits_at_blanks_whatever_the_quotes() {
    let copy = Copy {
        from: Some("x".to_owned()),
        chown: Some("$U".to_owned()),
        chmod: Some("755".to_owned()),
        link: true,
        parents: false,
        exclude: strings(&["a", "b"]),
        sources: vec![Operand::Path("\"a".to_owned()), Operand::Path("b\"".to_owned())],
        dest: "/x".to_owned(),
    };
    let flags = "--from=x --chown=$U --chmod=755 --link --parents=false --exclude=a --exclude=b";
    assert_eq!(only(&format!("COPY {flags} \"a b\" /x")), Instruction::Copy(copy));
    assert_eq!(
        wrong("COPY a"),
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined"
    );
    assert_eq!(wrong("COPY --form=x a b"), "unknown flag: --form");
    for flag in ["checksum=x", "unpack", "keep-git-dir"] {
        let unknown = wrong(&format!("COPY --{flag} a b"));
        assert!(unknown.starts_with("unknown flag: --"), "only ADD has it: {unknown}");
    }
}

#[test]
fn add_tells_flags_that_are_absent_from_those_that_are_false() {
    let add = Add {
        chown: None,
        chmod: None,
        link: false,
        exclude: vec![],
        keep_git_dir: Some(false),
        checksum: Some("sha256:$S".to_owned()),
        unpack: None,
        sources: vec![Operand::Path("a b".to_owned())],
        dest: "c".to_owned(),
    };
    let text = "ADD --keep-git-dir=false --checksum=sha256:$S [\"a b\", \"c\"]";
    assert_eq!(only(text), Instruction::Add(add));
    assert_eq!(
        wrong("ADD a"),
        "ADD requires at least two arguments, but only one was provided. Destination could not be determined"
    );
    for flag in ["from=x", "parents"] {
        let unknown = wrong(&format!("ADD --{flag} a b"));
        assert!(unknown.starts_with("unknown flag: --"), "only COPY has it: {unknown}");
    }
}

#[test]
fn heredocs_are_files_in_their_place() {
    let text = "COPY a <<B c <<-'D' /x\n$b\nB\n\td\n\tD\n";
    let quoted = Heredoc { expand: false, strip_tabs: true, ..heredoc("D", "\td\n") };
    assert_eq!(quoted.content(), "d\n");
    let sources = vec![
        Operand::Path("a".to_owned()),
        Operand::Heredoc(heredoc("B", "$b\n")),
        Operand::Path("c".to_owned()),
        Operand::Heredoc(quoted),
    ];
    let Instruction::Copy(copy) = only(text) else { panic!("no COPY") };
    assert_eq!((copy.sources, copy.dest.as_str()), (sources, "/x"));
    for keyword in ["COPY", "ADD"] {
        let message = format!("{keyword} cannot accept a heredoc as a destination");
        assert_eq!(wrong(&format!("{keyword} a <<B\nB")), message);
    }
    let Instruction::Add(add) = only("ADD <<A /x\na\nA\n") else { panic!("no ADD") };
    assert_eq!(add.sources, [Operand::Heredoc(heredoc("A", "a\n"))]);
}

#[test]
fn a_body_ends_with_a_line_that_is_its_name_alone() {
    for end in ["", " A", "A ", "A x", "a", "\tA"] {
        assert_eq!(wrong(&format!("RUN <<A\na\n{end}")), "unterminated heredoc", "{end:?}");
    }
    let expected = Run { heredocs: vec![heredoc("A", "# b \\\n\n")], ..run(shell("<<A")) };
    assert_eq!(only("RUN <<A\n# b \\\n\nA"), Instruction::Run(expected));
}

#[test]
fn words_that_announce_no_heredoc_leave_the_next_lines_to_instructions() {
    for text in ["RUN cat <<- E", "RUN cat '<<E'", "RUN cat \"<<E\"", "RUN [\"<<E\"]", "CMD <<E"] {
        let message = refused(&format!("FROM a\n{text}\nbody\nE\n")).message;
        assert_eq!(message, "dockerfile parse error on line 3: unknown instruction: body");
    }
    let Instruction::Run(run) = only("RUN echo 1<<2\nbody\n2\n") else { panic!("no RUN") };
    assert_eq!(run.heredocs, [Heredoc { descriptor: 1, ..heredoc("2", "body\n") }]);
}

#[test]
fn blanks_behind_the_arrows_take_a_body_but_copy_two_names() {
    let Instruction::Copy(copy) = only("COPY << EOF /x\nbody\nEOF\n") else { panic!("no COPY") };
    let names = ["<<", "EOF"].map(|name| Operand::Path(name.to_owned()));
    assert_eq!(copy.sources, names);
}

#[test]
fn bodies_keep_carriage_returns_and_their_terminators_do_not() {
    let expected = Run { heredocs: vec![heredoc("E", "a\r\n")], ..run(shell("<<E")) };
    assert_eq!(only("RUN <<E\r\na\r\nE\r\n"), Instruction::Run(expected));
}

#[test]
fn json_and_other_instructions_have_no_heredocs() {
    assert_eq!(only("RUN [\"<<E\"]"), Instruction::Run(run(exec(&["<<E"]))));
    assert_eq!(only("CMD cat <<E"), Instruction::Cmd(shell("cat <<E")));
}

#[test]
fn onbuild_keeps_the_text_of_its_trigger() {
    let trigger = |text: &str| Instruction::Onbuild(text.to_owned());
    assert_eq!(only("OnBuild   run a \\\n# c\n  b"), trigger("run a   b"));
    assert_eq!(only("ONBUILD COPY <<A /x\na\nA\n"), trigger("COPY <<A /x\na\nA"));
    assert_eq!(only("ONBUILD RUN [\"a\"]"), trigger("RUN [\"a\"]"));
    assert_eq!(wrong("ONBUILD FROM a"), "FROM isn't allowed as an ONBUILD trigger");
    assert_eq!(wrong("ONBUILD maintainer a"), "MAINTAINER isn't allowed as an ONBUILD trigger");
    let chain = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed";
    assert_eq!(wrong("ONBUILD ONBUILD RUN a"), chain);
    assert_eq!(wrong(&format!("{}\\\n", "ONBUILD \\\n".repeat(50_000))), chain);
    assert_eq!(wrong("ONBUILD"), "ONBUILD requires at least one argument");
}

#[test]
fn a_trigger_parses_as_it_was_kept() {
    let node = parse_trigger("COPY <<A /x\n$a\nA").unwrap();
    let Instruction::Copy(copy) = node.instruction else { panic!("no COPY") };
    assert_eq!(copy.sources, [Operand::Heredoc(heredoc("A", "$a\n"))]);
    let message = |text| parse_trigger(text).unwrap_err().message;
    assert_eq!(message("FOO"), "unknown instruction: FOO");
    assert_eq!(message("FROM a"), "FROM isn't allowed as an ONBUILD trigger");
    assert_eq!(message("RUN a\nRUN b"), "onbuild trigger should be a single expression");
}

#[test]
fn healthchecks_have_times_and_a_command() {
    let text = "HEALTHCHECK --interval=1m30s --timeout=0 --start-period=2s --start-interval=1ms --retries=3 cmd [\"a\"]";
    let expected = Healthcheck::Cmd {
        command: exec(&["a"]),
        interval: 90_000_000_000,
        timeout: 0,
        start_period: 2_000_000_000,
        start_interval: 1_000_000,
        retries: 3,
    };
    assert_eq!(only(text), Instruction::Healthcheck(expected));
    assert_eq!(only("HEALTHCHECK --interval=x none"), Instruction::Healthcheck(Healthcheck::None));
    let rows = [
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK foo a", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --timeout=9us CMD a", "Interval \"timeout\" cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=9 CMD a", "time: missing unit in duration \"9\""),
    ];
    for (text, expected) in rows {
        assert_eq!(wrong(text), expected, "{text}");
    }
}

#[test]
fn what_takes_one_argument_takes_the_whole_line() {
    assert_eq!(only("USER  a b "), Instruction::User("a b".to_owned()));
    assert_eq!(only("WORKDIR /a b"), Instruction::Workdir("/a b".to_owned()));
    assert_eq!(only("STOPSIGNAL 9"), Instruction::Stopsignal("9".to_owned()));
    assert_eq!(only("MAINTAINER \"a\" <b>"), Instruction::Maintainer("\"a\" <b>".to_owned()));
    for keyword in ["USER", "WORKDIR", "STOPSIGNAL", "MAINTAINER"] {
        assert_eq!(wrong(keyword), format!("{keyword} requires exactly one argument"));
    }
}

#[test]
fn expose_and_volume_are_words() {
    assert_eq!(only("EXPOSE 80 $P"), Instruction::Expose(strings(&["80", "$P"])));
    assert_eq!(only("VOLUME [\"/a b\"]"), Instruction::Volume(strings(&["/a b"])));
    assert_eq!(only("VOLUME /a /b"), Instruction::Volume(strings(&["/a", "/b"])));
    assert_eq!(wrong("VOLUME [\" \"]"), "VOLUME specified can not be an empty string");
}

#[test]
fn stages_come_after_nothing_but_args() {
    assert_eq!(refused("RUN a").message, "no build stage in current context");
    assert_eq!(refused("ARG a").message, "dockerfile contains no stages to build");
    assert_eq!(refused("").message, "the Dockerfile cannot be empty");
    assert_eq!(refused("# a\n\n").message, "file with no instructions");
}

#[test]
fn a_line_number_stands_before_what_is_wrong_with_words_and_not_before_how_they_are_cut() {
    for (text, has_number) in [
        ("FOO a", true),
        ("FROM a b", true),
        ("COPY a", true),
        ("COPY --form=a b c", true),
        ("USER", true),
        ("ENV =1", true),
        ("SHELL a", true),
        ("RUN []", true),
        ("ONBUILD FROM a", true),
        ("CMD [1]", false),
        ("ENV a", false),
        ("LABEL a=1 b", false),
        ("RUN <<A", false),
    ] {
        let message = refused(&format!("FROM a\n\n{text}")).message;
        let numbered = message.starts_with("dockerfile parse error on line 3: ");
        assert_eq!(numbered, has_number, "{message}");
    }
    let message = refused("# escape=x\nFROM a").message;
    assert_eq!(message, "invalid escape token 'x' does not match ` or \\");
}

#[test]
fn long_lines_and_byte_order_marks_are_no_different_further_down() {
    let long = "x".repeat(65_536);
    for text in [format!("RUN <<E\n{long}\nE"), format!("# {long}"), format!("RUN a \\\n{long}")] {
        assert_eq!(wrong(&text), "dockerfile line greater than max allowed size of 65535");
    }
    assert_eq!(wrong("\u{feff}RUN a"), "unknown instruction: \u{feff}RUN");
}

#[test]
fn what_stands_before_an_error_can_be_had() {
    let source = Source::new("Dockerfile", "FROM a AS B\nMAINTAINER c\nBAD\nRUN d \\\n\n e\n");
    let (file, error) = parse_until_error(source);
    assert_eq!(error.map(|error| error.line()), Some(3));
    assert_eq!(file.instructions.len(), 2);
    let rules: Vec<_> = file.warnings.iter().map(|warning| warning.rule).collect();
    assert_eq!(rules, ["NoEmptyContinuation", "StageNameCasing", "MaintainerDeprecated"]);
}

#[test]
fn an_error_points_at_the_word_and_says_what_to_do() {
    let shown = refused("FROM a\nCOPY \\\n  # comment\n  --chmd=755 \\\n  a b\n").to_string();
    insta::assert_snapshot!(shown, @r"
    dockerfile parse error on line 2: unknown flag: --chmd
     --> Dockerfile:4:3
      |
    4 |   --chmd=755 \
      |   ^^^^^^^^^^
    help: did you mean `--chmod`?
    ");
    insta::assert_snapshot!(refused("from a\ncopyy b c").to_string(), @r"
    dockerfile parse error on line 2: unknown instruction: copyy
     --> Dockerfile:2:1
      |
    2 | copyy b c
      | ^^^^^
    help: did you mean `copy`?
    ");
}

#[test]
fn a_node_knows_its_place_and_its_comments() {
    let text = "FROM a\n# b is it\n# more\nArg b\\\n # c\n=1\nRUN <<E\nx\nE\n";
    let nodes = file(text).instructions;
    let arg = &nodes[1];
    assert_eq!((arg.keyword.as_str(), arg.text.as_str()), ("Arg", "Arg b=1"));
    assert_eq!((arg.lines.clone(), &text[arg.span.clone()]), (4..=6, "Arg b\\\n # c\n=1"));
    assert_eq!((arg.comments.len(), arg.description("b")), (2, Some("is it")));
    assert_eq!(nodes[2].lines, 7..=9);
    assert_eq!(nodes[2].text, "RUN <<E");
}

#[test]
fn the_escape_directive_rules_lines_words_and_flags() {
    let text = "# escape=`\nFROM a\nCOPY --chown=a`\\b c `\n d\\\nENV a=b` c\n";
    let nodes = file(text).instructions;
    let Instruction::Copy(copy) = &nodes[1].instruction else { panic!("no COPY") };
    assert_eq!((copy.chown.as_deref(), copy.dest.as_str()), (Some("a\\b"), "d\\"));
    assert_eq!(nodes[2].instruction, Instruction::Env(pairs(&[("a", "b` c")], false)));
}

#[test]
fn heredocs_know_the_backslash_alone() {
    let text = "# escape=`\nFROM a\nRUN echo \\\" `\n<<E \\<<F\nb`\nE\nRUN echo `\" <<G\n";
    let nodes = file(text).instructions;
    let Instruction::Run(run) = &nodes[1].instruction else { panic!("no RUN") };
    assert_eq!(run.heredocs, [heredoc("E", "b`\n")]);
    let Instruction::Run(run) = &nodes[2].instruction else { panic!("no RUN") };
    assert_eq!(run.heredocs, []);
}

#[test]
fn a_no_break_space_separates_no_keyword() {
    assert_eq!(wrong("ENV\u{a0}D=1"), "unknown instruction: ENV\u{a0}D=1");
}

const SCRAPS: &str = "(FROM|RUN|COPY|ENV|ARG|ONBUILD|HEALTHCHECK CMD|from a|CMD|VOLUME|[a=\\\\\"'`$\\[\\],<\\-# \u{e9}\u{a0}\r\n\t]|<<E|\nE\n|--link|--mount=|\\\\\n){0,30}";

proptest! {
    /// CVE-2024-23650 (GHSA-9p26-698r-w4hx), CVE-2026-15792 (GHSA-qx3x-mv6r-52p6, BuildKit): what
    /// is malformed is an error.
    #[test]
    fn no_text_makes_the_parser_panic(text in SCRAPS) {
        for text in [text.clone(), format!("FROM a\n{text}"), format!("# escape=`\nFROM a\n{text}")] {
            match parse(Source::new("Dockerfile", text.clone())) {
                Ok(file) => for node in &file.instructions {
                    prop_assert!(text.get(node.span.clone()).is_some(), "{:?}", node.span);
                },
                Err(error) => prop_assert!(text.get(error.span.clone()).is_some(), "{error}"),
            }
            let _ = parse_trigger(&text);
            let _ = refuse_foreign_syntax(&Source::new("Dockerfile", text.clone()), None);
        }
    }
}
