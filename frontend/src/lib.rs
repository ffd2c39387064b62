//! Dockerfiles: from text to a build graph, without any I/O.
//!
//! ```text
//! text ──parse──▶ Dockerfile ──plan──▶ Plan: Graph + a Target per platform
//!                               │  ▲
//!                        Needs ─┘  └─ Pins          (looked up by the caller)
//! ```
//!
//! [`parse`] knows only the text, [`plan`] gives it meaning: which stages the target reaches, what
//! every variable stands for, which ops make the files and what the image's config is. What a plan
//! must know of the world (what is `alpine:3.20` today?) it asks for by [`Planning::Needs`].
//! [`call`] has what can be said of a Dockerfile instead of building it, [`drawing`] shows a plan.
//! Purity is checked by the compiler: this crate depends neither on tokio nor on reqwest.

pub mod ast;
pub mod call;
mod csv;
mod diagnostic;
pub mod drawing;
mod expand;
mod git;
mod glob;
mod graph;
mod id;
pub mod ignore;
mod lint;
mod ops;
mod parse;
mod pins;
mod plan;
mod source;
mod stages;
#[cfg(test)]
mod test_data;
mod url;

pub use ast::Dockerfile;
pub use csv::{CsvError, csv_fields};
pub use diagnostic::{Diagnostic, did_you_mean};
pub use expand::{Expansion, ExpansionError, expand, expand_heredoc, expand_words};
pub use git::GitSource;
pub use graph::{Graph, Vertex, VertexId};
pub use id::{IdError, id, id_of_command};
pub use lint::{Condition, Suspicion, Warning, is_secret_name};
pub use ops::{
    CacheMount, CacheSharing, CopyOp, CopySource, ExecOp, FetchOp, FileSource, GitOp, Input,
    MakeDirOp, Mode, Mount, MountSource, NetworkMode, Op, Owner, SecurityMode, Selection, UserSpec,
};
pub use parse::{parse, parse_trigger, parse_until_error, refuse_foreign_syntax};
pub use pins::{GitRef, Origin, Pinned, PinnedCommit, PinnedImage, Pins, SourceRef};
pub use plan::{
    HistoryStep, NamedContext, Plan, PlanRequest, Planning, Target, is_closed_directory, is_git,
    is_url, plan, quote,
};
pub use source::{Source, Span};
pub use url::{RemoteUrl, without_secrets, without_user};

#[cfg(test)]
use test_data::test_data;
