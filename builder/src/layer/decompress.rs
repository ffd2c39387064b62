//! Finds out how a stream is compressed, and reads it plain.

use std::io::{self, BufRead, BufReader, Cursor, Read};

/// The longest magic number, xz's.
const MAGIC: usize = 6;

const INPUT_BUFFER: usize = 128 * 1024;

/// Four times what `xz -9` needs; a stream can ask for gigabytes.
const XZ_MEMORY_KIB: u32 = 256 * 1024;

/// Reads `input` plain, whatever it is compressed with: gzip, zstd, xz, bzip2 or nothing.
///
/// The first bytes decide, as they do for containerd and Docker: media types are often wrong.
/// Several streams in a row are read as one.
pub fn decompress<'r>(mut input: impl Read + Send + 'r) -> io::Result<Box<dyn Read + Send + 'r>> {
    let mut start = Vec::with_capacity(MAGIC);
    input.by_ref().take(MAGIC as u64).read_to_end(&mut start)?;
    let format = Format::of(&start);
    let whole = Cursor::new(start).chain(input);
    let buffered = BufReader::with_capacity(INPUT_BUFFER, whole);
    Ok(match format {
        Format::Plain => Box::new(buffered),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?),
        Format::Xz => Box::new(xz(buffered)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)),
    })
}

fn xz<'r>(input: impl BufRead + Send + 'r) -> impl Read + Send + 'r {
    const STREAMS_IN_A_ROW: bool = true;
    lzma_rust2::XzReader::new_mem_limit(input, STREAMS_IN_A_ROW, XZ_MEMORY_KIB)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Format {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame to be skipped, with which zstd streams may begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    fn plain(bytes: &[u8]) -> Vec<u8> {
        let mut plain = vec![];
        decompress(bytes).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn what_the_usual_programs_compress_reads_plain() {
        for program in ["gzip", "zstd", "xz", "bzip2", "cat"] {
            let compressed = piped(program, &[], b"hello\n");
            assert_eq!(plain(&compressed), b"hello\n", "{program}");
            assert_eq!(plain(&compressed.repeat(3)), b"hello\n".repeat(3), "{program}");
        }
    }

    #[test]
    fn a_zstd_stream_may_begin_with_a_frame_to_skip() {
        let skipped =
            [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &piped("zstd", &[], b"x")]
                .concat();
        assert_eq!(plain(&skipped), b"x");
    }

    #[test]
    fn short_input_is_plain() {
        assert_eq!(plain(b""), b"");
        assert_eq!(plain(b"\x1f\x8b"), b"\x1f\x8b");
    }

    #[test]
    fn a_damaged_stream_is_an_error() {
        let mut compressed = piped("gzip", &[], &b"hello".repeat(1000));
        let middle = compressed.len() / 2;
        compressed[middle] ^= 0xff;
        let read = decompress(&compressed[..]).unwrap().read_to_end(&mut vec![]);
        assert!(read.is_err());
        let cut = &piped("gzip", &[], b"hello")[..12];
        assert!(decompress(cut).unwrap().read_to_end(&mut vec![]).is_err());
    }
}
