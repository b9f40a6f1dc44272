//! What `--merge-branches` merged, and what it did not.

use std::io::{self, Write};

use bnkit::report::{FoldReport, Merge};

use crate::print::Detail;
use crate::print::style::{DOUBTFUL, STRONG, paint};
use crate::print::table::Table;
use crate::print::units::{count, grouped};

/// For people: the sums; each merge only in full detail.
pub(super) fn text(report: &FoldReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    if !report.merges.is_empty() {
        let number = count(report.merges.len(), "group");
        let head = format!("Merged {number} of operators into one Conv each");
        writeln!(out, "\n{}", paint(STRONG, head))?;
        writeln!(out, "  {}", totals(&report.merges))?;
        if detail == Detail::Full {
            table(report).text(out, "  ", usize::MAX)?;
        }
    }
    if !report.merges_refused.is_empty() {
        let head = format!("Not merged: {}", report.merges_refused.len());
        writeln!(out, "\n{}", paint(DOUBTFUL, head))?;
        refused(report).text(out, "  ", detail.limit())?;
        let left = report.merges_refused.len().saturating_sub(detail.limit());
        if left > 0 {
            writeln!(out, "  … and {left} more (--verbose shows all)")?;
        }
    }
    Ok(())
}

/// "parameters 23 328 → 20 784, multiplications per sample 72 403 968 → 65 028 096"
fn totals(merges: &[Merge]) -> String {
    let sum = |number: fn(&Merge) -> u64| grouped(merges.iter().map(number).sum());
    let parameters = format!(
        "parameters {} → {}",
        sum(|merge| merge.parameters_before),
        sum(|merge| merge.parameters_after)
    );
    let known = |merge: &Merge| Some((merge.macs_before?, merge.macs_after?));
    let macs: Option<Vec<(u64, u64)>> = merges.iter().map(known).collect();
    match macs {
        None => parameters,
        Some(macs) => {
            let (before, after) = macs.iter().fold((0u64, 0u64), |(a, b), &(before, after)| {
                (a.saturating_add(before), b.saturating_add(after))
            });
            let (before, after) = (grouped(before), grouped(after));
            format!("{parameters}, multiplications per sample {before} → {after}")
        }
    }
}

/// Each merge.
pub(super) fn table(report: &FoldReport) -> Table {
    let mut table = Table::new(&["into", "merged", "parameters", "multiplications"]);
    for merge in &report.merges {
        let macs = merge.macs_before.zip(merge.macs_after);
        let arrow = |(before, after)| format!("{} → {}", grouped(before), grouped(after));
        table.row([
            merge.into.to_string(),
            merge.merged.join(", "),
            arrow((merge.parameters_before, merge.parameters_after)),
            macs.map_or_else(String::new, arrow),
        ]);
    }
    table
}

/// Each that was not.
pub(super) fn refused(report: &FoldReport) -> Table {
    let mut table = Table::new(&["at", "code", "why"]);
    for merge in &report.merges_refused {
        table.row([
            merge.node.to_string(),
            merge.refusal.code.to_owned(),
            merge.refusal.message.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use bnkit::report::{MergeRefusal, Refusal};

    use super::*;
    use crate::print::samples;

    fn merge(into: &str, macs: Option<u64>) -> Merge {
        Merge {
            rule: "merge-branches",
            into: into.into(),
            merged: vec!["/conv_1x1".into(), "/Add".into()],
            parameters_before: 23_328,
            parameters_after: 20_784,
            macs_before: macs,
            macs_after: macs.map(|macs| macs / 2),
        }
    }

    #[test]
    fn work_is_told_only_where_all_of_it_is_known() {
        let both = [merge("/a", Some(2000)), merge("/b", Some(2000))];
        let text = totals(&both);
        assert!(text.starts_with("parameters 46"), "{text}");
        assert!(text.contains("multiplications"), "{text}");
        assert!(!totals(&[merge("/a", Some(2000)), merge("/b", None)]).contains("multi"));
    }

    #[test]
    fn what_was_not_merged_is_told_with_its_code() {
        let mut report = samples::fold();
        report.merges = vec![merge("/a", None)];
        report.merges_refused = vec![MergeRefusal {
            node: "/Add_1".into(),
            refusal: Refusal::new("merge-pads", "the paddings differ"),
        }];
        let mut out = Vec::new();
        text(&report, &mut out, Detail::Full).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in ["Merged 1 group", "/conv_1x1, /Add", "/Add_1", "merge-pads"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
