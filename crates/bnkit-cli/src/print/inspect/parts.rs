//! `inspect --tensor` and `inspect --tree` for people.

use std::io::{self, Write};

use bnkit::inspect::{Module, TensorReport, TreeReport};
use serde::Serialize;

use crate::print::github::Annotation;
use crate::print::style::{FAINT, STRONG, paint};
use crate::print::units::{count, grouped, short};
use crate::print::{Detail, Document};

/// One tensor.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct OneTensor(pub(crate) TensorReport);

impl Document for OneTensor {
    fn text(&self, out: &mut dyn Write, _: Detail) -> io::Result<()> {
        let report = &self.0;
        let dims: Vec<String> = report.dims.iter().map(usize::to_string).collect();
        let shape = if dims.is_empty() {
            "scalar".to_owned()
        } else {
            dims.join("×")
        };
        let facts = format!(
            "{} {shape}, {} elements",
            report.dtype,
            grouped(report.elements as u64)
        );
        writeln!(
            out,
            "{}  {}",
            paint(STRONG, &report.name),
            paint(FAINT, facts)
        )?;
        if !report.scope.is_empty() {
            writeln!(out, "  scope    {}", report.scope)?;
        }
        writeln!(out, "  lies     {}", report.place)?;
        writeln!(
            out,
            "  read by  {}",
            if report.readers.is_empty() {
                "nobody".to_owned()
            } else {
                report.readers.join(", ")
            }
        )?;
        let Some(values) = &report.values else {
            return Ok(());
        };
        writeln!(
            out,
            "  values   {} … {}, mean {}, standard deviation {}, {} zeros, {} not finite",
            short(values.min),
            short(values.max),
            short(values.mean),
            short(values.std),
            grouped(values.zeros as u64),
            grouped(values.not_finite as u64)
        )?;
        let first: Vec<String> = values.first.iter().map(|&value| short(value)).collect();
        let more = if values.first.len() < report.elements {
            " …"
        } else {
            ""
        };
        writeln!(out, "  first    {}{more}", first.join(" "))
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        fenced(self, out)
    }

    fn annotations(&self) -> Vec<Annotation> {
        Vec::new()
    }
}

/// The modules of a model.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Modules(pub(crate) TreeReport);

impl Document for Modules {
    fn text(&self, out: &mut dyn Write, _: Detail) -> io::Result<()> {
        let root = &self.0.root;
        writeln!(
            out,
            "{}  {}",
            paint(STRONG, &self.0.input.path),
            paint(FAINT, size(root))
        )?;
        for operator in &root.operators {
            writeln!(out, "  {}", paint(FAINT, operator))?;
        }
        root.modules
            .iter()
            .try_for_each(|module| branch(module, out, 1))
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        fenced(self, out)
    }

    fn annotations(&self) -> Vec<Annotation> {
        Vec::new()
    }
}

fn size(module: &Module) -> String {
    format!(
        "{}, {} parameters",
        count(module.nodes, "node"),
        grouped(module.parameters)
    )
}

/// A module that holds nothing but one operator takes one line.
fn branch(module: &Module, out: &mut dyn Write, depth: usize) -> io::Result<()> {
    let indent = "  ".repeat(depth);
    if let ([operator], true) = (module.operators.as_slice(), module.modules.is_empty()) {
        return writeln!(out, "{indent}{}  {}", module.name, paint(FAINT, operator));
    }
    writeln!(
        out,
        "{indent}{}  {}",
        module.name,
        paint(FAINT, size(module))
    )?;
    for operator in &module.operators {
        writeln!(out, "{indent}  {}", paint(FAINT, operator))?;
    }
    module
        .modules
        .iter()
        .try_for_each(|inner| branch(inner, out, depth + 1))
}

/// The text in a code block.
fn fenced(document: &impl Document, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "```")?;
    document.text(out, Detail::Full)?;
    writeln!(out, "```")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_of_one_operator_takes_one_line() {
        let leaf = Module {
            name: "conv".to_owned(),
            nodes: 1,
            parameters: 9,
            operators: vec!["Conv [1×1×3×3]".to_owned()],
            modules: Vec::new(),
        };
        let module = Module {
            name: "stem".to_owned(),
            nodes: 1,
            parameters: 9,
            modules: vec![leaf],
            ..Module::default()
        };
        let mut out = Vec::new();
        branch(&module, &mut out, 0).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        assert_eq!(text, "stem  1 node, 9 parameters\n  conv  Conv [1×1×3×3]\n");
    }
}
