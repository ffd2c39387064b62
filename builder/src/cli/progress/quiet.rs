//! Says nothing, except what a failed step printed last.

use std::io::{self, Write};
use std::time::SystemTime;

use super::steps::Steps;
use super::text::{self, Screen};
use super::{Ending, Renderer};
use crate::event::Event;

/// Waits for the end.
pub(super) struct Quiet<W> {
    out: W,
    screen: Screen,
}

impl<W> Quiet<W> {
    pub(super) fn new(out: W, screen: Screen) -> Self {
        Self { out, screen }
    }
}

impl<W: Write + Send> Renderer for Quiet<W> {
    fn event(&mut self, _steps: &Steps, _event: &Event) -> io::Result<()> {
        Ok(())
    }

    fn tick(&mut self, _steps: &Steps, _now: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, steps: &Steps, _ending: Ending) -> io::Result<()> {
        text::error_blocks(&mut self.out, steps.failed(), self.screen)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn only_failure_is_shown() {
        let mut out = vec![];
        fixture::play(&mut Quiet::new(&mut out, Screen::Pipe), &fixture::failing_build());
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        ------
         > [2/3] RUN:
        0.312 compiling
        12.41 linking
        ------
        "#);
    }

    #[test]
    fn a_build_that_succeeds_says_nothing() {
        let mut out = vec![];
        fixture::play(&mut Quiet::new(&mut out, Screen::Pipe), &fixture::cached_build());
        assert_eq!(out, b"");
    }
}
