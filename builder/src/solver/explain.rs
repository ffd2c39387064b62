//! Why a step runs: what its cache key is made of, beside what it was made of the last time.
//!
//! A key tells only that something differs. So what each key is made of is kept in words, too, for
//! every step of a project, and compared when the step runs. A step is found again by its text or,
//! where that has changed, by its place: platform, stage and number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use cache::{Cache, CacheError, CacheKey, SeenStep};
use frontend::{
    CopyOp, CopySource, ExecOp, FetchOp, FileSource, Input, MakeDirOp, MountSource, Op, Selection,
    Vertex, is_secret_name, without_secrets,
};
use oci::Digest;
use serde::{Deserialize, Serialize};

use super::{Inputs, Pass, Worker, lock};

/// What the key of one step was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Evidence {
    /// The fields of the op, by what they are called.
    fields: BTreeMap<String, String>,
    inputs: Vec<Seen>,
}

/// What an input turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Seen {
    Image {
        name: String,
        manifest: Digest,
    },
    /// All of a snapshot.
    Step {
        name: String,
        identity: Digest,
    },
    /// Some files of a snapshot.
    FilesOfStep {
        name: String,
        path: String,
        digest: Digest,
    },
    /// Some files of a context, with the digest of each.
    FilesOfContext {
        context: String,
        digest: Digest,
        /// Unknown where they could not be read any more.
        files: Option<BTreeMap<String, Digest>>,
    },
}

/// What was known of a project's steps when a build began, and what it saw itself.
pub(super) struct Memory {
    project: Digest,
    known: BTreeMap<String, SeenStep>,
    seen: Mutex<BTreeMap<String, (SeenStep, Evidence)>>,
}

/// How many names of files a reason tells.
const NAMES: usize = 5;

/// How much of a value a reason shows, in characters.
const SHOWN: usize = 160;

impl Memory {
    pub(super) fn read(cache: &Cache, project: Digest) -> Result<Self, CacheError> {
        let known = cache.seen_steps(project)?;
        let known = known.into_iter().map(|step| (step.place.clone(), step)).collect();
        Ok(Self { project, known, seen: Mutex::default() })
    }

    /// Whether the step was something else when it was last seen.
    pub(super) fn is_news(&self, vertex: &Vertex, key: CacheKey) -> bool {
        self.known.get(&place(&vertex.name)).is_none_or(|step| step.key != key)
    }

    pub(super) fn note(&self, vertex: &Vertex, key: CacheKey, evidence: Evidence) {
        let (place, name) = (place(&vertex.name), vertex.name.clone());
        let step = SeenStep { place: place.clone(), name, key };
        lock(&self.seen).insert(place, (step, evidence));
    }

    /// Keeps what was seen for the next build.
    pub(super) fn save(&self, cache: &Cache) -> Result<(), CacheError> {
        let seen = std::mem::take(&mut *lock(&self.seen));
        if seen.is_empty() {
            return Ok(());
        }
        let steps: Vec<_> =
            seen.into_values().map(|(step, evidence)| (step, evidence.encode())).collect();
        cache.remember_steps(self.project, &steps)
    }

    /// Why no cache answered `key`.
    pub(super) fn reasons(
        &self,
        cache: &Cache,
        vertex: &Vertex,
        key: CacheKey,
        now: &Evidence,
    ) -> Result<Vec<String>, CacheError> {
        if vertex.no_cache {
            return Ok(vec!["--no-cache was given".to_owned()]);
        }
        let Some(before) = self.counterpart(vertex) else {
            return Ok(vec!["no earlier build of this Dockerfile had this step".to_owned()]);
        };
        if before.key == key {
            return Ok(vec!["what it made is not in the cache any more".to_owned()]);
        }
        let evidence = cache.evidence(self.project, &before.place)?;
        let Some(evidence) = evidence.and_then(|bytes| Evidence::decode(&bytes)) else {
            return Ok(vec!["there is no record of its earlier inputs".to_owned()]);
        };
        Ok(evidence.differences(now))
    }

    /// What the step was before: one with the same text, in its own place, stage or elsewhere, else
    /// whatever was in its place.
    fn counterpart(&self, vertex: &Vertex) -> Option<&SeenStep> {
        let own = place(&vertex.name);
        let here = self.known.get(&own);
        let same_text = |step: &&SeenStep| text(&step.name) == text(&vertex.name);
        let in_its_stage = |step: &&SeenStep| stage(&step.place) == stage(&own);
        let moved = || self.known.values().filter(same_text);
        here.filter(same_text)
            .or_else(|| moved().find(in_its_stage))
            .or_else(|| moved().next())
            .or(here)
    }
}

impl Evidence {
    fn encode(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("plain data serialises");
        zstd::bulk::compress(&text, zstd::DEFAULT_COMPRESSION_LEVEL).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(&zstd::decode_all(bytes).ok()?).ok()
    }

    /// In what it differs from `now`, in words; never empty.
    fn differences(&self, now: &Self) -> Vec<String> {
        let mut reasons = vec![];
        let names: BTreeSet<_> = self.fields.keys().chain(now.fields.keys()).collect();
        for name in names {
            match (self.fields.get(name), now.fields.get(name)) {
                (Some(before), Some(now)) if before != now => {
                    reasons.push(format!("{name} was `{}`, is `{}`", shown(before), shown(now)));
                }
                (Some(before), None) => reasons.push(format!("{name} `{}` is gone", shown(before))),
                (None, Some(now)) => reasons.push(format!("{name} `{}` is new", shown(now))),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        for (before, now) in self.inputs.iter().zip(&now.inputs) {
            reasons.extend(before.difference(now));
        }
        if reasons.is_empty() {
            reasons.push("its key is made in another way than before".to_owned());
        }
        reasons
    }
}

impl Seen {
    fn difference(&self, now: &Self) -> Option<String> {
        match (self, now) {
            (before, now) if before == now => None,
            (Self::Image { name: before, manifest }, Self::Image { name, manifest: new }) => {
                Some(if name == before {
                    format!("the base image `{name}` was {manifest}, is {new}")
                } else {
                    format!("the base image was `{before}`, is `{name}`")
                })
            }
            (Self::Step { identity, .. }, Self::Step { name, identity: new }) => (identity != new)
                .then(|| format!("it builds on `{name}`, which made something else")),
            (Self::FilesOfStep { digest, .. }, Self::FilesOfStep { name, path, digest: new }) => {
                (digest != new).then(|| format!("`{path}` of `{name}` changed"))
            }
            (
                Self::FilesOfContext { digest, files, .. },
                Self::FilesOfContext { context, digest: new, files: new_files },
            ) => (digest != new).then(|| match (files, new_files) {
                (Some(files), Some(new_files)) => changed_files(context, files, new_files),
                (None, _) | (_, None) => changed_files(context, &BTreeMap::new(), &BTreeMap::new()),
            }),
            (
                _,
                Self::Image { name, .. } | Self::Step { name, .. } | Self::FilesOfStep { name, .. },
            ) => Some(format!("it takes from `{name}` now")),
            (_, Self::FilesOfContext { context, .. }) => {
                Some(format!("it takes from the build context `{context}` now"))
            }
        }
    }
}

/// What happened to the files of a context, the names of the first few.
fn changed_files(
    context: &str,
    before: &BTreeMap<String, Digest>,
    now: &BTreeMap<String, Digest>,
) -> String {
    let added = now.keys().filter(|path| !before.contains_key(*path));
    let removed = before.keys().filter(|path| !now.contains_key(*path));
    // A directory differs only by its mode and owner, what is in it has names of its own.
    let changed =
        now.iter().filter(|(path, digest)| before.get(*path).is_some_and(|b| b != *digest));
    let told = [
        ("changed", changed.map(|(path, _)| path).collect::<Vec<_>>()),
        ("new", added.collect()),
        ("gone", removed.collect()),
    ];
    let told = told.into_iter().filter(|(_, paths)| !paths.is_empty()).map(|(word, paths)| {
        let names: Vec<_> = paths.iter().take(NAMES).map(|path| format!("`{path}`")).collect();
        let more = match paths.len().saturating_sub(NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{word}: {}{more}", names.join(", "))
    });
    let told: Vec<_> = told.collect();
    let whose = match context {
        "context" => "of the build context".to_owned(),
        name => format!("of the build context `{name}`"),
    };
    match told.is_empty() {
        true => format!("files {whose} changed"),
        false => format!("files {whose} {}", told.join("; ")),
    }
}

impl<W: Worker> Pass<'_, W> {
    /// What the key of `vertex` is made of; `files` are the digests that its inputs' files have.
    pub(super) async fn evidence(
        &self,
        vertex: &Vertex,
        inputs: &Inputs,
        files: &[Digest],
    ) -> Evidence {
        let mut seen = vec![];
        let mut files = files.iter().copied();
        for input in vertex.op.inputs() {
            seen.push(match input {
                Input::Snapshot(id) => match &self.graph[id].op {
                    Op::Image(image) => {
                        Seen::Image { name: image.name.clone(), manifest: image.manifest }
                    }
                    _ => Seen::Step {
                        name: self.graph[id].name.clone(),
                        identity: inputs[id].identity(),
                    },
                },
                Input::Files { from: FileSource::Vertex(id), selection } => Seen::FilesOfStep {
                    name: self.graph[*id].name.clone(),
                    path: selection.path.clone(),
                    digest: files.next().expect("a digest for each"),
                },
                Input::Files { from: FileSource::Context(name), selection } => {
                    Seen::FilesOfContext {
                        context: name.clone(),
                        digest: files.next().expect("a digest for each"),
                        files: self.solver.worker.list_files(name, selection).await.ok(),
                    }
                }
            });
        }
        Evidence { fields: fields(&vertex.op), inputs: seen }
    }
}

/// Platform, stage and number of a step: its name without its text and without how many there are.
fn place(name: &str) -> String {
    let Some((place, _)) = bracketed(name) else { return name.to_owned() };
    let place = place.rsplit_once('/').map_or(place, |(place, _total)| place);
    place.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Platform and stage of a place.
fn stage(place: &str) -> &str {
    place.rsplit_once(' ').map_or("", |(stage, _number)| stage)
}

/// What a step's name says beside its place.
fn text(name: &str) -> &str {
    bracketed(name).map_or(name, |(_, text)| text)
}

fn bracketed(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix('[')?.split_once("] ")
}

/// The fields of an op that its definition is made of.
fn fields(op: &Op) -> BTreeMap<String, String> {
    let mut fields = Fields::default();
    match op {
        Op::Scratch | Op::Image(_) | Op::Stack { .. } => {}
        Op::Exec(exec) => fields.exec(exec),
        Op::Copy(copy) => fields.copy(copy),
        Op::MakeDir(MakeDirOp { onto: _, path, owner }) => {
            fields.add("the directory", path);
            fields.add_json("the owner", owner);
        }
        Op::Fetch(FetchOp { url: _, digest, name, modified }) => {
            fields.add("the download", digest);
            fields.add("its name", name);
            fields.add("its time", modified);
        }
        Op::Git(git) => {
            fields.add("the repository", &git.remote);
            fields.add("the commit", &git.commit);
            if let Some(tag) = &git.checked_tag {
                fields.add("the tag that the checksum is of", tag);
            }
            fields.add_json("the checkout", &(&git.subdir, git.keep_git_dir, git.submodules));
        }
    }
    fields.0
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn add(&mut self, name: impl Into<String>, value: &impl ToString) {
        self.0.insert(name.into(), without_secrets(&value.to_string()));
    }

    fn add_json(&mut self, name: impl Into<String>, value: &impl Serialize) {
        let value = serde_json::to_string(value).expect("plain data serialises");
        self.add(name, &value.trim_matches('"'));
    }

    fn exec(&mut self, exec: &ExecOp) {
        self.add("the command", &exec.args.join(" "));
        for (name, value) in &exec.env {
            // Nobody wants to read it, but whether it changed.
            let value = if is_secret_name(name) { &Digest::of(value).to_string() } else { value };
            self.add(format!("the variable {name}"), value);
        }
        self.add("the working directory", &exec.cwd);
        self.add("the user", &exec.user);
        self.add_json("the network", &exec.network);
        self.add_json("the security mode", &exec.security);
        self.add("the platform", &exec.platform);
        self.add("the host name", &exec.hostname);
        for mount in &exec.mounts {
            let mut source = serde_json::to_value(&mount.source).expect("plain data serialises");
            // Not in the key: where files come from is told beside what they are.
            let members = ["bind", "cache"].iter().find_map(|kind| source.get(kind).map(|_| *kind));
            if let Some(kind) = members
                && let Some(members) = source[kind].as_object_mut()
            {
                members.retain(|name, _| !["from", "id", "sharing"].contains(&name.as_str()));
            }
            let label = match &mount.source {
                MountSource::Secret { id, .. } if mount.target.is_empty() => {
                    format!("the secret {id}")
                }
                _ => format!("the mount at {}", mount.target),
            };
            self.add_json(label, &(source, mount.read_only));
        }
        for (name, _address) in &exec.extra_hosts {
            self.add(format!("the host {name}"), name);
        }
    }

    fn copy(&mut self, copy: &CopyOp) {
        self.add("the destination", &copy.dest);
        self.add_json("the owner", &copy.owner);
        self.add_json("the mode", &copy.mode);
        for (number, source) in copy.sources.iter().enumerate() {
            let label = format!("source {}", number + 1);
            match source {
                CopySource::Inline { name, data } => {
                    self.add(label, &format!("<<{name} {}", String::from_utf8_lossy(data)));
                }
                CopySource::Files { from: _, selection, unpack } => {
                    let Selection { path, wildcards, parents, exclude } = selection;
                    let plain = !wildcards && !parents && exclude.is_empty() && !unpack;
                    match plain {
                        true => self.add(label, path),
                        false => self.add_json(label, &(selection, unpack)),
                    }
                }
            }
        }
    }
}

/// The beginning of a value, on one line.
fn shown(value: &str) -> String {
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use frontend::{Graph, VertexId};

    use super::super::tests::{World, cache, context, copy, exec, image, solver};
    use super::super::{EventKind, Events, Need, StepId};
    use super::*;

    /// A copy of the context and a command after it, with the names that planning gives.
    fn named(command: &str) -> (Graph, VertexId) {
        let mut graph = Graph::default();
        let base = image(&mut graph);
        let copied = copy(&mut graph, base, context("context"), "[1/2] COPY . /");
        let target = exec(&mut graph, copied, &format!("[2/2] RUN {command}"));
        (graph, target)
    }

    struct Project {
        cache: super::super::tests::TestCache,
        world: World,
    }

    impl Project {
        fn new() -> Self {
            Self { cache: cache(), world: World::default() }
        }

        /// Builds and returns the reasons, each after the step that it is of.
        async fn reasons(&self, (graph, target): &(Graph, VertexId)) -> Vec<String> {
            let (events, received) = Events::channel();
            let solver = solver(&self.cache, &self.world, events, 1);
            solver.solve(graph, &[*target], Need::Identity).await.unwrap();
            drop(solver);
            let name = |step: StepId| {
                let of_step = graph.vertices().find(|(_, vertex)| vertex.digest == step.0);
                of_step.map(|(_, vertex)| vertex.name.clone()).unwrap_or_default()
            };
            let reasons = received.iter().filter_map(|event| match event.kind {
                EventKind::Reason(text) => Some(format!("{}: {text}", name(event.step))),
                _ => None,
            });
            reasons.collect()
        }
    }

    #[tokio::test]
    async fn what_differs_is_told_of_every_step_that_runs() {
        let project = Project::new();
        project.world.set_context("a=1\nb=1\nc=1");
        let first = "no earlier build of this Dockerfile had this step";
        assert_eq!(
            project.reasons(&named("make")).await,
            [format!("[1/2] COPY . /: {first}"), format!("[2/2] RUN make: {first}")]
        );
        assert!(project.reasons(&named("make")).await.is_empty());
        project.world.set_context("a=2\nb=1\nd=1");
        assert_eq!(
            project.reasons(&named("make")).await,
            [
                "[1/2] COPY . /: files of the build context changed: `a`; new: `d`; gone: `c`",
                "[2/2] RUN make: it builds on `[1/2] COPY . /`, which made something else",
            ]
        );
        assert_eq!(
            project.reasons(&named("test")).await,
            ["[2/2] RUN test: the command was `[2/2] RUN make`, is `[2/2] RUN test`"]
        );
    }

    #[tokio::test]
    async fn a_step_that_failed_was_not_made() {
        let project = Project::new();
        project.reasons(&named("one")).await;
        let mut graph = Graph::default();
        let base = image(&mut graph);
        let copied = copy(&mut graph, base, context("context"), "[1/2] COPY . /");
        let failing = exec(&mut graph, copied, "fail");
        let solver = solver(&project.cache, &project.world, Events::channel().0, 1);
        solver.solve(&graph, &[failing], Need::Identity).await.unwrap_err();
        assert_eq!(
            project.reasons(&named("two")).await,
            ["[2/2] RUN two: the command was `[2/2] RUN one`, is `[2/2] RUN two`"]
        );
    }

    #[tokio::test]
    async fn what_a_cache_answered_in_between_is_what_counts() {
        let project = Project::new();
        project.reasons(&named("one")).await;
        project.reasons(&named("two")).await;
        assert!(project.reasons(&named("one")).await.is_empty());
        assert_eq!(
            project.reasons(&named("three")).await,
            ["[2/2] RUN three: the command was `[2/2] RUN one`, is `[2/2] RUN three`"]
        );
    }

    #[test]
    fn a_step_is_known_by_its_text_wherever_it_went_and_else_by_its_place() {
        let project = Digest::of("project");
        let step = |place: &str, name: &str| {
            let key = CacheKey(Digest::of(name));
            (place.to_owned(), SeenStep { place: place.to_owned(), name: name.to_owned(), key })
        };
        let known = [
            step("a 2", "[a 2/3] RUN x"),
            step("a 3", "[a 3/3] RUN y"),
            step("b 1", "[b 1/2] RUN x"),
            step("b 2", "[b 2/2] RUN w"),
        ];
        let memory = Memory { project, known: known.into(), seen: Mutex::default() };
        let counterpart = |name: &str| {
            let mut graph = Graph::default();
            let root = image(&mut graph);
            let id = exec(&mut graph, root, name);
            memory.counterpart(&graph[id]).map(|step| step.place.clone())
        };
        assert_eq!(counterpart("[a  3/10] RUN x").as_deref(), Some("a 2"));
        assert_eq!(counterpart("[a  3/10] RUN z").as_deref(), Some("a 3"));
        assert_eq!(counterpart("[b 2/3] RUN x").as_deref(), Some("b 1"));
        assert_eq!(counterpart("[c 2/3] RUN w").as_deref(), Some("b 2"));
        assert_eq!(counterpart("[a  4/10] RUN z"), None);
    }

    #[test]
    fn what_an_input_became_is_told() {
        let digest = |text: &str| Digest::of(text);
        let image = |name: &str, manifest: &str| Seen::Image {
            name: name.to_owned(),
            manifest: digest(manifest),
        };
        let files = |path: &str, content: &str| Seen::FilesOfStep {
            name: "[a 1/1] RUN x".to_owned(),
            path: path.to_owned(),
            digest: digest(content),
        };
        let (old, new) = (digest("old"), digest("new"));
        for (before, now, told) in [
            (
                image("debian", "old"),
                image("debian", "new"),
                format!("the base image `debian` was {old}, is {new}"),
            ),
            (
                image("debian", "old"),
                image("alpine", "new"),
                "the base image was `debian`, is `alpine`".to_owned(),
            ),
            (files("/y", "old"), files("/y", "new"), "`/y` of `[a 1/1] RUN x` changed".to_owned()),
            (files("/y", "old"), image("alpine", "new"), "it takes from `alpine` now".to_owned()),
        ] {
            assert_eq!(before.difference(&now), Some(told));
            assert_eq!(before.difference(&before), None);
        }
    }

    #[test]
    fn places_do_without_totals() {
        assert_eq!(place("[linux/amd64 build  2/10] RUN a/b] c"), "linux/amd64 build 2");
        assert_eq!(place("https://example.com/x"), "https://example.com/x");
        assert_eq!(text("[build 2/5] RUN make"), "RUN make");
    }

    #[test]
    fn of_many_files_the_first_few_are_told() {
        let files = |count: u8| (0..count).map(|n| (n.to_string(), Digest::of([n]))).collect();
        assert_eq!(
            changed_files("assets", &files(0), &files(7)),
            "files of the build context `assets` new: `0`, `1`, `2`, `3`, `4` and 2 more"
        );
    }
}
