//! Tensors that are used again: the pages of fresh memory cost as much as many an operator that fills them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tract_onnx::tract_core::internal::*;

/// Bytes that are kept at most while nobody uses them.
const IDLE: usize = 1 << 28;

/// Single-precision tensors that nobody reads any more, by their number of elements. One program shares them.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Store>>);

#[derive(Default)]
struct Store {
    shelves: HashMap<usize, Shelf>,
    /// Elements of all tensors that are idle.
    idle: usize,
    /// Counts what is taken.
    now: u64,
}

/// Tensors of one size.
#[derive(Default)]
struct Shelf {
    idle: Vec<Tensor>,
    /// How many were taken and not given back. What others made is kept for those only: it would pile up.
    out: usize,
    /// When one was taken last.
    taken: u64,
}

impl Store {
    fn take(&mut self, size: usize) -> Option<Tensor> {
        self.now += 1;
        let shelf = self.shelves.entry(size).or_default();
        shelf.out += 1;
        shelf.taken = self.now;
        let tensor = shelf.idle.pop();
        self.idle -= tensor.as_ref().map_or(0, |_| size);
        tensor
    }

    fn give(&mut self, value: TValue) {
        let size = value.len();
        let shelf = self.shelves.get_mut(&size).filter(|shelf| shelf.out > 0);
        let Some(shelf) = shelf else {
            return;
        };
        shelf.out -= 1;
        shelf.idle.push(value.into_tensor());
        self.idle += size;
        // The size that was not asked for the longest goes first.
        while self.idle > IDLE / size_of::<f32>() {
            let used = self
                .shelves
                .iter_mut()
                .filter(|(_, shelf)| !shelf.idle.is_empty());
            let Some((&size, shelf)) = used.min_by_key(|(_, shelf)| shelf.taken) else {
                return;
            };
            shelf.idle.pop();
            self.idle -= size;
        }
    }
}

impl Buffers {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tensor of this shape, with any content.
    pub(super) fn take(&self, shape: &[usize]) -> TractResult<Tensor> {
        let used = self.store().take(shape.iter().product());
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
            self.store().give(value);
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
        let idle = || buffers.store().idle / 6;
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

    #[test]
    fn what_lies_idle_too_long_goes_first() {
        let buffers = Buffers::default();
        let quarter = IDLE / size_of::<f32>() / 4;
        let taken: Vec<Tensor> = (0..6)
            .map(|at| buffers.take(&[quarter + at % 2]).unwrap())
            .collect();
        for tensor in taken {
            buffers.give(tensor.into_tvalue());
        }
        let store = buffers.store();
        assert!(store.idle <= IDLE / size_of::<f32>());
        // The odd size was asked for last.
        let left = |size: usize| store.shelves[&size].idle.len();
        assert_eq!((left(quarter), left(quarter + 1)), (0, 3));
    }
}
