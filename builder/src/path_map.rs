//! Values by path, in the memory that the names take: not in that of the paths, which may be long
//! and many where somebody who means harm made them up.

use std::collections::{BTreeMap, HashMap};
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
    /// Nodes that stand for nothing any more.
    free: Vec<u32>,
}

struct Node<T> {
    value: Option<T>,
    children: Children,
}

/// The nodes in a directory by name. Most directories of a long path hold one, for which a tree
/// would take several times the memory.
#[expect(clippy::box_collection, reason = "most have none, which takes a third so")]
#[derive(Default)]
struct Children {
    first: Option<(Box<[u8]>, u32)>,
    /// Those with names after the first one's.
    rest: Option<Box<BTreeMap<Box<[u8]>, u32>>>,
}

impl Children {
    fn get(&self, name: &[u8]) -> Option<u32> {
        match &self.first {
            Some((first, child)) if **first == *name => Some(*child),
            _ => self.rest.as_ref()?.get(name).copied(),
        }
    }

    /// Adds a name that is not there.
    fn insert(&mut self, name: Box<[u8]>, child: u32) {
        let (name, child) = match self.first.take() {
            None => {
                self.first = Some((name, child));
                return;
            }
            Some(first) if first.0 < name => {
                self.first = Some(first);
                (name, child)
            }
            Some(second) => {
                self.first = Some((name, child));
                second
            }
        };
        self.rest.get_or_insert_default().insert(name, child);
    }

    /// All of them, by name.
    fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let first = self.first.iter().map(|(name, child)| (&**name, *child));
        first.chain(
            self.rest.iter().flat_map(|rest| rest.iter().map(|(name, child)| (&**name, *child))),
        )
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { value: None, children: Children::default() }
    }
}

impl<T> Default for PathMap<T> {
    fn default() -> Self {
        let (known, keys) = (HashMap::new(), RandomState::new());
        Self { nodes: vec![Node::default()], known, keys, free: vec![] }
    }
}

impl<T> PathMap<T> {
    /// Gives `path` a value in place of the one that it has.
    pub(crate) fn insert(&mut self, path: &[u8], value: T) {
        let node = self.node(path);
        self.nodes[node as usize].value = Some(value);
    }

    /// Gives `path` and the directories on its way a value, but not the one that ends at `above`
    /// nor those before it.
    pub(crate) fn insert_below(&mut self, above: usize, path: &[u8], value: T)
    where
        T: Copy,
    {
        let mut node = self.directory(&path[..above]);
        for name in names(&path[above..]) {
            node = self.child(node, name);
            self.nodes[node as usize].value = Some(value);
        }
    }

    /// Whether no path has a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.try_for_each(|_, _| Err(())).is_ok()
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
        if let Some(child) = self.nodes[parent as usize].children.get(name) {
            return child;
        }
        let new = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            u32::try_from(self.nodes.len() - 1).expect("each took bytes of an archive")
        });
        self.nodes[parent as usize].children.insert(name.into(), new);
        new
    }

    fn find(&self, path: &[u8]) -> Option<u32> {
        names(path).try_fold(0, |node, name| self.nodes[node as usize].children.get(name))
    }

    /// Forgets the value of `path`.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        if let Some(node) = self.find(path) {
            self.nodes[node as usize].value = None;
        }
    }

    /// Forgets the values of `path` and of all paths below it.
    pub(crate) fn remove_all(&mut self, path: &[u8]) {
        let Some(top) = self.find(path) else { return };
        let mut gone = vec![top];
        while let Some(node) = gone.pop() {
            let Node { children, .. } = std::mem::take(&mut self.nodes[node as usize]);
            gone.extend(children.iter().map(|(_, child)| child));
            if node != top {
                self.free.push(node);
            }
        }
        // Among them are paths that do not lead to their nodes any more.
        self.known.clear();
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
                levels.push(Level { children: Box::new(node.children.iter()), length: path.len() });
            }
            let Some(level) = levels.last_mut() else { return Ok(()) };
            path.truncate(level.length);
            next = level.children.next().map(|(name, child)| {
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
    children: Box<dyn Iterator<Item = (&'a [u8], u32)> + 'a>,
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

    #[test]
    fn directories_on_the_way_get_the_value_too() {
        let mut map = PathMap::default();
        assert!(map.is_empty());
        map.insert_below(0, b"a/b", 1);
        map.insert_below(3, b"a/b/c/d", 2);
        assert!(!map.is_empty());
        assert_eq!(shown(&map), "a=1 a/b=1 a/b/c=2 a/b/c/d=2 ");
        map.remove_all(b"a");
        assert!(map.is_empty());
    }

    /// Issue 9, 1.8: a directory that is made and replaced again and again took as long as all that
    /// had ever been below it.
    #[test]
    fn what_was_removed_takes_neither_time_nor_memory() {
        let mut map = PathMap::default();
        for round in 0..10 {
            map.insert_below(0, "d/".repeat(100).as_bytes(), round);
            map.insert(b"d/d/x", round);
            map.remove_all(b"d");
            assert_eq!(map.nodes.len(), 1 + 101, "{round}");
            map.insert(b"d/d/x", round);
            assert_eq!(shown(&map), format!("d/d/x={round} "));
            map.remove_all(b"d");
        }
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
