//! Ctrl-C: the first ends a job between two batches, so that nothing half done stays behind; the second ends the process.

use std::sync::atomic::Ordering;

use anyhow::Context;
use bnkit::calibrate::Interrupt;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::output;
use crate::progress::Bar;

/// From now on, the signals that ask a program to end set what is returned.
pub(crate) fn on_signals(bar: &Bar) -> anyhow::Result<Interrupt> {
    let interrupt = Interrupt::default();
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("Ctrl-C cannot be listened to")?;
    let (asked, bar) = (interrupt.clone(), bar.handle());
    // It waits for as long as the process lives.
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if asked.0.swap(true, Ordering::Relaxed) {
                // If even that fails, there is nothing left to try.
                let _ = emulate_default_handler(signal);
            }
            bar.suspend(|| output::note("ending after this batch; once more ends at once"));
        }
    });
    Ok(interrupt)
}
