//! The order of things, read from the events of a build.

use std::fs;
use std::time::{Duration, SystemTime};

use test_support::{Session, Step};

/// Bytes that compress to about a half, as programs do.
fn half_random(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes()[..4]);
        bytes.extend_from_slice(b"same");
    }
    bytes.truncate(size);
    bytes
}

/// Whether a step is a part of the export.
fn exports(step: &&Step) -> bool {
    step.name.starts_with("exporting") || step.name.starts_with("naming")
}

#[test]
fn a_layer_is_compressed_while_the_next_step_runs() {
    let session = Session::new()
        .file("big", half_random(100 << 20))
        .dockerfile("FROM busybox\nCOPY big /big\nRUN sleep 8\n");
    let steps = session.build_with_events(&["-t", "x"]).succeeds().steps();

    let image = session.image("x");
    let run_ended = steps.step("RUN sleep 8").completed_at();
    // The blob was there before: its file says so, and so do the events.
    let blob = image.manifest.layers[1].digest;
    let file = fs::metadata(session.store().join("blobs/sha256").join(blob.hex())).unwrap();
    assert!(file.modified().unwrap() < SystemTime::from(run_ended), "written after the RUN");
    let diff_id = image.config.rootfs.diff_ids[1].to_string();
    let finished = steps.all().find_map(|step| {
        let piece =
            step.pieces.iter().find(|(id, _)| id.contains(&blob.hex()) || id.contains(&diff_id))?;
        *piece.1
    });
    let finished = finished.expect("an event tells that the layer's blob is finished");
    assert!(finished < run_ended, "{finished} < {run_ended}");

    let allowed = run_ended + Duration::from_millis(300);
    let export: Vec<_> = steps.all().filter(exports).collect();
    assert!(!export.is_empty(), "{steps}");
    for step in export {
        assert!(step.completed_at() <= allowed, "`{}` within 0.3 s after the RUN", step.name);
    }
}

#[test]
fn every_step_is_announced_before_it_starts_and_ends_once() {
    let session = Session::new().dockerfile("FROM busybox\nRUN true\nRUN echo hello\n");
    let outcome = session.build_with_events(&["-t", "x"]).succeeds();
    let steps = outcome.steps();
    for step in steps.instructions() {
        assert!(step.started_at() <= step.completed_at(), "{steps}");
        assert_eq!(step.error, None);
    }
    assert!(steps.step("RUN true").completed_at() <= steps.step("RUN echo hello").started_at());
    assert_eq!(steps.step("RUN echo hello").log, "hello\n");
}
