//! Finds out how a stream is compressed, and reads it plain.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use oci::media_type;
use tokio_util::sync::CancellationToken;

use crate::stop::Stoppable;

/// The longest magic number, xz's.
pub(crate) const MAGIC: usize = 6;

const INPUT_BUFFER: usize = 128 * 1024;

/// Four times what `xz -9` needs; a stream can ask for gigabytes.
const XZ_MEMORY_KIB: u32 = 256 * 1024;

/// The largest window of zstd in bytes, as a power of two: what its program allows too, unless it
/// is told otherwise.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Reads `input` plain, whatever it is compressed with: gzip, zstd, xz, bzip2 or nothing. Once
/// `stop` is cancelled, reading fails.
///
/// The first bytes decide, as they do for containerd and Docker: media types are often wrong.
/// Several streams in a row are read as one.
pub fn decompress<'r>(
    mut input: impl Read + Send + 'r,
    stop: &CancellationToken,
) -> io::Result<Box<dyn Read + Send + 'r>> {
    let mut start = Vec::with_capacity(MAGIC);
    input.by_ref().take(MAGIC as u64).read_to_end(&mut start)?;
    let format = Format::of(&start);
    let whole = Cursor::new(start).chain(input);
    let buffered = BufReader::with_capacity(INPUT_BUFFER, whole);
    let plain: Box<dyn Read + Send + 'r> = match format {
        Format::Plain => Box::new(buffered),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Format::Xz => Box::new(xz(buffered)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)),
    };
    // A few bytes of input may be gigabytes of output: the source is not asked often enough.
    Ok(Box::new(Stoppable::new(plain, stop)))
}

/// Whether a file that begins like this is compressed.
pub fn is_compressed(start: &[u8]) -> bool {
    Format::of(start) != Format::Plain
}

/// The media type of a layer whose blob begins like this. No specification knows the last two.
pub(crate) fn layer_media_type(start: &[u8]) -> &'static str {
    match Format::of(start) {
        Format::Plain => media_type::LAYER,
        Format::Gzip => media_type::LAYER_GZIP,
        Format::Zstd => media_type::LAYER_ZSTD,
        Format::Xz => "application/vnd.oci.image.layer.v1.tar+xz",
        Format::Bzip2 => "application/vnd.oci.image.layer.v1.tar+bzip2",
    }
}

fn xz<'r>(input: impl BufRead + Send + 'r) -> impl Read + Send + 'r {
    const STREAMS_IN_A_ROW: bool = true;
    Xz(lzma_rust2::XzReader::new_mem_limit(input, STREAMS_IN_A_ROW, XZ_MEMORY_KIB))
}

/// Says in our words what a stream asks for in vain.
struct Xz<R>(R);

impl<R: Read> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => {
                io::Error::new(error.kind(), "decompressing it takes more than 256 MiB of memory")
            }
            _ => error,
        })
    }
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
        decompress(bytes, &CancellationToken::new()).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    fn failure(bytes: &[u8]) -> Option<String> {
        let mut plain = decompress(bytes, &CancellationToken::new()).unwrap();
        plain.read_to_end(&mut vec![]).err().map(|error| error.to_string())
    }

    #[test]
    fn what_the_usual_programs_compress_reads_plain() {
        for program in ["gzip", "zstd", "xz", "bzip2", "cat"] {
            let compressed = piped(program, &[], b"hello\n");
            assert_eq!(plain(&compressed), b"hello\n", "{program}");
            let kind = layer_media_type(&compressed);
            let is_plain = program == "cat";
            assert!(if is_plain {
                kind == media_type::LAYER
            } else {
                kind.ends_with(&format!("+{program}"))
            });
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
        assert!(failure(&compressed).is_some());
        let cut = &piped("gzip", &[], b"hello")[..12];
        assert!(failure(cut).is_some());
    }

    /// Issue 9, 1.8: a header of a few bytes asks for gigabytes.
    #[test]
    fn a_stream_that_asks_for_too_much_memory_is_an_error() {
        let xz = piped("xz", &["--lzma2=dict=512MiB"], b"x");
        assert!(failure(&xz).unwrap().contains("memory"), "{:?}", failure(&xz));
        let zstd = piped("zstd", &["--ultra", "--long=30", "--no-content-size"], &[b'x'; 1 << 20]);
        assert!(failure(&zstd).unwrap().contains("memory"), "{:?}", failure(&zstd));
    }

    /// Issue 9, 1.8: a bomb's few bytes are read long before what they become.
    #[test]
    fn a_bomb_is_stopped_between_two_reads_of_its_input() {
        let bomb = zstd::encode_all(io::repeat(0).take(1 << 30), 1).unwrap();
        let stop = CancellationToken::new();
        let mut plain = decompress(&bomb[..], &stop).unwrap();
        plain.read_exact(&mut [0; 1000]).unwrap();
        stop.cancel();
        assert!(plain.read(&mut [0; 1000]).is_err());
    }
}
