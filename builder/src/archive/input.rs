//! Input that can be looked at before it is read.

use std::io::{self, BufRead, Read};

/// How much is read at a time.
const CAPACITY: usize = 128 * 1024;

/// Reads with a buffer, in which as much is at hand as is asked for, if there is so much.
pub(super) struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: vec![0; CAPACITY], start: 0, end: 0 }
    }

    /// What comes next: at least `count` bytes, or all that there are.
    pub(super) fn ahead(&mut self, count: usize) -> io::Result<&[u8]> {
        let count = count.min(CAPACITY);
        if self.start + count > CAPACITY {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < count {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.ahead(1)
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && buffer.len() >= CAPACITY {
            return self.source.read(buffer);
        }
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slow(io::Take<io::Repeat>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = buffer.len().min(7);
            self.0.read(&mut buffer[..some])
        }
    }

    #[test]
    fn what_is_ahead_is_read_once() {
        let mut input = Input::new(Slow(io::repeat(b'x').take(300_000)));
        let mut total = 0;
        for round in 0.. {
            let ahead = input.ahead(1000).unwrap().len();
            assert!(ahead >= 1000_usize.min(300_000 - total), "{ahead} of {total}");
            let mut some = vec![0; 1 + round * 97 % 3000];
            let read = input.read(&mut some).unwrap();
            total += read;
            if read == 0 {
                break;
            }
        }
        assert_eq!((total, input.ahead(5).unwrap()), (300_000, &b""[..]));
    }
}
