//! `fold` for people: what became part of what, what stayed and why, how equal the result is, where it lies.

use std::io::{self, Write};

use bnkit::report::{Decision, FoldReport, InputFile};

use super::{NOTHING_TO_FOLD, headline, kept, merges, place, rules, state, tidied, title, to_eval};
use crate::print::norms;
use crate::print::proof;
use crate::print::style::{BAD, DOUBTFUL, FAINT, GOOD, STRONG, paint};
use crate::print::table::Table;
use crate::print::units::{bytes, count};
use crate::print::{Detail, more};

/// So many names stand in one line.
const NAMES: usize = 4;

pub(super) fn write(report: &FoldReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    header(&report.input, out)?;
    state::origin(report, out, detail)?;
    body(report, out, detail)?;
    writeln!(out)?;
    written(report, out)
}

/// What was folded and how it was proved, as a part of another report too.
pub(crate) fn body(report: &FoldReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    folded(report, out, detail)?;
    merges::text(report, out, detail)?;
    errors(report, out, detail)?;
    stayed(report, out, detail)?;
    changes(report, out, detail)?;
    if let Some(verification) = &report.verification {
        writeln!(out)?;
        proof::text(verification, out, detail)?;
    }
    Ok(())
}

/// The file that a report is about.
pub(crate) fn header(input: &InputFile, out: &mut dyn Write) -> io::Result<()> {
    let opset = input.opset.map(|opset| format!("opset {opset}"));
    let producer = Some(&input.producer)
        .filter(|name| !name.is_empty())
        .map(|name| format!("from {name}"));
    let facts: Vec<String> = [opset, Some(bytes(input.bytes)), producer]
        .into_iter()
        .flatten()
        .collect();
    writeln!(
        out,
        "{}  {}",
        paint(STRONG, &input.path),
        paint(FAINT, facts.join(", "))
    )
}

fn folded(report: &FoldReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    writeln!(out, "\n{}", paint(STRONG, headline(report)))?;
    if report.summary.batch_norms == 0 && report.summary.affines_folded == 0 {
        for line in NOTHING_TO_FOLD {
            writeln!(out, "  {line}")?;
        }
    }
    let mut table = Table::new(&["", "", ""]);
    for (rule, times, title) in rules(report) {
        table.row([rule.to_owned(), times.to_string(), title.to_owned()]);
    }
    table.text(out, "  ", usize::MAX)?;
    let affines = report.summary.affines_folded;
    if affines > 0 {
        writeln!(
            out,
            "  {} by constants went the same way",
            count(affines, "Mul, Add, Sub or Div node")
        )?;
    }
    norms::text(&report.chains, &report.data_norms, out)?;
    if detail == Detail::Full {
        each(report, out)?;
    }
    Ok(())
}

/// Every folded BatchNorm with its route.
fn each(report: &FoldReport, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&["BatchNorm", "channels", "into", "through"]);
    let gone = |decision| !matches!(decision, Decision::Kept | Decision::Skipped);
    for site in report.sites.iter().filter(|site| gone(site.decision)) {
        table.row([
            place(site),
            site.channels.to_string(),
            site.into.join(", "),
            site.via.join(", "),
        ]);
    }
    if table.len() > 0 {
        writeln!(out)?;
    }
    table.text(
        out,
        "  ",
        if table.len() > 0 {
            usize::MAX
        } else {
            return Ok(());
        },
    )
}

fn errors(report: &FoldReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    if report.errors.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["BatchNorm", "code", "what is wrong"]);
    for error in &report.errors {
        table.row([
            error.node.to_string(),
            error.code.to_owned(),
            error.message.clone(),
        ]);
    }
    writeln!(
        out,
        "\n{}",
        paint(
            BAD,
            format!("Bad statistics: {}", count(report.errors.len(), "error"))
        )
    )?;
    table.text(out, "  ", detail.limit())?;
    cut(report.errors.len(), out, detail)
}

fn stayed(report: &FoldReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    let mut codes: Vec<(&str, Vec<[String; 2]>)> = Vec::new();
    for (site, code, why) in kept(report) {
        let row = [place(site), why.to_owned()];
        match codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, rows)) => rows.push(row),
            None => codes.push((code, vec![row])),
        }
    }
    let number = report.summary.kept;
    if number > 0 {
        let how = paint(FAINT, "(bnkit explain CODE says more)");
        writeln!(out, "\n{} {how}", paint(DOUBTFUL, format!("Kept {number}")))?;
    }
    let mut left = detail.limit();
    for (code, rows) in codes {
        if left == 0 {
            break;
        }
        let meaning = title(code);
        let colon = if meaning.is_empty() { "" } else { ": " };
        writeln!(
            out,
            "  {} {}",
            paint(STRONG, code),
            paint(FAINT, format!("({}){colon}{meaning}", rows.len()))
        )?;
        let mut table = Table::new(&["", ""]);
        let shown = rows.len().min(left);
        rows.into_iter().for_each(|row| table.row(row));
        table.text(out, "    ", shown)?;
        left -= shown;
    }
    cut(number, out, detail)?;
    let skipped: Vec<&str> = report
        .sites
        .iter()
        .filter(|site| site.decision == Decision::Skipped)
        .map(|site| site.node.as_str())
        .collect();
    if !skipped.is_empty() {
        writeln!(
            out,
            "\nSkipped {}, as asked: {}",
            skipped.len(),
            names(&skipped, detail)
        )?;
    }
    Ok(())
}

fn changes(report: &FoldReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    if let Some(state) = &report.state {
        return writeln!(out, "\n{}", state::tensors(state));
    }
    let summary = &report.summary;
    let training = to_eval(report);
    if training.is_empty()
        && report.cleanup.is_empty()
        && summary.nodes_before == summary.nodes_after
    {
        return Ok(());
    }
    writeln!(out)?;
    if !training.is_empty() {
        let nodes = count(training.len(), "node");
        writeln!(
            out,
            "Training mode became eval mode in {nodes}: {}",
            names(&training, detail)
        )?;
        writeln!(
            out,
            "  (they use their running statistics now; the proof compares with the original in eval mode)"
        )?;
    }
    let tidied = tidied(report);
    if !tidied.is_empty() && detail == Detail::Short {
        let phrases: Vec<&str> = tidied.iter().map(|(phrase, _)| phrase.as_str()).collect();
        writeln!(out, "Cleaned up: {}", phrases.join(", "))?;
    } else if !tidied.is_empty() {
        writeln!(out, "Cleaned up")?;
        for (phrase, names) in &tidied {
            writeln!(out, "  {phrase}: {}", names.join(", "))?;
        }
    }
    writeln!(
        out,
        "Nodes: {} → {}",
        summary.nodes_before, summary.nodes_after
    )
}

fn written(report: &FoldReport, out: &mut dyn Write) -> io::Result<()> {
    let Some(output) = &report.output else {
        let why = if report.failure.is_some() {
            "Nothing was written."
        } else {
            "Dry run: nothing was written."
        };
        return writeln!(out, "{}", paint(STRONG, why));
    };
    let sizes = format!("{} → {}", bytes(report.input.bytes), bytes(output.bytes));
    let data = output
        .data
        .as_ref()
        .map(|data| format!(", its data in {data}"))
        .unwrap_or_default();
    writeln!(
        out,
        "{} {}{data}  {}",
        paint(GOOD, "Wrote"),
        paint(STRONG, &output.path),
        paint(FAINT, sizes)
    )
}

fn cut(number: usize, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    match more(number.saturating_sub(detail.limit())) {
        Some(line) => writeln!(out, "  {line}"),
        None => Ok(()),
    }
}

/// The first few names, or all of them.
fn names(all: &[&str], detail: Detail) -> String {
    match all
        .get(..NAMES)
        .filter(|_| detail == Detail::Short && all.len() > NAMES)
    {
        Some(first) => format!("{} and {} more", first.join(", "), all.len() - NAMES),
        None => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;
    use bnkit::report::{Cleanup, Finding};

    fn text(report: &FoldReport, detail: Detail) -> String {
        let mut out = Vec::new();
        write(report, &mut out, detail).unwrap();
        anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string()
    }

    #[test]
    fn everything_a_person_wants_to_know_is_there() {
        let text = text(&samples::fold(), Detail::Short);
        let expected = "\
net.onnx  opset 17, 102.5 MB, from pytorch 2.4

Folded 3 of 4 BatchNorms
  into-conv  2
  into-gemm  1
";
        assert!(strip_titles(&text).starts_with(expected), "{text}");
        for part in [
            "Kept 1 (bnkit explain CODE says more)\n  shared-output (1)",
            "    /norm/BatchNormalization  the value \"x\" is read by 2 nodes\n",
            "Cleaned up: 1 node removed\nNodes: 12 → 8\n",
            "Wrote net.folded.onnx  102.5 MB → 102.3 MB\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    /// The text without the titles of rules, which belong to the library.
    fn strip_titles(text: &str) -> String {
        let strip = |line: &str| match line.trim_start().starts_with("into-") {
            true => format!(
                "  {}",
                line.split_whitespace()
                    .take(2)
                    .collect::<Vec<_>>()
                    .join("  ")
            ),
            false => line.to_owned(),
        };
        text.lines().map(strip).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn long_lists_are_cut_unless_all_is_wanted() {
        let mut report = samples::fold();
        let kept = report.sites.pop().unwrap();
        report.sites.extend(std::iter::repeat_n(kept, 30));
        report.summary.kept = 30;
        let short = text(&report, Detail::Short);
        assert!(
            short.contains("  … and 10 more (--verbose lists all)\n"),
            "{short}"
        );
        assert_eq!(short.matches("is read by 2 nodes").count(), 20);
        let full = text(&report, Detail::Full);
        assert_eq!(full.matches("is read by 2 nodes").count(), 30);
        assert!(
            full.contains("/conv1/Conv") && !full.contains("--verbose"),
            "{full}"
        );
    }

    #[test]
    fn no_batch_norm_is_explained() {
        let mut report = samples::fold();
        report.sites.clear();
        report.summary = Default::default();
        let text = text(&report, Detail::Short);
        assert!(
            text.contains("No BatchNorm: nothing to fold\n  The exporter may"),
            "{text}"
        );
        assert!(text.contains("Exporting so that BatchNorm survives"));
    }

    #[test]
    fn training_mode_and_bad_statistics_are_named() {
        let mut report = samples::fold();
        report.sites[0].training_mode = true;
        let step = |node: &str, action| Cleanup {
            node: node.into(),
            action,
            detail: None,
        };
        report.cleanup.extend([
            step("/drop", "to-eval"),
            step("m", "constant-dropped"),
            step("v", "constant-dropped"),
        ]);
        report.errors.push(Finding {
            code: "negative-variance",
            node: "/bn".into(),
            message: "tensor \"v\": channel 3 is -1".to_owned(),
        });
        report.output = None;
        report.failure = Some("bad".to_owned());
        let text = text(&report, Detail::Short);
        assert!(
            text.contains(
                "Training mode became eval mode in 2 nodes: /conv1/BatchNormalization, /drop\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("1 node removed, 2 constants dropped that nobody reads any more\n"),
            "{text}"
        );
        assert!(text.contains("Bad statistics: 1 error\n"), "{text}");
        assert!(text.ends_with("\nNothing was written.\n"), "{text}");
    }
}
