//! Stages side by side, and what happens to the others when one fails.

use std::time::Duration;

use test_support::Session;

#[test]
fn independent_stages_run_side_by_side() {
    let session = Session::new().dockerfile(
        "FROM busybox AS one\n\
         RUN sleep 2 && echo 1 > /one\n\
         FROM busybox AS two\n\
         RUN sleep 2 && echo 2 > /two\n\
         FROM scratch\n\
         COPY --from=one /one /\n\
         COPY --from=two /two /\n",
    );
    let outcome = session.build_with_events(&["-t", "x", "--jobs", "2"]).succeeds();

    let steps = outcome.steps();
    let (one, two) = (steps.step("echo 1"), steps.step("echo 2"));
    let last_start = one.started_at().max(two.started_at());
    let first_end = one.completed_at().min(two.completed_at());
    assert!(last_start < first_end, "they overlap: {steps}");
    assert!(outcome.took < Duration::from_millis(3500), "about 2 s, not 4: {:?}", outcome.took);
    assert_eq!(session.image("x").rootfs().below("/"), ["/one", "/two"]);
}

#[test]
fn no_more_commands_run_at_once_than_allowed() {
    let session = Session::new().dockerfile(
        "FROM busybox AS one\n\
         RUN sleep 0.5 && echo 1 > /one\n\
         FROM busybox AS two\n\
         RUN sleep 0.5 && echo 2 > /two\n\
         FROM scratch\n\
         COPY --from=one /one /\n\
         COPY --from=two /two /\n",
    );
    let outcome = session.build_with_events(&["--jobs", "1"]).succeeds();
    assert!(outcome.took >= Duration::from_secs(1), "one after the other: {:?}", outcome.took);
}

#[test]
fn a_failing_stage_is_reported_at_once_and_stops_the_others() {
    let session = Session::new().dockerfile(
        "FROM busybox AS slow\n\
         RUN sleep 60 && echo 1 > /one\n\
         FROM busybox AS failing\n\
         RUN sleep 1; echo some last words; exit 3\n\
         FROM scratch\n\
         COPY --from=slow /one /\n\
         COPY --from=failing /etc/passwd /\n",
    );
    let outcome = session.build(&["--jobs", "2"]);
    assert!(outcome.took < Duration::from_secs(5), "at once: {:?}", outcome.took);
    outcome.fails_with(&["some last words", "exit code: 3", "Dockerfile:4"]);
}

#[test]
fn what_succeeded_before_the_failure_is_kept() {
    let session =
        Session::new().dockerfile("FROM busybox\nRUN echo costly > /costly\nRUN exit 1\n");
    session.build(&[]).fails_with(&["exit code: 1"]);
    session.write("Dockerfile", "FROM busybox\nRUN echo costly > /costly\nRUN exit 0\n");
    let outcome = session.build_with_events(&["-t", "x"]).succeeds();
    outcome.steps().ran_only(&["RUN exit 0"]);
}
