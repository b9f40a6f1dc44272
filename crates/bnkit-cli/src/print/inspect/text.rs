//! `inspect` for people.

use std::io::{self, Write};

use bnkit::report::{InspectReport, Port};

use super::{COLUMNS, Inspection, port, row};
use crate::print::norms as others;
use crate::print::plain::plain;
use crate::print::style::{BAD, FAINT, STRONG, paint};
use crate::print::table::Table;
use crate::print::units::{bytes, count, grouped};
use crate::print::{Detail, more};

pub(super) fn write(
    inspection: &Inspection,
    out: &mut dyn Write,
    detail: Detail,
) -> io::Result<()> {
    let report = &inspection.report;
    if inspection.batch_norms_only {
        return batch_norms(report, out, Detail::Full);
    }
    overview(report, out)?;
    ports("Inputs", &report.inputs, out, detail)?;
    ports("Outputs", &report.outputs, out, detail)?;
    operators(report, out, detail)?;
    writeln!(out)?;
    batch_norms(report, out, detail)
}

fn overview(report: &InspectReport, out: &mut dyn Write) -> io::Result<()> {
    let input = &report.input;
    let opset = input
        .opset
        .map_or_else(|| "no opset".to_owned(), |opset| format!("opset {opset}"));
    let facts = format!(
        "ONNX, {opset}, IR version {}, {}",
        input.ir_version,
        bytes(input.bytes)
    );
    writeln!(
        out,
        "{}  {}",
        paint(STRONG, &input.path),
        paint(FAINT, facts)
    )?;
    if !input.producer.is_empty() {
        writeln!(out, "  written by {}", plain(&input.producer))?;
    }
    let parameters = grouped(report.parameters);
    writeln!(
        out,
        "  {parameters} parameters ({})",
        bytes(report.parameter_bytes)
    )?;
    for (key, value) in &report.metadata {
        writeln!(
            out,
            "  {} {}",
            paint(FAINT, format!("{key}:")),
            plain(value)
        )?;
    }
    Ok(())
}

fn ports(title: &str, ports: &[Port], out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    writeln!(out, "\n{}", paint(STRONG, title))?;
    let mut table = Table::new(&["", "", ""]);
    ports.iter().for_each(|one| table.row(port(one)));
    table.text(out, "  ", detail.limit())?;
    cut(ports.len(), out, detail)
}

fn operators(report: &InspectReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    let heading = format!(
        "{}, {}",
        count(report.nodes, "node"),
        count(report.operators.len(), "kind")
    );
    writeln!(out, "\n{}", paint(STRONG, heading))?;
    let mut table = Table::new(&["", ""]);
    for operator in &report.operators {
        table.row([operator.count.to_string(), operator.op.clone()]);
    }
    table.text(out, "  ", detail.limit())?;
    cut(report.operators.len(), out, detail)
}

fn batch_norms(report: &InspectReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    let norms = &report.batch_norms;
    if norms.is_empty() {
        writeln!(out, "{}", paint(STRONG, "No BatchNorm"))?;
        others::text(&report.chains, &report.data_norms, out)?;
        return report
            .hints
            .iter()
            .try_for_each(|hint| writeln!(out, "  {hint}"));
    }
    let channels: usize = norms.iter().map(|norm| norm.site.channels).sum();
    let heading = format!(
        "{}, {} channels",
        count(norms.len(), "BatchNorm"),
        grouped(channels as u64)
    );
    writeln!(out, "{}", paint(STRONG, heading))?;
    let mut table = Table::new(&COLUMNS);
    norms.iter().for_each(|norm| table.row(row(norm)));
    table.text(out, "  ", detail.limit())?;
    cut(norms.len(), out, detail)?;
    others::text(&report.chains, &report.data_norms, out)?;
    let kept = norms.iter().any(|norm| norm.site.refusal.is_some());
    if kept {
        writeln!(
            out,
            "  {}",
            paint(FAINT, "(bnkit explain CODE says why a BatchNorm is kept)")
        )?;
    }
    let errors: Vec<_> = norms.iter().flat_map(|norm| &norm.errors).collect();
    if !errors.is_empty() {
        writeln!(out, "\n{}", paint(BAD, "Bad statistics"))?;
        let mut table = Table::new(&["", "", ""]);
        for error in &errors {
            table.row([
                error.node.to_string(),
                error.code.to_owned(),
                error.message.clone(),
            ]);
        }
        table.text(out, "  ", detail.limit())?;
        cut(errors.len(), out, detail)?;
    }
    Ok(())
}

fn cut(number: usize, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    match more(number.saturating_sub(detail.limit())) {
        Some(line) => writeln!(out, "  {line}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    fn text(inspection: &Inspection) -> String {
        let mut out = Vec::new();
        write(inspection, &mut out, Detail::Short).unwrap();
        anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string()
    }

    #[test]
    fn the_overview_comes_first() {
        let text = text(&Inspection {
            report: samples::inspect(),
            batch_norms_only: false,
        });
        let expected = "\
net.onnx  ONNX, opset 17, IR version 8, 102.5 MB
  written by pytorch 2.4
  25,557,032 parameters (102.2 MB)

Inputs
  x  float32  N×3×8×8

Outputs
  logits  float32  N×10

12 nodes, 2 kinds
  8  Conv
  4  BatchNormalization

2 BatchNorms, 128 channels
  BatchNorm ";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains("kept: shared-output\n  (bnkit explain"),
            "{text}"
        );
    }

    #[test]
    fn only_batch_norms() {
        let text = text(&Inspection {
            report: samples::inspect(),
            batch_norms_only: true,
        });
        assert!(text.starts_with("2 BatchNorms, 128 channels\n"), "{text}");
    }

    #[test]
    fn hints_where_there_is_none() {
        let mut report = samples::inspect();
        report.batch_norms.clear();
        report.hints.push("folded already?".to_owned());
        let text = text(&Inspection {
            report,
            batch_norms_only: false,
        });
        assert!(
            text.ends_with("\nNo BatchNorm\n  folded already?\n"),
            "{text}"
        );
    }
}
