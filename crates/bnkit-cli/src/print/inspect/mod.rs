//! The report of `inspect`.

mod markdown;
mod page;
mod scan;
mod state;
mod tensor;
mod text;
mod tree;

use std::io::{self, Write};

use bnkit::report::{BatchNormInfo, Decision, InspectReport, Port};
use serde::Serialize;

use super::finding::{Case, Finding};
use super::page::Page;
use super::units::{range, shape, short};
use super::{Detail, Document, fold, warnings};

pub(crate) use scan::Scan;
pub(crate) use state::State;
pub(crate) use tensor::OneTensor;
pub(crate) use tree::Modules;

/// What is in a model, or only its BatchNorms.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Inspection {
    pub(crate) report: InspectReport,
    /// Whether people want to see the BatchNorms only. Programs always get everything.
    #[serde(skip)]
    pub(crate) batch_norms_only: bool,
}

impl Document for Inspection {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        text::write(self, out, detail)
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        markdown::write(&self.report, out)
    }

    fn findings(&self) -> Vec<Finding> {
        page::findings(&self.report)
    }

    fn cases(&self) -> Vec<Case> {
        page::cases(&self.report)
    }

    fn page(&self) -> Page {
        page::page(&self.report)
    }

    fn warnings(&self, detail: Detail) -> Vec<String> {
        warnings::lines(
            &[],
            self.report.batch_norms.iter().map(|norm| &norm.site),
            detail,
        )
    }
}

/// The columns of the table of BatchNorms.
const COLUMNS: [&str; 9] = [
    "BatchNorm",
    "channels",
    "input",
    "ε",
    "γ",
    "β",
    "mean",
    "variance",
    "fold",
];

/// One row of it.
fn row(norm: &BatchNormInfo) -> [String; 9] {
    let values = |role| {
        let tensor = norm.tensors.iter().find(|tensor| tensor.role == role);
        tensor.map_or_else(|| "?".to_owned(), |tensor| range(tensor.min, tensor.max))
    };
    [
        fold::place(&norm.site),
        norm.site.channels.to_string(),
        shape(norm.shape.as_deref()),
        short(norm.epsilon),
        values("scale"),
        values("bias"),
        values("mean"),
        values("variance"),
        route(norm),
    ]
}

/// What `fold` would do with it.
fn route(norm: &BatchNormInfo) -> String {
    let site = &norm.site;
    let training = if site.training_mode {
        "training mode; "
    } else {
        ""
    };
    let route = match (&site.decision, norm.errors.first(), &site.refusal) {
        (_, Some(error), _) => format!("bad statistics: {}", error.code),
        (_, None, Some(refusal)) => format!("kept: {}", refusal.code),
        (Decision::Kept, None, None) => "kept".to_owned(),
        (Decision::Skipped, None, None) => "skipped".to_owned(),
        _ => [site.rule.unwrap_or("folded"), &site.into.join(", ")]
            .join(" ")
            .trim_end()
            .to_owned(),
    };
    format!("{training}{route}")
}

/// "x: float32 1×3×224×224".
fn port(port: &Port) -> [String; 3] {
    [
        port.name.clone(),
        port.dtype.clone(),
        shape(port.dims.as_deref()),
    ]
}

/// Known dimensions, as in "64×3×7×7".
pub(super) fn dims(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    shape(Some(&dims))
}

/// The text of a document in a code block.
fn fenced(document: &impl Document, out: &mut dyn Write) -> io::Result<()> {
    let mut text = Vec::new();
    document.text(&mut text, Detail::Full)?;
    let text = String::from_utf8_lossy(&text);
    writeln!(out, "```\n{}```", anstream::adapter::strip_str(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;
    use bnkit::report::Finding;

    #[test]
    fn a_row_tells_ranges_and_route() {
        let report = samples::inspect();
        let cells = row(&report.batch_norms[0]);
        assert_eq!(
            cells,
            [
                "/conv1/BatchNormalization",
                "64",
                "N×64×8×8",
                "1.0e-5",
                "0.5 … 1.5",
                "0.5 … 1.5",
                "0.5 … 1.5",
                "0.5 … 1.5",
                "into-conv /conv1/Conv"
            ]
        );
        let mut norm = report.batch_norms[1].clone();
        assert_eq!(route(&norm), "kept: shared-output");
        norm.site.training_mode = true;
        norm.errors.push(Finding {
            code: "nan",
            node: "".into(),
            message: String::new(),
        });
        assert_eq!(route(&norm), "training mode; bad statistics: nan");
    }

    #[test]
    fn json_is_the_report_itself() {
        let report = samples::inspect();
        let json = serde_json::to_value(&report).unwrap();
        let inspection = Inspection {
            report,
            batch_norms_only: true,
        };
        assert_eq!(serde_json::to_value(&inspection).unwrap(), json);
        assert_eq!(inspection.annotations().len(), 1);
    }
}
