//! What a rule sees of its node, and arithmetic on dimensions that rules share.

use super::contents::{self, Item};
use super::{Types, attributes};
use crate::DType;
use crate::onnx::constant::Constants;
use crate::onnx::model::*;
use crate::source::Window;
use crate::wire::Fields;

/// Small tensors of more elements than this are not read while shapes are derived.
const MAX_ELEMENTS: u64 = 64;

/// A node, its operator's version, and what is known of its inputs.
pub(super) struct At<'a> {
    pub(super) model: &'a Model,
    pub(super) types: &'a Types,
    pub(super) node: &'a Node,
    pub(super) opset: i64,
}

impl<'a> At<'a> {
    pub(super) fn new(model: &'a Model, types: &'a Types, node: &'a Node, opset: i64) -> Self {
        Self {
            model,
            types,
            node,
            opset,
        }
    }

    /// Whether the input in `slot` is there.
    pub(super) fn has(&self, slot: usize) -> bool {
        self.node.input(slot).is_some()
    }

    /// The element type of an input.
    pub(super) fn dtype(&self, slot: usize) -> Option<DType> {
        self.types.dtype(self.node.input(slot)?)
    }

    /// The dimensions of an input.
    pub(super) fn dims(&self, slot: usize) -> Option<&'a [Dim]> {
        self.types.dims(self.node.input(slot)?)
    }

    /// The elements of a small integer input, some of which may be symbols or unknown.
    pub(super) fn items(&self, slot: usize) -> Option<Vec<Item>> {
        let value = self.node.input(slot)?;
        if let Some(items) = self.types.contents.get(&value) {
            return Some(items.clone());
        }
        self.small(value)?;
        let ints = self.constants().ints(value).ok()?;
        Some(ints.values.into_iter().map(Item::Int).collect())
    }

    /// The elements of a small integer input, if all are known.
    pub(super) fn ints(&self, slot: usize) -> Option<Vec<i64>> {
        let items = self.items(slot)?;
        items.iter().map(Item::int).collect()
    }

    /// The only element of an integer input.
    pub(super) fn single(&self, slot: usize) -> Option<i64> {
        match self.ints(slot)?.as_slice() {
            &[value] => Some(value),
            _ => None,
        }
    }

    /// The elements of a small float input.
    pub(super) fn floats(&self, slot: usize) -> Option<Vec<f64>> {
        let value = self.node.input(slot)?;
        self.small(value)?;
        Some(self.constants().f64(value).ok()?.values)
    }

    /// Whether a value is a scalar or a vector of few elements.
    fn small(&self, value: ValueId) -> Option<()> {
        let few = match self.types.dims(value)? {
            [] => true,
            [Dim::Known(count)] => *count <= MAX_ELEMENTS,
            _ => false,
        };
        few.then_some(())
    }

    fn constants(&self) -> Constants<'a> {
        Constants::small(self.model, self.types)
    }

    /// The integer attribute `name`.
    pub(super) fn int(&self, name: &str, default: i64) -> Option<i64> {
        attributes::int(self.node, name, default)
    }

    /// Parameters that were an attribute before `since`, and an input from then on: `Some(None)` if not given.
    pub(super) fn list(&self, name: &str, slot: usize, since: i64) -> Option<Option<Vec<i64>>> {
        if self.opset < since {
            return Some(attributes::ints(self.node, name)?.map(<[i64]>::to_vec));
        }
        if !self.has(slot) {
            return Some(None);
        }
        Some(Some(self.ints(slot)?))
    }

    /// The elements of a shape that is an input; of which perhaps only the number is known.
    pub(super) fn shape_items(&self, slot: usize) -> Option<Vec<Item>> {
        self.items(slot).or_else(|| {
            // Nothing is known of the elements, but their number is the rank.
            let &[Dim::Known(rank)] = self.dims(slot)? else {
                return None;
            };
            let rank = usize::try_from(rank).ok()?;
            (rank <= super::MAX_RANK).then(|| vec![Item::Unknown; rank])
        })
    }

    /// How many outputs the file gives the node, absent ones at the end included; `None` if an edit touched it.
    pub(super) fn written_outputs(&self) -> Option<usize> {
        let span = self.node.span.clone().filter(|_| !self.node.dirty)?;
        let mut window = Window::new(self.model.source());
        let node = Fields::new(&mut window, span).next().ok()??;
        let mut fields = Fields::new(&mut window, node.payload);
        let mut count = 0;
        while let Some(field) = fields.next().ok()? {
            count += usize::from(field.number == 2);
        }
        Some(count)
    }
}

/// The known sizes multiplied, and the one size that is not known, if there is one; `None` if there are several.
pub(super) fn factors(dims: &[Dim]) -> Option<(u64, Option<&Dim>)> {
    let mut known = 1u64;
    let mut other = None;
    for dim in dims {
        match dim {
            Dim::Known(size) => known = known.checked_mul(*size)?,
            _ if other.is_none() => other = Some(dim),
            _ => return None,
        }
    }
    Some((known, other))
}

/// The number of elements of a block: a number, a symbol where all other sizes are 1, or unknown.
pub(super) fn product(dims: &[Dim]) -> Dim {
    match factors(dims) {
        Some((known, None)) => Dim::Known(known),
        Some((1, Some(dim))) => dim.clone(),
        _ => Dim::Unknown,
    }
}

/// One size of which two things are known; `None` if they contradict each other.
pub(super) fn merge(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        (Dim::Known(x), Dim::Known(y)) if x != y => None,
        (Dim::Known(_), _) | (Dim::Symbol(_), Dim::Symbol(_) | Dim::Unknown) => Some(a.clone()),
        _ => Some(b.clone()),
    }
}

/// The dimensions of the result where two tensors are broadcast against each other.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let one = Dim::Known(1);
    let from_right = |dims: &[Dim], axis: usize| {
        let missing = rank - dims.len();
        axis.checked_sub(missing)
            .map_or(one.clone(), |axis| dims[axis].clone())
    };
    (0..rank)
        .map(|axis| match (from_right(a, axis), from_right(b, axis)) {
            (a, b) if a == b => Some(a),
            (Dim::Known(1), other) | (other, Dim::Known(1)) => Some(other),
            (Dim::Known(_), Dim::Known(_)) => None,
            // The other size can only be 1 or the same.
            (Dim::Known(size), _) | (_, Dim::Known(size)) => Some(Dim::Known(size)),
            _ => Some(Dim::Unknown),
        })
        .collect()
}

/// As many unknown sizes.
pub(super) fn unknown(rank: usize) -> Vec<Dim> {
    vec![Dim::Unknown; rank]
}

/// A dimension as an element of a shape tensor, and back.
pub(super) fn to_items(dims: &[Dim]) -> Vec<Item> {
    dims.iter().map(contents::item).collect()
}
