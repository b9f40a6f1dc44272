//! What a fold says of a state dict: where its pairs come from, and what happens to its tensors.

use std::io::{self, Write};

use bnkit::report::{FoldReport, StateReport};

use crate::print::style::{FAINT, paint};
use crate::print::table::Table;
use crate::print::units::count;
use crate::print::{Detail, more};

/// Where the pairs come from; the pairs themselves where somebody has to look at them.
pub(super) fn origin(report: &FoldReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    let Some(state) = &report.state else {
        return Ok(());
    };
    writeln!(out, "{}", paint(FAINT, told(state)))?;
    for note in &state.notes {
        writeln!(out, "  {note}")?;
    }
    let noted = state.pairs.iter().any(|pair| pair.note.is_some());
    let unseen = state.pairing == "preset" && report.output.is_none();
    if detail != Detail::Full && !unseen && !noted {
        return Ok(());
    }
    let mut table = Table::new(&["layer", "BatchNorm", "epsilon", ""]);
    for pair in &state.pairs {
        if detail != Detail::Full && !unseen && pair.note.is_none() {
            continue;
        }
        table.row([
            pair.layer.clone(),
            pair.batch_norm.clone(),
            pair.epsilon
                .map_or("?".to_owned(), |epsilon| format!("{epsilon:e}")),
            pair.note.clone().unwrap_or_default(),
        ]);
    }
    if table.len() == 0 {
        return Ok(());
    }
    writeln!(out)?;
    // Whoever is asked whether the pairs are right has to see all of them.
    let limit = if unseen { usize::MAX } else { detail.limit() };
    let rows = table.len();
    table.text(out, "  ", limit)?;
    match more(rows.saturating_sub(limit)) {
        Some(line) => writeln!(out, "  {line}"),
        None => Ok(()),
    }
}

/// In one line.
pub(super) fn told(state: &StateReport) -> String {
    let file = state.pairing_file.as_deref().unwrap_or("");
    match (state.pairing, &state.binding, state.preset) {
        ("graph", Some(binding), _) => {
            let content = match binding.by_content {
                0 => String::new(),
                number => format!(", {number} by content"),
            };
            format!(
                "paired by the graph {file}: {} by name{content}",
                count(binding.by_name, "tensor")
            )
        }
        ("preset", _, preset) => format!(
            "paired by names ({}): {}",
            preset.unwrap_or("no known scheme"),
            count(state.pairs.len(), "pair")
        ),
        _ => format!("paired by {file}: {}", count(state.pairs.len(), "pair")),
    }
}

/// What happens to the tensors, in one line.
pub(super) fn tensors(state: &StateReport) -> String {
    let added = match state.added.len() {
        1 => "1 bias added".to_owned(),
        number => format!("{number} biases added"),
    };
    format!(
        "{} changed, {added}, {} dropped",
        count(state.replaced.len(), "tensor"),
        state.dropped.len()
    )
}
