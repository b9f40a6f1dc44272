//! What a proof is run on, and small runs of its own: samples of the user's data or random ones, and the distance of two
//! models of doubles.

use bnkit_engine::{Engine, EngineError, InputSpec, LoadOptions, Precision, Tract};
use bnkit_model::onnx::Model;

use super::inputs::Sample;
use super::{VerifyOptions, inputs, metrics};
use crate::{Error, Result};

/// Samples for a model: of the user's data, or random ones of shapes on which the model runs.
pub(super) fn samples(
    bytes: &[u8],
    model: &Model,
    options: &VerifyOptions,
) -> Result<std::result::Result<Vec<Sample>, String>> {
    samples_on(bytes, options, &|sample| {
        try_on(&Tract, bytes, model, sample)
    })
}

/// The same, with something else that tries whether the model runs on a sample.
pub(super) fn samples_on(
    bytes: &[u8],
    options: &VerifyOptions,
    try_run: &dyn Fn(&Sample) -> Result<(), EngineError>,
) -> Result<std::result::Result<Vec<Sample>, String>> {
    let specs = match bnkit_engine::inputs(bytes) {
        Ok(specs) => specs,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let shapes = named_shapes(&specs, &options.shapes)?;
    let data = match (&options.tensors, &options.data) {
        (Some(tensors), _) => Some(tensors.clone()),
        (None, Some(path)) => Some(crate::data::load(path)?),
        (None, None) => None,
    };
    if let Some(data) = data {
        return Ok(Ok(inputs::from_data(
            &specs,
            &data,
            &shapes,
            options.samples,
        )?));
    }
    let open = specs
        .iter()
        .any(|spec| is_open(spec) && !shapes.iter().any(|(name, _)| *name == spec.name));
    let mut unsupported = false;
    let mut runs = |sample: &Sample| -> Result<(), String> {
        if !open || unsupported || options.interrupt.requested() {
            return Ok(());
        }
        let tried = try_run(sample);
        unsupported = matches!(
            tried,
            Err(EngineError::Unsupported { .. } | EngineError::Misfit { .. })
        );
        if unsupported {
            Ok(())
        } else {
            tried.map_err(|error| error.to_string())
        }
    };
    match inputs::generate(&specs, &shapes, options.samples, options.seed, &mut runs) {
        Ok(samples) => Ok(Ok(samples)),
        // A shape that the user gave must fit; one that was guessed need not be found.
        Err(error) if shapes.is_empty() => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Whether sizes have to be guessed; the batch, which is 1 then, nearly always can.
fn is_open(spec: &InputSpec) -> bool {
    spec.dims.as_ref().is_none_or(|dims| {
        dims.iter()
            .skip(1)
            .any(|dim| !matches!(dim, bnkit_engine::Dim::Fixed(_)))
    })
}

/// Whether a model runs on a sample, on this engine.
pub(super) fn try_on(
    engine: &dyn Engine,
    bytes: &[u8],
    model: &Model,
    sample: &Sample,
) -> Result<(), EngineError> {
    let dims: Vec<_> = sample
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
        .collect();
    let options = LoadOptions {
        precision: Precision::F32,
        input_dims: &dims,
        model_dir: model.dir(),
        extra_outputs: &[],
        perturbation: None,
    };
    engine
        .run(bytes, &options, std::slice::from_ref(sample), &|| true)
        .map(|_| ())
}

/// Gives a shape without a name that of the only input.
fn named_shapes(
    specs: &[InputSpec],
    shapes: &[(String, Vec<usize>)],
) -> Result<Vec<(String, Vec<usize>)>> {
    shapes
        .iter()
        .map(|(name, dims)| match (name.as_str(), specs) {
            ("", [only]) => Ok((only.name.clone(), dims.clone())),
            ("", _) => Err(Error::Request(format!(
                "--shape without a name: the model has {} inputs; say NAME=1x3x224x224",
                specs.len()
            ))),
            _ => Ok((name.clone(), dims.clone())),
        })
        .collect()
}

/// The largest difference of two models of doubles, relative to the range of the output, on two random samples.
pub(crate) fn distance_in_f64(a: &[u8], b: &[u8], seed: u64) -> Result<f64, String> {
    let text = |error: EngineError| error.to_string();
    let specs = bnkit_engine::inputs(a).map_err(text)?;
    let samples = inputs::generate(&specs, &[], 2, seed, &mut |_| Ok(()))
        .map_err(|error| error.to_string())?;
    let (first, second) = (run_in_f64(a, &samples)?, run_in_f64(b, &samples)?);
    let mut worst = 0.0f64;
    for (before, after) in first.iter().zip(&second) {
        for (name, reference) in before {
            let found = after.iter().find(|(other, _)| other == name);
            let (_, found) = found.ok_or_else(|| format!("the output \"{name}\" is missing"))?;
            let mut comparison = metrics::Comparison::default();
            comparison
                .add(reference, found)
                .map_err(|error| error.to_string())?;
            let relative = metrics::relative(comparison.max_abs(), comparison.range());
            // A NaN is a difference.
            worst = if relative <= worst { worst } else { relative };
        }
    }
    Ok(worst)
}

fn run_in_f64(model: &[u8], samples: &[Sample]) -> Result<Vec<Sample>, String> {
    let dims: Vec<_> = samples[0]
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
        .collect();
    let options = LoadOptions {
        precision: Precision::F64,
        input_dims: &dims,
        model_dir: None,
        extra_outputs: &[],
        perturbation: None,
    };
    Tract
        .run(model, &options, samples, &|| true)
        .map_err(|error| error.to_string())
}
