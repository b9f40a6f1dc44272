//! `inspect --tree`: the modules of a checkpoint.

use std::io::{self, Write};

use bnkit::inspect::{Module, TreeReport};
use serde::Serialize;

use super::fenced;
use crate::print::github::Annotation;
use crate::print::plain::plain;
use crate::print::style::{FAINT, STRONG, paint};
use crate::print::units::{bytes, count, grouped};
use crate::print::{Detail, Document};

/// The modules of a checkpoint.
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
        for leaf in leaves(root) {
            writeln!(out, "  {}", paint(FAINT, plain(leaf)))?;
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

fn leaves(module: &Module) -> impl Iterator<Item = &String> {
    module.operators.iter().chain(&module.tensors)
}

fn size(module: &Module) -> String {
    let things = match module.nodes {
        0 => count(module.tensor_count, "tensor"),
        nodes => count(nodes, "node"),
    };
    let parameters = grouped(module.parameters);
    format!("{things}, {parameters} parameters, {}", bytes(module.bytes))
}

/// A module that holds nothing but one operator or tensor takes one line.
fn branch(module: &Module, out: &mut dyn Write, depth: usize) -> io::Result<()> {
    let indent = "  ".repeat(depth);
    let name = plain(&module.name);
    let mut own = leaves(module);
    if let (Some(leaf), None, true) = (own.next(), own.next(), module.modules.is_empty()) {
        return writeln!(out, "{indent}{name}  {}", paint(FAINT, plain(leaf)));
    }
    writeln!(out, "{indent}{name}  {}", paint(FAINT, size(module)))?;
    for leaf in leaves(module) {
        writeln!(out, "{indent}  {}", paint(FAINT, plain(leaf)))?;
    }
    module
        .modules
        .iter()
        .try_for_each(|inner| branch(inner, out, depth + 1))
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
            bytes: 36,
            operators: vec!["Conv [1×1×3×3]".to_owned()],
            ..Module::default()
        };
        let module = Module {
            name: "stem".to_owned(),
            nodes: 1,
            parameters: 9,
            bytes: 36,
            modules: vec![leaf],
            ..Module::default()
        };
        let mut out = Vec::new();
        branch(&module, &mut out, 0).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        assert_eq!(
            text,
            "stem  1 node, 9 parameters, 36 B\n  conv  Conv [1×1×3×3]\n"
        );
    }
}
