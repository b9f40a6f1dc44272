//! Gemm and MatMul.

use bnkit_model::DType;
use bnkit_model::onnx::{Node, NodeId, Use, ValueId};

use super::Algebra;
use super::addend::{Addend, add, compare_addend, scale_addend};
use super::book::{Answer, Book, Trouble, float, int};
use super::compare::{Found, Owner};
use super::exact::Exact;
use super::step::{Step, scale_and_shift};
use super::vector::{compare_broadcast, single_axis};
use crate::route::Side;

/// A constant matrix (or several of the same shape): features of the input against features of the output.
struct Weight {
    dims: Vec<usize>,
    values: Vec<f64>,
    /// Roundings that went into an element.
    terms: usize,
    inputs: usize,
    outputs: usize,
    /// Whether a row belongs to an output, not to an input.
    by_output: bool,
}

impl Weight {
    /// `dims` ends with [inputs, outputs], or with [outputs, inputs].
    fn read(book: &Book<'_>, value: ValueId, by_output: bool) -> Answer<Self> {
        let numbers = book.numbers(value)?;
        let [.., rows, columns] = numbers.dims[..] else {
            let why = format!("expected a matrix, found the shape {:?}", numbers.dims);
            return Err(Trouble::Wrong(why));
        };
        if numbers.values.is_empty() {
            return Err(Trouble::wrong("the weight has no elements"));
        }
        let (inputs, outputs) = match by_output {
            false => (rows, columns),
            true => (columns, rows),
        };
        Ok(Self {
            dims: numbers.dims,
            values: numbers.values,
            terms: 0,
            inputs,
            outputs,
            by_output,
        })
    }

    /// Calls `visit` with input, output and element, for all elements.
    fn for_each(&mut self, mut visit: impl FnMut(usize, usize, &mut f64)) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        for matrix in self.values.chunks_exact_mut((inputs * outputs).max(1)) {
            if self.by_output {
                for (output, row) in matrix.chunks_exact_mut(inputs).enumerate() {
                    for (input, weight) in row.iter_mut().enumerate() {
                        visit(input, output, weight);
                    }
                }
            } else {
                for (input, row) in matrix.chunks_exact_mut(outputs).enumerate() {
                    for (output, weight) in row.iter_mut().enumerate() {
                        visit(input, output, weight);
                    }
                }
            }
        }
    }

    fn scale(&mut self, step: &Step) {
        match step.side {
            Side::Input => self.for_each(|input, _, weight| *weight *= step.at(input).s),
            Side::Output => self.for_each(|_, output, weight| *weight *= step.at(output).s),
        }
        self.terms += step.s_terms() + 1;
    }

    /// For each output, Σ W·t over the inputs, times `factor`.
    fn push_shift(&mut self, step: &Step, factor: f64) -> Answer<Exact> {
        if self.values.len() != self.inputs * self.outputs {
            return Err(Trouble::wrong(
                "a shift in front of several matrices is several shifts",
            ));
        }
        let mut sum = Exact::zeros(self.outputs);
        self.for_each(|input, output, weight| {
            let pair = step.at(input);
            sum.value[output] += *weight * pair.t;
            sum.size[output] += weight.abs() * pair.t_size;
        });
        for output in 0..sum.len() {
            sum.value[output] *= factor;
            sum.size[output] *= factor.abs();
        }
        sum.terms = self.terms + step.t_terms() + self.inputs + 2;
        Ok(sum)
    }

    fn compare(
        &self,
        book: &Book<'_>,
        value: ValueId,
        owner: Owner,
        result: &mut Algebra,
    ) -> Answer<DType> {
        let name = &book.model.value(value).name;
        let tensor = book.stored(value)?;
        if tensor.dims() != self.dims {
            let why = format!(
                "it has the shape {:?}, expected {:?}",
                tensor.dims(),
                self.dims
            );
            result.reject(owner, name, why);
            return Ok(tensor.dtype());
        }
        let mut found = Found::new(name, &tensor);
        found.quantum = book.quantum(value);
        result.compare_weight(owner, (&self.values, self.terms), &found)?;
        Ok(tensor.dtype())
    }
}

/// Recomputes a Gemm and compares it.
pub(super) fn check_gemm(
    original: (&Book<'_>, &Node),
    folded: (&Book<'_>, &Node),
    steps: &[Step],
    owner: Owner,
    result: &mut Algebra,
) -> Answer<()> {
    let (book, node) = original;
    let alpha = float(node, "alpha", 1.0)?;
    let transposed = int(node, "transB", 0)? != 0;
    let mut weight = Weight::read(book, book.input(node, 1)?, transposed)?;
    if weight.dims.len() != 2 {
        return Err(Trouble::wrong("the weight of a Gemm is one matrix"));
    }
    let constant = node.input(2).filter(|&value| book.is_constant(value));
    let computed = node.input(2).filter(|_| constant.is_none());
    let beta = float(node, "beta", 1.0)?;
    let mut addend = match constant {
        Some(value) => Some(Addend::read(book, value, beta)?),
        None => None,
    };
    for step in steps {
        step.expect_scale()?;
        step.expect_data_in(0)?;
        step.expect_axis(0)?;
        if computed.is_some() && (step.side == Side::Output || step.shifts()) {
            return Err(Trouble::wrong(
                "the addend is computed, so it absorbs nothing",
            ));
        }
        match step.side {
            Side::Output => {
                step.expect_features(weight.outputs)?;
                weight.scale(step);
                scale_addend(&mut addend, step)?;
            }
            Side::Input => {
                if int(node, "transA", 0)? != 0 {
                    return Err(Trouble::wrong("the data is transposed"));
                }
                step.expect_features(weight.inputs)?;
                if step.shifts() {
                    // α·(x + t)·B = α·x·B + α·t·B
                    let sum = weight.push_shift(step, alpha)?;
                    add(&mut addend, sum)?;
                }
                weight.scale(step);
            }
        }
    }
    let (book, node) = folded;
    let dtype = weight.compare(book, book.input(node, 1)?, owner, result)?;
    if computed.is_some() {
        if computed != node.input(2) || float(node, "beta", 1.0)? != beta {
            result.reject(owner, "C", "a computed addend was exchanged".to_owned());
        }
        return Ok(());
    }
    let expected = addend.unwrap_or_else(|| Addend::row(Exact::zeros(1)));
    compare_addend(book, node, &expected, (owner, dtype), result)
}

/// Recomputes a MatMul and compares it. What it has to add lies in an Add right behind it, which the fold made.
pub(super) fn check_mat_mul(
    original: (&Book<'_>, &Node),
    folded: (&Book<'_>, &Node),
    steps: &[Step],
    is_new: impl Fn(NodeId) -> bool,
    owner: Owner,
    result: &mut Algebra,
) -> Answer<()> {
    let (book, node) = original;
    let data_slot = steps.first().map_or(0, |step| step.data_slot);
    if data_slot > 1 {
        return Err(Trouble::wrong("a MatMul has two inputs"));
    }
    // x·W has its features in columns, W·x in rows.
    let on_the_left = data_slot == 1;
    let feature_axis = usize::from(on_the_left);
    let mut weight = Weight::read(book, book.input(node, 1 - data_slot)?, on_the_left)?;
    let rank = node
        .input(data_slot)
        .and_then(|value| book.types.rank(value));
    let mut addend: Option<Exact> = None;
    for step in steps {
        step.expect_scale()?;
        step.expect_data_in(data_slot)?;
        step.expect_axis(feature_axis)?;
        match step.side {
            Side::Output => {
                step.expect_features(weight.outputs)?;
                weight.scale(step);
                scale_and_shift(&mut addend, step);
            }
            Side::Input if rank == Some(1) => {
                return Err(Trouble::wrong("a vector has no channel axis"));
            }
            Side::Input => {
                step.expect_features(weight.inputs)?;
                if step.shifts() {
                    let sum = weight.push_shift(step, 1.0)?;
                    let mut whole = addend.map(Addend::row);
                    add(&mut whole, sum)?;
                    addend = whole.map(|whole| whole.values);
                }
                weight.scale(step);
            }
        }
    }
    let (book, node) = folded;
    let dtype = weight.compare(book, book.input(node, 1 - data_slot)?, owner, result)?;
    let expected = addend.unwrap_or_else(|| Exact::zeros(weight.outputs));
    match addition_behind(book, node, is_new)? {
        Some(value) => {
            compare_broadcast(
                book,
                value,
                &expected,
                (expected.len() > 1).then_some(feature_axis),
                owner,
                result,
            )?;
            let tensor = book.stored(value)?;
            if expected.len() == 1 && single_axis(tensor.dims())?.is_some() {
                let why = "it has more elements than the product has features".to_owned();
                result.reject(owner, &book.model.value(value).name, why);
            }
        }
        None => result.compare_absent(owner, &expected, ("a new Add behind it", dtype)),
    }
    Ok(())
}

/// The constant of a new Add that is the only reader of what `node` computes.
fn addition_behind(
    book: &Book<'_>,
    node: &Node,
    is_new: impl Fn(NodeId) -> bool,
) -> Answer<Option<ValueId>> {
    let output = node
        .output(0)
        .ok_or_else(|| Trouble::wrong("it has no output"))?;
    let uses = &book.model.value(output).uses;
    let new = uses.iter().find_map(|user| match user {
        Use::Node(id, slot) if is_new(*id) && book.model.node(*id).is("Add") => Some((*id, *slot)),
        _ => None,
    });
    let Some((id, slot)) = new else {
        return Ok(None);
    };
    if uses.len() != 1 || slot > 1 {
        return Err(Trouble::wrong(
            "something reads the product without its new addend",
        ));
    }
    book.input(book.model.node(id), 1 - slot).map(Some)
}
