//! The checkpoint with its changes, into files: the order and the metadata of the input, one file or as many as it has.

use std::path::Path;

use bnkit_model::Error as ModelError;
use bnkit_model::onnx::Model;
use bnkit_model::safetensors::{
    Contents, NewFile, NewTensor, SaveOptions, Saved, StateDict, of_dtype, save, save_sharded,
};

use super::carry::{Changes, New};
use crate::Result;

/// Where and how a checkpoint is written.
pub(crate) struct Target<'t> {
    pub(crate) path: &'t Path,
    pub(crate) force: bool,
    /// Entries for `__metadata__`.
    pub(crate) metadata: &'t [(String, String)],
    pub(crate) progress: &'t (dyn Fn(u64, u64) + Sync),
}

/// Writes `dict` with `changes`, whose tensors are of `folded`. A name that ends in `.index.json` gives a sharded checkpoint with the
/// files of the input, any other name a single file.
///
/// # Errors
/// If something cannot be read or written, or exists already; then nothing is written.
pub(crate) fn write(
    dict: &StateDict,
    changes: &Changes,
    folded: &Model,
    target: &Target<'_>,
) -> Result<Saved> {
    let mut files: Vec<NewFile<'_>> = dict
        .shards()
        .iter()
        .map(|shard| NewFile {
            metadata: with(shard.metadata.clone(), target.metadata),
            tensors: Vec::new(),
        })
        .collect();
    for (place, tensor) in dict.tensors().iter().enumerate() {
        if changes.dropped.contains(&place) {
            continue;
        }
        let tensors = &mut files[tensor.shard].tensors;
        let mut entry = NewTensor::copy(dict, tensor);
        if let Some(new) = changes.replaced.get(&place) {
            entry.contents = contents(new, folded);
        }
        tensors.push(entry);
        if let Some((name, new)) = changes.added.get(&place) {
            tensors.push(added(name, new, folded)?);
        }
    }
    let options = SaveOptions {
        force: target.force,
        input: Some(dict),
        progress: Some(target.progress),
    };
    let sharded = target.path.to_string_lossy().ends_with(".index.json");
    if sharded {
        return Ok(save_sharded(
            target.path,
            files,
            dict.index_metadata(),
            options,
        )?);
    }
    let mut all = NewFile::default();
    for file in files {
        all.metadata = match (all.metadata, file.metadata) {
            (Some(so_far), Some(more)) => with(Some(so_far), &more),
            (one, other) => one.or(other),
        };
        all.tensors.extend(file.tensors);
    }
    Ok(save(target.path, all, options)?)
}

fn contents<'m>(new: &New, folded: &'m Model) -> Contents<'m> {
    match new {
        New::Folded {
            tensor,
            transposed: false,
        } => Contents::OfModel(folded, tensor.clone()),
        New::Folded {
            tensor,
            transposed: true,
        } => Contents::Transposed(folded, tensor.clone()),
        New::Values(values) => Contents::Bytes(values.data().clone()),
    }
}

fn added<'m>(name: &str, new: &New, folded: &'m Model) -> Result<NewTensor<'m>> {
    let (dtype, shape) = match new {
        New::Folded { tensor, .. } => (tensor.dtype, tensor.dims.to_vec()),
        New::Values(values) => (values.dtype(), values.dims().to_vec()),
    };
    let dtype = of_dtype(dtype).ok_or_else(|| {
        ModelError::invalid(format!("safetensors has no {dtype}")).at(format!("tensor \"{name}\""))
    })?;
    Ok(NewTensor {
        name: name.to_owned(),
        dtype,
        shape,
        contents: contents(new, folded),
    })
}

/// `metadata` with `more`, which replaces entries of the same key.
fn with(
    metadata: Option<Vec<(String, String)>>,
    more: &[(String, String)],
) -> Option<Vec<(String, String)>> {
    if more.is_empty() {
        return metadata;
    }
    let mut all = metadata.unwrap_or_default();
    for (key, value) in more {
        match all.iter_mut().find(|(existing, _)| existing == key) {
            Some(entry) => entry.1.clone_from(value),
            None => all.push((key.clone(), value.clone())),
        }
    }
    Some(all)
}
