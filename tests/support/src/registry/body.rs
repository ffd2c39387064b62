//! A response body that can end badly.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Bytes, and perhaps a broken connection after them.
#[derive(Debug, Default)]
pub(super) struct OddBody {
    pieces: VecDeque<Bytes>,
    breaks: bool,
    /// Whether what precedes the break has been given time to reach the client.
    flushed: bool,
    announced: Option<u64>,
}

impl OddBody {
    /// All of `bytes`.
    pub(super) fn whole(bytes: Bytes) -> Self {
        let announced = Some(bytes.len() as u64);
        Self { pieces: [bytes].into(), breaks: false, flushed: false, announced }
    }

    /// The first bytes of `bytes`, although all were announced.
    pub(super) fn cut(bytes: &Bytes, after: usize) -> Self {
        let first = bytes.slice(..after.min(bytes.len()));
        let announced = Some(bytes.len() as u64);
        Self { pieces: [first].into(), breaks: true, flushed: false, announced }
    }

    /// Several pieces whose length is not announced.
    pub(super) fn chunked(pieces: [Bytes; 2]) -> Self {
        Self { pieces: pieces.into(), breaks: false, flushed: false, announced: None }
    }
}

impl Body for OddBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match self.pieces.pop_front() {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None if self.breaks && !self.flushed => {
                // The server writes out what it has only when the body lets it wait.
                self.flushed = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            None if self.breaks => Some(Err(io::ErrorKind::BrokenPipe.into())),
            None => None,
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map(SizeHint::with_exact).unwrap_or_default()
    }
}
