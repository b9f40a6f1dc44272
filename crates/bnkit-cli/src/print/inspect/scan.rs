//! `inspect --scan`: what every tensor holds.

use std::io::{self, Write};

use bnkit::inspect::{Ends, ScanReport, ScannedTensor};
use serde::Serialize;

use crate::print::calibrate::cut;
use crate::print::calibrate::parts::{section, table};
use crate::print::finding::Finding;
use crate::print::fold;
use crate::print::github::Level;
use crate::print::style::{BAD, GOOD, paint};
use crate::print::table::Table;
use crate::print::units::{bytes, count, grouped, range};
use crate::print::{Detail, Document};

/// The name of a tensor takes no more than this, unless all is wanted.
const NAME: usize = 34;

/// So many names of equal tensors are listed, unless all are wanted.
const NAMES: usize = 3;

/// What every tensor of a checkpoint holds.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Scan(pub(crate) ScanReport);

impl Document for Scan {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        let report = &self.0;
        let full = detail == Detail::Full;
        fold::text::header(&report.input, out)?;
        let style = if report.not_finite == 0 { GOOD } else { BAD };
        writeln!(out, "\n{}", paint(style, headline(report)))?;
        table(out, &tensors(report, &is_broken, full), detail)?;
        if full {
            writeln!(out, "\nAll tensors")?;
            table(out, &tensors(report, &|_| true, full), detail)?;
        }
        if !report.equal.is_empty() {
            writeln!(out, "\n{}", duplicates(report))?;
            table(out, &equal(report, full), detail)?;
        }
        Ok(())
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        let report = &self.0;
        writeln!(out, "# {}\n\n`{}`", headline(report), report.input.path)?;
        let all = tensors(report, &|_| true, true);
        let broken = tensors(report, &is_broken, true);
        section(out, "NaN or Inf", &broken)?;
        section(out, "Equal tensors", &equal(report, true))?;
        section(out, "Tensors", &all)
    }

    fn findings(&self) -> Vec<Finding> {
        let broken = self.0.tensors.iter().filter(|tensor| is_broken(tensor));
        let found = broken.map(|tensor| {
            let ends = tensor.ends.unwrap_or_default();
            let text = format!("{} NaN, {} infinite", ends.nan, ends.infinite);
            Finding::of_node(Level::Error, "not-finite", &tensor.name, "", &text)
        });
        found.collect()
    }
}

fn is_broken(tensor: &ScannedTensor) -> bool {
    tensor.ends.is_some_and(|ends| ends.nan + ends.infinite > 0)
}

fn headline(report: &ScanReport) -> String {
    let all = count(report.tensors.len(), "tensor");
    match report.not_finite {
        0 => format!("{all}, all finite"),
        broken => format!("{broken} of {all} with NaN or Inf"),
    }
}

fn tensors(report: &ScanReport, wanted: &dyn Fn(&ScannedTensor) -> bool, full: bool) -> Table {
    let mut table = Table::new(&["tensor", "type", "shape", "values", "zeros", "NaN", "Inf"]);
    for tensor in report.tensors.iter().filter(|tensor| wanted(tensor)) {
        let name = match full {
            true => tensor.name.clone(),
            false => cut(&tensor.name, NAME),
        };
        let ends = tensor.ends.as_ref();
        let number = |value: fn(&Ends) -> u64| {
            ends.map_or_else(|| "–".to_owned(), |ends| grouped(value(ends)))
        };
        let values = match ends {
            None => "–".to_owned(),
            // Nothing but NaN.
            Some(ends) if ends.min > ends.max => "–".to_owned(),
            Some(ends) => range(ends.min, ends.max),
        };
        table.row([
            name,
            tensor.dtype.clone(),
            super::dims(&tensor.dims),
            values,
            number(|ends| ends.zeros),
            number(|ends| ends.nan),
            number(|ends| ends.infinite),
        ]);
    }
    table
}

fn duplicates(report: &ScanReport) -> String {
    let spare: u64 = report
        .equal
        .iter()
        .map(|group| group.bytes * (group.copies as u64 - 1))
        .sum();
    let saved = match spare {
        0 => "stored once".to_owned(),
        spare => format!("{} are stored more than once", bytes(spare)),
    };
    format!(
        "{} of equal tensors: {saved}",
        count(report.equal.len(), "group")
    )
}

fn equal(report: &ScanReport, full: bool) -> Table {
    let named = if full { usize::MAX } else { NAMES };
    let mut table = Table::new(&["size", "copies", "tensors"]);
    for group in &report.equal {
        let names: Vec<&str> = group.names.iter().take(named).map(String::as_str).collect();
        let more = match group.names.len() - names.len() {
            0 => String::new(),
            hidden => format!(", and {hidden} more"),
        };
        table.row([
            bytes(group.bytes),
            group.copies.to_string(),
            names.join(", ") + &more,
        ]);
    }
    table
}
