//! Tensors that are used again: the pages of fresh memory cost as much as many an operator that fills them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tract_onnx::tract_core::internal::*;

/// Bytes that are kept at most while nobody uses them.
const IDLE: usize = 1 << 28;

/// Tensors that nobody reads any more, by their type and number of elements. One program shares them.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Store>>);

/// Element type and number of elements.
type Kind = (DatumType, usize);

fn bytes((kind, count): Kind) -> usize {
    kind.size_of() * count
}

#[derive(Default)]
struct Store {
    shelves: HashMap<Kind, Shelf>,
    /// Bytes of all tensors that are idle.
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
    fn take(&mut self, kind: Kind) -> Option<Tensor> {
        self.now += 1;
        let shelf = self.shelves.entry(kind).or_default();
        shelf.out += 1;
        shelf.taken = self.now;
        let tensor = shelf.idle.pop();
        self.idle -= tensor.as_ref().map_or(0, |_| bytes(kind));
        tensor
    }

    fn give(&mut self, value: TValue) {
        let kind = (value.datum_type(), value.len());
        let shelf = self.shelves.get_mut(&kind).filter(|shelf| shelf.out > 0);
        let Some(shelf) = shelf else {
            return;
        };
        shelf.out -= 1;
        shelf.idle.push(value.into_tensor());
        self.idle += bytes(kind);
        // The size that was not asked for the longest goes first.
        while self.idle > IDLE {
            let used = self
                .shelves
                .iter_mut()
                .filter(|(_, shelf)| !shelf.idle.is_empty());
            let Some((&kind, shelf)) = used.min_by_key(|(_, shelf)| shelf.taken) else {
                return;
            };
            shelf.idle.pop();
            self.idle -= bytes(kind);
        }
    }
}

impl Buffers {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tensor of this shape, with any content.
    pub(crate) fn take<T: Datum>(&self, shape: &[usize]) -> TractResult<Tensor> {
        let used = self.store().take((T::datum_type(), shape.iter().product()));
        match used {
            Some(tensor) => tensor.into_shape(shape),
            None => Tensor::zero_dt(T::datum_type(), shape),
        }
    }

    /// Keeps the memory of a value, if nobody else reads it.
    pub(crate) fn give(&self, value: TValue) {
        if value.is_exclusive() && value.is_plain_ram() {
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
        let idle = || buffers.store().idle / (6 * size_of::<f32>());
        buffers.give(foreign());
        assert_eq!(idle(), 0);
        let taken = buffers.take::<f32>(&[2, 3]).unwrap().into_tvalue();
        let reader = taken.clone();
        buffers.give(taken);
        assert_eq!(idle(), 0, "somebody reads it");
        buffers.give(reader);
        assert_eq!(idle(), 1);
        buffers.give(foreign());
        assert_eq!(idle(), 1);
        assert_eq!(buffers.take::<f32>(&[6]).unwrap().shape(), [6]);
        assert_eq!(idle(), 0);
    }

    #[test]
    fn what_lies_idle_too_long_goes_first() {
        let buffers = Buffers::default();
        let quarter = IDLE / size_of::<f32>() / 4;
        let taken: Vec<Tensor> = (0..6)
            .map(|at| buffers.take::<f32>(&[quarter + at % 2]).unwrap())
            .collect();
        for tensor in taken {
            buffers.give(tensor.into_tvalue());
        }
        let store = buffers.store();
        assert!(store.idle <= IDLE);
        // The odd size was asked for last.
        let left = |size: usize| store.shelves[&(f32::datum_type(), size)].idle.len();
        assert_eq!((left(quarter), left(quarter + 1)), (0, 3));
    }
}
