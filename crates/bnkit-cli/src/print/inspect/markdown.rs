//! `inspect` as a page.

use std::io::{self, Write};

use bnkit::report::{InspectReport, Port};

use super::{COLUMNS, port, row};
use crate::print::plain::plain;
use crate::print::table::Table;
use crate::print::units::{bytes, grouped};

pub(super) fn write(report: &InspectReport, out: &mut dyn Write) -> io::Result<()> {
    let input = &report.input;
    writeln!(out, "# {}\n", input.path)?;
    writeln!(
        out,
        "- {} in the file, {} parameters",
        bytes(input.bytes),
        grouped(report.parameters)
    )?;
    if let Some(opset) = input.opset {
        writeln!(out, "- opset {opset}, IR version {}", input.ir_version)?;
    }
    if !input.producer.is_empty() {
        writeln!(out, "- written by {}", plain(&input.producer))?;
    }
    for (key, value) in &report.metadata {
        writeln!(out, "- {}: {}", plain(key), plain(value))?;
    }
    ports("Inputs", &report.inputs, out)?;
    ports("Outputs", &report.outputs, out)?;
    writeln!(out, "\n## Operators\n")?;
    let mut table = Table::new(&["operator", "nodes"]);
    for operator in &report.operators {
        table.row([operator.op.clone(), operator.count.to_string()]);
    }
    table.markdown(out)?;
    writeln!(out, "\n## BatchNorms\n")?;
    if report.batch_norms.is_empty() {
        writeln!(out, "None.\n")?;
        return report
            .hints
            .iter()
            .try_for_each(|hint| writeln!(out, "- {hint}"));
    }
    let mut table = Table::new(&COLUMNS);
    report
        .batch_norms
        .iter()
        .for_each(|norm| table.row(row(norm)));
    table.markdown(out)
}

fn ports(title: &str, ports: &[Port], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n## {title}\n")?;
    let mut table = Table::new(&["name", "type", "shape"]);
    ports.iter().for_each(|one| table.row(port(one)));
    table.markdown(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn the_page_has_every_section() {
        let mut out = Vec::new();
        write(&samples::inspect(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for heading in [
            "# net.onnx\n",
            "## Inputs\n",
            "## Outputs\n",
            "## Operators\n",
            "## BatchNorms\n",
        ] {
            assert!(text.contains(heading), "{heading}");
        }
        assert!(text.contains("| x | float32 | N×3×8×8 |"));
    }
}
