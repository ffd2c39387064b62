//! Paths by number, in the memory that their names take: those of a walk, of which neighbours have
//! most of their directories in common.

/// Paths by number.
#[derive(Default)]
pub(crate) struct PathList {
    /// Names, each with the number of the directory that it is in.
    names: Vec<(Option<u32>, Box<[u8]>)>,
    last: Vec<u8>,
    /// Where the names of the last path end, and their numbers.
    ends: Vec<(usize, u32)>,
}

impl PathList {
    /// Adds a path and returns its number.
    pub(crate) fn add(&mut self, path: &[u8]) -> u32 {
        let same = self.last.iter().zip(path).take_while(|(one, other)| one == other).count();
        let is_shared = |end: usize| end <= same && path.get(end) == Some(&b'/');
        while self.ends.pop_if(|(end, _)| !is_shared(*end)).is_some() {}
        let mut start = self.ends.last().map_or(0, |(end, _)| end + 1);
        for name in path[start..].split(|&byte| byte == b'/') {
            let number = u32::try_from(self.names.len()).expect("each is that of a file");
            self.names.push((self.ends.last().map(|&(_, above)| above), name.into()));
            self.ends.push((start + name.len(), number));
            start += name.len() + 1;
        }
        self.last.clear();
        self.last.extend_from_slice(path);
        self.ends.last().map_or(0, |&(_, number)| number)
    }

    /// The path that has this number.
    pub(crate) fn get(&self, number: u32) -> Vec<u8> {
        let name = |number: &u32| self.names.get(*number as usize);
        let above = |number: &u32| name(number).and_then(|(above, _)| *above);
        let mut names: Vec<_> = std::iter::successors(Some(number), above)
            .filter_map(|number| name(&number).map(|(_, name)| &**name))
            .collect();
        names.reverse();
        names.join(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_it_was() {
        let mut list = PathList::default();
        let paths =
            ["a/b/c", "a/b/cd", "a/b", "a/bc", "", "a", "a/b/c/d", "a/b/c/e", "b//c", "b/c"];
        let numbers = paths.map(|path| list.add(path.as_bytes()));
        assert_eq!(
            numbers.map(|number| list.get(number)),
            paths.map(|path| path.as_bytes().to_vec())
        );
    }

    /// Issue 9, 1.8: each path was kept whole.
    #[test]
    fn directories_in_common_are_kept_once() {
        let mut list = PathList::default();
        let above = "d/".repeat(1000);
        for number in 0..100 {
            list.add(format!("{above}{number}").as_bytes());
        }
        assert_eq!(list.names.len(), 1000 + 100);
    }
}
