//! What the benchmarks of whole processes share.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command; its wall time, and its peak resident memory in kB (0 where the system does not say).
pub(crate) fn timed(command: &mut Command) -> (Duration, u64) {
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .spawn()
        .expect("the command starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let exit = loop {
        if let Some(exit) = child.try_wait().expect("the command can be waited for") {
            break exit;
        }
        // A high-water mark: the last reading before the end counts.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let mark = mark.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        peak = peak.max(mark.unwrap_or(0));
        std::thread::sleep(Duration::from_micros(500));
    };
    assert!(exit.success(), "{command:?} failed");
    (start.elapsed(), peak)
}
