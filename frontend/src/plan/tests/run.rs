use super::*;
use crate::{CacheMount, CacheSharing, FileSource, Mount, MountSource, SecurityMode, Selection};

/// The mounts of a RUN after a WORKDIR.
fn mounts(flags: &str) -> Vec<Mount> {
    let plan = planned(&format!("FROM alpine\nWORKDIR /w\nRUN {flags} x\n"));
    plan.execs()[0].mounts.clone()
}

fn mount(flags: &str) -> Mount {
    mounts(flags).remove(0)
}

fn run_refusal(flags: &str) -> String {
    refusal(&format!("FROM alpine\nRUN {flags} x\n"))
}

#[test]
fn the_shell_form_goes_through_the_shell_and_the_exec_form_does_not() {
    let text = "FROM alpine\nRUN a 'b'\nSHELL [\"bash\", \"-e\"]\nRUN c\nRUN [\"d\", \"$e\"]\n";
    let plan = planned(text);
    let args: Vec<_> = plan.execs().iter().map(|exec| exec.args.join("|")).collect();
    assert_eq!(args, ["/bin/sh|-c|a 'b'", "bash|-e|c", "d|$e"]);
}

#[test]
fn a_run_starts_where_workdir_and_user_say() {
    let text = "FROM alpine\nUSER u:g\nWORKDIR /a/../b/\nRUN x\n";
    let exec = planned(text).execs()[0].clone();
    assert_eq!((exec.cwd.as_str(), exec.user.as_str()), ("/b", "u:g"));
    let exec = planned("FROM alpine\nRUN x\n").execs()[0].clone();
    assert_eq!((exec.cwd.as_str(), exec.user.as_str()), ("/", ""));
}

#[test]
fn the_request_shapes_every_run() {
    let plan = case("FROM alpine\nRUN x\n")
        .with(|request| {
            request.network = NetworkMode::None;
            request.extra_hosts = vec![("h".to_owned(), "1.2.3.4".to_owned())];
            request.shm_size = Some(5);
            request.ulimits = vec![("nofile".to_owned(), 1, 2)];
        })
        .plan();
    let exec = plan.execs()[0];
    assert_eq!((exec.network, exec.shm_size), (NetworkMode::None, Some(5)));
    assert_eq!((exec.extra_hosts.len(), exec.ulimits.len()), (1, 1));
}

#[test]
fn a_heredoc_alone_is_the_script_and_beside_words_it_is_the_shells() {
    let script = |text: &str| planned(&format!("FROM alpine\n{text}\n")).execs()[0].clone();
    assert_eq!(script("RUN <<-EOF\n\tx $A\n\tEOF").args[2], "x $A\n");
    assert_eq!(script("RUN << 'E O'\ny\nE O").args[2], "y\n");
    assert_eq!(script("RUN 3<<EOF\ny\nEOF").args[2], "y\n");
    assert_eq!(script("RUN python3 <<EOF\ny\nEOF").args[2], "python3 <<EOF\ny\nEOF");
    let two = script("RUN cat <<A <<-B\na\nA\n\tb\n\tB");
    assert_eq!(two.args[2], "cat <<A <<-B\na\nA\n\tb\nB");
}

#[test]
fn a_script_with_a_shebang_is_a_read_only_file() {
    let plan = planned("FROM alpine\nRUN <<EOF\n#!/usr/bin/env python\nx\nEOF\n");
    let exec = plan.execs()[0];
    assert_eq!(exec.args, ["/bin/sh", "-c", "/dev/pipes/EOF"]);
    let data = b"#!/usr/bin/env python\nx\n".to_vec();
    let source = MountSource::Inline { data, mode: 0o755 };
    let target = "/dev/pipes/EOF".to_owned();
    assert_eq!(exec.mounts, [Mount { target, read_only: true, source }]);
}

#[test]
fn entitlements_must_be_granted() {
    for (flag, entitlement) in
        [("--network=host", "network.host"), ("--security=insecure", "security.insecure")]
    {
        let text = format!("FROM alpine\nRUN {flag} x\n");
        let message = refusal(&text);
        assert!(message.starts_with(&format!("{entitlement} is not allowed")), "{message}");
        let granted = case(&text).with(|r| r.entitlements = [entitlement.to_owned()].into());
        let exec = granted.plan().execs()[0].clone();
        let is_host = exec.network == NetworkMode::Host;
        assert!(is_host || exec.security == SecurityMode::Insecure);
    }
    let host = case("FROM alpine\nRUN --network=host x\n");
    host.with(|request| request.network = NetworkMode::Host).plan();
    let network = run_refusal("--network=hots");
    assert!(network.contains("invalid network mode \"hots\""), "{network}");
    let security = run_refusal("--security=none");
    assert!(security.contains("security \"none\" is not valid"), "{security}");
}

#[test]
fn bind_mounts_show_the_context_a_stage_or_an_image() {
    let context = mount("--mount=target=sub,source=/a/../b");
    assert_eq!((context.target.as_str(), context.read_only), ("/w/sub", true));
    let from = FileSource::Context("context".to_owned());
    let selection = Selection::literal("b");
    assert_eq!(context.source, MountSource::Bind { from, selection });

    let text = "FROM scratch AS st\nCOPY a /\nFROM alpine\n\
                RUN --mount=from=ST,target=/s,rw --mount=from=img,source=/x,target=/i x\n";
    let plan = planned(text);
    let mounts = &plan.execs()[0].mounts;
    let targets: Vec<_> = mounts.iter().map(|m| (m.target.as_str(), m.read_only)).collect();
    assert_eq!(targets, [("/i", true), ("/s", false)]);
    let MountSource::Bind { from: FileSource::Vertex(id), selection } = &mounts[1].source else {
        panic!("{mounts:?}")
    };
    assert!(matches!(plan.vertex(*id).op, Op::Copy(_)));
    assert_eq!(*selection, Selection::literal(""));
}

#[test]
fn a_mount_is_of_the_whole_context_at_the_workdir_unless_it_says_more() {
    let whole = mount("--mount=type=bind");
    assert_eq!((whole.target.as_str(), whole.read_only), ("/w", true));
    let from = FileSource::Context("context".to_owned());
    let everything = Selection::literal("");
    assert_eq!(whole.source, MountSource::Bind { from, selection: everything });
    assert_eq!(mount("--mount=type=tmpfs").target, "/w");
    assert_eq!(mount("--mount=type=tmpfs,dst=../x").target, "/x");
    assert_eq!(run_refusal("--mount=type=tmpfs"), "invalid mount target \"/\"");
}

#[test]
fn an_entrypoint_has_no_say_in_a_run() {
    let plan = planned("FROM alpine\nENTRYPOINT [\"e\"]\nRUN x\nRUN [\"y\"]\n");
    let args: Vec<_> = plan.execs().iter().map(|exec| exec.args.join("|")).collect();
    assert_eq!(args, ["/bin/sh|-c|x", "y"]);
}

#[test]
fn mounts_are_sorted_by_target() {
    let sorted = mounts("--mount=type=tmpfs,target=/a/b --mount=type=tmpfs,target=/a,size=1k");
    let targets: Vec<_> = sorted.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/a", "/a/b"]);
    assert_eq!(sorted[0].source, MountSource::Tmpfs { size: Some(1024) });
    assert!(!sorted[0].read_only);
}

#[test]
fn a_cache_is_known_by_its_target_as_written() {
    let cache = |flags: &str| match mount(flags).source {
        MountSource::Cache(cache) => cache,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        cache("--mount=type=cache,target=c/"),
        CacheMount {
            id: "c".to_owned(),
            sharing: CacheSharing::Shared,
            from: None,
            mode: (0o755, 0, 0)
        }
    );
    assert_eq!(mount("--mount=type=cache,target=c/").target, "/w/c");
    let locked = cache("--mount=type=cache,target=/c,id=x,sharing=locked,uid=5,mode=0700");
    assert_eq!((locked.id.as_str(), locked.sharing), ("x", CacheSharing::Locked));
    assert_eq!(locked.mode, (0o700, 5, 0));
    let seeded = cache("--mount=type=cache,target=/c,from=img,source=/s,uid=5");
    assert_eq!(seeded.mode, (0o755, 0, 0));
    assert_eq!(seeded.from.unwrap().1, Selection::literal("s"));
}

#[test]
fn secrets_are_files_variables_or_both() {
    let secret = |flags: &str| {
        let mount = mount(flags);
        match mount.source {
            MountSource::Secret { id, required, file, env } => {
                (mount.target, id, required, file, env)
            }
            other => panic!("{other:?}"),
        }
    };
    let file = Some((0o400, 0, 0));
    let text = |text: &str| text.to_owned();
    assert_eq!(
        secret("--mount=type=secret,id=a/b,required"),
        (text("/run/secrets/b"), text("a/b"), true, file, None)
    );
    assert_eq!(
        secret("--mount=type=secret,target=t/x,mode=0440,uid=5"),
        (text("/w/t/x"), text("x"), false, Some((0o440, 5, 0)), None)
    );
    assert_eq!(
        secret("--mount=type=secret,source=a,gid=6"),
        (text("/run/secrets/a"), text("a"), false, Some((0o400, 0, 6)), None)
    );
    assert_eq!(
        secret("--mount=type=secret,id=a,env=A"),
        (text(""), text("a"), false, None, Some(text("A")))
    );
    assert_eq!(
        secret("--mount=type=secret,id=a,env=A,target=/t"),
        (text("/t"), text("a"), false, file, Some(text("A")))
    );
}

#[test]
fn the_first_ssh_socket_is_in_the_environment() {
    let text = "FROM alpine\nRUN --mount=type=ssh --mount=type=ssh,id=x,uid=5,required x\n";
    let plan = planned(text);
    let exec = plan.execs()[0];
    let ssh = |id: &str, required, uid| MountSource::Ssh {
        id: id.to_owned(),
        required,
        mode: (0o600, uid, 0),
    };
    assert_eq!(exec.mounts[0].target, "/run/buildkit/ssh_agent.0");
    assert_eq!(exec.mounts[0].source, ssh("default", false, 0));
    assert_eq!(exec.mounts[1].target, "/run/buildkit/ssh_agent.1");
    assert_eq!(exec.mounts[1].source, ssh("x", true, 5));
    assert_eq!(plan.run_env(), ["SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"]);
    let own = planned("FROM alpine\nENV SSH_AUTH_SOCK=/s\nRUN --mount=type=ssh x\n");
    assert_eq!(own.run_env(), ["SSH_AUTH_SOCK=/s"]);
}

#[test]
fn values_of_mounts_are_expanded_but_from_is_not() {
    let text = "FROM alpine\nARG D=/data K=cache\nRUN --mount=type=$K,target=$D x\n";
    let mount = planned(text).execs()[0].mounts[0].clone();
    assert_eq!(mount.target, "/data");
    assert!(matches!(mount.source, MountSource::Cache(_)));
    // Also in a stage that nobody needs.
    let text = "FROM alpine\nRUN --mount=from=$X,target=/t x\nFROM scratch\n";
    let expected = "'from' doesn't support variable expansion, define alias stage instead";
    assert_eq!(refusal(text), expected);
}

#[test]
fn what_is_wrong_with_a_mount_is_said_with_a_suggestion() {
    for (flags, message) in [
        ("--mount=type=bind,target=/", "invalid mount target \"/\""),
        (
            "--mount=type=cahce,target=/c",
            "unsupported mount type \"cahce\" | did you mean `cache`?",
        ),
        ("--mount=taget=/c", "unexpected key 'taget' in 'taget=/c' | did you mean `target`?"),
        ("--mount=target=/c,required", "unexpected key 'required' for mount type 'bind'"),
        ("--mount=type=secret,env=A", "invalid secret mount. one of source, target required"),
        (
            "--mount=type=cache,target=/c,sharing=loked",
            "unsupported sharing value \"loked\" | did you mean `locked`?",
        ),
        (
            "--device=vendor/gpu",
            "device vendor/gpu can't be given to RUN: --device is not supported yet",
        ),
    ] {
        assert_eq!(run_refusal(flags), message, "{flags}");
    }
    let expanded = "FROM alpine\nARG K=foo\nRUN --mount=type=$K,target=/c x\n";
    assert_eq!(refusal(expanded), "unsupported mount type \"foo\"");
}
