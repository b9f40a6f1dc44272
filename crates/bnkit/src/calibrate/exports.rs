//! Running statistics as files of their own: `.safetensors` and `.npz` with the names of the model's tensors, `.csv` and `.json` for
//! people and scripts; and back from the first two.
//!
//! Two modules that read one tensor write it once. `.npz` holds 16-bit floats as float32, which is exact: NumPy has no bfloat16.

use std::collections::HashMap;
use std::path::Path;

use bnkit_model::onnx::Model;
use bnkit_model::{DType, Error as ModelError, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::apply::Statistics;
use super::files;
use super::modules::Module;
use super::report::StatsReport;
use crate::{Error, Result, data};

/// Writes statistics, as tensors or as a report; the extension says how.
///
/// # Errors
/// If the extension is not known, or the file cannot be written.
pub(crate) fn write(
    path: &Path,
    force: bool,
    tensors: &[(String, Tensor)],
    report: &StatsReport,
) -> Result<()> {
    let bytes = match extension(path).as_str() {
        "safetensors" => safetensors(tensors)?,
        "npz" => data::npz(tensors)?,
        "csv" => csv(report).into_bytes(),
        "json" => serde_json::to_vec_pretty(report)
            .map_err(|error| Error::Request(format!("{}: {error}", path.display())))?,
        _ => {
            return Err(Error::Request(format!(
                "{}: expected the extension .safetensors, .npz, .csv or .json",
                path.display()
            )));
        }
    };
    files::write(path, force, &bytes)
}

fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}

/// Mean and variance of every module, in the type that they are stored in, under their names.
///
/// # Errors
/// If two different tensors have one name.
pub(crate) fn tensors(model: &Model, modules: &[&Module]) -> Result<Vec<(String, Tensor)>> {
    let mut named: Vec<(String, Tensor)> = Vec::new();
    for module in modules {
        let Ok(stored) = &module.stored else { continue };
        for (role, values) in [&stored.mean, &stored.variance].into_iter().enumerate() {
            let name = name(model, module, role);
            let tensor = Tensor::from_f64(stored.dtypes[role], vec![values.len()], values)?;
            match named.iter().find(|(other, _)| *other == name) {
                None => named.push((name, tensor)),
                Some((_, other)) if *other == tensor => {}
                Some(_) => {
                    return Err(Error::Request(format!(
                        "two different tensors are called \"{name}\": choose layers with --only"
                    )));
                }
            }
        }
    }
    Ok(named)
}

/// The name of a module's mean (role 0) or variance (1) in a file: that of the tensor; in a function, with the function's before it.
pub(crate) fn name(model: &Model, module: &Module, role: usize) -> String {
    let Ok(stored) = &module.stored else {
        return String::new();
    };
    let value = model.value(stored.values[role]);
    match model.scope_path(value.scope).as_str() {
        "" => value.name.to_string(),
        scope => format!("{scope}/{}", value.name),
    }
}

fn safetensors(named: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let views = named
        .iter()
        .map(|(name, tensor)| {
            let dtype = match tensor.dtype() {
                DType::F16 => Dtype::F16,
                DType::BF16 => Dtype::BF16,
                DType::F64 => Dtype::F64,
                _ => Dtype::F32,
            };
            let view = TensorView::new(dtype, tensor.dims().to_vec(), tensor.data());
            Ok((name.as_str(), view.map_err(unwritable)?))
        })
        .collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, None).map_err(unwritable)
}

fn unwritable(error: safetensors::SafeTensorError) -> Error {
    Error::Request(format!("safetensors: {error}"))
}

fn csv(report: &StatsReport) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut out = String::from("node,scope,channel,mean,variance,epsilon\n");
    for layer in &report.layers {
        let names = format!(
            "{},{}",
            quoted(&layer.layer.node),
            quoted(&layer.layer.scope)
        );
        // A state dict does not say it.
        let epsilon = match layer.epsilon.is_nan() {
            true => String::new(),
            false => layer.epsilon.to_string(),
        };
        for (channel, (mean, variance)) in layer.mean.iter().zip(&layer.variance).enumerate() {
            out.push_str(&format!("{names},{channel},{mean},{variance},{epsilon}\n"));
        }
    }
    out
}

/// Statistics from a file, for each module that it has both mean and variance of.
///
/// # Errors
/// If the file cannot be read, has statistics for no module, or such that cannot be.
pub(crate) fn read(
    path: &Path,
    model: &Model,
    modules: &[Module],
) -> Result<Vec<Option<Statistics>>> {
    let set = data::load(path)?;
    let by_name: HashMap<&str, &Tensor> = set
        .tensors
        .iter()
        .map(|named| (named.name.as_str(), &named.tensor))
        .collect();
    let wrong = |message: String| Error::from(ModelError::invalid(message).in_file(path));
    let vector = |module: &Module, role: usize| -> Result<Option<Vec<f64>>> {
        let name = name(model, module, role);
        let Some(tensor) = by_name.get(name.as_str()) else {
            return Ok(None);
        };
        if tensor.dims() != [module.name.channels] || !tensor.dtype().is_float() {
            return Err(wrong(format!(
                "tensor \"{name}\": expected {} floats, found {} {:?}",
                module.name.channels,
                tensor.dtype(),
                tensor.dims()
            )));
        }
        Ok(Some(tensor.to_f64()?))
    };
    let mut found = Vec::with_capacity(modules.len());
    for module in modules {
        found.push(match module.target() {
            None => None,
            Some(_) => match (vector(module, 0)?, vector(module, 1)?) {
                (Some(mean), Some(variance)) => Some((mean, variance)),
                (None, None) => None,
                (mean, _) => {
                    let role = usize::from(mean.is_some());
                    return Err(wrong(format!(
                        "node \"{}\": tensor \"{}\" is missing",
                        module.name.node,
                        name(model, module, role)
                    )));
                }
            },
        });
    }
    if found.iter().all(Option::is_none) {
        let wanted = modules.iter().find(|module| module.target().is_some());
        return Err(wrong(format!(
            "it has no statistics of this model: expected names as \"{}\"",
            wanted.map_or_else(String::new, |module| name(model, module, 0))
        )));
    }
    Ok(found)
}
