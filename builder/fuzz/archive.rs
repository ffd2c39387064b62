//! Any bytes are an archive that is read in little memory, or an error; what a member's content is
//! lies within the size that the member has, piece after piece. The whole builder would take
//! minutes to compile, so only the modules that read archives are.
#![no_main]
// The modules have more than this program calls.
#![allow(dead_code)]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use tokio_util::sync::CancellationToken;

#[path = "../src/archive/mod.rs"]
mod archive;
#[path = "../src/stop.rs"]
mod stop;

use archive::{Kind, Member, Members, ReadError, decompress, is_compressed, looks_like_tar};

/// Bombs are cut here: what they become is not what is tested.
const LONGEST: u64 = 4 << 20;

fuzz_target!(|input: &[u8]| {
    try_out(input);
    if !is_compressed(input) {
        try_out(&with_checksums(input));
    }
});

fn try_out(input: &[u8]) {
    let Ok(plain) = decompress(input, &CancellationToken::new()) else { return };
    let mut members = Members::new(plain.take(LONGEST));
    let outcome = read(&mut members);
    if outcome.is_ok() && !is_compressed(input) {
        let is_empty = input.iter().take(512).all(|&byte| byte == 0);
        assert!(looks_like_tar(input) || is_empty, "what is read looks like an archive");
    }
}

/// Takes every block that is not empty for a header: libFuzzer would be long in finding a sum.
fn with_checksums(input: &[u8]) -> Vec<u8> {
    let mut archive = input.to_vec();
    for block in archive.chunks_exact_mut(512).filter(|block| block.iter().any(|&b| b != 0)) {
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
    archive
}

fn read(members: &mut Members<impl Read>) -> Result<(), ReadError> {
    while let Some(member) = members.next()? {
        assert!(member.name.len() < 4096 && !member.name.contains(&0));
        assert!(member.mode <= 0o7777 && member.nanoseconds < 1_000_000_000);
        assert!(member.uid != u32::MAX && member.gid != u32::MAX);
        if member.mtime % 2 == 0 {
            content(members, &member)?;
        }
    }
    Ok(())
}

fn content(members: &mut Members<impl Read>, member: &Member) -> Result<(), ReadError> {
    let mut end = 0;
    members.content(member, |offset, bytes| {
        assert!(offset >= end, "pieces come in order");
        end = offset + bytes.len() as u64;
        assert!(end <= member.size && member.kind == Kind::File);
        Ok(())
    })
}
