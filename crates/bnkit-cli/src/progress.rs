//! A progress bar on stderr, if that is a terminal.

use bnkit::pipeline::{Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// Draws one bar, which starts again with every phase and leaves nothing behind.
pub(crate) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar that hides itself if `quiet` or if stderr is no terminal.
    pub(crate) fn new(quiet: bool) -> Self {
        // indicatif draws to stderr, and hides a bar there by itself if it is no terminal.
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::no_length()
        };
        Self { bar }
    }
}

impl Progress for Bar {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        self.bar.reset();
        // Units differ between phases (bytes, tensors, samples), so only their share is shown.
        let template = match total {
            Some(_) => "{msg:8} {bar:32} {percent:>3} %  {elapsed}",
            None => "{msg:8} {spinner}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(match phase {
            Phase::Reading => "reading",
            Phase::Planning => "planning",
            Phase::Running => "running",
            Phase::Proving => "proving",
            Phase::Writing => "writing",
        });
    }

    fn advance(&self, done: u64) {
        self.bar.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
