//! Which tensors two checkpoints have in common, by name, and what became of each.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::elements;
use super::report::{ElementChange, TensorChange, TensorInfo};
use crate::Result;
use crate::checkpoint::{Checkpoint, Entry};

/// The tensors of two checkpoints.
pub(super) struct Tensors {
    pub(super) added: Vec<TensorInfo>,
    pub(super) removed: Vec<TensorInfo>,
    pub(super) changed: Vec<TensorChange>,
    pub(super) unchanged: usize,
}

/// Compares all tensors, several at the same time.
///
/// # Errors
/// If one cannot be read.
pub(super) fn compare(a: &Checkpoint, b: &Checkpoint) -> Result<Tensors> {
    let (first, second) = (a.entries(), b.entries());
    let theirs: HashMap<&str, &Entry> = by_name(&second);
    let ours: HashSet<&str> = first.iter().map(|entry| entry.name.as_str()).collect();
    let pairs: Vec<(&Entry, &Entry)> = first
        .iter()
        .filter_map(|entry| Some((entry, *theirs.get(entry.name.as_str())?)))
        .collect();
    let compared: Vec<Option<TensorChange>> = pairs
        .par_iter()
        .map(|(one, other)| pair((a, one), (b, other)))
        .collect::<Result<_>>()?;
    let unchanged = compared.iter().filter(|change| change.is_none()).count();
    let mut changed: Vec<TensorChange> = compared.into_iter().flatten().collect();
    // Stable: equally large changes stay in the order of the file.
    changed.sort_by(larger_first);
    let only = |entries: &[Entry], known: &dyn Fn(&str) -> bool| {
        let left = entries.iter().filter(|entry| !known(&entry.name));
        left.map(info).collect()
    };
    Ok(Tensors {
        added: only(&second, &|name| ours.contains(name)),
        removed: only(&first, &|name| theirs.contains_key(name)),
        changed,
        unchanged,
    })
}

fn by_name(entries: &[Entry]) -> HashMap<&str, &Entry> {
    let mut found = HashMap::new();
    for entry in entries {
        found.entry(entry.name.as_str()).or_insert(entry);
    }
    found
}

fn info(entry: &Entry) -> TensorInfo {
    TensorInfo {
        name: entry.name.clone(),
        dtype: entry.dtype.name.clone(),
        dims: entry.dims.clone(),
        bytes: entry.bytes,
    }
}

/// What became of a tensor; `None` if type, shape and bytes are the same.
fn pair(a: (&Checkpoint, &Entry), b: (&Checkpoint, &Entry)) -> Result<Option<TensorChange>> {
    let (one, other) = (a.1, b.1);
    let same_type = one.dtype.is_same(&other.dtype);
    let same_shape = one.dims == other.dims;
    let in_tensor = |error| a.0.in_tensor(one, error);
    let mut change = TensorChange {
        name: one.name.clone(),
        dtypes: [one.dtype.name.clone(), other.dtype.name.clone()],
        dtype_changed: !same_type,
        dims: [one.dims.clone(), other.dims.clone()],
        shape_changed: !same_shape,
        elements: None,
    };
    if without_ones(&one.dims) != without_ones(&other.dims) {
        return Ok(Some(change));
    }
    let (left, right) = (a.0.elements(one)?, b.0.elements(other)?);
    if same_type && elements::are_equal(&left, &right).map_err(in_tensor)? {
        if same_shape {
            return Ok(None);
        }
        change.elements = Some(ElementChange {
            count: one.len(),
            ..ElementChange::default()
        });
        return Ok(Some(change));
    }
    if let (Some(x), Some(y)) = (one.dtype.number(), other.dtype.number()) {
        let measured = elements::measure((&left, x), (&right, y)).map_err(in_tensor)?;
        change.elements = Some(measured);
    }
    Ok(Some(change))
}

/// Axes of size 1 do not move elements.
fn without_ones(dims: &[usize]) -> Vec<usize> {
    dims.iter().copied().filter(|&dim| dim != 1).collect()
}

/// What cannot be measured, then what is broken now, then by how much of the tensor changed.
fn larger_first(a: &TensorChange, b: &TensorChange) -> Ordering {
    let rank = |change: &TensorChange| match &change.elements {
        None => (0, f64::INFINITY),
        Some(elements) if elements.is_worse() => (1, elements.l2_rel),
        Some(elements) => (2, elements.l2_rel),
    };
    let ((kind, size), (other_kind, other_size)) = (rank(a), rank(b));
    kind.cmp(&other_kind)
        .then_with(|| other_size.total_cmp(&size))
}
