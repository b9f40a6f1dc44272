//! Whether a proof end to end fits into memory: running a model takes many times its size, and a process that the
//! system kills proves nothing.

use bnkit_model::onnx::Model;

/// Peak memory of a proof, in bytes per byte of f32 weights, when its runs follow one another.
///
/// Measured on resnet152 (`docs/benchmarks.md`): 9.8; tract holds about three times the weights while it loads, and the
/// longest run is in f64.
const ONE_AFTER_ANOTHER: u64 = 11;
/// The same when two runs go side by side: 15.7 measured.
const SIDE_BY_SIDE: u64 = 17;

/// How the runs of a proof are to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// Side by side.
    Parallel,
    /// One after another.
    Serial,
    /// Not at all, for this reason.
    TooLarge(String),
}

/// The way that fits into the memory that is available.
pub(super) fn way(model: &Model) -> Way {
    let elements: u64 = model.constants().map(|tensor| tensor.len() as u64).sum();
    match available() {
        Some(available) => choose(elements.saturating_mul(4), available),
        None => Way::Parallel,
    }
}

fn choose(weights: u64, available: u64) -> Way {
    let serial = weights.saturating_mul(ONE_AFTER_ANOTHER);
    if weights.saturating_mul(SIDE_BY_SIDE) <= available {
        Way::Parallel
    } else if serial <= available {
        Way::Serial
    } else {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        Way::TooLarge(format!(
            "running it would take about {:.0} GB of memory, {:.0} GB are available",
            gigabytes(serial),
            gigabytes(available)
        ))
    }
}

/// The memory that can be had without swapping, in bytes; `None` where the system does not say.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_follows_the_memory() {
        const GB: u64 = 1_000_000_000;
        assert_eq!(choose(GB, 20 * GB), Way::Parallel);
        assert_eq!(choose(GB, 12 * GB), Way::Serial);
        let Way::TooLarge(why) = choose(3 * GB, 24 * GB) else {
            panic!("it does not fit")
        };
        assert_eq!(
            why,
            "running it would take about 33 GB of memory, 24 GB are available"
        );
        assert!(matches!(choose(u64::MAX, GB), Way::TooLarge(_)));
    }
}
