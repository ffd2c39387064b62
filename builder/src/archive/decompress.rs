//! Finds out how a stream is compressed, and reads it plain.

use std::io::{self, BufRead as _, Read};

use oci::media_type;
use tokio_util::sync::CancellationToken;

use super::input::Input;
use super::memory::{self, Share};
use crate::stop::{Stoppable, go_on};

/// The longest magic number, xz's.
pub(crate) const MAGIC: usize = 6;

/// The largest window of zstd in bytes, as a power of two: what its program allows too, unless it
/// is told otherwise.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Reads `input` plain, whatever it is compressed with: gzip, zstd, xz, bzip2 or nothing. Once
/// `stop` is cancelled, reading fails.
///
/// The first bytes decide, as they do for containerd and Docker: media types are often wrong.
/// Several streams in a row are read as one.
pub fn decompress<'r>(
    input: impl Read + Send + 'r,
    stop: &CancellationToken,
) -> io::Result<Box<dyn Read + Send + 'r>> {
    let mut input = Input::new(input);
    let plain: Box<dyn Read + Send + 'r> = match Format::of(input.ahead(MAGIC)?) {
        Format::Plain => Box::new(input),
        format => Box::new(Streams { format, state: State::Between(input), stop: stop.clone() }),
    };
    // A few bytes of input may be gigabytes of output: the source is not asked often enough.
    Ok(Box::new(Stoppable::new(plain, stop)))
}

/// Whether reading failed on what follows a whole stream and is no such stream itself.
pub(crate) fn is_behind_the_end(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<BehindTheEnd>())
}

#[derive(Debug, thiserror::Error)]
#[error("something that is not compressed follows what is")]
struct BehindTheEnd;

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

/// Reads streams of one format, one after the other, each of which has its checksum at its end.
struct Streams<R: Read> {
    format: Format,
    state: State<R>,
    stop: CancellationToken,
}

enum State<R: Read> {
    Between(Input<R>),
    Within { decoder: Box<Decoder<R>>, _memory: Share<'static> },
    Over,
}

impl<R: Read> Streams<R> {
    /// Begins the next stream, if there is one.
    fn begin(&mut self) -> io::Result<()> {
        let mut input = match std::mem::replace(&mut self.state, State::Over) {
            State::Between(input) => input,
            State::Within { decoder, .. } => decoder.into_inner(),
            State::Over => return Ok(()),
        };
        go_on(&self.stop)?;
        if self.format == Format::Xz {
            // The stream may be followed by zeros.
            while input.ahead(4)?.starts_with(&[0; 4]) {
                input.consume(4);
            }
        }
        if input.ahead(1)?.is_empty() {
            return Ok(());
        }
        if Format::of(input.ahead(MAGIC)?) != self.format {
            return Err(io::Error::new(io::ErrorKind::InvalidData, BehindTheEnd));
        }
        let asked = asked(self.format, &mut input)?;
        let memory = memory::take(asked, &self.stop)?;
        let decoder = Box::new(Decoder::new(self.format, input, asked)?);
        self.state = State::Within { decoder, _memory: memory };
        Ok(())
    }
}

impl<R: Read> Read for Streams<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let State::Within { decoder, .. } = &mut self.state {
                let read = decoder.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
            }
            self.begin()?;
            if matches!(self.state, State::Over) {
                return Ok(0);
            }
        }
    }
}

/// How much memory the stream asks for that `input` begins with.
fn asked(format: Format, input: &mut Input<impl Read>) -> io::Result<u64> {
    let asked = match format {
        Format::Zstd => memory::of_zstd(input.ahead(memory::ZSTD_HEADER)?),
        Format::Xz => memory::of_xz(input.ahead(memory::XZ_HEADER)?),
        Format::Plain | Format::Gzip | Format::Bzip2 => Some(0),
    };
    Ok(asked.unwrap_or(memory::ALL))
}

/// Reads one stream.
#[expect(clippy::large_enum_variant, reason = "the whole is in a box")]
enum Decoder<R: Read> {
    Gzip(flate2::bufread::GzDecoder<Input<R>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
    Xz(lzma_rust2::XzReader<Input<R>>),
    Bzip2(bzip2::bufread::BzDecoder<Input<R>>),
}

impl<R: Read> Decoder<R> {
    fn new(format: Format, input: Input<R>, asked: u64) -> io::Result<Self> {
        Ok(match format {
            Format::Gzip => Self::Gzip(flate2::bufread::GzDecoder::new(input)),
            Format::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Self::Zstd(decoder)
            }
            Format::Xz => {
                const STREAMS_IN_A_ROW: bool = false;
                Self::Xz(lzma_rust2::XzReader::new_mem_limit(
                    input,
                    STREAMS_IN_A_ROW,
                    xz_limit(asked),
                ))
            }
            Format::Bzip2 => Self::Bzip2(bzip2::bufread::BzDecoder::new(input)),
            Format::Plain => return Err(io::ErrorKind::InvalidInput.into()),
        })
    }

    fn into_inner(self) -> Input<R> {
        match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
            Self::Xz(decoder) => decoder.into_inner(),
            Self::Bzip2(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::OutOfMemory => {
                    io::Error::new(error.kind(), "decompressing it takes too much memory")
                }
                _ => error,
            }),
            Self::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

/// What an xz stream may take in KiB that asks for so much at its beginning: no later block of it
/// gets more.
fn xz_limit(asked: u64) -> u32 {
    const BESIDE_THE_DICTIONARY: u64 = 1024;
    let bytes = asked.clamp(memory::SMALL, memory::ALL);
    u32::try_from(bytes / 1024 + BESIDE_THE_DICTIONARY).unwrap_or(u32::MAX)
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
pub(super) mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    pub(in crate::archive) fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
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

    /// Issue 9: a cut or a wrong checksum in the last stream was not told from what follows it.
    #[test]
    fn what_follows_a_whole_stream_is_told_from_a_stream_that_is_damaged() {
        let read_all = |bytes: &[u8]| {
            let mut plain = decompress(bytes, &CancellationToken::new()).unwrap();
            let mut read = vec![];
            let result = plain.read_to_end(&mut read);
            (read, result.map_err(|error| is_behind_the_end(&error)))
        };
        let content = b"hello ".repeat(100);
        for program in ["gzip", "zstd", "xz", "bzip2"] {
            let whole = piped(program, &[], &content);
            for garbage in [&b"x"[..], b"\0", &[b'x'; 3000]] {
                for streams in [1, 3] {
                    let (read, result) = read_all(&[&whole.repeat(streams), garbage].concat());
                    assert!(read == content.repeat(streams), "{program}");
                    assert_eq!(result, Err(true), "{program}");
                }
            }
            for cut in 1..8 {
                let twice = whole.repeat(2);
                assert_eq!(read_all(&twice[..twice.len() - cut]).1, Err(false), "{program} {cut}");
            }
            // In the checksum, or in bits before it that are part of it.
            let mut wrong = whole.clone();
            let last = wrong.len() - 2;
            wrong[last] ^= 0x10;
            assert_eq!(read_all(&wrong).1, Err(false), "{program}");
        }
        let padded = [piped("xz", &[], &content), vec![0; 8]].concat();
        assert_eq!(read_all(&padded.repeat(2)), (content.repeat(2), Ok(1200)));
    }

    /// Issue 9: four layers that ask for much took a gigabyte at once.
    #[test]
    fn two_streams_that_ask_for_much_are_not_read_at_once() {
        for (program, arguments, held) in [
            ("xz", &["--lzma2=dict=192MiB"][..], 1),
            ("zstd", &["--ultra", "--long=27", "--no-content-size"], 2),
        ] {
            let big = piped(program, arguments, &[b'x'; 3 << 20]);
            let (never, stop) = (CancellationToken::new(), CancellationToken::new());
            let others: Vec<_> = std::iter::repeat_with(|| {
                let mut plain = decompress(&big[..], &never).unwrap();
                plain.read_exact(&mut [0; 10]).unwrap();
                plain
            })
            .take(held)
            .collect();
            let mut one_more = decompress(&big[..], &stop).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(std::time::Duration::from_millis(30));
                    stop.cancel();
                });
                assert!(one_more.read(&mut [0; 10]).is_err(), "{program} waits");
            });
            drop(others);
            assert!(plain(&big).len() == 3 << 20, "{program} has its turn");
        }
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
