//! Options that say how equal is equal.

use bnkit::verify::VerifyOptions;
use clap::{Args, ValueEnum};

use super::data::Data;
use super::values;

/// How equal is equal.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proof")]
pub(crate) struct Tolerances {
    /// Absolute tolerance, instead of the one derived from the noise of the arithmetic
    #[arg(long, value_name = "X", value_parser = values::tolerance)]
    pub(crate) atol: Option<f64>,

    /// Tolerance relative to the range of an output, instead of the derived one
    #[arg(long, value_name = "X", value_parser = values::tolerance)]
    pub(crate) rtol: Option<f64>,

    /// Accept differences up to X times the noise floor
    #[arg(long, value_name = "X", default_value = "8", value_parser = values::factor)]
    pub(crate) tolerance_factor: f64,

    /// Demand more: end-to-end means that no verdict below "equivalent" is good enough
    #[arg(long, value_name = "WHAT")]
    pub(crate) require: Option<Requirement>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Proof")]
pub(crate) struct Proof {
    #[command(flatten)]
    pub(crate) tolerances: Tolerances,

    #[command(flatten)]
    pub(crate) data: Data,
}

/// What can be demanded of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Requirement {
    /// The whole models must have been run and compared
    EndToEnd,
}

impl Tolerances {
    pub(crate) fn end_to_end(&self) -> bool {
        self.require == Some(Requirement::EndToEnd)
    }

    /// The options of a proof on random inputs.
    pub(crate) fn options(&self) -> VerifyOptions {
        VerifyOptions {
            atol: self.atol,
            rtol: self.rtol,
            tolerance_factor: self.tolerance_factor,
            ..VerifyOptions::default()
        }
    }
}

impl Proof {
    pub(crate) fn end_to_end(&self) -> bool {
        self.tolerances.end_to_end()
    }

    pub(crate) fn options(&self) -> VerifyOptions {
        VerifyOptions {
            data: self.data.data.clone(),
            shapes: self.data.shapes.clone(),
            samples: self.data.samples as usize,
            seed: self.data.seed,
            ..self.tolerances.options()
        }
    }
}
