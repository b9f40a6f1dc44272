//! Tensors that are used again: the pages of fresh memory cost as much as many an operator that fills them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::tract_core::internal::*;

/// Single-precision tensors that nobody reads any more, by their number of elements. One program shares them.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<HashMap<usize, Shelf>>>);

/// Tensors of one size.
#[derive(Default)]
struct Shelf {
    idle: Vec<Tensor>,
    /// How many were taken and not given back. What others made is kept for those only: it would pile up.
    out: usize,
}

impl Buffers {
    /// A tensor of this shape, with any content.
    pub(super) fn take(&self, shape: &[usize]) -> TractResult<Tensor> {
        let used = {
            let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let shelf = shelves.entry(shape.iter().product()).or_default();
            shelf.out += 1;
            shelf.idle.pop()
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
        if !ours {
            return;
        }
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = shelves.get_mut(&value.len()).filter(|shelf| shelf.out > 0);
        if let Some(shelf) = shelf {
            shelf.out -= 1;
            shelf.idle.push(value.into_tensor());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_comes_back_and_nothing_piles_up() {
        let buffers = Buffers::default();
        let foreign = || Tensor::zero::<f32>(&[6]).unwrap().into_tvalue();
        let idle = || {
            buffers
                .0
                .lock()
                .unwrap()
                .get(&6)
                .map_or(0, |s| s.idle.len())
        };
        buffers.give(foreign());
        assert_eq!(idle(), 0);
        let taken = buffers.take(&[2, 3]).unwrap().into_tvalue();
        let reader = taken.clone();
        buffers.give(taken);
        assert_eq!(idle(), 0, "somebody reads it");
        buffers.give(reader);
        assert_eq!(idle(), 1);
        buffers.give(foreign());
        assert_eq!(idle(), 1);
        assert_eq!(buffers.take(&[6]).unwrap().shape(), [6]);
        assert_eq!(idle(), 0);
    }
}
