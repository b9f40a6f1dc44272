//! `inspect --tensor`: one tensor, and how its elements are spread.

use std::io::{self, Write};

use bnkit::inspect::{Histogram, TensorReport};
use serde::Serialize;

use super::fenced;
use crate::print::github::Annotation;
use crate::print::plain::plain;
use crate::print::style::{BAD, FAINT, STRONG, paint};
use crate::print::units::{bytes, grouped, short};
use crate::print::{Detail, Document};

/// The longest bar of a histogram.
const BAR: usize = 32;

/// One tensor.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct OneTensor(pub(crate) TensorReport);

impl Document for OneTensor {
    fn text(&self, out: &mut dyn Write, _: Detail) -> io::Result<()> {
        let report = &self.0;
        let facts = format!(
            "{} {}, {} elements, {}",
            report.dtype,
            super::dims(&report.dims),
            grouped(report.elements),
            bytes(report.bytes)
        );
        writeln!(
            out,
            "{}  {}",
            paint(STRONG, plain(&report.name)),
            paint(FAINT, facts)
        )?;
        if !report.scope.is_empty() {
            writeln!(out, "  scope    {}", plain(&report.scope))?;
        }
        writeln!(out, "  lies     {}", plain(&report.place))?;
        if let Some(readers) = &report.readers {
            let readers = match readers.as_slice() {
                [] => "nobody".to_owned(),
                readers => plain(&readers.join(", ")),
            };
            writeln!(out, "  read by  {readers}")?;
        }
        let Some(values) = &report.values else {
            return Ok(());
        };
        writeln!(
            out,
            "  values   {} … {}, mean {}, standard deviation {}",
            short(values.min),
            short(values.max),
            short(values.mean),
            short(values.std)
        )?;
        let special = format!(
            "{} zeros, {} NaN, {} infinite",
            grouped(values.zeros),
            grouped(values.nan),
            grouped(values.not_finite - values.nan)
        );
        let special = match values.not_finite {
            0 => special,
            _ => paint(BAD, special),
        };
        writeln!(out, "           {special}")?;
        let first: Vec<String> = values.first.iter().map(|&value| short(value)).collect();
        let more = if (values.first.len() as u64) < report.elements {
            " …"
        } else {
            ""
        };
        let lines = wrapped(&format!("{}{more}", first.join(" ")));
        for (at, line) in lines.iter().enumerate() {
            let title = if at == 0 { "first" } else { "" };
            writeln!(out, "  {title:<9}{line}")?;
        }
        match &values.histogram {
            Some(histogram) => bars(histogram, out),
            None => Ok(()),
        }
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        fenced(self, out)
    }

    fn annotations(&self) -> Vec<Annotation> {
        Vec::new()
    }
}

/// Numbers in lines that fit a terminal.
fn wrapped(numbers: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for number in numbers.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.chars().count() + 1 + number.chars().count() > 66 {
            lines.push(number.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(number);
        }
    }
    lines
}

/// A bar for each bin; the fullest one has the longest. A bin that is not empty always has some bar.
fn bars(histogram: &Histogram, out: &mut dyn Write) -> io::Result<()> {
    let bins = histogram.counts.len();
    let width = (histogram.high - histogram.low) / bins as f64;
    let edge = |at: usize| match at == bins {
        true => histogram.high,
        false => histogram.low + width * at as f64,
    };
    let labels: Vec<[String; 2]> = (0..bins)
        .map(|at| [short(edge(at)), short(edge(at + 1))])
        .collect();
    let wide = |side: usize| {
        let widths = labels.iter().map(|label| label[side].chars().count());
        widths.max().unwrap_or(0)
    };
    let (left, right) = (wide(0), wide(1));
    let fullest = histogram.counts.iter().copied().max().unwrap_or(0).max(1);
    writeln!(out)?;
    for ([low, high], &number) in labels.iter().zip(&histogram.counts) {
        let bar = bar(number as f64 / fullest as f64);
        let blank = " ".repeat(BAR - bar.chars().count());
        let line = format!(
            "  {low:>left$} … {high:>right$}  {bar}{blank}  {}",
            grouped(number)
        );
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// A bar in eighths of a letter.
fn bar(share: f64) -> String {
    const PARTS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    let eighths = (share * (8 * BAR) as f64).ceil() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(PARTS[eighths % 8 - 1]);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1e-9), "▏");
        assert_eq!(bar(0.5), "█".repeat(BAR / 2));
        assert_eq!(bar(1.0), "█".repeat(BAR));
    }

    #[test]
    fn a_histogram_is_a_line_for_each_bin() {
        let histogram = Histogram {
            low: -1.0,
            high: 1.0,
            counts: vec![3, 0, 0, 6],
        };
        let mut out = Vec::new();
        bars(&histogram, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[1].starts_with("    -1 … -0.5  ████"), "{text}");
        assert!(lines[4].ends_with("█  6"), "{text}");
    }
}
