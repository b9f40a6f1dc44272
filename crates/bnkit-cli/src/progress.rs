//! A progress bar on stderr, if that is a terminal.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use bnkit::pipeline::{Phase, Progress};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// Draws one bar, which starts again with every phase and leaves nothing behind.
pub(crate) struct Bar {
    bar: ProgressBar,
    /// How often the network began to run.
    passes: AtomicUsize,
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
        Self {
            bar,
            passes: AtomicUsize::new(0),
        }
    }

    /// The bar itself, for who has something to say in between.
    pub(crate) fn handle(&self) -> ProgressBar {
        self.bar.clone()
    }
}

impl Progress for Bar {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        self.bar.reset();
        // Units differ between phases (bytes, tensors, samples), so only their share is shown; but samples mean something.
        let template = match (phase, total) {
            (Phase::Running, Some(_)) => {
                "{msg:8} {bar:24} {percent:>3} %  {pos}/{len}  {rate}  {eta} left"
            }
            (_, Some(_)) => "{msg:8} {bar:32} {percent:>3} %  {elapsed}",
            (_, None) => "{msg:8} {spinner}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.with_key("rate", rate));
        }
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(match phase {
            Phase::Reading => "reading".to_owned(),
            Phase::Planning => "planning".to_owned(),
            Phase::Running => match self.passes.fetch_add(1, Ordering::Relaxed) {
                0 => "running".to_owned(),
                before => format!("pass {}", before + 1),
            },
            Phase::Proving => "proving".to_owned(),
            Phase::Writing => "writing".to_owned(),
        });
    }

    fn advance(&self, done: u64) {
        self.bar.set_position(done);
    }
}

fn rate(state: &ProgressState, out: &mut dyn Write) {
    let rate = state.per_sec();
    let digits = usize::from(rate < 10.0);
    // A text in memory takes what is written.
    let _ = write!(out, "{rate:.digits$} samples/s");
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
