//! The reports of `recalibrate`, `merge`, `validate`, `run` and `stats`, and what they have in common.

mod change;
mod layers;
mod look;
mod page;
pub(super) mod parts;
mod stats;
mod validate;

pub(super) use look::wrapped;

use bnkit::calibrate::{DataUsed, LayerName, MethodUsed, Sampling};

use super::units::{grouped, range, short};

/// A node's name takes no more than this in a table for people, unless all is wanted.
const NAME: usize = 22;

/// How a table speaks of a layer.
fn name(layer: &LayerName, full: bool) -> String {
    let node = match layer.scope.as_str() {
        "" => layer.node.clone(),
        scope => format!("{scope}/{}", layer.node),
    };
    let calls = match layer.calls.len() {
        0 => String::new(),
        more => format!(" (+{more})"),
    };
    if full {
        return node + &calls;
    }
    // Exporters append the operator, which says nothing in a table of BatchNorms.
    let node = node.strip_suffix("/BatchNormalization").unwrap_or(&node);
    cut(node, NAME - calls.len()) + &calls
}

/// The middle of a name goes: the beginning says which module, the end which part of it.
pub(super) fn cut(name: &str, width: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= width {
        return name.to_owned();
    }
    let head = width / 3;
    let tail = letters.len() - (width - head - 1);
    // A part of the name is better whole.
    let edge = letters[tail..]
        .iter()
        .take(4)
        .position(|&letter| letter == '/' || letter == '.');
    let tail = tail + edge.unwrap_or(0);
    let part = |letters: &[char]| letters.iter().collect::<String>();
    format!("{}…{}", part(&letters[..head]), part(&letters[tail..]))
}

/// "1,437 samples in 45 batches of 32, until stable".
fn amount(data: &DataUsed) -> String {
    let size = match data.batches {
        1 => String::new(),
        _ => format!(" of {}", data.batch_size),
    };
    let early = if data.stopped_early {
        ", enough to stop early"
    } else {
        ""
    };
    let shard = data
        .shard
        .map_or_else(String::new, |shard| format!(", shard {shard}"));
    let batches = match data.batches {
        1 => "1 batch".to_owned(),
        more => format!("{more} batches"),
    };
    format!("{} in {batches}{size}{shard}{early}", samples(data.samples))
}

fn samples(number: u64) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} sample{s}", grouped(number))
}

/// "ema, torch convention, history weight 0.9".
fn method(method: &MethodUsed) -> String {
    let weight = match method.history_weight {
        Some(weight) => format!(", history weight {}", short(weight)),
        None => String::new(),
    };
    format!(
        "{}, {} convention{weight}",
        method.name.name(),
        method.convention.name()
    )
}

/// Whether the data is enough, in one line; `seen` samples were there.
fn verdict(sampling: &Sampling, seen: u64) -> (Option<bool>, String) {
    let share = |share: f64| {
        // 99.97 % is not all of them.
        let percent = if share < 1.0 {
            (share * 1000.0).floor() / 10.0
        } else {
            100.0
        };
        format!("{percent} %")
    };
    let settled = format!(
        "standard errors are within {} in {} of the channels",
        short(sampling.tolerance),
        share(sampling.settled)
    );
    let text = match (sampling.enough, sampling.samples_needed) {
        (Some(true), _) => format!("enough: {settled}"),
        (Some(false), Some(needed)) => format!(
            "not enough: {settled}; about {} more would do",
            grouped(needed.saturating_sub(seen).max(1))
        ),
        (Some(false), None) => format!("not enough: {settled}"),
        (None, _) => {
            "too few batches to say how certain it is: more samples, or a smaller --batch-size"
                .to_owned()
        }
    };
    (sampling.enough, text)
}

/// A ratio of variances from logarithms, as in "0.5 … 2".
pub(super) fn ratios(low: f64, high: f64) -> String {
    range(low.exp(), high.exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_lose_their_middle() {
        let mut layer = LayerName {
            node: "/layer3/0/downsample/downsample.1/BatchNormalization".to_owned(),
            calls: Vec::new(),
            scope: String::new(),
            channels: 8,
        };
        assert_eq!(name(&layer, false), "/layer3…/downsample.1");
        assert_eq!(name(&layer, true), layer.node);
        layer.calls = vec!["x".to_owned(); 2];
        let short = name(&layer, false);
        assert!(
            short.ends_with(" (+2)") && short.chars().count() <= NAME,
            "{short}"
        );
    }

    #[test]
    fn the_verdict_says_how_many_more() {
        let mut sampling = Sampling {
            enough: Some(false),
            settled: 0.9996,
            tolerance: 0.05,
            samples_needed: Some(5400),
        };
        assert_eq!(
            verdict(&sampling, 1400).1,
            "not enough: standard errors are within 0.05 in 99.9 % of the channels; about 4,000 more would do"
        );
        sampling.enough = None;
        assert!(verdict(&sampling, 1400).1.starts_with("too few batches"));
    }
}
