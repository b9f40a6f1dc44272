//! Products of matrices.

use super::Fact;
use super::at::{At, broadcast};
use crate::DType;
use crate::onnx::model::Dim;

/// Gemm: always a matrix, (M, N).
pub(super) fn gemm(at: &At<'_>) -> Option<Fact> {
    let dtype = at.dtype(0).or(at.dtype(1)).or(at.dtype(2));
    Some(Fact::new(dtype, gemm_dims(at)))
}

fn gemm_dims(at: &At<'_>) -> Option<Vec<Dim>> {
    let side = |slot: usize, axis: usize| match at.dims(slot) {
        None => Some(Dim::Unknown),
        Some([first, second]) => Some([first, second][axis].clone()),
        Some(_) => None,
    };
    let rows = usize::from(at.int("transA", 0)? != 0);
    let columns = usize::from(at.int("transB", 0)? == 0);
    Some(vec![side(0, rows)?, side(1, columns)?])
}

/// MatMul as NumPy has it: leading axes are broadcast, a vector lends itself an axis.
pub(super) fn mat_mul(at: &At<'_>, a: usize, b: usize, dtype: Option<DType>) -> Option<Fact> {
    let dims = at.dims(a).zip(at.dims(b)).and_then(|(a, b)| {
        let (a_batch, rows) = match a {
            [] => return None,
            [_] => (&[] as &[Dim], None),
            [batch @ .., rows, _] => (batch, Some(rows)),
        };
        let (b_batch, columns) = match b {
            [] => return None,
            [_] => (&[] as &[Dim], None),
            [batch @ .., _, columns] => (batch, Some(columns)),
        };
        let mut dims = broadcast(a_batch, b_batch)?;
        dims.extend(rows.into_iter().chain(columns).cloned());
        Some(dims)
    });
    Some(Fact::new(dtype, dims))
}
