//! Snapshots by copies, where the kernel mounts no overlay: the directories of the layers merged into
//! one tree of plain files.
//!
//! A *view* is a tree of hard links to the layers' files: it is only read. A *writable* snapshot is a
//! real copy, since no mount stands between a step and the files of a layer. To copy a base image for
//! every step would take longer than the steps, so a copy is [kept](Trees) when its step has become a
//! layer; that of a step that fails, or of a bind mount, is removed. What
//! was in it is [recorded](record): of every entry the layer that it comes from, and what `statx` said
//! of the copy. That serves twice.
//!
//! * [`changes`] finds what the step did: what `statx` says otherwise now. The kernel sets the time
//!   of the last change (ctime) of whatever is written, renamed, linked or given away, and no program
//!   can set that time back. So no file is read unless something about it was changed.
//! * [`sync`] makes the tree the next step's: it puts right what has changed since and what comes from
//!   other layers, and touches nothing else. So a step costs what the one before has written, not
//!   what the base image holds.
//!
//! What a step wrote is moved out of the tree into a directory that looks as an overlay's upper one
//! would, and becomes a layer in the same way. Layers are the same bytes by either method, but where a
//! plain file system differs in what a step sees: one that writes into a file *through one of several
//! hard links* of a layer below changes that name alone on an overlay, which parts them, and all names
//! here; and a directory that is renamed there and back is another one on an overlay, which can't
//! rename but makes `mv` copy. Where files have no time of birth, a directory that replaces another
//! may pass for it if it gets its inode; then the layer deletes one by one what the old one had.
//!
//! Two things are not done. A store in memory where the kernel refuses overlays on the store's file
//! system: it would end with the build, and no build would find a cached step. And a copy of what
//! the step touches alone, made when it touches it: without a mount nothing tells us in time.
//!
//! On `tmpfs` a file that a program maps, reads and then writes through the mapping alone keeps its
//! ctime: of that nothing is seen if the file was in a layer below.

mod changes;
mod content;
mod place;
mod record;
mod sync;
mod trees;

pub(crate) use trees::Lent;
pub use trees::Trees;

#[cfg(test)]
mod tests;
