//! `bnkit release`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values;

/// Take a model through all stages of a release: check, validate or recalibrate, fold, verify, measure
///
/// What each stage does is said in the sections of the --config file that are named after the commands. All stages run, and the model
/// is written only if all have passed. A stage that failed says which command does the same alone.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Release {
    /// The ONNX model to read
    pub(crate) model: PathBuf,

    /// The model to write [default: NAME.release.onnx beside MODEL]
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// Calibration data for the stages whose sections name none: .npy, .npz, .safetensors, ONNX .pb, or a folder of these or of images
    #[arg(long, value_name = "PATH", help_heading = "Stages")]
    pub(crate) data: Option<PathBuf>,

    /// What is done about the running statistics [default: validate if there is data, or else none]
    #[arg(long, value_name = "HOW", help_heading = "Stages")]
    pub(crate) calibration: Option<Calibration>,

    /// Measure the accuracy with these labels, of --test-data or else of --data
    #[arg(long, value_name = "FILE", help_heading = "Stages")]
    pub(crate) labels: Option<PathBuf>,

    /// Data that --labels belong to, if it is not the calibration data
    #[arg(long, value_name = "PATH", help_heading = "Stages")]
    pub(crate) test_data: Option<PathBuf>,

    /// At least this share of the BatchNorms folds, as in 0.9 or 90%
    #[arg(long, value_name = "SHARE", value_parser = values::share, help_heading = "Gates")]
    pub(crate) min_folded: Option<f64>,

    /// Top-1 drops by at most X from the model as it is, as in 0.01 or 1%
    #[arg(long, value_name = "X", value_parser = values::share, help_heading = "Gates")]
    pub(crate) max_accuracy_drop: Option<f64>,
}

/// What is done about running statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Calibration {
    /// They are taken as they are
    None,
    /// They are compared with the data
    Validate,
    /// They are replaced by those of the data
    Recalibrate,
}
