//! Lines that several of these reports have.

use std::io::{self, Write};

use bnkit::calibrate::{DataUsed, MethodUsed, Sampling};
use bnkit::report::{OutputFile, Warning};

use super::{amount, method, verdict};
use crate::print::style::{BAD, DOUBTFUL, FAINT, GOOD, STRONG, paint};
use crate::print::table::Table;
use crate::print::units::bytes;
use crate::print::{Detail, more};

/// "  data       x.npz: 1,437 samples in 45 batches of 32".
pub(super) fn line(out: &mut dyn Write, title: &str, text: &str) -> io::Result<()> {
    writeln!(out, "  {} {text}", paint(FAINT, format!("{title:<9}")))
}

/// Data, method, and whether it was enough.
pub(super) fn basis(
    out: &mut dyn Write,
    data: Option<&DataUsed>,
    how: Option<&MethodUsed>,
    sampling: Option<(&Sampling, u64)>,
) -> io::Result<()> {
    if let Some(data) = data {
        line(out, "data", &format!("{}: {}", data.path, amount(data)))?;
    }
    if let Some(how) = how {
        line(out, "method", &method(how))?;
    }
    if let Some((sampling, seen)) = sampling {
        let (enough, text) = verdict(sampling, seen);
        let style = if enough == Some(true) { GOOD } else { DOUBTFUL };
        let (word, rest) = text.split_once(':').unwrap_or((text.as_str(), ""));
        line(out, "samples", &format!("{}:{rest}", paint(style, word)))?;
    }
    Ok(())
}

/// A table, cut short unless all is wanted.
pub(in crate::print) fn table(
    out: &mut dyn Write,
    table: &Table,
    detail: Detail,
) -> io::Result<()> {
    if table.len() == 0 {
        return Ok(());
    }
    table.text(out, "  ", detail.limit())?;
    match more(table.len().saturating_sub(detail.limit())) {
        Some(line) => writeln!(out, "  {line}"),
        None => Ok(()),
    }
}

pub(super) fn written(
    out: &mut dyn Write,
    before: u64,
    output: Option<&OutputFile>,
) -> io::Result<()> {
    let Some(output) = output else {
        return writeln!(out, "{}", paint(BAD, "Nothing was written."));
    };
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
        paint(
            FAINT,
            format!("{} → {}", bytes(before), bytes(output.bytes))
        )
    )
}

pub(super) fn wrote(out: &mut dyn Write, path: &str) -> io::Result<()> {
    writeln!(out, "{} {}", paint(GOOD, "Wrote"), paint(STRONG, path))
}

/// A section of a page, if there is something in it.
pub(in crate::print) fn section(out: &mut dyn Write, title: &str, table: &Table) -> io::Result<()> {
    if table.len() == 0 {
        return Ok(());
    }
    writeln!(out, "\n## {title}\n")?;
    table.markdown(out)
}

/// The facts above a page's sections.
pub(in crate::print) fn facts(out: &mut dyn Write, rows: &[(&str, String)]) -> io::Result<()> {
    let mut table = Table::new(&["", ""]);
    for (title, text) in rows.iter().filter(|(_, text)| !text.is_empty()) {
        table.row([(*title).to_owned(), text.clone()]);
    }
    table.markdown(out)
}

pub(super) fn warning_table(warnings: &[Warning]) -> Table {
    let mut table = Table::new(&["code", "warning"]);
    for warning in warnings {
        table.row([format!("`{}`", warning.code), warning.message.clone()]);
    }
    table
}
