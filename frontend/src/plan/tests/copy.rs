use super::*;
use crate::{CopySource, FileSource, Mode, Owner, Selection, UserSpec};

/// The op of one instruction after a WORKDIR.
fn copied(instruction: &str) -> CopyOp {
    let plan = planned(&format!("FROM alpine\nWORKDIR /w\n{instruction}\n"));
    (*plan.copies().last().unwrap()).clone()
}

/// For each source whether its archives are unpacked.
fn unpacked(copy: &CopyOp) -> Vec<bool> {
    let unpacked = copy.sources.iter().map(|source| match source {
        CopySource::Files { unpack, .. } => *unpack,
        CopySource::Inline { .. } => false,
    });
    unpacked.collect()
}

fn copy_refusal(instruction: &str) -> String {
    refusal(&format!("FROM alpine\n{instruction}\n"))
}

fn selections(copy: &CopyOp) -> Vec<&Selection> {
    let files = copy.sources.iter().map(|source| match source {
        CopySource::Files { selection, .. } => selection,
        CopySource::Inline { .. } => panic!("inline"),
    });
    files.collect()
}

#[test]
fn sources_are_cleaned_below_the_root_and_wildcards_seen() {
    let copy = copied(r"COPY ../x /a//b/ . sub/*.c [[]x a\b d/");
    let shown: Vec<_> = selections(&copy).iter().map(|s| (s.path.as_str(), s.wildcards)).collect();
    let expected = [
        ("x", false),
        ("a/b", false),
        ("", false),
        ("sub/*.c", true),
        ("[[]x", true),
        ("ab", false),
    ];
    assert_eq!(shown, expected);
    assert_eq!(copy.dest, "/w/d/");
}

#[test]
fn sources_in_a_stage_are_relative_to_its_root() {
    let text = "FROM alpine AS a\nWORKDIR /w\nFROM alpine\nCOPY --from=a f ./g /\n";
    let plan = planned(text);
    let paths: Vec<_> = selections(plan.copies()[0]).iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, ["f", "g"]);
}

#[test]
fn words_are_expanded_and_never_split_again() {
    let text = "FROM alpine\nARG A=\"x y\" D=/d/\nCOPY $A \"${D}z\"\n";
    let copy = planned(text).copies()[0].clone();
    assert_eq!((selections(&copy)[0].path.as_str(), copy.dest.as_str()), ("x y", "/d/z"));
    let text = "FROM alpine\nARG A=\"x y\"\nCOPY [\"a b\", \"$A\", \"/d $A\"]\n";
    let json = planned(text).copies()[0].clone();
    let paths: Vec<_> = selections(&json).iter().map(|s| s.path.as_str()).collect();
    assert_eq!((paths, json.dest.as_str()), (vec!["a b", "x y"], "/d x y"));
}

#[test]
fn neither_quotes_nor_escapes_hold_two_words_together() {
    let message = "unexpected end of statement while looking for matching double-quote";
    for text in ["COPY \"a b\" /x", "ADD \"a b\" /x", "VOLUME \"a b\""] {
        assert_eq!(copy_refusal(text), format!("failed to process \"\\\"a\": {message}"));
    }
    let copy = copied("COPY a\\ b /x");
    let paths: Vec<_> = selections(&copy).iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, ["a", "b"]);
}

#[test]
fn flags_are_expanded_but_excludes_are_not() {
    for keyword in ["COPY", "ADD"] {
        let text = format!(
            "FROM alpine\nARG U=7 M=600 S=s\n\
             {keyword} --chown=$U:${{U}}1 --chmod=$M --exclude=$S ${{S}}1 <<$S /$S\n$S+\n$S\n"
        );
        let copy = planned(&text).copies()[0].clone();
        let (user, group) = (UserSpec::Id(7), Some(UserSpec::Id(71)));
        assert_eq!(copy.owner, Some(Owner { user, group }), "{keyword}");
        assert_eq!((copy.mode, copy.dest.as_str()), (Some(Mode::Octal(0o600)), "/s"));
        let CopySource::Files { selection, .. } = &copy.sources[0] else { panic!("no file") };
        assert_eq!((selection.path.as_str(), &selection.exclude[0][..]), ("s1", "$S"));
        let (name, data) = ("$S".to_owned(), b"s+\n".to_vec());
        assert_eq!(copy.sources[1], CopySource::Inline { name, data });
    }
    let text = "FROM alpine\nARG D=none\nADD --checksum=$D https://h/f /\n";
    assert!(refusal(text).starts_with("invalid checksum \"none\""), "{}", refusal(text));
}

#[test]
fn destinations_are_joined_to_the_workdir_and_keep_their_slash() {
    for (dest, resolved) in
        [("b", "/w/b"), ("b/", "/w/b/"), (".", "/w/"), ("/x/.", "/x/"), ("..", "/"), ("/", "/")]
    {
        assert_eq!(copied(&format!("COPY a {dest}")).dest, resolved);
    }
}

#[test]
fn owners_and_modes_are_read_when_planned() {
    let id = UserSpec::Id;
    let copy = copied("COPY --chown=1000 --chmod=644 a /");
    assert_eq!(copy.owner, Some(Owner { user: id(1000), group: None }));
    assert_eq!(copy.mode, Some(Mode::Octal(0o644)));
    let copy = copied("COPY --chown=app:5 --chmod=u=rwX,go-w a /");
    let user = UserSpec::Name("app".to_owned());
    assert_eq!(copy.owner, Some(Owner { user, group: Some(id(5)) }));
    assert_eq!(copy.mode, Some(Mode::Symbolic("u=rwX,go-w".to_owned())));
    assert_eq!(copied("COPY a /").owner, None);
    assert_eq!(
        copy_refusal("COPY --chmod=8888 a /"),
        "invalid chmod parameter: '8888'. it should be octal string and between 0 and 07777"
    );
}

#[test]
fn names_need_a_file_to_be_looked_up_in() {
    for text in [
        "FROM scratch\nCOPY --chown=app a /\n",
        "FROM alpine\nCOPY --link --chown=0:web a /\n",
        "FROM scratch\nUSER app\nWORKDIR /w\n",
    ] {
        assert!(refusal(text).starts_with("invalid user index: -1"), "{text}");
    }
    planned("FROM scratch\nCOPY --chown=root:0 a /\nCOPY --chown=app b /\nUSER app\nWORKDIR /w\n");
}

#[test]
fn a_link_is_copied_onto_nothing_and_stacked() {
    let plan = planned("FROM alpine\nRUN x\nCOPY --link a /\n");
    let Op::Stack { base, top } = &plan.vertex(plan.target().vertex).op else { panic!("no stack") };
    assert!(matches!(plan.vertex(*base).op, Op::Exec(_)));
    let Op::Copy(copy) = &plan.vertex(*top).op else { panic!("no copy") };
    assert!(matches!(plan.vertex(copy.onto).op, Op::Scratch));

    let plan = planned("FROM alpine\nCOPY --link --chmod=755 a /\n");
    assert!(matches!(plan.vertex(plan.target().vertex).op, Op::Copy(_)), "--chmod: no link");
    let plan = planned("FROM alpine\nADD --link a /\n");
    assert!(matches!(plan.vertex(plan.target().vertex).op, Op::Stack { .. }));
}

#[test]
fn parents_keep_their_pivot_and_the_destination_is_a_directory() {
    let copy = copied("COPY --parents a/./b/*.c ./c /x/./y d");
    let paths: Vec<_> = selections(&copy).iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, ["a/./b/*.c", "c", "x/./y"]);
    assert!(selections(&copy).iter().all(|selection| selection.parents));
    assert_eq!(copy.dest, "/w/d/");
}

#[test]
fn excludes_are_taken_as_written() {
    let copy = copied("COPY --exclude=*.o --exclude=!$a.o . /");
    assert_eq!(selections(&copy)[0].exclude, ["*.o", "!$a.o"]);
    assert!(copy_refusal("COPY --exclude=! . /").contains("illegal exclusion pattern"));
    assert_eq!(selections(&copied("ADD --exclude=*.o . /"))[0].exclude, ["*.o"]);
}

#[test]
fn heredocs_are_files_behind_the_paths() {
    let text = "FROM alpine\nARG A=1\nCOPY <<X a <<'Y' /d/\n\"$A\" \\$A \\n\nX\n$A\nY\n";
    let plan = planned(text);
    let CopyOp { sources, .. } = plan.copies()[0];
    let inline = |name: &str, data: &str| CopySource::Inline {
        name: name.to_owned(),
        data: data.as_bytes().to_vec(),
    };
    assert!(matches!(sources[0], CopySource::Files { .. }));
    assert_eq!(sources[1..], [inline("X", "\"1\" $A n\n"), inline("Y", "$A\n")]);
}

#[test]
fn from_is_never_expanded() {
    let expected = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
    assert_eq!(copy_refusal("COPY --from=$X a /"), expected);
    let unchanged = case("FROM alpine\nCOPY --from=a$. a /\n").refusal();
    assert!(unchanged.starts_with("failed to parse stage name \"a$.\""), "{unchanged}");
    planned("FROM alpine\nCOPY --from=$X a /\nFROM scratch\n");
    assert!(case("FROM scratch\nCOPY --from= a /\n").needs().is_empty(), "the build context");
}

#[test]
fn a_local_add_unpacks_unless_told_not_to() {
    assert_eq!(unpacked(&copied("ADD a.tar /")), [true]);
    assert_eq!(unpacked(&copied("ADD --unpack=false a.tar /")), [false]);
    assert_eq!(unpacked(&copied("COPY a.tar /")), [false]);
}

#[test]
fn an_add_of_a_url_copies_from_a_download() {
    let plan = planned("FROM alpine\nADD --chown=5 https://h/a/b.tar?x=1 /d/\n");
    let copy = plan.copies()[0];
    let CopySource::Files { from: FileSource::Vertex(id), selection, unpack: false } =
        &copy.sources[0]
    else {
        panic!("{copy:?}")
    };
    assert_eq!(selection, &Selection::literal("b.tar"));
    let Op::Fetch(fetch) = &plan.vertex(*id).op else { panic!("no download") };
    assert_eq!(fetch.url.reveal(), "https://h/a/b.tar?x=1");
    assert_eq!(unpacked(&copied("ADD --unpack https://h/a.tar /")), [true]);
    assert_eq!(plan.history(), ["ADD --chown=5 https://h/a/b.tar?x=1 /d/ # buildkit"]);
}

#[test]
fn a_url_has_no_wildcards() {
    let CopySource::Files { selection, .. } = &copied("ADD https://h/a*[[]b].c /").sources[0]
    else {
        panic!("inline")
    };
    assert_eq!(selection, &Selection::literal("a*[[]b].c"));
}

#[test]
fn several_sources_need_no_directory() {
    let copy = copied("COPY a b /to");
    assert_eq!((copy.sources.len(), copy.dest.as_str()), (2, "/to"));
}

#[test]
fn an_add_of_files_and_urls_keeps_the_urls_packed() {
    let plan = planned("FROM alpine\nADD a.tar https://h/b.tar /d/\n");
    assert_eq!(unpacked(plan.copies()[0]), [true, false]);
    assert_eq!((plan.copies().len(), plan.history().len()), (1, 1), "it is one layer");
}

#[test]
fn a_checksum_is_for_one_remote_source() {
    let digest = Digest::of("x");
    let add = |rest: &str| format!("FROM alpine\nADD --checksum={digest} {rest}\n");
    let Planning::Needs(needs) = case(&add("https://h/f /")).planning(&Pins::new()).unwrap() else {
        panic!("nothing is asked for")
    };
    let checksum = Some(digest);
    assert!(needs.contains_key(&SourceRef::Http { url: "https://h/f".into(), checksum }));
    assert_eq!(
        refusal(&add("https://h/f https://h/g /")),
        "checksum can't be specified for multiple sources"
    );
    assert_eq!(refusal(&add("f /")), "checksum requires HTTP(S) or Git sources");
    let bad = copy_refusal("ADD --checksum=sha256:0 https://h/f /");
    assert!(bad.starts_with("invalid checksum \"sha256:0\""), "{bad}");
}

#[test]
fn remote_sources_are_for_add() {
    assert!(copy_refusal("COPY https://h/f /").starts_with("source can't be a URL for COPY"));
    let git = copy_refusal("COPY git@h:a/b /");
    assert!(git.starts_with("source can't be a git ref for COPY"), "{git}");
    let git = copy_refusal("ADD --keep-git-dir=false https://h/a.git?keep-git-dir /");
    assert!(git.starts_with("inconsistent keep-git-dir configuration"), "{git}");
    let git = copy_refusal("ADD https://h/a.git?nosuch=1 /");
    assert!(git.starts_with("unexpected query \"nosuch\""), "{git}");
}
