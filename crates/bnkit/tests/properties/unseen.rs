//! Without a proof, weights are first read when they are written. What comes of it is what a plan that reads them decides, for weights
//! that are no place to fold into, too: with NaN, infinity, or numbers that a scale takes beyond their type.

use std::cell::Cell;
use std::path::Path;

use bnkit::fold::{self, Options};
use bnkit::pipeline::{FoldJob, Quiet};
use bnkit::report::FoldReport;
use bnkit_model::DType;
use bnkit_model::onnx::{Model, Precision};
use bnkit_model::proto::ModelProto;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::tape::{Numbers, recipes};
use super::{config, expect, fails, net, steps};

/// What an element becomes.
const POISONS: [f32; 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38];

#[test]
fn folding_without_a_proof_decides_as_a_plan_that_looks() {
    let folder = tempfile::tempdir().expect("a folder");
    // Of the poisoned models: those that fold no less than the sound ones, and those that fold less.
    let (same, fewer) = (Cell::new(0), Cell::new(0));
    let outcome = TestRunner::new(config(400)).run(&recipes(9), |recipe| {
        let (mut model, _) = steps::build(&recipe);
        let sound = decides_alike(&model, folder.path()).map_err(TestCaseError::fail)?;
        if poison(&mut model, &mut Numbers(recipe.seed)) {
            let poisoned = decides_alike(&model, folder.path()).map_err(TestCaseError::fail)?;
            let count = if poisoned < sound { &fewer } else { &same };
            count.set(count.get() + 1);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(fewer.get() > 10 && same.get() > 10, "{fewer:?} {same:?}");
}

/// Puts a number that does not belong there into a constant.
fn poison(model: &mut ModelProto, numbers: &mut Numbers) -> bool {
    let graph = model.graph.as_mut().expect("a graph");
    let mut constants: Vec<_> = graph
        .initializer
        .iter_mut()
        .filter(|tensor| tensor.data_type() == DType::F32.to_onnx() && tensor.dims.len() > 1)
        .filter_map(|tensor| tensor.raw_data.as_mut().filter(|data| !data.is_empty()))
        .collect();
    let mut below = |count: usize| numbers.between(0.0, count as f64) as usize;
    if constants.is_empty() {
        return false;
    }
    let which = below(constants.len());
    let data = &mut constants[which];
    let mut bytes = data.to_vec();
    let at = 4 * below(bytes.len() / 4);
    bytes[at..at + 4].copy_from_slice(&POISONS[below(POISONS.len())].to_le_bytes());
    **data = bytes.into();
    true
}

/// Compares the job with the plan; gives how many BatchNorms are folded.
fn decides_alike(model: &ModelProto, folder: &Path) -> Result<usize, String> {
    let (input, output) = (folder.join("in.onnx"), folder.join("out.onnx"));
    std::fs::write(&input, net::bytes(model)).map_err(fails)?;
    let job = FoldJob {
        force: true,
        verify: None,
        ..FoldJob::new(&input, &output)
    };
    let report = bnkit::pipeline::fold(&job, &Quiet).map_err(fails)?;
    let model = Model::open(&input).map_err(fails)?;
    let mut plan = fold::plan(&model, &Options::default()).map_err(fails)?;
    let said = |sites| serde_json::to_string(sites).map_err(fails);
    expect(
        said(&report.sites)? == said(&plan.sites)?,
        format!("other decisions: {:?}", report.sites),
    )?;
    expect(report.output.is_some(), "nothing was written")?;
    for (key, value) in written_metadata(&report) {
        plan.set_metadata(key, &value).map_err(fails)?;
    }
    let planned = plan.apply().to_bytes(Precision::Stored).map_err(fails)?;
    let written = std::fs::read(&output).map_err(fails)?;
    expect(planned == written, "other bytes")?;
    Ok(report.summary.folded)
}

fn written_metadata(report: &FoldReport) -> [(&'static str, String); 2] {
    [
        ("bnkit.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("bnkit.folded", report.summary.folded.to_string()),
    ]
}
