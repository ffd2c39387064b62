//! The command line: what is typed and what is printed.

use std::fs;

use test_support::{Caller, Session, rbuild};

#[test]
fn the_version_is_one_line() {
    let outcome = Session::new().rbuild(&["--version"]).succeeds();
    assert_eq!(outcome.stdout, format!("rbuild {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_help_fits_a_screen() {
    let help = Session::new().rbuild(&["--help"]).succeeds().stdout;
    assert!(help.lines().count() <= 60, "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    for flag in ["--tag", "--file", "--output", "--build-arg", "--target", "--progress", "--push"] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
}

#[test]
fn a_shell_completes_flags() {
    let session = Session::new();
    let script = "source /dev/stdin <<< \"$($0 completions bash)\"; \
        COMP_WORDS=(rbuild --targ); COMP_CWORD=1; _rbuild rbuild --targ rbuild; echo ${COMPREPLY[*]}";
    let completed = session.tool("bash", &["-c", script, rbuild().to_str().unwrap()]);
    assert_eq!(completed, "--target\n");
    session.rbuild(&["completions", "cobol"]).fails_with(&["cobol", "bash", "zsh", "fish"]);
}

#[test]
fn build_is_what_rbuild_does_without_a_command() {
    let session = Session::new().file("file", "content").dockerfile("FROM scratch\nCOPY file /\n");
    session.rbuild(&["-t", "short", "context"]).succeeds();
    session.rbuild(&["build", "--tag=long", "context"]).succeeds();
    assert_eq!(session.image("short").digest, session.image("long").digest);
}

#[test]
fn the_store_can_be_named() {
    let session = Session::new().dockerfile("FROM scratch\nLABEL a=b\n");
    session.rbuild(&["--root", "named", "build", "-t", "x", "context"]).succeeds();
    test_support::validate_image(&session.path("named"), "docker.io/library/x:latest");
    assert!(!session.store().exists());
}

#[test]
fn a_variable_without_a_value_is_as_good_as_none() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    // Else the store, credentials and registries would be those of the working directory.
    fs::create_dir(session.path("auth.json")).unwrap();
    fs::create_dir(session.path("config.json")).unwrap();
    let data_home = session.path("home/.local/share");
    let session = session.env("RBUILD_ROOT", "").env("XDG_DATA_HOME", "").env("TMPDIR", "");
    let session = ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "CONTAINERS_REGISTRIES_CONF"]
        .into_iter()
        .fold(session.run_by(Caller::WithOneId), |session, name| session.env(name, ""));
    session.build(&["-t", "app"]).succeeds();
    assert!(data_home.join("rbuild/rbuild.db").exists());
}

#[test]
fn the_store_is_removed_wherever_the_flag_stands() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    for line in [["store", "remove", "-f", "--root", "s"], ["--root", "s", "store", "remove", "-f"]]
    {
        session.build(&["--root", "s"]).succeeds();
        session.rbuild(&line).succeeds();
        assert!(!session.path("s").exists(), "{line:?}");
    }
}

#[test]
fn a_line_that_cannot_be_understood_builds_nothing() {
    let session = Session::new().dockerfile("FROM scratch\n");
    for args in [&["--no-such-flag"][..], &["-t"], &["--build-context", "x"], &["--progress", "x"]]
    {
        let outcome = session.build(args);
        assert!(!outcome.status.success(), "{args:?}");
        assert!(outcome.stderr.contains("error"), "{outcome}");
    }
}

#[test]
fn plain_progress_is_written_as_docker_writes_it() {
    let session = Session::new().dockerfile("FROM busybox\nRUN echo hello\n");
    let first = session.build(&["--progress=plain"]).succeeds().stderr;
    let header = first.lines().find(|line| line.ends_with("RUN echo hello")).expect("a header");
    let (number, name) = header.split_once(' ').expect("a number and a name");
    assert!(number.starts_with('#') && name.starts_with("[2/2] "), "{header}");
    let says = |text: &str, end: &dyn Fn(&str) -> bool| {
        text.lines().any(|line| line.strip_prefix(number).is_some_and(end))
    };
    assert!(says(&first, &|line| line.ends_with(" hello")), "{first}");
    assert!(says(&first, &|line| line.starts_with(" DONE ") && line.ends_with('s')), "{first}");

    let second = session.build(&["--progress=plain"]).succeeds().stderr;
    assert!(
        second.lines().any(|line| line.starts_with('#') && line.ends_with(" CACHED")),
        "{second}"
    );
    let printed = |line: &str| {
        line.split(' ').nth(1).is_some_and(|word| word.contains('.')) && line.ends_with(" hello")
    };
    assert!(!second.lines().any(printed), "{second}");
}

#[test]
fn a_frontend_of_somebody_else_is_refused() {
    let session = Session::new();
    let build = |syntax: &str, args: &[&str]| {
        session.write("Dockerfile", format!("{syntax}FROM scratch\nLABEL a=b\n"));
        session.build(args)
    };
    let words = ["`other/frontend`", "downloads no program", "leave the line out"];
    build("# syntax=other/frontend\n", &[]).fails_with(&[&words[..], &["Dockerfile:1"]].concat());
    let argument = "--build-arg=BUILDKIT_SYNTAX=other/frontend";
    build("", &[argument]).fails_with(&words[..2]);
    build("", &[argument, "--check"]).fails_with(&words[..2]);
    build("# syntax=docker/dockerfile:1\n", &[]).succeeds();
    // The argument goes before the line.
    let own = "--build-arg=BUILDKIT_SYNTAX=docker/dockerfile:1.7-labs";
    build("# syntax=other/frontend\n", &[own]).succeeds();
}

#[test]
fn a_word_that_is_no_command_makes_no_store() {
    let session = Session::new().dockerfile("FROM scratch\n");
    for (word, words) in [
        ("du", ["does not exist yet", "./du"]),
        ("prun", ["did you mean `prune`", "./prun"]),
        ("bake", ["does not exist yet", "./bake"]),
    ] {
        session.rbuild(&[word]).fails_with(&words);
    }
    let file = session.path("context/Dockerfile");
    let said = "is a Dockerfile, not a context: `rbuild -f";
    session.rbuild(&["build", file.to_str().unwrap()]).fails_with(&[said]);
    assert!(!session.store().exists());
    let version = session.rbuild(&["version"]).succeeds().stdout;
    assert_eq!(version, session.rbuild(&["--version"]).succeeds().stdout);
    let help = session.rbuild(&["help", "prune"]).succeeds().stdout;
    assert_eq!(help, session.rbuild(&["prune", "--help"]).succeeds().stdout);
}

#[test]
fn a_wrong_value_makes_no_store() {
    let session = Session::new().dockerfile("FROM scratch\nLABEL a=b\n");
    for (flags, words) in [
        (&["--ulimit=foo=1"][..], "no such limit"),
        (&["--ulimit=nofile=200:100"], "soft limit"),
        (&["--jobs=0"], "from 1 on"),
        (&["--shm-size=1.5x"], "invalid size"),
        (&["-o", "type=oci,dst=a"], "did you mean `dest`"),
        (&["--memory=1g"], "not supported yet"),
    ] {
        session.build(flags).fails_with(&[words]);
        assert!(!session.store().exists(), "{flags:?}");
    }
    session.build(&["--secret=id=a,type=foo"]).fails_with(&["unsupported type"]);
    session.build(&["--build-context=x=oci-layout://nope"]).fails_with(&["no directory `nope`"]);
}

#[test]
fn a_containerfile_is_read_where_there_is_no_dockerfile() {
    let session = Session::new().file("Containerfile", "FROM scratch\nLABEL a=b\n");
    let said = session.build(&["-t", "app"]).succeeds().stderr;
    assert!(said.contains("no Dockerfile found, using Containerfile"), "{said}");
    assert_eq!(session.image("app").config.config.labels["a"], "b");
    let session = session.dockerfile("FROM scratch\nLABEL a=c\n");
    session.build(&["-t", "app"]).succeeds();
    assert_eq!(session.image("app").config.config.labels["a"], "c");
}

#[test]
fn names_that_a_dockerfile_does_not_know_are_told() {
    let session = Session::new().dockerfile("FROM scratch AS base\nARG version\nLABEL a=b\n");
    let said = |flags: &[&str]| session.build(flags).succeeds().stderr;
    let unused = said(&["--build-arg=vesion=1", "--no-cache-filter=bas"]);
    assert!(unused.contains("build-args [vesion] were not consumed"), "{unused}");
    assert!(unused.contains("no stage is called `bas`"), "{unused}");
    let used = said(&["--build-arg=version=1", "--no-cache-filter=base"]);
    assert!(!used.contains("consumed") && !used.contains("no stage"), "{used}");
}

#[test]
fn files_of_podmans_flags_are_read() {
    let session = Session::new()
        .file("kept", "")
        .file("hidden", "")
        .file(".dockerignore", "kept\n")
        .dockerfile("FROM scratch\nARG a\nARG b\nLABEL a=$a b=$b\nCOPY . /\n");
    let [args, ignore] = ["args", "ignore"].map(|name| session.path(name));
    std::fs::write(&args, "# of the team\na=file\n\nb=file\n").unwrap();
    std::fs::write(&ignore, "hidden\n").unwrap();
    let args = format!("--build-arg-file={}", args.display());
    let ignore = format!("--ignorefile={}", ignore.display());
    let flags = [&*args, &*ignore, "--build-arg=b=line", "-t", "app"];
    session.build(&flags).succeeds();
    let labels = session.image("app").config.config.labels;
    assert_eq!((labels["a"].as_str(), labels["b"].as_str()), ("file", "line"));
    session.build(&[&*ignore, "-o", "out"]).succeeds();
    assert!(session.path("out/kept").exists() && !session.path("out/hidden").exists());
    session.build(&["--build-arg-file=nope"]).fails_with(&["--build-arg-file nope"]);
}
