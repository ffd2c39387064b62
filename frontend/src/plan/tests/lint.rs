use super::*;
use crate::ignore::Ignore;

/// The warnings of the planner for instructions on a plain image.
fn warnings(instructions: &str) -> Vec<String> {
    planned(&format!("FROM alpine\n{instructions}\n")).warnings()
}

fn rules(instructions: &str) -> Vec<String> {
    let rule = |warning: String| warning.split(':').next().unwrap_or_default().to_owned();
    warnings(instructions).into_iter().map(rule).collect()
}

#[test]
fn undefined_variables_are_named_with_what_may_be_meant() {
    assert_eq!(
        warnings("ENV NAME=1\nCOPY $NAEM /x"),
        ["UndefinedVar: Usage of undefined variable '$NAEM' (did you mean $NAME?)"]
    );
    assert_eq!(rules("ARG A\nCOPY x$A /x"), [""; 0], "declared, if without a value");
    assert_eq!(rules("USER ${A:-x}"), ["UndefinedVar"]);
    assert_eq!(rules("EXPOSE 80$A"), [""; 0]);
    assert_eq!(rules("RUN echo $A"), [""; 0]);
    assert_eq!(rules("COPY <<E /x\n$A\nE"), ["UndefinedVar"]);
    assert_eq!(rules("COPY <<'E' /x\n$A\nE"), [""; 0]);
}

#[test]
fn the_shell_form_of_commands_is_warned_about_where_no_shell_was_chosen() {
    for keyword in ["CMD", "ENTRYPOINT"] {
        let message = format!(
            "JSONArgsRecommended: JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
        );
        assert_eq!(warnings(&format!("{keyword} x")), [message]);
    }
    assert_eq!(rules("SHELL [\"a\"]\nFROM alpine\nCMD x"), ["JSONArgsRecommended"]);
    assert_eq!(rules("SHELL [\"a\"]\nCMD x"), [""; 0]);
    assert_eq!(rules("CMD [\"x\"]"), [""; 0]);
}

#[test]
fn what_is_set_twice_is_warned_about_where_it_has_no_effect() {
    let plan = planned("FROM alpine\nCMD [\"a\"]\nHEALTHCHECK NONE\nCMD [\"b\"]\n");
    let [warning] = plan.0.warnings.as_slice() else { panic!("{:?}", plan.0.warnings) };
    assert_eq!(warning.rule, "MultipleInstructionsDisallowed");
    assert_eq!(warning.span.start, "FROM alpine\n".len());
    for keyword in ["CMD", "ENTRYPOINT", "HEALTHCHECK CMD"] {
        let name = keyword.split(' ').next().unwrap();
        let message = format!(
            "MultipleInstructionsDisallowed: Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        let text = format!("{keyword} [\"a\"]\n{keyword} [\"b\"]");
        assert_eq!(warnings(&text), [message]);
    }
    let child = "CMD [\"a\"]\nFROM alpine\nCMD [\"b\"]";
    assert_eq!(rules(child), [""; 0]);
}

#[test]
fn single_instructions_are_checked() {
    assert_eq!(
        warnings("WORKDIR a\nWORKDIR b"),
        [
            "WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes"
        ]
    );
    assert_eq!(rules("WORKDIR /a\nWORKDIR b"), [""; 0]);
    let on_a_stage = "FROM alpine AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n";
    assert_eq!(planned(on_a_stage).warnings(), [""; 0]);
    assert_eq!(
        warnings("ENV a b"),
        [
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format"
        ]
    );
    assert_eq!(
        warnings("LABEL a b"),
        [
            "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format"
        ]
    );
    assert_eq!(
        warnings("ENV my_key=1"),
        [
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"my_key\")"
        ]
    );
    assert!(warnings("ARG TOKEN")[0].ends_with("sensitive data (ARG \"TOKEN\")"));
    assert_eq!(
        warnings("EXPOSE 80/TCP"),
        ["ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase"]
    );
    assert_eq!(
        warnings("EXPOSE 1:2"),
        [
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1:2'"
        ]
    );
}

#[test]
fn a_secret_in_the_query_of_a_download_is_warned_about() {
    let warned = warnings("ADD http://u:p@h/f?a=b&token=t0ps3cret /");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("SecretInUrl: "), "{warned:?}");
    assert!(warned[0].contains("http://h/f?a=b&token=****") && !warned[0].contains("t0ps3cret"));
    assert_eq!(rules("ARG S=x\nADD http://h/f?X-Amz-Signature=$S /"), ["SecretInUrl"]);
    assert_eq!(rules("ADD http://u:p@h/f?a=b /\nADD http://h/f /"), [""; 0]);
    assert_eq!(rules("# check=skip=SecretInUrl\nADD http://h/f?token=t /"), [""; 0]);
}

#[test]
fn sources_that_the_ignore_file_hides_are_warned_about() {
    let copy = |ignore: &str, instruction: &str| {
        let ignore = Ignore::parse(ignore).unwrap();
        let case = case(&format!("FROM alpine\n{instruction}\n"));
        case.with(|request| request.ignore = Some(ignore)).plan().warnings()
    };
    assert_eq!(
        copy("secret\n", "COPY ./secret/x /"),
        [
            "CopyIgnoredFile: Attempting to Copy file \"./secret/x\" that is excluded by .dockerignore"
        ]
    );
    assert!(copy("secret\n", "ADD secret /")[0].contains("Attempting to Add"));
    for everything in ["*", "**", "**/*"] {
        assert_eq!(copy(everything, "COPY . /").len(), 1, "{everything}");
        assert_eq!(copy(everything, "ADD / /").len(), 1, "{everything}");
    }
    assert_eq!(copy("*.c\n", "COPY . /").len(), 0);
    assert_eq!(copy("secret\n!x\n", "COPY secret /").len(), 0);
    assert_eq!(copy("secret\n", "COPY --from=scratch secret /").len(), 0);
}

#[test]
fn checks_are_skipped_for_a_file_or_an_instruction() {
    let with = |head: &str| planned(&format!("{head}FROM alpine\nCMD x\nWORKDIR a\n")).warnings();
    assert_eq!(with("").len(), 2);
    assert_eq!(with("# check=skip=JSONArgsRecommended\n").len(), 1);
    assert_eq!(with("# check=skip=all\n").len(), 0);
    let text = "FROM alpine\n# check=skip=JSONArgsRecommended\nCMD x\nWORKDIR a\n";
    assert_eq!(planned(text).warnings().len(), 1);
    let text = "# check=skip=WorkdirRelativePath\nFROM alpine\n# CMD runs x\n\
                # check=skip=UndefinedVar,JSONArgsRecommended;error=true\n\
                # check=skip=none\nCMD x\nWORKDIR a\nENTRYPOINT y\n";
    assert_eq!(planned(text).warnings().len(), 1, "the ENTRYPOINT's; nothing is an error");
    let argument = case("# check=skip=all\nFROM alpine\nCMD x\n");
    let argument = argument.arg("BUILDKIT_DOCKERFILE_CHECK", "skip=UndefinedVar");
    assert_eq!(argument.plan().warnings().len(), 1);
    assert!(refusal("# check=foo=1\nFROM alpine\n").starts_with("invalid check option \"foo=1\""));
}

#[test]
fn what_is_experimental_is_for_those_who_ask_and_nothing_skips_it() {
    let text = "# what it is\nARG A\nFROM alpine\n";
    assert_eq!(planned(text).warnings(), [""; 0]);
    for asked in ["experimental=all", "experimental=invaliddefinitiondescription;skip=all"] {
        assert_eq!(planned(&format!("# check={asked}\n#\n{text}")).warnings().len(), 1, "{asked}");
    }
    let above = "# check=experimental=all\n# what it is\nARG A\nFROM alpine\n";
    assert_eq!(planned(&format!("# comment\n{above}")).warnings().len(), 1);
}

#[test]
fn what_the_text_tells_is_found_everywhere_and_the_rest_where_something_is_built() {
    let text = "FROM alpine AS A\nCMD x\nWORKDIR y\nUSER $U\nFROM scratch\n";
    assert_eq!(planned(text).warnings(), ["StageNameCasing: Stage name 'A' should be lowercase"]);
}

#[test]
fn findings_are_errors_where_the_file_says_so() {
    let text = "# check=error=true\nFROM alpine\nCMD x\nWORKDIR a\nUSER $U\n";
    let message = refusal(text);
    let expected =
        "lint violation found for rules: JSONArgsRecommended, UndefinedVar, WorkdirRelativePath";
    assert!(message.starts_with(expected), "{message}");
    planned("# check=error=true\nFROM alpine AS a\nCMD x\nFROM scratch\n");
}

#[test]
fn lists_that_are_no_json_are_told_from_commands() {
    for list in ["['a']", "[\"a\", 'b']", "[ \"a\", 'b' ]", "[\"a\",]", "[\"a\" \"b\"]"] {
        assert_eq!(rules(&format!("RUN {list}")), ["InvalidJSONForm"], "{list}");
        assert!(rules(&format!("ENTRYPOINT {list}")).contains(&"InvalidJSONForm".to_owned()));
    }
    for command in ["[ -f x ] && y", "[ \"$PWD\" = / ]", "[[ a = b ]]", "[\"a\"]", "echo ['a']"] {
        assert_eq!(rules(&format!("RUN {command}")), [""; 0], "{command}");
    }
}

#[test]
fn heredocs_of_several_commands_are_told_to_stop_at_errors() {
    let heredoc = "RUN <<E\na\nb\nE";
    assert_eq!(rules(heredoc), ["HeredocWithoutErrexit"]);
    assert_eq!(rules(&format!("SHELL [\"bash\", \"-ec\"]\n{heredoc}")), [""; 0]);
    for clean in ["RUN <<E\nset -e\na\nb\nE", "RUN <<E\n#!/bin/sh\na\nb\nE", "RUN cat <<E\na\nb\nE"]
    {
        assert_eq!(rules(clean), [""; 0], "{clean}");
    }
}

#[test]
fn a_heredoc_with_line_ends_of_windows_is_told() {
    for crlf in ["RUN <<E\r\nset -e\r\na\r\nE\r\n", "RUN <<E\na\nb\r\nE", "RUN cat <<E\na\r\nE"] {
        assert_eq!(rules(crlf), ["HeredocWithCrlf"], "{crlf:?}");
    }
    let plan = planned("FROM alpine\r\nRUN <<E\r\n\r\nmake all\r\nE\r\n");
    let told = &plan.warnings()[0];
    assert!(told.contains("Line 2 of the heredoc, `make all`, ends with CRLF"), "{told}");
    assert_eq!(rules("RUN a \\\r\n b\r\n"), [""; 0]);
}

#[test]
fn what_only_files_can_tell_is_suspected() {
    let suspected = |instructions: &str| {
        let plan = planned(&format!("FROM alpine\n{instructions}\n"));
        let rule = |suspicion: &crate::Suspicion| suspicion.warning.rule;
        plan.0.suspicions.iter().map(rule).collect::<Vec<_>>()
    };
    for copies_contents in ["COPY src /app", "ADD a/src /app/", "WORKDIR /w\nCOPY src ."] {
        assert_eq!(suspected(copies_contents), ["CopyDirectoryContents"], "{copies_contents}");
    }
    for knows in
        ["COPY src/ /app", "COPY src/. /app", "COPY src /app/src/", "COPY . /app", "COPY s* /a"]
    {
        assert!(!suspected(knows).contains(&"CopyDirectoryContents"), "{knows}");
    }
    assert_eq!(suspected("COPY --chown=me . /"), ["UnknownOwner"]);
    assert_eq!(suspected("COPY --chown=1:me . /"), ["UnknownOwner"]);
    assert_eq!(suspected("COPY --chown=1:2 . /"), [""; 0]);
    assert_eq!(suspected("# check=skip=UnknownOwner\nCOPY --chown=me . /"), [""; 0]);
    for overwrites in ["COPY a b /f", "COPY *.txt /f", "COPY a/x b/x /d/", "ADD a[12] /d/"] {
        assert!(suspected(overwrites).contains(&"SourcesIntoOneFile"), "{overwrites}");
    }
    assert_eq!(suspected("COPY --link f /a/f"), ["LinkReplacesDirectories"]);
    assert_eq!(suspected("COPY --chmod=640 f /a/f"), ["ChmodClosesDirectories"]);
    assert_eq!(suspected("COPY --chmod=0755 f /a/f"), [""; 0]);
}
