//! What changed between two checkpoints of any format: tensors by name, and the statistics of BatchNorms.
//!
//! Tensors are read in chunks, from both files at the same pace: once to find out whether their bytes are equal, once more to
//! measure those that are not. A difference is no objection: `diff` has no verdict, that is `verify`'s business.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `report` | what is said, as values |
//! | `tensors` | which tensors there are in both, and what became of each |
//! | `elements` | the elements of one tensor in both |
//! | `layers` | the drift of BatchNorms |

mod elements;
mod layers;
mod report;
mod tensors;

use std::path::Path;

use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::report::Tool;

pub use report::*;

/// ε where neither file says it and nobody else does.
pub const DEFAULT_EPSILON: f64 = 1e-5;

/// Compares two checkpoints. `epsilon` is that of BatchNorms whose file does not say it (state dicts).
///
/// # Errors
/// If one of them cannot be read.
pub fn diff(a: &Path, b: &Path, epsilon: Option<f64>) -> Result<DiffReport> {
    let (first, second) = (Checkpoint::open(a)?, Checkpoint::open(b)?);
    let tensors = tensors::compare(&first, &second)?;
    let batch_norms = layers::compare(&first, &second, epsilon)?;
    first.check_unchanged()?;
    second.check_unchanged()?;
    Ok(DiffReport {
        schema: "bnkit.diff/1",
        tool: Tool::default(),
        a: first.describe(),
        b: second.describe(),
        summary: Summary {
            added: tensors.added.len(),
            removed: tensors.removed.len(),
            changed: tensors.changed.len(),
            unchanged: tensors.unchanged,
            batch_norms_added: batch_norms.added.len(),
            batch_norms_removed: batch_norms.removed.len(),
            batch_norms_changed: batch_norms.changed.len(),
            batch_norms_unchanged: batch_norms.unchanged,
        },
        added: tensors.added,
        removed: tensors.removed,
        changed: tensors.changed,
        batch_norms: batch_norms.changed,
        batch_norms_added: batch_norms.added,
        batch_norms_removed: batch_norms.removed,
    })
}
