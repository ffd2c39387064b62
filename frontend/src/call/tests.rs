use serde::Serialize;
use serde_json::{Value, json};

use super::{Calling, Check, Outline, check, outline, targets};
use crate::plan::tests::{Case, case};
use crate::{Pinned, Pins, Source, SourceRef, parse};

fn source(text: &str) -> Source {
    Source::new("path/of/Dockerfile", text)
}

/// Looks everything up that is asked for. Returns the answer and the names that it took.
fn answered<T>(case: &Case, ask: impl Fn(&Pins) -> Calling<T>) -> (T, Vec<String>) {
    let mut pins = Pins::new();
    let mut asked = vec![];
    loop {
        match ask(&pins) {
            Calling::Ready(answer) => return (answer, asked),
            Calling::Needs(needs) => {
                for source in needs.into_keys() {
                    let SourceRef::Image { reference, .. } = &source else { panic!("{source:?}") };
                    asked.push(reference.familiar());
                    let pinned = case.pin(&source);
                    assert!(pins.insert(source, pinned).is_none(), "asked for twice");
                }
            }
        }
    }
}

fn checked(case: &Case) -> Check {
    answered(case, |pins| check(source(&case.text), &case.request, pins)).0
}

fn outlined(case: &Case) -> Outline {
    let dockerfile = parse(source(&case.text)).unwrap();
    answered(case, |pins| outline(&dockerfile, &case.request, pins).unwrap()).0
}

/// The findings and their first lines, and the error behind them.
fn found(case: &Case) -> Vec<String> {
    let Check { warnings, build_error, .. } = checked(case);
    let warnings =
        warnings.into_iter().map(|w| format!("{} {}", w.location.first_line(), w.rule_name));
    let error = build_error.map(|e| format!("{} error: {}", e.location.first_line(), e.message));
    warnings.chain(error).collect()
}

fn json_of(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap()
}

#[test]
fn a_clean_file_has_null_warnings() {
    let check = checked(&case("FROM scratch\n"));
    assert!(check.is_clean());
    assert_eq!(
        serde_json::to_string(&check).unwrap(),
        r#"{"warnings":null,"sources":[{"filename":"Dockerfile","data":"RlJPTSBzY3JhdGNoCg==","language":"Dockerfile"}]}"#
    );
}

#[test]
fn a_finding_has_a_range_for_each_line() {
    let check = checked(&case("FROM scratch\nENV a \\\n  b\n"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&check.warnings).unwrap(), @r#"
    [
      {
        "ruleName": "LegacyKeyValueFormat",
        "description": "Legacy key/value format with whitespace separator should not be used",
        "url": "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
        "detail": "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        "location": {
          "ranges": [
            {
              "start": {
                "line": 2
              },
              "end": {
                "line": 2
              }
            },
            {
              "start": {
                "line": 3
              },
              "end": {
                "line": 3
              }
            }
          ]
        }
      }
    ]
    "#);
}

#[test]
fn findings_are_in_the_order_in_which_they_are_made() {
    let text = "FROM scratch AS B\nCMD a\nMAINTAINER x\nrun x \\\n\n y\nEXPOSE 80/TCP 80/TCP\n";
    assert_eq!(
        found(&case(text)),
        [
            "6 NoEmptyContinuation",
            "1 StageNameCasing",
            "3 MaintainerDeprecated",
            "4 ConsistentInstructionCasing",
            "2 JSONArgsRecommended",
            "7 ExposeProtoCasing",
            "7 ExposeProtoCasing",
        ]
    );
}

#[test]
fn without_a_target_every_stage_is_looked_at() {
    let text = "FROM one\nCOPY $A /\nFROM two AS t\nCOPY --from=three $B /\nFROM scratch\n";
    let everything = case(text);
    let ask = |case: &Case| answered(case, |pins| check(source(text), &case.request, pins)).1;
    assert_eq!(found(&everything), ["2 UndefinedVar", "4 UndefinedVar"]);
    assert_eq!(ask(&everything), ["one:latest", "three:latest", "two:latest"]);
    let target = case(text).target("t");
    assert_eq!(found(&target), ["4 UndefinedVar"]);
    assert_eq!(ask(&target), ["three:latest", "two:latest"]);
}

#[test]
fn nothing_is_downloaded() {
    let text = "FROM scratch\nADD https://h/f $DEST/\nADD https://h/$X /\n";
    assert_eq!(found(&case(text)), ["2 UndefinedVar", "3 UndefinedVar"]);
}

#[test]
fn warnings_that_are_errors_are_listed_all_the_same() {
    let text = "# check=error=true\nFROM scratch as a\n";
    let check = json_of(&checked(&case(text)));
    assert_eq!(check["warnings"][0]["ruleName"], "FromAsCasing");
    let error = json!({"message": "lint violation found for rules: FromAsCasing", "location": {}});
    assert_eq!(check["buildError"], error);
}

#[test]
fn what_comes_before_an_error_is_listed() {
    for (text, expected) in [
        (
            "FROM scratch AS A\nMAINTAINER x\nCOPPY a b\nMAINTAINER y\n",
            &[
                "1 StageNameCasing",
                "2 MaintainerDeprecated",
                "3 error: dockerfile parse error on line 3: unknown instruction: COPPY (did you mean COPY?)",
            ][..],
        ),
        (
            "FROM scratch\nCOPY $A /a\nEXPOSE \\\n x\nCOPY $B /b\n",
            &["2 UndefinedVar", "3 error: invalid port: \"x\": invalid containerPort: x"],
        ),
        (
            "FROM --platform=linux/$ARHC a\n",
            &[
                "1 UndefinedArgInFrom",
                r#"1 error: failed to parse platform linux/$ARHC: "" is an invalid component of "linux/": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument"#,
            ],
        ),
        ("# only\n", &["0 error: file with no instructions"]),
        ("ARG a\n", &["0 error: dockerfile contains no stages to build"]),
        ("# check=x=1\nFROM a AS B\n", &["0 error: invalid check option \"x=1\""]),
    ] {
        assert_eq!(found(&case(text)), expected, "{text}");
    }
    let target = case("FROM scratch AS othr").target("other");
    assert_eq!(
        found(&target),
        ["0 error: target stage \"other\" could not be found (did you mean othr?)"]
    );
}

#[test]
fn a_base_that_cannot_be_had_is_the_first_error() {
    let case = case("ARG V=x\nFROM scratch as a\nCOPY $A /\nEXPOSE x\nFROM gone:$V\n");
    let Calling::Needs(needs) = check(source(&case.text), &case.request, &Pins::new()) else {
        panic!("the base must be asked for")
    };
    let span = needs.values().next().unwrap();
    let check = check_knowing_no_base(&case);
    let check = check.without_base(source(&case.text), &case.request, span, "not found");
    let rules: Vec<_> = check.warnings.iter().map(|warning| warning.rule_name).collect();
    assert_eq!(rules, ["FromAsCasing", "UndefinedVar"]);
    let error = check.build_error.unwrap();
    assert_eq!((error.message.as_str(), error.location.first_line()), ("gone:x: not found", 5));
}

/// Checks a file none of the images of which can be looked up.
fn check_knowing_no_base(case: &Case) -> Check {
    let mut pins = Pins::new();
    loop {
        match check(source(&case.text), &case.request, &pins) {
            Calling::Ready(check) => return check,
            Calling::Needs(needs) => {
                pins.extend(needs.into_keys().map(|source| (source, Pinned::Unknown)));
            }
        }
    }
}

#[test]
fn without_a_base_all_is_found_that_does_not_need_it() {
    let found = |text: &str| {
        let check = check_knowing_no_base(&case(text));
        let error = check.build_error.map(|error| format!("error: {}", error.message));
        let rules = check.warnings.iter().map(|warning| warning.rule_name.to_owned());
        rules.chain(error).collect::<Vec<_>>()
    };
    let text = "FROM far as base\nMAINTAINER me\nCOPY --chown=app:web f /\nCMD run it\n\
                RUN <<E\nfalse\ntrue\nE\nRUN --mount=from=gone/image,target=/x true\n";
    let rules =
        ["FromAsCasing", "MaintainerDeprecated", "JSONArgsRecommended", "HeredocWithoutErrexit"];
    assert_eq!(found(text), rules);
    // The image may set what is not set here.
    assert_eq!(found("FROM far\nEXPOSE $PORT\nCOPY $A $B\nWORKDIR a\n"), ["WorkdirRelativePath"]);
    assert_eq!(found("FROM far AS a\nFROM a\nCOPY $A /\n"), [""; 0]);
    let error = "error: invalid port: \"x\": invalid containerPort: x";
    assert_eq!(found("FROM far\nEXPOSE x\n"), [error]);
}

#[test]
fn what_is_found_for_several_platforms_is_said_once() {
    let text = "FROM scratch\nCMD a\nCOPY x /$TARGETARCHH\n";
    let case = case(text).platforms(&["linux/amd64", "linux/arm64"]);
    assert_eq!(found(&case), ["2 JSONArgsRecommended", "3 UndefinedVar"]);
}

#[test]
fn targets_are_listed_with_what_is_said_of_them() {
    let text = "# b builds\n# B is\nFROM --platform=$P a:$V AS B\n# nobody\nFROM b\n";
    let targets = targets(&parse(source(text)).unwrap());
    assert_eq!(
        json_of(&targets)["targets"],
        json!([
            {
                "name": "b",
                "description": "builds",
                "base": "a:$V",
                "platform": "$P",
                "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]},
            },
            {
                "default": true,
                "base": "b",
                "location": {"ranges": [{"start": {"line": 5}, "end": {"line": 5}}]},
            },
        ])
    );
}

#[test]
fn members_are_in_their_order_and_left_out_where_they_say_nothing() {
    let at = |lines: std::ops::RangeInclusive<usize>| {
        let range = |n| format!(r#"{{"start":{{"line":{n}}},"end":{{"line":{n}}}}}"#);
        format!(r#""location":{{"ranges":[{}]}}"#, lines.map(range).collect::<Vec<_>>().join(","))
    };
    let written = serde_json::to_string(&targets(
        &parse(source("# b is\n# it\nFROM --platform=$P a AS B\n")).unwrap(),
    ));
    let expected = format!(
        r#"{{"targets":[{{"name":"b","default":true,"description":"is","base":"a","platform":"$P",{}}}],"sources":["IyBiIGlzCiMgaXQKRlJPTSAtLXBsYXRmb3JtPSRQIGEgQVMgQgo="]}}"#,
        at(3..=3)
    );
    assert_eq!(written.unwrap(), expected);

    let case = case(
        "# T makes it\nFROM scratch AS t\n# A is one\nARG A=1 B\nRUN --mount=type=secret,id=s,required \\\n --mount=type=ssh x\n",
    );
    let expected = format!(
        r#"{{"name":"t","args":[{{"name":"A","description":"is one","value":"1",{}}},{{"name":"B",{}}}],"secrets":[{{"name":"s","required":true,{}}}],"ssh":[{{"name":"default",{}}}],"sources":["IyBUIG1ha2VzIGl0CkZST00gc2NyYXRjaCBBUyB0CiMgQSBpcyBvbmUKQVJHIEE9MSBCClJVTiAtLW1vdW50PXR5cGU9c2VjcmV0LGlkPXMscmVxdWlyZWQgXAogLS1tb3VudD10eXBlPXNzaCB4Cg=="]}}"#,
        at(4..=4),
        at(4..=4),
        at(5..=6),
        at(5..=6)
    );
    assert_eq!(serde_json::to_string(&outlined(&case)).unwrap(), expected);

    let case = self::case("# check=x=1\nFROM a\n");
    let expected = r#"{"warnings":null,"sources":[{"filename":"Dockerfile","data":"IyBjaGVjaz14PTEKRlJPTSBhCg==","language":"Dockerfile"}],"buildError":{"message":"invalid check option \"x=1\"","location":{}}}"#;
    assert_eq!(serde_json::to_string(&checked(&case)).unwrap(), expected);
}

#[test]
fn a_rule_without_a_page_has_no_address() {
    let arm = r#"{"os":"linux","architecture":"arm64","config":{}}"#;
    let check = json_of(&checked(&case("FROM a\n").image("a:latest", arm)));
    let keys: Vec<&String> = check["warnings"][0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["description", "detail", "location", "ruleName"]);
}

/// Names, values and lines of the arguments.
fn args(case: &Case) -> Vec<String> {
    let args = outlined(case).args;
    args.into_iter()
        .map(|a| format!("{}={} {}", a.name, a.value, a.location.first_line()))
        .collect()
}

#[test]
fn args_are_those_that_the_target_and_what_it_needs_declare() {
    let text = "ARG base=alpine\nARG unused=1\nFROM $base AS below\nARG A=1\nARG B\n\
                FROM scratch AS other\nARG C=$A\nFROM scratch AS apart\nARG D\n\
                FROM below AS top\nARG A=2\nARG TARGETARCH\nCOPY --from=other / /\n";
    assert_eq!(args(&case(text)), ["base=alpine 1", "B= 5", "C= 7", "A=2 11"]);
    assert_eq!(args(&case(text).target("apart")), ["D= 9"]);
    assert_eq!(args(&case(text).target("apart").arg("D", "x")), ["D=x 9"]);
}

#[test]
fn args_above_the_first_from_are_listed_with_what_they_are_made_of() {
    let text = "ARG late=$deep\nARG deep=1\nARG part=$deep\nARG none=x\nARG whole=a$part\n\
                ARG part=$none\nFROM scratch\nARG whole\n";
    assert_eq!(args(&case(text)), ["deep=1 2", "whole=a1 5", "part=x 6"]);
    assert_eq!(args(&case(text).arg("whole", "y")), ["whole=y 8"]);
}

#[test]
fn mounts_are_listed_by_line_and_the_nearest_to_the_target_counts() {
    let text = "# not t\nFROM scratch AS a\nRUN --mount=type=secret,id=s,required x\n\
                FROM scratch AS b\nRUN --mount=type=ssh x\n\
                # t is it\nFROM a AS t\nARG N=n\n\
                RUN --mount=type=secret,id=s --mount=type=ssh,id=$N,required --mount=from=b,target=/b y\n";
    let outline = json_of(&outlined(&case(text)));
    let at = |line: usize| json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    assert_eq!((&outline["name"], &outline["description"]), (&json!("t"), &json!("is it")));
    assert_eq!(outline["secrets"], json!([{"name": "s", "location": at(9)}]));
    assert_eq!(
        outline["ssh"],
        json!([
            {"name": "default", "location": at(5)},
            {"name": "n", "required": true, "location": at(9)},
        ])
    );
}
