//! What an earlier build learnt about a context's files, so that a no-op reads none of them.
//!
//! Two things are remembered for one selection of one context: the *signature* of all that was
//! selected, made of stat data alone, with the content digest that went with it; and for each file
//! its [`Identity`] with the digest of its bytes, for the day when the signature differs.
//!
//! A file may be written twice within one tick of the clock that stamps it. So what was hashed less
//! than two seconds after its last change is kept for this build only, not for later ones.
//!
//! As bytes: `rbstat1\n`, a flag and two digests (signature, content), then the files' records,
//! sorted. They are kept in memory in that form too, so that a no-op need not take them apart.
//! Anything else reads as an empty cache.

use std::sync::Arc;

use oci::Digest;

use super::meta::Meta;

/// Tells one state of one file from every other: device, inode, size, modification and change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity([u8; IDENTITY]);

const IDENTITY: usize = 48;

impl From<&Meta> for Identity {
    fn from(meta: &Meta) -> Self {
        let &Meta { dev, ino, size, mtime, ctime, .. } = meta;
        let mut bytes = [0; IDENTITY];
        for (number, at) in [dev, ino, size, mtime.0.cast_unsigned(), ctime.0.cast_unsigned()]
            .into_iter()
            .zip(bytes.chunks_exact_mut(8))
        {
            at.copy_from_slice(&number.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&mtime.1.to_le_bytes());
        bytes[44..48].copy_from_slice(&ctime.1.to_le_bytes());
        Self(bytes)
    }
}

/// What is remembered about the files of one selection of one context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatCache {
    tree: Option<Remembered>,
    /// Sorted, each of [`RECORD`] bytes: identity, digest, whether it is settled.
    records: Arc<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remembered {
    signature: Digest,
    content: Digest,
}

/// What is known of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileRecord {
    /// Which file, in which state.
    pub(crate) identity: Identity,
    /// The digest of its bytes.
    pub(crate) content: Digest,
    /// Whether later builds may rely on it.
    pub(crate) settled: bool,
}

const MAGIC: &[u8] = b"rbstat1\n";
const RECORD: usize = IDENTITY + 32 + 1;

impl StatCache {
    /// Remembers files, but no signature yet.
    pub(crate) fn of(files: impl Iterator<Item = FileRecord>) -> Self {
        let mut records: Vec<_> = files.map(FileRecord::bytes).collect();
        records.sort_unstable();
        records.dedup_by_key(|record| record[..IDENTITY].to_vec());
        Self { tree: None, records: records.concat().into() }
    }

    /// The content digest of a tree with this signature.
    pub(crate) fn tree(&self, signature: &Digest) -> Option<Digest> {
        self.tree.filter(|tree| tree.signature == *signature).map(|tree| tree.content)
    }

    /// Remembers a tree.
    pub(crate) fn remember_tree(&mut self, signature: Digest, content: Digest) {
        self.tree = Some(Remembered { signature, content });
    }

    /// The digest of a file's bytes.
    pub(crate) fn file(&self, identity: &Identity) -> Option<Digest> {
        self.find(identity).map(|record| record.content)
    }

    /// Whether later builds may rely on what is known of a file.
    pub(crate) fn is_settled(&self, identity: &Identity) -> bool {
        self.find(identity).is_some_and(|record| record.settled)
    }

    fn find(&self, identity: &Identity) -> Option<FileRecord> {
        let (records, _) = self.records.as_chunks();
        let place = records.binary_search_by_key(&&identity.0[..], |record| &record[..IDENTITY]);
        place.ok().map(|place| FileRecord::of(&records[place]))
    }

    /// What later builds may rely on, as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAGIC.len() + 65 + self.records.len());
        bytes.extend_from_slice(MAGIC);
        let none = Digest::from_bytes([0; 32]);
        let tree = self.tree.unwrap_or(Remembered { signature: none, content: none });
        bytes.push(self.tree.is_some().into());
        bytes.extend_from_slice(tree.signature.as_bytes());
        bytes.extend_from_slice(tree.content.as_bytes());
        let (records, _) = self.records.as_chunks::<RECORD>();
        let settled = records.iter().filter(|record| FileRecord::of(record).settled);
        settled.for_each(|record| bytes.extend_from_slice(record));
        bytes
    }

    /// Reads what [`Self::encode`] wrote. Bytes of any other form make an empty cache.
    pub fn decode(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or_default()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (known, rest) = bytes.strip_prefix(MAGIC)?.split_first()?;
        let (signature, rest) = rest.split_first_chunk()?;
        let (content, records) = rest.split_first_chunk()?;
        let [signature, content] = [signature, content].map(|digest| Digest::from_bytes(*digest));
        let tree = (*known == 1).then_some(Remembered { signature, content });
        let whole = records.len().is_multiple_of(RECORD);
        whole.then(|| Self { tree, records: records.into() })
    }
}

impl FileRecord {
    fn bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..IDENTITY].copy_from_slice(&self.identity.0);
        bytes[IDENTITY..RECORD - 1].copy_from_slice(self.content.as_bytes());
        bytes[RECORD - 1] = self.settled.into();
        bytes
    }

    fn of(bytes: &[u8; RECORD]) -> Self {
        let (mut identity, mut content) = ([0; IDENTITY], [0; 32]);
        identity.copy_from_slice(&bytes[..IDENTITY]);
        content.copy_from_slice(&bytes[IDENTITY..RECORD - 1]);
        let settled = bytes[RECORD - 1] == 1;
        Self { identity: Identity(identity), content: Digest::from_bytes(content), settled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u8, settled: bool) -> FileRecord {
        let identity = Identity([number; IDENTITY]);
        FileRecord { identity, content: Digest::of([number]), settled }
    }

    #[test]
    fn what_is_settled_reads_back_and_nothing_else() {
        let files = [record(3, true), record(1, true), record(2, false), record(1, true)];
        let mut cache = StatCache::of(files.into_iter());
        cache.remember_tree(Digest::of("signature"), Digest::of("content"));
        for FileRecord { identity, content, .. } in files {
            assert_eq!(cache.file(&identity), Some(content));
        }
        let again = StatCache::decode(&cache.encode());
        assert_eq!(again.tree(&Digest::of("signature")), Some(Digest::of("content")));
        assert_eq!(again.tree(&Digest::of("other")), None);
        assert_eq!(again.file(&Identity([3; IDENTITY])), Some(Digest::of([3])));
        assert_eq!(again.file(&Identity([2; IDENTITY])), None);
    }

    #[test]
    fn bytes_of_another_form_are_an_empty_cache() {
        let bytes = StatCache::of([record(1, true)].into_iter()).encode();
        for end in 0..bytes.len() {
            let cut = StatCache::decode(&bytes[..end]);
            assert_eq!(cut.file(&Identity([1; IDENTITY])), None, "cut at {end}");
        }
        assert_eq!(StatCache::decode(b"something else"), StatCache::default());
    }
}
