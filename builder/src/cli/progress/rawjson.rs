//! One JSON object a line, in BuildKit's words, for programs that show builds in their own way.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use oci::Digest;
use serde::{Serialize, Serializer};

use super::steps::{State, Step, Steps, Transfer};
use super::{Ending, Renderer};
use crate::event::{Event, EventKind, Finding, StepId};
use crate::output::{Piece, Reader};

/// Writes a line for each event, and for each piece of output.
pub(super) struct RawJson<W> {
    out: W,
    outputs: HashMap<StepId, Reader>,
}

#[derive(Default, Serialize)]
struct Update<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[Vertex<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[Status<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[Log; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[Warning; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<[Reason; 1]>,
}

#[derive(Serialize)]
struct Vertex<'a> {
    digest: Digest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Digest>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Time>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Status<'a> {
    id: &'a str,
    vertex: Digest,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: Time,
    started: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Time>,
}

#[derive(Serialize)]
struct Log {
    vertex: Digest,
    stream: u8,
    data: String,
    timestamp: Time,
}

/// Of ours: why a step runs.
#[derive(Serialize)]
struct Reason {
    vertex: Digest,
    reason: String,
}

#[derive(Serialize)]
struct Warning {
    vertex: Digest,
    level: u8,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// Written as RFC 3339 with nanoseconds.
struct Time(SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::try_from(self.0).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&time)
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<W> RawJson<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, outputs: HashMap::new() }
    }
}

impl<W: Write> RawJson<W> {
    /// Writes what a step has printed since.
    fn output(&mut self, id: StepId) -> io::Result<()> {
        let Some(mut reader) = self.outputs.remove(&id) else { return Ok(()) };
        while let Some(piece) = reader.next_piece() {
            self.line(&Update { logs: Some([log(id, &piece)]), ..Update::default() })?;
        }
        self.outputs.insert(id, reader);
        Ok(())
    }

    /// Writes a whole line at once: another process may write to the same pipe.
    fn line(&mut self, update: &Update<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(update)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}

impl<W: Write + Send> Renderer for RawJson<W> {
    fn event(&mut self, steps: &Steps, event: &Event) -> io::Result<()> {
        let Some(step) = steps.get(event.step) else { return Ok(()) };
        if let EventKind::Output(output) = &event.kind {
            self.outputs.entry(event.step).or_insert_with(|| output.reader());
        }
        self.output(event.step)?;
        match update(step, event) {
            Some(update) => self.line(&update),
            None => Ok(()),
        }
    }

    fn tick(&mut self, _steps: &Steps, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, _steps: &Steps, _ending: Ending) -> io::Result<()> {
        Ok(())
    }
}

fn update<'a>(step: &'a Step, event: &Event) -> Option<Update<'a>> {
    Some(match &event.kind {
        EventKind::Planned { .. }
        | EventKind::Started
        | EventKind::Cached
        | EventKind::Done
        | EventKind::Stopped
        | EventKind::Failed(_) => {
            Update { vertexes: Some([vertex(event.step, step)]), ..Update::default() }
        }
        EventKind::Progress { id, .. } => {
            let transfer = step.transfers.iter().find(|transfer| transfer.id == *id);
            let status = transfer.map(|transfer| [status(transfer, event)]);
            Update { statuses: status, ..Update::default() }
        }
        EventKind::Output(_) => return None,
        EventKind::Reason(text) => {
            let reason = Reason { vertex: event.step.0, reason: text.clone() };
            Update { reasons: Some([reason]), ..Update::default() }
        }
        EventKind::Warning(text) => {
            let short = BASE64.encode(text);
            let warning =
                Warning { vertex: event.step.0, level: 1, short, detail: vec![], url: None };
            Update { warnings: Some([warning]), ..Update::default() }
        }
        EventKind::Finding(Finding { text, description, url }) => {
            let warning = Warning {
                vertex: event.step.0,
                level: 1,
                short: BASE64.encode(text),
                detail: description.iter().map(|text| BASE64.encode(text)).collect(),
                url: url.clone(),
            };
            Update { warnings: Some([warning]), ..Update::default() }
        }
    })
}

fn vertex(id: StepId, step: &Step) -> Vertex<'_> {
    let error = match &step.state {
        State::Failed(message) => Some(message.as_str()),
        State::Stopped => Some("context canceled"),
        State::Waiting | State::Running | State::Cached | State::Done => None,
    };
    Vertex {
        digest: id.0,
        inputs: step.inputs.iter().map(|input| input.0).collect(),
        name: &step.name,
        // A cached step takes no time, but has some.
        started: step.started.or(step.ended).map(Time),
        completed: step.ended.map(Time),
        cached: step.state == State::Cached,
        error,
    }
}

fn status<'a>(transfer: &'a Transfer, event: &Event) -> Status<'a> {
    Status {
        id: &transfer.id,
        vertex: event.step.0,
        total: transfer.total,
        current: transfer.current,
        timestamp: Time(event.at),
        started: Time(transfer.started),
        completed: transfer.ended.map(Time),
    }
}

fn log(step: StepId, piece: &Piece) -> Log {
    Log {
        vertex: step.0,
        stream: if piece.stderr { 2 } else { 1 },
        data: BASE64.encode(&piece.bytes),
        timestamp: Time(piece.at),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn every_event_is_an_object_on_a_line() {
        let mut out = vec![];
        fixture::play(&mut RawJson::new(&mut out), &fixture::failing_build());
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        {"vertexes":[{"digest":"sha256:83ec2a44e64b9ce38f69626f876d05d0ff30b7f3518bf651fb88c90779989d36","name":"[internal] load build definition from Dockerfile"}]}
        {"vertexes":[{"digest":"sha256:5e8475839e82e3d5cc483481029deb84e2c11473582007b8cc6d10b306e6d041","inputs":["sha256:83ec2a44e64b9ce38f69626f876d05d0ff30b7f3518bf651fb88c90779989d36"],"name":"[2/3] RUN make"}]}
        {"vertexes":[{"digest":"sha256:3378431e4f65cca46f89e9c3a1ecd21c1bbf6362f51656f3d6b678829958bdfb","name":"[other 2/2] COPY a b"}]}
        {"vertexes":[{"digest":"sha256:5b28bd3efc61160d471dd55db3520dee76249fdb56f13994accc9d5f7b1a43b3","name":"[third 2/2] RUN sleep 9"}]}
        {"vertexes":[{"digest":"sha256:83ec2a44e64b9ce38f69626f876d05d0ff30b7f3518bf651fb88c90779989d36","name":"[internal] load build definition from Dockerfile","started":"2026-01-01T00:00:00Z"}]}
        {"statuses":[{"id":"transferring dockerfile:","vertex":"sha256:83ec2a44e64b9ce38f69626f876d05d0ff30b7f3518bf651fb88c90779989d36","current":137,"timestamp":"2026-01-01T00:00:00.001Z","started":"2026-01-01T00:00:00.001Z","completed":"2026-01-01T00:00:00.001Z"}]}
        {"vertexes":[{"digest":"sha256:83ec2a44e64b9ce38f69626f876d05d0ff30b7f3518bf651fb88c90779989d36","name":"[internal] load build definition from Dockerfile","started":"2026-01-01T00:00:00Z","completed":"2026-01-01T00:00:00.01Z"}]}
        {"vertexes":[{"digest":"sha256:5e8475839e82e3d5cc483481029deb84e2c11473582007b8cc6d10b306e6d041","inputs":["sha256:83ec2a44e64b9ce38f69626f876d05d0ff30b7f3518bf651fb88c90779989d36"],"name":"[2/3] RUN make","started":"2026-01-01T00:00:00.1Z"}]}
        {"vertexes":[{"digest":"sha256:5b28bd3efc61160d471dd55db3520dee76249fdb56f13994accc9d5f7b1a43b3","name":"[third 2/2] RUN sleep 9","started":"2026-01-01T00:00:00.1Z"}]}
        {"logs":[{"vertex":"sha256:5e8475839e82e3d5cc483481029deb84e2c11473582007b8cc6d10b306e6d041","stream":1,"data":"Y29tcGlsaW5nCg==","timestamp":"2026-01-01T00:00:00.412Z"}]}
        {"vertexes":[{"digest":"sha256:3378431e4f65cca46f89e9c3a1ecd21c1bbf6362f51656f3d6b678829958bdfb","name":"[other 2/2] COPY a b","started":"2026-01-01T00:00:00.5Z","completed":"2026-01-01T00:00:00.5Z","cached":true}]}
        {"logs":[{"vertex":"sha256:5e8475839e82e3d5cc483481029deb84e2c11473582007b8cc6d10b306e6d041","stream":1,"data":"bGlua2luZwo=","timestamp":"2026-01-01T00:00:12.51Z"}]}
        {"warnings":[{"vertex":"sha256:5e8475839e82e3d5cc483481029deb84e2c11473582007b8cc6d10b306e6d041","level":1,"short":"dGhlIGxpbmtlciBpcyBvbGQ="}]}
        {"vertexes":[{"digest":"sha256:5e8475839e82e3d5cc483481029deb84e2c11473582007b8cc6d10b306e6d041","inputs":["sha256:83ec2a44e64b9ce38f69626f876d05d0ff30b7f3518bf651fb88c90779989d36"],"name":"[2/3] RUN make","started":"2026-01-01T00:00:00.1Z","completed":"2026-01-01T00:00:12.6Z","error":"process \"/bin/sh -c make\" did not complete successfully: exit code: 2"}]}
        {"vertexes":[{"digest":"sha256:5b28bd3efc61160d471dd55db3520dee76249fdb56f13994accc9d5f7b1a43b3","name":"[third 2/2] RUN sleep 9","started":"2026-01-01T00:00:00.1Z","completed":"2026-01-01T00:00:12.7Z","error":"context canceled"}]}
        "#);
    }
}
