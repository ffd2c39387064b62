//! What is in a tree, as it was when the tree was an exact copy.

use std::collections::BTreeMap;
use std::ffi::CString;

use crate::layer::Meta;

/// A directory's entries by name.
pub(super) type Names = BTreeMap<CString, Noted>;

/// An entry of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    /// The number of the layer that it comes from, in the tree's list.
    pub(super) layer: usize,
    /// What the kernel said of the copy.
    pub(super) meta: Meta,
    /// The number of its own entries in the record, if it is a directory.
    pub(super) below: Option<usize>,
}

/// All entries of a tree. Directories refer to each other by number: however deep they nest, nothing
/// here recurses.
#[derive(Debug)]
pub(super) struct Record {
    directories: Vec<Names>,
}

impl Record {
    /// The number of the tree's own directory.
    pub(super) const ROOT: usize = 0;

    /// Of an empty tree.
    pub(super) fn new() -> Self {
        Self { directories: vec![Names::new()] }
    }

    /// Adds an empty directory and returns its number.
    pub(super) fn add(&mut self) -> usize {
        self.directories.push(Names::new());
        self.directories.len() - 1
    }

    pub(super) fn names(&self, directory: usize) -> &Names {
        &self.directories[directory]
    }

    /// Takes the entries of a directory out.
    pub(super) fn take(&mut self, directory: usize) -> Names {
        std::mem::take(&mut self.directories[directory])
    }

    pub(super) fn note(&mut self, directory: usize, name: CString, noted: Noted) {
        self.directories[directory].insert(name, noted);
    }

    /// The entry at a path, if there is one.
    pub(super) fn at(&mut self, path: &[u8]) -> Option<&mut Noted> {
        let mut components = path.split(|&byte| byte == b'/');
        let last = CString::new(components.next_back()?).ok()?;
        let mut directory = Self::ROOT;
        for component in components {
            let name = CString::new(component).ok()?;
            directory = self.directories[directory].get(&name)?.below?;
        }
        self.directories[directory].get_mut(&last)
    }
}
