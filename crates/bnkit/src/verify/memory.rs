//! Whether a proof end to end fits into memory: running a model takes many times its size, and a process that the
//! system kills proves nothing.

use bnkit_model::Limits;
use bnkit_model::onnx::{Model, Types};

/// Peak memory of a proof, in bytes per byte of f32 weights, when its runs follow one another.
///
/// Measured (`docs/benchmarks.md`): 7.0 on resnet152, 8.5 on a chain of Gemms, whose weights tract lays out anew. Four of these are the
/// serialized models: the original, the folded one, and that with its changed constants in f64.
const ONE_AFTER_ANOTHER: u64 = 10;
/// The same when two runs go side by side: 9.3 and 11.8 measured.
const SIDE_BY_SIDE: u64 = 14;

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
    if let Some(why) = large_value(model) {
        return Way::TooLarge(why);
    }
    let elements: u64 = model.constants().map(|tensor| tensor.len() as u64).sum();
    match available() {
        Some(available) => choose(elements.saturating_mul(4), available),
        None => Way::Parallel,
    }
}

/// What is computed and has more elements than the limit `value_elements`, as far as shapes are certain. A small file can ask for
/// it (an Expand, a Pad), and the engine would allocate it before it says anything.
pub(crate) fn large_value(model: &Model) -> Option<String> {
    let most = Limits::get().value_elements;
    let types = Types::derive(model);
    model.nodes().find_map(|(id, node)| {
        let outputs = node.outputs.iter().flatten();
        let large = outputs.filter_map(|&value| {
            let dims = types.dims(value)?.iter().map(|dim| dim.known());
            let dims = dims.collect::<Option<Vec<u64>>>()?;
            let count = match dims.contains(&0) {
                true => Some(0),
                false => dims
                    .iter()
                    .try_fold(1u64, |count, &dim| count.checked_mul(dim)),
            };
            (count.is_none_or(|count| count > most)).then_some(dims)
        });
        large.into_iter().next().map(|dims| {
            format!(
                "{}: what it computes has shape {dims:?}, more than {most} elements",
                model.describe(id)
            )
        })
    })
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
            "running it would take about 30 GB of memory, 24 GB are available"
        );
        assert!(matches!(choose(u64::MAX, GB), Way::TooLarge(_)));
    }
}
