//! What comes from outside of the Dockerfile: images, named contexts, downloads.
//!
//! All of it must be pinned before it can be used. What has no pin yet is noted down as a need.

use oci::{Descriptor, DiffId, Digest, ImageConfig, Reference};

use super::contexts::Found;
use super::names::StepNames;
use super::platform::{PlatformPlanner, Progress};
use super::stage::StageState;
use super::{NamedContext, remote};
use crate::ast::{Instruction, Operand};
use crate::stages::{Base, Named, Stage};
use crate::{
    CopyOp, CopySource, Diagnostic, FetchOp, FileSource, GitOp, GitSource, Op, Origin, Pinned,
    PinnedCommit, PinnedImage, RemoteUrl, Selection, SourceRef, Span, VertexId, did_you_mean,
};

/// The build context without a name of its own.
pub(super) fn main_context() -> FileSource {
    FileSource::Context("context".to_owned())
}

/// What a stage stands on or takes files from, pinned.
#[derive(Debug)]
pub(super) enum Ground<'a> {
    /// Nothing.
    Scratch,
    /// Another stage.
    Stage(Box<StageState>),
    /// An image, and the name that was asked for.
    Image { name: String, image: &'a PinnedImage },
    /// A local directory: the key of its context.
    Directory(&'a str),
    /// A downloaded file.
    File(FetchOp),
    /// The files of a git repository.
    Git(GitOp),
    /// Something of this name that can't be looked up.
    Unknown(String),
}

impl Ground<'_> {
    /// The ONBUILD triggers that it brings along.
    pub(super) fn triggers(&self) -> &[String] {
        match self {
            Self::Stage(state) => &state.config.config.on_build,
            Self::Image { image, .. } => &image.config.config.on_build,
            Self::Scratch
            | Self::Directory(_)
            | Self::File(_)
            | Self::Git(_)
            | Self::Unknown(_) => &[],
        }
    }

    /// Whether it counts as a step of the stage on top of it.
    pub(super) fn is_step(&self) -> bool {
        match self {
            Self::Image { image, .. } => !image.layers.is_empty(),
            Self::Unknown(_) => true,
            Self::Scratch | Self::Stage(_) | Self::Directory(_) | Self::File(_) | Self::Git(_) => {
                false
            }
        }
    }
}

impl<'a> PlatformPlanner<'a> {
    /// Pins a named context; `None`, and one need more, if that can't be done yet.
    pub(super) fn context(
        &mut self,
        Found { key, context }: Found<'a>,
        stage: Option<&'a Stage<'a>>,
        span: &Span,
    ) -> Result<Option<Ground<'a>>, Diagnostic> {
        let platform = self.wanted_platform(stage).clone();
        let source = match context {
            NamedContext::Directory => return Ok(Some(Ground::Directory(key))),
            NamedContext::Http(url) => {
                // It is called the same whatever its URL, so that it can be copied from.
                let named = |fetch| FetchOp { name: "context".to_owned(), ..fetch };
                return Ok(self.download(url, None, span)?.map(named).map(Ground::File));
            }
            NamedContext::Scratch => return Ok(Some(Ground::Scratch)),
            NamedContext::Git(source) => {
                return Ok(self.checkout(source, span)?.map(Ground::Git));
            }
            NamedContext::Image(reference) => {
                let (reference, strict) = (reference.clone(), self.is_strict(stage));
                SourceRef::Image { reference, platform, strict }
            }
            NamedContext::OciLayout { path, tag, digest } => {
                let (path, tag, digest) = (path.clone(), tag.clone(), *digest);
                SourceRef::OciLayout { path, tag, digest, platform }
            }
        };
        self.pinned_image(key, source, span)
    }

    /// Pins an image by name; `None`, and one need more, if that can't be done yet.
    pub(super) fn image(
        &mut self,
        name: &str,
        stage: Option<&'a Stage<'a>>,
        span: &Span,
    ) -> Result<Option<Ground<'a>>, Diagnostic> {
        let reference = self.reference(name, span)?;
        let platform = self.wanted_platform(stage).clone();
        let strict = self.is_strict(stage);
        self.pinned_image(name, SourceRef::Image { reference, platform, strict }, span)
    }

    fn pinned_image(
        &mut self,
        name: &str,
        source: SourceRef,
        span: &Span,
    ) -> Result<Option<Ground<'a>>, Diagnostic> {
        match self.pin(source, span) {
            None => Ok(None),
            Some(Pinned::Image(image)) => Ok(Some(Ground::Image { name: name.to_owned(), image })),
            Some(Pinned::Unknown) => Ok(Some(Ground::Unknown(name.to_owned()))),
            Some(Pinned::File { .. } | Pinned::Commit(_) | Pinned::Time(_)) => {
                Err(self.facts.error(span, format!("`{name}` is pinned to files, not an image")))
            }
        }
    }

    fn reference(&self, name: &str, span: &Span) -> Result<Reference, Diagnostic> {
        name.parse().map_err(|error| {
            let mut names = self.stages.list.iter().filter_map(|stage| stage.name.as_deref());
            let lower = name.to_lowercase();
            let in_lower_case = names.clone().find(|stage| *stage == lower);
            let suggestion = in_lower_case.or_else(|| did_you_mean(name, &mut names));
            self.facts
                .error(
                    span,
                    format!(
                        "failed to parse stage name \"{}\": {error}",
                        crate::without_user(name)
                    ),
                )
                .suggest(suggestion)
        })
    }

    /// Pins what is at `url`; `None`, and one need more, if that can't be done yet.
    pub(super) fn download(
        &mut self,
        url: &RemoteUrl,
        checksum: Option<Digest>,
        span: &Span,
    ) -> Result<Option<FetchOp>, Diagnostic> {
        match self.pin(SourceRef::Http { url: url.clone(), checksum }, span) {
            None => Ok(None),
            // The name follows from the URL alone: what a server suggests never names a file.
            Some(Pinned::File { digest, modified }) => Ok(Some(FetchOp {
                url: url.clone(),
                digest: *digest,
                name: remote::file_name(url.reveal()),
                modified: *modified,
            })),
            Some(Pinned::Unknown) => Ok(Some(FetchOp {
                url: url.clone(),
                digest: Digest::of(url.reveal()),
                name: remote::file_name(url.reveal()),
                modified: 0,
            })),
            Some(Pinned::Image(_) | Pinned::Commit(_) | Pinned::Time(_)) => {
                Err(self.facts.error(span, format!("`{url}` is not pinned to a file")))
            }
        }
    }

    /// Pins a commit; `None`, and one need more, if that can't be done yet.
    pub(super) fn checkout(
        &mut self,
        source: &GitSource,
        span: &Span,
    ) -> Result<Option<GitOp>, Diagnostic> {
        let GitSource { remote, reference, checksum, .. } = source.clone();
        match self.pin(SourceRef::Git { remote, reference, checksum }, span) {
            None => Ok(None),
            Some(Pinned::Commit(commit)) => Ok(Some(source.at(commit.clone()))),
            Some(Pinned::Unknown) => {
                let id = Digest::of(source.remote.reveal()).hex();
                Ok(Some(source.at(PinnedCommit { id, name: None })))
            }
            Some(Pinned::Image(_) | Pinned::File { .. } | Pinned::Time(_)) => {
                let message = format!("`{}` is not pinned to a commit", source.remote);
                Err(self.facts.error(span, message))
            }
        }
    }

    fn pin(&mut self, source: SourceRef, span: &Span) -> Option<&'a Pinned> {
        let pinned = self.facts.pin(&source);
        if pinned.is_none() {
            self.draft.needs.entry(source).or_insert_with(|| span.clone());
        }
        pinned
    }

    /// Whose files `named` means; an empty file system where that is not known yet.
    pub(super) fn files_of(
        &mut self,
        named: &Named,
        span: &Span,
    ) -> Result<FileSource, Diagnostic> {
        let ground = match named {
            Named::Stage(index) => {
                let stages = self.stages;
                let stage = &stages.list[*index];
                if let (true, Base::Context(found)) = (stage.replaced, &stage.base) {
                    self.context(*found, Some(stage), span)?
                } else {
                    match self.stage(*index)? {
                        Progress::Planned(state) => return Ok(FileSource::Vertex(state.vertex)),
                        Progress::Waiting | Progress::NotPlanned => None,
                    }
                }
            }
            Named::Other(name) if name == "scratch" => Some(Ground::Scratch),
            Named::Other(name) => match self.facts.contexts.find(name, self.platform) {
                Some(found) => self.context(found, None, span)?,
                None => self.image(name, None, span)?,
            },
        };
        let vertex = match ground {
            Some(Ground::Directory(key)) => return Ok(FileSource::Context(key.to_owned())),
            Some(Ground::Image { image, .. }) => self.image_vertex(image, None, span),
            Some(Ground::Unknown(name)) => self.unknown_vertex(&name, None, span),
            Some(Ground::File(fetch)) => self.fetch_vertex(fetch, span),
            Some(Ground::Git(git)) => self.git_vertex(git, span),
            Some(Ground::Stage(state)) => state.vertex,
            Some(Ground::Scratch) | None => self.scratch(span),
        };
        Ok(FileSource::Vertex(vertex))
    }

    /// Notes down what a stage will need as far as that can be said before its base is known.
    pub(super) fn ask_ahead(&mut self, stage: &'a Stage<'a>) -> Result<(), Diagnostic> {
        for (named, span) in &stage.references {
            let is_external = match named {
                Named::Stage(index) => self.stages.list[*index].replaced,
                Named::Other(_) => true,
            };
            if is_external {
                self.files_of(named, span)?;
            }
        }
        for node in stage.instructions {
            let Instruction::Add(add) = &node.instruction else { continue };
            let is_literal = |text: &str| !text.contains(['$', '"', '\'', '\\', '`']);
            let checksum = match add.checksum.as_deref() {
                None => None,
                Some(text) if is_literal(text) => text.parse().ok(),
                Some(_) => continue,
            };
            for source in &add.sources {
                if let Operand::Path(url) = source
                    && is_literal(url)
                    && remote::is_url(url)
                    && !remote::is_git(url)
                {
                    self.download(&url.as_str().into(), checksum, &node.span)?;
                }
            }
        }
        Ok(())
    }

    /// The empty file system.
    pub(super) fn scratch(&mut self, span: &Span) -> VertexId {
        self.add(Op::Scratch, "FROM scratch", span)
    }

    /// An image; one without layers is an empty file system.
    pub(super) fn image_vertex(
        &mut self,
        image: &PinnedImage,
        names: Option<&mut StepNames>,
        span: &Span,
    ) -> VertexId {
        if image.layers.is_empty() {
            return self.scratch(span);
        }
        let PinnedImage { name, manifest, .. } = image;
        let text = match name.contains('@') {
            true => format!("FROM {name}"),
            false => format!("FROM {name}@{manifest}"),
        };
        let name = names.map_or_else(|| text.clone(), |names| names.next(&text));
        self.add(Op::Image(Box::new(image.clone())), name, span)
    }

    /// Stands for the files of an image that can't be looked up.
    pub(super) fn unknown_vertex(
        &mut self,
        name: &str,
        names: Option<&mut StepNames>,
        span: &Span,
    ) -> VertexId {
        let layer = DiffId(Digest::of(format!("unknown image {name}")));
        let image = PinnedImage {
            name: name.to_owned(),
            origin: Origin::Store,
            manifest: Digest::from_bytes([0; 32]),
            layers: vec![(layer, Descriptor::new("", Digest::from_bytes([0; 32]), 0))],
            config: ImageConfig::default(),
        };
        let text = format!("FROM {name} (not looked at)");
        let name = names.map_or_else(|| text.clone(), |names| names.next(&text));
        self.add(Op::Image(Box::new(image)), name, span)
    }

    /// A file system with nothing but a download.
    pub(super) fn fetch_vertex(&mut self, fetch: FetchOp, span: &Span) -> VertexId {
        let name = fetch.url.to_string();
        self.add(Op::Fetch(fetch), name, span)
    }

    /// A file system with the files of a commit.
    pub(super) fn git_vertex(&mut self, git: GitOp, span: &Span) -> VertexId {
        let reference = git.reference.as_deref().unwrap_or(&git.commit);
        let name = format!("[internal] load git source {}#{reference}", git.remote);
        self.add(Op::Git(Box::new(git)), name, span)
    }

    /// A file system with all files of a local directory.
    pub(super) fn whole_directory(&mut self, key: &str, span: &Span) -> VertexId {
        let from = FileSource::Context(key.to_owned());
        let copy = CopyOp {
            onto: self.scratch(span),
            sources: vec![CopySource::Files {
                from,
                selection: Selection::literal(""),
                unpack: false,
            }],
            dest: "/".to_owned(),
            owner: None,
            mode: None,
        };
        self.add(Op::Copy(Box::new(copy)), format!("[context {key}] load from client"), span)
    }
}
