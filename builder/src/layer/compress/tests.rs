//! The bytes of a blob: the same for the same input, always, and readable by everyone.

use std::io::Read;
use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

use super::super::gzip::CHUNK;
use super::super::samples::Dice;
use super::*;
use crate::archive::decompress;

const ALL: [Compression; 3] = [Compression::None, Compression::GZIP, Compression::ZSTD];

/// Words of a small vocabulary, and now and then something that can't be compressed.
fn text(length: usize) -> Vec<u8> {
    let mut dice = Dice(0x5eed);
    let mut text = Vec::with_capacity(length + 64);
    while text.len() < length {
        let word = dice.roll(4000) * 2_654_435_761 % 1_000_003;
        text.extend_from_slice(format!("{word:x} ").as_bytes());
        if dice.roll(50) == 0 {
            (0..40).for_each(|_| text.push(dice.roll(256) as u8));
        }
    }
    text.truncate(length);
    text
}

fn compressed(input: &[u8], compression: Compression, threads: usize, write: usize) -> Vec<u8> {
    let mut compressor = Compressor::new(vec![], compression, threads).unwrap();
    input.chunks(write).for_each(|part| compressor.write_all(part).unwrap());
    let Compressed { out, digest, size } = compressor.finish().unwrap();
    assert_eq!((digest, size), (Digest::of(&out), out.len() as u64));
    out
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut plain = vec![];
    decompress(bytes, &CancellationToken::new()).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

/// What the system's own program makes of it.
fn plain_by_others(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let program = match compression {
        Compression::None => "cat",
        Compression::Gzip(_) => "gzip",
        Compression::Zstd(_) => "zstd",
    };
    let mut command = Command::new(program);
    if program != "cat" {
        command.arg("-dc");
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// A change here changes the digest of every image that is built: it needs a line in the changelog.
#[test]
fn the_bytes_of_a_blob_never_change() {
    let input = text(3 * CHUNK + 12_345);
    let golden = |compression| Digest::of(compressed(&input, compression, 2, 8192)).to_string();
    assert_eq!(
        [golden(Compression::None), golden(Compression::GZIP), golden(Compression::ZSTD)],
        [
            "sha256:471b0a73f724f5ac225944d66bacacff6df58c3517d1f36fbfe5b7c88be3c0ed",
            "sha256:e7a440d07c14c4008f7523b5862c233a00a072aaf6c3813efb1b8ecf1ffdf944",
            "sha256:6af63cc86c9c17b4e1bc4e5b518567990d353279f9db15135506f6e2b5fc5176",
        ]
    );
}

#[test]
fn the_bytes_depend_on_neither_threads_nor_the_size_of_writes() {
    let input = text(3 * CHUNK + 12_345);
    for compression in [Compression::Gzip(1), Compression::GZIP, Compression::ZSTD] {
        let expected = compressed(&input, compression, 1, input.len());
        for (threads, write) in [
            (0, 1000),
            (1, 1),
            (1, 4096),
            (2, 511),
            (2, CHUNK),
            (4, 4096),
            (4, input.len()),
            (64, CHUNK + 1),
        ] {
            let found = compressed(&input, compression, threads, write);
            assert!(found == expected, "{compression:?}: {threads} threads, {write} at a time");
        }
    }
}

#[test]
fn what_is_compressed_reads_as_it_was() {
    let input = text(3 * CHUNK + 12_345);
    for compression in
        [&ALL[..], &[0, 1, 9].map(Compression::Gzip), &[1, 19].map(Compression::Zstd)].concat()
    {
        let blob = compressed(&input, compression, 2, 100_000);
        assert!(plain(&blob) == input, "{compression:?}");
        assert!(plain_by_others(&blob, compression) == input, "{compression:?}");
        assert!(compression == Compression::None || blob.len() < input.len() + 1024);
    }
}

#[test]
fn the_end_of_a_chunk_is_no_special_place() {
    let whole = text(2 * CHUNK + 1);
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1] {
        for compression in ALL {
            let input = &whole[..length];
            let blob = compressed(input, compression, 2, 4096);
            assert!(plain(&blob) == input, "{compression:?} of {length}");
            assert!(plain_by_others(&blob, compression) == input, "{compression:?} of {length}");
            assert!(
                blob == compressed(input, compression, 1, length.max(1)),
                "{compression:?} of {length} in one write"
            );
        }
    }
}

#[test]
fn noise_is_compressed_to_hardly_more_than_it_was() {
    let mut dice = Dice(7);
    let noise: Vec<u8> = (0..CHUNK + 99).map(|_| dice.roll(256) as u8).collect();
    for compression in ALL {
        let blob = compressed(&noise, compression, 2, 4096);
        assert!(blob.len() < noise.len() + noise.len() / 100, "{compression:?}: {}", blob.len());
        assert!(plain(&blob) == noise, "{compression:?}");
    }
}

#[test]
fn gzip_is_one_member_without_a_time() {
    let blob = compressed(&text(2 * CHUNK + 5), Compression::GZIP, 2, 4096);
    assert_eq!(blob[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    let mut first = vec![];
    flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut first).unwrap();
    assert_eq!(first.len(), 2 * CHUNK + 5);
}

/// A disk with room for some bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let input = text(12 * CHUNK);
    for compression in ALL {
        let mut compressor = Compressor::new(Full(1000), compression, 2).unwrap();
        let done = compressor.write_all(&input).and_then(|()| compressor.finish().map(|_| ()));
        assert_eq!(done.unwrap_err().kind(), io::ErrorKind::StorageFull, "{compression:?}");
    }
}

#[test]
fn a_blob_can_be_given_up_halfway() {
    for compression in ALL {
        let mut compressor = Compressor::new(vec![], compression, 4).unwrap();
        compressor.write_all(&text(4 * CHUNK)).unwrap();
        drop(compressor);
    }
}
