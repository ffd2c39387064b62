//! Two doors lead archives in, ADD's and that of layers: the same bytes become the same files.
//!
//! They differ on purpose in names that begin with `.wh.`, in the root's own entry, in entries below
//! a link that leads nowhere (an error for ADD, as for BuildKit), in what a hard link says of its
//! target, in the times of directories that no entry stands for, in fractions of
//! seconds, in attributes other than capabilities, and in what set-group-ID passes on. So the
//! archives here have none of these.

use std::os::fd::AsFd as _;

use tokio_util::sync::CancellationToken;

use super::super::Stream;
use super::Tree;
use crate::layer::samples::{Dice, describe, open};
use crate::layer::{self, Options};

/// What became of an archive: a line for each file, or why it was refused.
type Outcome = Result<Vec<String>, String>;

fn by_add(tar: &[u8]) -> Outcome {
    let to = Tree::new();
    let stream = Stream::new("tar".as_ref(), tar).unwrap();
    stream.unpack(&to.root(), &CancellationToken::new()).map_err(|error| format!("{error:?}"))?;
    Ok(described(&to))
}

fn by_layer(tar: &[u8]) -> Outcome {
    let to = Tree::new();
    let never = CancellationToken::new();
    let plain = crate::archive::decompress(tar, &never).map_err(|error| format!("{error:?}"))?;
    let unpacked = layer::unpack(plain, open(&to.at("")).as_fd(), &Options::default());
    unpacked.map_err(|error| format!("{error:?}"))?;
    Ok(described(&to))
}

fn leads_nowhere(outcome: &Outcome) -> bool {
    outcome.as_ref().is_err_and(|error| error.contains("is a link that leads nowhere"))
}

fn described(tree: &Tree) -> Vec<String> {
    let is_directory = |line: &str| line.contains(" Directory ");
    let without_time = |line: &String| match is_directory(line) {
        true => {
            line.split(' ').enumerate().filter(|(at, _)| *at != 4).map(|(_, word)| word).collect()
        }
        false => line.clone(),
    };
    describe(open(&tree.at("")).as_fd()).iter().map(without_time).collect()
}

/// An archive of entries that replace, contain and lead to each other.
fn random(dice: &mut Dice) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    // What a link says of its target counts for layers, and must be what the target's entry says.
    let all_alike = dice.roll(2) == 0;
    for _ in 0..=dice.roll(12) {
        entry(&mut tar, dice, all_alike);
    }
    tar.into_inner().unwrap()
}

fn entry(tar: &mut tar::Builder<Vec<u8>>, dice: &mut Dice, all_alike: bool) {
    let mut header = match dice.roll(3) {
        0 => tar::Header::new_gnu(),
        1 => tar::Header::new_ustar(),
        _ => tar::Header::new_old(),
    };
    let (name, target) = (path(dice), path(dice));
    let kinds = b"000055221S";
    let kind = tar::EntryType::new(kinds[dice.roll(kinds.len() as u64) as usize]);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode([0o644, 0o755, 0o4711, 0o1770, 0][dice.roll(5) as usize]);
    header.set_uid([0, 7, 70_000][dice.roll(3) as usize]);
    header.set_gid(dice.roll(3));
    header.set_mtime(dice.roll(2_000_000_000));
    let content: &[u8] = match kind {
        tar::EntryType::Regular => [&b""[..], b"content", &[b'x'; 700]][dice.roll(3) as usize],
        _ => b"",
    };
    if kind == tar::EntryType::Symlink || kind == tar::EntryType::Link {
        header.set_link_name_literal(&target).unwrap();
    }
    match (all_alike, kind) {
        (false, tar::EntryType::Link) => return,
        (true, _) => set_alike(&mut header),
        (false, _) => {}
    }
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn set_alike(header: &mut tar::Header) {
    header.set_mode(0o711);
    header.set_uid(5);
    header.set_gid(6);
    header.set_mtime(7);
}

fn path(dice: &mut Dice) -> String {
    let start = ["", "", "", "/", "../", "./"][dice.roll(6) as usize];
    let names: Vec<_> = (0..=dice.roll(3))
        .map(|_| ["a", "b", "c", "d", "..", "x/y"][dice.roll(6) as usize])
        .collect();
    let last = ["a", "b", "c", "z"][dice.roll(4) as usize];
    format!("{start}{}/{last}", names.join("/"))
}

#[test]
fn both_doors_make_the_same_of_the_same_archive() {
    let (mut unpacked, mut refused) = (0, 0);
    for seed in 1..400 {
        let tar = random(&mut Dice(seed * 0x9e37_79b9));
        let (added, applied) = (by_add(&tar), by_layer(&tar));
        if leads_nowhere(&added) {
            continue;
        }
        assert_eq!(
            added.as_ref().ok(),
            applied.as_ref().ok(),
            "seed {seed}: {added:?} {applied:?}"
        );
        *(if added.is_ok() { &mut unpacked } else { &mut refused }) += 1;
    }
    assert!(unpacked > 50 && refused > 50, "{unpacked} unpacked, {refused} refused");
}

#[test]
fn both_doors_refuse_the_same_damage() {
    let mut refused = 0;
    for seed in 1..400 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut tar = random(&mut dice);
        damage(&mut tar, &mut dice);
        let (added, applied) = (by_add(&tar), by_layer(&tar));
        if applied.as_ref().is_err_and(|error| error.contains("the root can only be a directory")) {
            continue;
        }
        if leads_nowhere(&added) {
            continue;
        }
        assert_eq!(added.is_ok(), applied.is_ok(), "seed {seed}: {added:?} {applied:?}");
        refused += usize::from(added.is_err());
    }
    assert!(refused > 50, "{refused} refused");
}

/// Changes some bytes of headers, and cuts some archives short.
fn damage(tar: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(3) {
        let block = dice.roll(tar.len() as u64 / 512) as usize * 512;
        // Not the name: a change there may make one that only one of the doors understands.
        let at = block + 100 + dice.roll(400) as usize;
        tar[at] = dice.roll(256) as u8;
        let mut header = tar::Header::from_byte_slice(&tar[block..block + 512]).clone();
        header.set_cksum();
        tar[block..block + 512].copy_from_slice(header.as_bytes());
    }
    if dice.roll(3) == 0 {
        tar.truncate(dice.roll(tar.len() as u64) as usize);
    }
}
