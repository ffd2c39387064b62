use super::*;
use crate::FetchOp;

/// What identifies the last step of these instructions, apart from the files that it reads.
fn key(instructions: &str) -> Digest {
    let plan = planned(&format!("FROM scratch AS st\nFROM alpine\n{instructions}\n"));
    plan.vertex(plan.target().vertex).op.definition()
}

#[test]
fn what_makes_no_difference_to_the_result_makes_none_to_the_key() {
    for (one, other) in [
        ("COPY x/f /", "COPY ./y/z/f/ /"),
        ("COPY x/f /", "WORKDIR /\nCOPY x/f ."),
        ("COPY --chown=5 f /", "COPY --chown=${A}5 f /"),
        ("RUN --mount=type=cache,target=/c x", "RUN --mount=type=cache,target=/c,id=i x"),
        ("RUN --mount=type=cache,target=/c x", "RUN --mount=type=cache,target=/c,sharing=locked x"),
        ("RUN --mount=source=a/f,target=/c x", "RUN --mount=src=/./a/f,dst=/c/ x"),
    ] {
        assert_eq!(key(one), key(other), "{one} | {other}");
    }
}

#[test]
fn what_may_make_a_difference_makes_one_to_the_key() {
    for (one, other) in [
        ("COPY f /", "COPY g /"),
        ("COPY f /", "COPY f /d"),
        ("COPY f /d", "COPY f /d/"),
        ("COPY f /", "COPY f f /"),
        ("COPY f /", "COPY --chown=1 f /"),
        ("COPY --chown=1 f /", "COPY --chown=1:2 f /"),
        ("COPY --chown=a f /", "COPY --chown=b f /"),
        ("COPY f /", "COPY --chmod=644 f /"),
        ("COPY --chmod=644 f /", "COPY --chmod=a+r f /"),
        ("COPY f /", "COPY --exclude=f f /"),
        ("COPY f /", "COPY --parents f /"),
        ("COPY --parents a/f /", "COPY --parents b/f /"),
        ("COPY a/f* /", "COPY b/f* /"),
        ("COPY f /", "COPY --from=st f /"),
        ("COPY f /", "ADD f /"),
        ("ADD f /", "ADD --unpack=false f /."),
        ("RUN x", "RUN y"),
        ("RUN x", "RUN [\"x\"]"),
        ("RUN x", "ENV A=1\nRUN x"),
        ("RUN x", "USER 1\nRUN x"),
        ("RUN x", "WORKDIR /w\nRUN x"),
        ("RUN x", "RUN --network=none x"),
        ("RUN x", "RUN --mount=type=tmpfs,target=/t x"),
        ("RUN --mount=type=cache,target=/c x", "RUN --mount=type=cache,target=/d x"),
        ("RUN --mount=target=/c x", "RUN --mount=target=/c,rw x"),
        ("RUN --mount=target=/c x", "RUN --mount=target=/c,source=f x"),
        ("RUN --mount=type=secret,id=a x", "RUN --mount=type=secret,id=b x"),
        ("RUN --mount=type=secret,id=a x", "RUN --mount=type=secret,id=a,required x"),
        ("RUN --mount=type=ssh x", "RUN --mount=type=ssh,uid=1 x"),
        ("WORKDIR /w", "WORKDIR /v"),
        ("WORKDIR /w", "USER 1\nWORKDIR /w"),
    ] {
        assert_ne!(key(one), key(other), "{one} | {other}");
    }
}

#[test]
fn a_download_is_its_bytes_its_name_and_its_time() {
    let fetch = FetchOp {
        url: "https://h/f".into(),
        digest: Digest::of("one"),
        name: "f".to_owned(),
        modified: 1,
    };
    let key = |fetch: &FetchOp| Op::Fetch(fetch.clone()).definition();
    let same = FetchOp { url: "https://elsewhere/f".into(), ..fetch.clone() };
    assert_eq!(key(&same), key(&fetch));
    for other in [
        FetchOp { digest: Digest::of("two"), ..fetch.clone() },
        FetchOp { name: "g".to_owned(), ..fetch.clone() },
        FetchOp { modified: 2, ..fetch.clone() },
    ] {
        assert_ne!(key(&other), key(&fetch), "{other:?}");
    }
}
