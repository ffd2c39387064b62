//! The steps of a build, read from what `--progress=rawjson` wrote.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

/// What a build did, step by step.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    steps: BTreeMap<String, Step>,
    order: Vec<String>,
}

/// One step.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Its name, such as `[build 2/5] RUN make`.
    pub name: String,
    /// When it began to run.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Whether a cache answered it.
    pub cached: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// What it printed.
    pub log: String,
    /// Transfers and pieces of work within it, by their names: when they ended.
    pub pieces: BTreeMap<String, Option<Timestamp>>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Line {
    vertexes: Vec<Vertex>,
    statuses: Vec<Status>,
    logs: Vec<Log>,
}

#[derive(Deserialize)]
struct Vertex {
    digest: String,
    #[serde(default)]
    name: String,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
    #[serde(default)]
    cached: bool,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    id: String,
    vertex: String,
    completed: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Log {
    vertex: String,
    data: String,
}

impl Steps {
    /// Reads the JSON lines of `stderr`; other lines are errors that follow them.
    ///
    /// # Panics
    ///
    /// If something is no event that begins like one.
    pub fn read(stderr: &str) -> Self {
        let mut steps = Self::default();
        for line in stderr.lines().filter(|line| line.starts_with('{')) {
            let line = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
            steps.add(line);
        }
        steps
    }

    fn add(&mut self, line: Line) {
        for vertex in line.vertexes {
            if !self.steps.contains_key(&vertex.digest) {
                self.order.push(vertex.digest.clone());
            }
            let step = self.steps.entry(vertex.digest).or_default();
            step.name = vertex.name;
            step.started = step.started.or(vertex.started);
            step.completed = vertex.completed;
            step.cached |= vertex.cached;
            step.error = vertex.error.filter(|error| !error.is_empty());
        }
        for status in line.statuses {
            let step = self.steps.entry(status.vertex).or_default();
            step.pieces.insert(status.id, status.completed);
        }
        for log in line.logs {
            let bytes = STANDARD.decode(log.data).expect("logs are base64");
            let step = self.steps.entry(log.vertex).or_default();
            step.log.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// All steps, as they were first named.
    pub fn all(&self) -> impl Iterator<Item = &Step> {
        self.order.iter().map(|digest| &self.steps[digest])
    }

    /// The steps that stand for an instruction other than `FROM`.
    pub fn instructions(&self) -> impl Iterator<Item = &Step> {
        self.all().filter(|step| {
            let instruction = step.name.split_once("] ").map(|(_, instruction)| instruction);
            step.name.starts_with('[')
                && !step.name.starts_with("[internal]")
                && instruction.is_some_and(|instruction| !instruction.starts_with("FROM"))
        })
    }

    /// The only step whose name has `words` in it.
    ///
    /// # Panics
    ///
    /// If there is none or more than one.
    pub fn step(&self, words: &str) -> &Step {
        let found: Vec<_> = self.all().filter(|step| step.name.contains(words)).collect();
        assert_eq!(found.len(), 1, "one step has `{words}` in its name:\n{self}");
        found[0]
    }

    /// The names of the instructions that no cache answered and that came to their end.
    pub fn ran(&self) -> Vec<String> {
        let ran = |step: &&Step| !step.cached && step.started.is_some() && step.error.is_none();
        let ran = self.instructions().filter(ran).filter(|step| step.completed.is_some());
        ran.map(|step| step.name.clone()).collect()
    }

    /// Demands that exactly the instructions with these words in their names ran, all others were
    /// answered by a cache.
    pub fn ran_only(&self, words: &[&str]) {
        let ran: Vec<_> = self.instructions().filter(|step| !step.cached).collect();
        let expected = |step: &&Step| words.iter().any(|words| step.name.contains(words));
        assert!(
            ran.iter().all(expected) && ran.len() == words.len(),
            "only {words:?} must run:\n{self}"
        );
    }
}

impl Step {
    /// When it began to run.
    ///
    /// # Panics
    ///
    /// If it did not.
    pub fn started_at(&self) -> Timestamp {
        self.started.unwrap_or_else(|| panic!("`{}` never started", self.name))
    }

    /// When it ended.
    ///
    /// # Panics
    ///
    /// If it did not.
    pub fn completed_at(&self) -> Timestamp {
        self.completed.unwrap_or_else(|| panic!("`{}` never ended", self.name))
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Step { name, started, completed, cached, error, .. } in self.all() {
            writeln!(f, "{name}: {started:?}..{completed:?}, cached: {cached}, {error:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STDERR: &str = r#"
{"vertexes":[{"digest":"a","name":"[internal] load build context"},{"digest":"b","inputs":["a"],"name":"[1/2] FROM busybox"}]}
{"vertexes":[{"digest":"c","name":"[2/2] RUN make","started":"2026-01-02T03:04:05.5Z"}]}
{"logs":[{"vertex":"c","stream":1,"data":"aGVsbG8=","timestamp":"2026-01-02T03:04:06Z"}],"statuses":[{"id":"blob","vertex":"c","current":1,"timestamp":"2026-01-02T03:04:06Z","completed":"2026-01-02T03:04:06Z"}]}
{"vertexes":[{"digest":"c","name":"[2/2] RUN make","started":"2026-01-02T03:04:05.5Z","completed":"2026-01-02T03:04:07.5Z","error":"exit code: 2"}]}
error: it failed
"#;

    #[test]
    fn later_lines_complete_what_earlier_ones_said() {
        let steps = Steps::read(STDERR);
        let run = steps.step("RUN make");
        assert_eq!(run.log, "hello");
        assert_eq!(run.error.as_deref(), Some("exit code: 2"));
        assert_eq!(run.completed_at().duration_since(run.started_at()).as_secs(), 2);
        assert!(run.pieces["blob"].is_some());
        assert_eq!(steps.instructions().count(), 1);
        steps.ran_only(&["RUN make"]);
    }

    #[test]
    #[should_panic(expected = "only [] must run")]
    fn a_step_that_ran_is_noticed() {
        Steps::read(STDERR).ran_only(&[]);
    }
}
