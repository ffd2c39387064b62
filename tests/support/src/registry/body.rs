//! A response body that can end badly.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// Bytes, and perhaps a broken connection after them, or the same bytes without an end.
#[derive(Debug, Default)]
pub(super) struct OddBody {
    pieces: VecDeque<Bytes>,
    endless: Option<Endless>,
    breaks: bool,
    /// Whether what precedes the break has been given time to reach the client.
    flushed: bool,
    announced: Option<u64>,
}

/// A piece that comes again after each pause.
#[derive(Debug)]
struct Endless {
    piece: Bytes,
    pause: Duration,
    until: Pin<Box<Sleep>>,
}

impl OddBody {
    /// All of `bytes`.
    pub(super) fn whole(bytes: Bytes) -> Self {
        let announced = Some(bytes.len() as u64);
        Self { pieces: [bytes].into(), announced, ..Self::default() }
    }

    /// The first bytes of `bytes`, although all were announced.
    pub(super) fn cut(bytes: &Bytes, after: usize) -> Self {
        let first = bytes.slice(..after.min(bytes.len()));
        let announced = Some(bytes.len() as u64);
        Self { pieces: [first].into(), breaks: true, announced, ..Self::default() }
    }

    /// Several pieces whose length is not announced.
    pub(super) fn chunked(pieces: [Bytes; 2]) -> Self {
        Self { pieces: pieces.into(), ..Self::default() }
    }

    /// `piece` now and again after each pause.
    pub(super) fn endless(piece: Bytes, pause: Duration) -> Self {
        let until = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self { endless: Some(Endless { piece, pause, until }), ..Self::default() }
    }
}

impl Body for OddBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(endless) = &mut self.endless {
            if !endless.pause.is_zero() {
                ready!(endless.until.as_mut().poll(context));
                endless.until = Box::pin(tokio::time::sleep(endless.pause));
            }
            return Poll::Ready(Some(Ok(Frame::data(endless.piece.clone()))));
        }
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
