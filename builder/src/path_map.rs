//! Values by path, in the memory that the names take: not in that of the paths, which may be long
//! and many where somebody who means harm made them up.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::hash::{BuildHasher as _, RandomState};

/// Values by path. A path's `/` at its ends, and several in a row, mean nothing.
pub(crate) struct PathMap<T> {
    /// The first one is the root.
    nodes: Vec<Node<T>>,
    /// The nodes of paths that were inserted and of the directories that these are in, by the hash
    /// of the path: so that a path of many names needs not be walked each time that it comes. Keys
    /// are secret, so no archive can have two paths with one hash.
    known: HashMap<u64, u32>,
    keys: RandomState,
}

struct Node<T> {
    value: Option<T>,
    children: BTreeMap<Box<[u8]>, u32>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { value: None, children: BTreeMap::new() }
    }
}

impl<T> Default for PathMap<T> {
    fn default() -> Self {
        let (known, keys) = (HashMap::new(), RandomState::new());
        Self { nodes: vec![Node::default()], known, keys }
    }
}

impl<T> PathMap<T> {
    /// Gives `path` a value in place of the one that it has.
    pub(crate) fn insert(&mut self, path: &[u8], value: T) {
        let node = self.node(path);
        self.nodes[node as usize].value = Some(value);
    }

    fn node(&mut self, path: &[u8]) -> u32 {
        let hash = self.keys.hash_one(path);
        if let Some(&node) = self.known.get(&hash) {
            return node;
        }
        let node = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) if slash + 1 < path.len() => {
                let parent = self.directory(&path[..slash]);
                self.child(parent, &path[slash + 1..])
            }
            Some(_) | None => self.walk(path),
        };
        self.known.insert(hash, node);
        node
    }

    fn directory(&mut self, path: &[u8]) -> u32 {
        let hash = self.keys.hash_one(path);
        if let Some(&node) = self.known.get(&hash) {
            return node;
        }
        let node = self.walk(path);
        self.known.insert(hash, node);
        node
    }

    fn walk(&mut self, path: &[u8]) -> u32 {
        names(path).fold(0, |parent, name| self.child(parent, name))
    }

    fn child(&mut self, parent: u32, name: &[u8]) -> u32 {
        if let Some(&child) = self.nodes[parent as usize].children.get(name) {
            return child;
        }
        let new = u32::try_from(self.nodes.len()).expect("each took a block of an archive");
        self.nodes.push(Node::default());
        self.nodes[parent as usize].children.insert(name.into(), new);
        new
    }

    fn find(&self, path: &[u8]) -> Option<u32> {
        names(path).try_fold(0, |node, name| self.nodes[node as usize].children.get(name).copied())
    }

    /// Forgets the value of `path`.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        if let Some(node) = self.find(path) {
            self.nodes[node as usize].value = None;
        }
    }

    /// Forgets the values of `path` and of all paths below it.
    pub(crate) fn remove_all(&mut self, path: &[u8]) {
        let mut gone: Vec<_> = self.find(path).into_iter().collect();
        while let Some(node) = gone.pop() {
            self.nodes[node as usize].value = None;
            gone.extend(self.nodes[node as usize].children.values());
        }
    }

    /// Visits all values, those of a directory before those below it, in the order of the names.
    pub(crate) fn try_for_each<E>(
        &self,
        mut visit: impl FnMut(&[u8], &T) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut path = vec![];
        let mut levels = vec![];
        let mut next = Some(0);
        loop {
            if let Some(node) = next.map(|node: u32| &self.nodes[node as usize]) {
                node.value.as_ref().map_or(Ok(()), |value| visit(&path, value))?;
                levels.push(Level { children: node.children.iter(), length: path.len() });
            }
            let Some(level) = levels.last_mut() else { return Ok(()) };
            path.truncate(level.length);
            next = level.children.next().map(|(name, &child)| {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                child
            });
            if next.is_none() {
                levels.pop();
            }
        }
    }
}

struct Level<'a> {
    children: btree_map::Iter<'a, Box<[u8]>, u32>,
    /// How long the path of the directory is.
    length: usize,
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(map: &PathMap<u32>) -> String {
        let mut shown = String::new();
        let add = |path: &[u8], value: &u32| {
            shown += &format!("{}={value} ", String::from_utf8_lossy(path));
            Ok::<_, ()>(())
        };
        map.try_for_each(add).unwrap();
        shown
    }

    #[test]
    fn values_are_visited_from_the_top_by_name() {
        let mut map = PathMap::default();
        for (value, path) in (0..).zip(["b/c", "a/x/y", "a/b", "a/x", "", "b/c", "b//d/"]) {
            map.insert(path.as_bytes(), value);
        }
        assert_eq!(shown(&map), "=4 a/b=2 a/x=3 a/x/y=1 b/c=5 b/d=6 ");
    }

    #[test]
    fn what_was_removed_may_come_again() {
        let mut map = PathMap::default();
        for path in ["a", "a/b", "a/b/c", "ab"] {
            map.insert(path.as_bytes(), 1);
        }
        map.remove(b"a");
        map.remove(b"nothing/here");
        assert_eq!(shown(&map), "a/b=1 a/b/c=1 ab=1 ");
        map.remove_all(b"a/b");
        assert_eq!(shown(&map), "ab=1 ");
        map.insert(b"a/b/c", 2);
        assert_eq!(shown(&map), "a/b/c=2 ab=1 ");
    }

    #[test]
    fn a_neighbour_with_a_longer_name_is_not_below() {
        let mut map = PathMap::default();
        for path in ["a/b", "a/b/c", "a/bc", "a/b-/c"] {
            map.insert(path.as_bytes(), 0);
        }
        map.remove_all(b"a/b");
        assert_eq!(shown(&map), "a/b-/c=0 a/bc=0 ");
    }

    /// Issue 9, 1.8: each path was kept whole.
    #[test]
    fn a_long_path_is_kept_once() {
        let mut map = PathMap::default();
        let above = "d/".repeat(2000);
        for number in 0..1000 {
            map.insert(format!("{above}{}", number % 10).as_bytes(), number);
            map.insert(b"elsewhere", number);
        }
        assert_eq!(map.nodes.len(), 1 + 2000 + 10 + 1);
    }
}
