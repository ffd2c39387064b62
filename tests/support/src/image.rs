//! An image, read whole: its manifest, its config, and the files of its layers.

use std::collections::BTreeMap;
use std::io::Read as _;

use oci::{Digest, ImageConfig, Manifest};

/// An image all of whose digests were right.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

/// One layer: what it adds and, as whiteouts, what it removes.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// Its entries by path, in the tar's order.
    pub entries: Vec<(String, File)>,
}

/// A filesystem: absolute paths to files.
#[derive(Clone, Debug, Default)]
pub struct Rootfs(pub BTreeMap<String, File>);

/// A file of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it is.
    pub kind: Kind,
    /// Permissions with set-uid, set-gid and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time, seconds.
    pub mtime: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What a [`File`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file and its content.
    Regular(Vec<u8>),
    /// Another name for the file at a path.
    HardLink(String),
    /// A symbolic link and its target.
    Symlink(String),
    /// A character device, major and minor number.
    CharacterDevice(u32, u32),
    /// A block device, major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

impl Image {
    /// Its layers, one over the other.
    pub fn rootfs(&self) -> Rootfs {
        let mut rootfs = Rootfs::default();
        for layer in &self.layers {
            rootfs.apply(layer);
        }
        rootfs
    }

    /// The content of a file of its rootfs as text.
    pub fn text(&self, path: &str) -> String {
        self.rootfs().text(path)
    }

    /// The value of a variable of its environment.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.config.config.env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Layer {
    /// Reads a layer's tar.
    ///
    /// # Panics
    ///
    /// If it is none, or an entry has no business in a layer: absolute paths, `..`, twice the same.
    pub fn read(tar: &[u8]) -> Self {
        let mut layer = Self::default();
        let mut seen = std::collections::BTreeSet::new();
        for entry in tar::Archive::new(tar).entries().expect("a slice can be read") {
            let (path, file) = read_entry(&mut entry.expect("the layer is a tar"));
            assert!(seen.insert(path.clone()), "the layer has `{path}` twice");
            layer.entries.push((path, file));
        }
        layer
    }

    /// Its paths in order, whiteouts included.
    pub fn paths(&self) -> Vec<&str> {
        self.entries.iter().map(|(path, _)| path.as_str()).collect()
    }
}

fn read_entry(entry: &mut tar::Entry<'_, &[u8]>) -> (String, File) {
    let raw = String::from_utf8(entry.path_bytes().into_owned()).expect("test files have names");
    assert!(!raw.starts_with('/'), "absolute path `{raw}` in a layer");
    let path = absolute(&raw);
    assert!(!path.split('/').any(|part| part == ".."), "`{raw}` leads out of the layer");
    let mut xattrs = BTreeMap::new();
    if let Some(records) = entry.pax_extensions().expect("PAX records can be read") {
        for record in records {
            let record = record.expect("PAX records are well-formed");
            let key = record.key().expect("a PAX key is text");
            assert_ne!(key, "mtime", "`{path}` has a time finer than a second");
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                xattrs.insert(name.to_owned(), record.value_bytes().to_owned());
            }
        }
    }
    let header = entry.header().clone();
    let target = || {
        let bytes = entry.link_name_bytes().expect("a link has a target");
        String::from_utf8(bytes.into_owned()).expect("test files have names")
    };
    let device = || {
        let part = |number: std::io::Result<Option<u32>>| number.ok().flatten().unwrap_or_default();
        (part(header.device_major()), part(header.device_minor()))
    };
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Link => Kind::HardLink(absolute(&target())),
        tar::EntryType::Symlink => Kind::Symlink(target()),
        tar::EntryType::Char => Kind::CharacterDevice(device().0, device().1),
        tar::EntryType::Block => Kind::BlockDevice(device().0, device().1),
        tar::EntryType::Fifo => Kind::Fifo,
        tar::EntryType::Regular => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("the layer has the bytes that it announces");
            Kind::Regular(content)
        }
        other => panic!("`{path}` is of a kind that no layer has: {other:?}"),
    };
    let number = |n: std::io::Result<u64>| n.expect("numbers in a header are numbers");
    let file = File {
        kind,
        mode: header.mode().expect("a mode is a number") & 0o7777,
        uid: number(header.uid()),
        gid: number(header.gid()),
        mtime: number(header.mtime()),
        xattrs,
    };
    (path, file)
}

/// `./a/b/` to `/a/b`.
fn absolute(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

impl Rootfs {
    /// Puts a layer on top.
    pub fn apply(&mut self, layer: &Layer) {
        // Whiteouts hide what lies below, not what their own layer adds.
        for (path, _) in &layer.entries {
            let (parent, name) = split(path);
            match name.strip_prefix(".wh.") {
                Some(".wh..opq") => self.0.retain(|path, _| !is_below(path, parent)),
                Some(name) => self.remove(&join(parent, name)),
                None => {}
            }
        }
        for (path, file) in &layer.entries {
            if !split(path).1.starts_with(".wh.") {
                if file.kind != Kind::Directory {
                    self.remove(path);
                }
                self.0.insert(path.clone(), file.clone());
            }
        }
    }

    /// What is at a path; hard links are followed, symbolic ones are not.
    pub fn get(&self, path: &str) -> Option<&File> {
        match self.0.get(path) {
            Some(File { kind: Kind::HardLink(target), .. }) => self.get(target),
            other => other,
        }
    }

    /// The file at a path.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn file(&self, path: &str) -> &File {
        self.get(path).unwrap_or_else(|| panic!("no `{path}` in the image"))
    }

    /// The content of a file as text.
    ///
    /// # Panics
    ///
    /// If it is no text file.
    pub fn text(&self, path: &str) -> String {
        match &self.file(path).kind {
            Kind::Regular(content) => {
                String::from_utf8(content.clone()).unwrap_or_else(|_| panic!("`{path}` is no text"))
            }
            other => panic!("`{path}` is no file but {other:?}"),
        }
    }

    /// Whether something is at a path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The paths below a directory.
    pub fn below(&self, directory: &str) -> Vec<&str> {
        self.0.keys().map(String::as_str).filter(|path| is_below(path, directory)).collect()
    }

    fn remove(&mut self, path: &str) {
        let removed = self.0.remove(path);
        if removed.is_some_and(|file| file.kind == Kind::Directory) {
            self.0.retain(|other, _| !is_below(other, path));
        }
    }
}

impl File {
    /// Mode, owner and group as `755 0:0`.
    pub fn access(&self) -> String {
        format!("{:o} {}:{}", self.mode, self.uid, self.gid)
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').expect("paths here are absolute")
}

fn join(parent: &str, name: &str) -> String {
    format!("{parent}/{name}")
}

fn is_below(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path != "/" && path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(files: &[(&str, &str)]) -> Layer {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            if path.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
            }
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        Layer::read(&tar.into_inner().unwrap())
    }

    #[test]
    fn whiteouts_remove_what_lies_below_them_only() {
        let mut rootfs = Rootfs::default();
        rootfs.apply(&layer(&[("a/", ""), ("a/x", "1"), ("a/y", "2"), ("b/", ""), ("b/z", "3")]));
        rootfs.apply(&layer(&[("a/.wh..wh..opq", ""), ("a/new", "4"), (".wh.b", "")]));
        assert_eq!(rootfs.below("/"), ["/a", "/a/new"]);
        assert_eq!(rootfs.text("/a/new"), "4");
    }

    #[test]
    fn a_file_takes_the_place_of_a_directory_and_all_in_it() {
        let mut rootfs = Rootfs::default();
        rootfs.apply(&layer(&[("a/", ""), ("a/x", "1"), ("ab", "2")]));
        rootfs.apply(&layer(&[("a", "file")]));
        assert_eq!(rootfs.below("/"), ["/a", "/ab"]);
    }

    #[test]
    #[should_panic(expected = "twice")]
    fn the_same_path_twice_is_noticed() {
        layer(&[("a", "1"), ("./a", "2")]);
    }
}
