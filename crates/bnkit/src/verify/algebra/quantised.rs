//! Constants behind DequantizeLinear, from their integers: W = (q − z)·c.
//!
//! A stored scale may be one unit in its last place away, so an element may be |q − z| of these away, which is far
//! below the distance of two integers: a wrong integer or zero point always shows. An int32 (a bias) is rounded, so it
//! may be off by one unit of its scale, too.

use bnkit_model::onnx::{Node, ValueId};
use bnkit_model::{DType, Tensor};

use super::book::{Answer, Book, Trouble, int};
use super::exact::Grid;

/// The elements of such a constant.
pub(super) struct Dequantised {
    pub(super) dims: Vec<usize>,
    pub(super) values: Vec<f64>,
    /// How far each may be away.
    pub(super) quanta: Vec<f64>,
}

/// The DequantizeLinear that computes `value`, behind Identity nodes.
fn producer<'m>(book: &Book<'m>, mut value: ValueId) -> Option<&'m Node> {
    // A chain of Identity nodes is finite, since graphs are.
    loop {
        let (id, _) = book.model.producer(value)?;
        let node = book.model.node(id);
        if node.is("Identity") {
            value = node.input(0)?;
            continue;
        }
        let complete = node.input(0).is_some() && node.input(1).is_some();
        let mut inputs = node.inputs.iter().flatten();
        let constant = complete && inputs.all(|&input| book.is_constant(input));
        return (node.is("DequantizeLinear") && constant).then_some(node);
    }
}

/// Checks that the constants of a node that were integers still are, of the same type, with positive scales.
pub(super) fn expect_kept(
    (original, before): (&Book<'_>, &Node),
    (folded, after): (&Book<'_>, &Node),
) -> Answer<()> {
    for slot in 0..before.inputs.len() {
        let Some(was) = before
            .input(slot)
            .and_then(|value| producer(original, value))
        else {
            continue;
        };
        let Some(is) = after.input(slot).and_then(|value| producer(folded, value)) else {
            let why = format!("input {slot} was quantised, and is no more");
            return Err(Trouble::Wrong(why));
        };
        let codes = |book: &Book<'_>, node: &Node| book.stored(book.input(node, 0)?);
        if codes(original, was)?.dtype() != codes(folded, is)?.dtype() {
            let why = format!("input {slot} is quantised to another type");
            return Err(Trouble::Wrong(why));
        }
        let scales = folded.stored(folded.input(is, 1)?)?.to_f64()?;
        if !scales.iter().all(|&scale| scale > 0.0) {
            let why = format!("input {slot} has a quantisation scale that is not positive");
            return Err(Trouble::Wrong(why));
        }
    }
    Ok(())
}

/// What becomes of scales that are computed, not written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// Rounded as they will be stored: those of a folded model.
    Stored,
    /// As the plan takes them, without a rounding on the way: those of an original.
    Exact,
}

/// The constant `value` as its integers make it; `None` if no DequantizeLinear of constants computes it.
pub(super) fn read(book: &Book<'_>, value: ValueId, scales: Scales) -> Answer<Option<Dequantised>> {
    let Some(node) = producer(book, value) else {
        return Ok(None);
    };
    let wrong = |why: &str| Trouble::Wrong(format!("\"{}\": {why}", book.model.value(value).name));
    if int(node, "block_size", 0)? != 0 || int(node, "output_dtype", 0)? != 0 {
        return Err(wrong("this quantisation is not recomputed"));
    }
    let codes = book.stored(book.input(node, 0)?)?;
    let scale = book.stored(book.input(node, 1)?)?;
    let zero: Option<Tensor> = node.input(2).map(|zero| book.stored(zero)).transpose()?;
    let Some(grid) = Grid::of(scale.dtype()) else {
        return Err(wrong("its scale is no float"));
    };
    let dims = codes.dims().to_vec();
    // Which scale belongs to an element: `element / inner % count`.
    let (count, inner) = match *scale.dims() {
        [] | [1] => (1, 1),
        [count] => {
            let axis = int(node, "axis", 1)?;
            let axis = if axis < 0 {
                axis + dims.len() as i64
            } else {
                axis
            };
            let behind = usize::try_from(axis)
                .ok()
                .filter(|&axis| dims.get(axis) == Some(&count))
                .map(|axis| &dims[axis + 1..]);
            let Some(behind) = behind else {
                return Err(wrong("its scales do not lie along its axis"));
            };
            (count, behind.iter().product())
        }
        _ => return Err(wrong("its scales are no vector")),
    };
    let zeros = match &zero {
        None => vec![0; count],
        Some(zero) if zero.len() == count && zero.dtype() == codes.dtype() => zero.to_i64()?,
        Some(_) => return Err(wrong("its zero points do not fit")),
    };
    let scales = match scales {
        Scales::Stored => scale.to_f64()?,
        Scales::Exact => book.numbers(book.input(node, 1)?)?.values,
    };
    let rounded = codes.dtype() == DType::I32;
    let (mut values, mut quanta) = (Vec::new(), Vec::new());
    for (element, code) in codes.to_i64()?.into_iter().enumerate() {
        let at = element / inner.max(1) % count;
        // Exact: both are integers of at most 32 bits.
        let steps = (code - zeros[at]) as f64;
        values.push(steps * scales[at]);
        let unit = if rounded { scales[at].abs() } else { 0.0 };
        quanta.push(steps.abs() * grid.ulp(scales[at]) + unit);
    }
    Ok(Some(Dequantised {
        dims,
        values,
        quanta,
    }))
}
