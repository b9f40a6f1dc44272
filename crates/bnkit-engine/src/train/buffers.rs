//! Tensors that are used again: the pages of fresh memory cost as much as many an operator that fills them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::tract_core::internal::*;

/// Single-precision tensors that nobody reads any more, by their number of elements. One program shares them.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<HashMap<usize, Vec<Tensor>>>>);

impl Buffers {
    /// A tensor of this shape, with any content.
    pub(super) fn take(&self, shape: &[usize]) -> TractResult<Tensor> {
        let used = {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            idle.get_mut(&shape.iter().product()).and_then(Vec::pop)
        };
        match used {
            Some(tensor) => tensor.into_shape(shape),
            None => Tensor::zero::<f32>(shape),
        }
    }

    /// Keeps the memory of a value, if nobody else reads it.
    pub(super) fn give(&self, value: TValue) {
        let ours =
            value.is_exclusive() && value.datum_type() == f32::datum_type() && value.is_plain_ram();
        if ours {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            idle.entry(value.len())
                .or_default()
                .push(value.into_tensor());
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Buffers")
    }
}

/// Operators are the same whichever memory they use.
impl PartialEq for Buffers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Buffers {}
