//! Normalisations that are no BatchNorm node: written out as constants, or with statistics of the data.

use std::io::{self, Write};

use bnkit::report::{Chain, ChainKind, DataNorm, Decision};

use super::style::{FAINT, paint};
use super::units::count;

/// One line for each kind of them; nothing if there are none.
pub(super) fn text(
    chains: &[Chain],
    data_norms: &[DataNorm],
    out: &mut dyn Write,
) -> io::Result<()> {
    for (kind, what) in [
        (ChainKind::BatchNorm, "BatchNorm written out"),
        (ChainKind::ScaleAndShift, "scale and shift by constants"),
    ] {
        let all: Vec<&Chain> = chains.iter().filter(|chain| chain.kind == kind).collect();
        if all.is_empty() {
            continue;
        }
        let nodes = || all.iter().flat_map(|chain| &chain.nodes);
        let folds = nodes()
            .filter(|node| node.decision == Decision::Folded)
            .count();
        let refusals = nodes().filter_map(|node| node.refusal.as_ref());
        let mut codes: Vec<&str> = refusals.map(|refusal| refusal.code).collect();
        codes.sort_unstable();
        codes.dedup();
        let why = match codes.is_empty() {
            true => String::new(),
            false => format!(" {}", paint(FAINT, format!("({})", codes.join(", ")))),
        };
        let total = count(nodes().count(), "node");
        writeln!(
            out,
            "  {} × {what}: {folds} of {total} fold{why}",
            all.len()
        )?;
    }
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for norm in data_norms {
        match kinds.iter_mut().find(|(kind, _)| *kind == norm.kind) {
            Some((_, times)) => *times += 1,
            None => kinds.push((norm.kind, 1)),
        }
    }
    for (kind, times) in kinds {
        let code = paint(FAINT, "(data-statistics)");
        writeln!(
            out,
            "  {times} × {kind}: statistics come from the data, nothing to fold {code}"
        )?;
    }
    Ok(())
}
