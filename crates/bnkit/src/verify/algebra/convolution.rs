//! Conv and ConvTranspose.

use bnkit_model::onnx::Node;

use super::Algebra;
use super::book::{Answer, Book, Trouble, int};
use super::border;
use super::compare::{Found, Owner};
use super::exact::Exact;
use super::step::{Step, scale_and_shift};
use super::vector::compare_vector;
use crate::route::Side;

/// A weight [first, second, …], where the rest is the kernel.
struct Weight {
    dims: Vec<usize>,
    values: Vec<f64>,
    /// Roundings that went into an element.
    terms: usize,
    groups: usize,
    transposed: bool,
}

impl Weight {
    /// How many taps the kernel has.
    fn taps(&self) -> usize {
        self.dims[2..].iter().product()
    }

    fn inputs(&self) -> usize {
        match self.transposed {
            false => self.dims[1] * self.groups,
            true => self.dims[0],
        }
    }

    fn outputs(&self) -> usize {
        match self.transposed {
            false => self.dims[0],
            true => self.dims[1] * self.groups,
        }
    }

    /// The input and output channel that a kernel belongs to.
    fn channels(&self, first: usize, second: usize) -> (usize, usize) {
        match self.transposed {
            // [output, input of its group]
            false => {
                let group = first / (self.dims[0] / self.groups);
                (group * self.dims[1] + second, first)
            }
            // [input, output of its group]
            true => {
                let group = first / (self.dims[0] / self.groups);
                (first, group * self.dims[1] + second)
            }
        }
    }

    /// Calls `visit` with input channel, output channel and taps of each kernel.
    fn for_each_kernel(&mut self, mut visit: impl FnMut(usize, usize, &mut [f64])) {
        let taps = self.taps();
        for first in 0..self.dims[0] {
            for second in 0..self.dims[1] {
                let (input, output) = self.channels(first, second);
                let start = (first * self.dims[1] + second) * taps;
                visit(input, output, &mut self.values[start..start + taps]);
            }
        }
    }

    /// W·s on the side where the affine is.
    fn scale(&mut self, step: &Step) {
        self.for_each_kernel(|input, output, kernel| {
            let feature = match step.side {
                Side::Input => input,
                Side::Output => output,
            };
            let s = step.at(feature).s;
            for weight in kernel {
                *weight *= s;
            }
        });
        self.terms += step.s_terms() + 1;
    }

    /// For each output, Σ W·t over everything that reaches it.
    fn push_shift(&mut self, step: &Step) -> Exact {
        let mut sum = Exact::zeros(self.outputs());
        self.for_each_kernel(|input, output, kernel| {
            let pair = step.at(input);
            for weight in kernel {
                sum.value[output] += *weight * pair.t;
                sum.size[output] += weight.abs() * pair.t_size;
            }
        });
        let reaching = self.inputs() / self.groups * self.taps();
        sum.terms = self.terms + step.t_terms() + reaching + 1;
        sum
    }
}

/// Recomputes a Conv or ConvTranspose and compares it.
pub(super) fn check(
    original: (&Book<'_>, &Node),
    folded: (&Book<'_>, &Node),
    steps: &[Step],
    owner: Owner,
    result: &mut Algebra,
) -> Answer<()> {
    let (book, node) = original;
    let mut weight = read(book, node)?;
    let bias = match node.input(2) {
        Some(value) if book.is_constant(value) => Some(Exact::stored(book.vector(value)?.values)),
        _ => None,
    };
    // A bias that is computed can stay as it is, but not become anything else.
    let computed = node.input(2).filter(|_| bias.is_none());
    let mut bias = bias;
    if bias
        .as_ref()
        .is_some_and(|bias| bias.len() != weight.outputs())
    {
        return Err(Trouble::wrong(
            "the bias does not have one element for each output",
        ));
    }
    for step in steps {
        step.expect_scale()?;
        step.expect_data_in(0)?;
        step.expect_axis(weight.dims.len() - 2)?;
        let changes_bias = match step.side {
            Side::Output => {
                step.expect_features(weight.outputs())?;
                weight.scale(step);
                scale_and_shift(&mut bias, step);
                true
            }
            Side::Input => {
                step.expect_features(weight.inputs())?;
                if step.shifts() {
                    expect_no_border(book, node, &weight)?;
                    let sum = weight.push_shift(step);
                    bias = Some(match bias {
                        Some(bias) => add(bias, &sum),
                        None => sum,
                    });
                }
                weight.scale(step);
                step.shifts()
            }
        };
        if changes_bias && computed.is_some() {
            return Err(Trouble::wrong(
                "the bias is computed, so it absorbs nothing",
            ));
        }
    }
    let (book, node) = folded;
    compare(book, node, &weight, owner, result)?;
    match (&bias, node.input(2)) {
        _ if computed.is_some() => {
            if computed != node.input(2) {
                result.reject(owner, "bias", "a computed bias was exchanged".to_owned());
            }
        }
        (Some(bias), Some(value)) => compare_vector(book, value, bias, owner, result)?,
        (None, Some(value)) => {
            let zeros = Exact::zeros(weight.outputs());
            compare_vector(book, value, &zeros, owner, result)?;
        }
        (Some(bias), None) => {
            let dtype = book.stored(book.input(node, 1)?)?.dtype();
            result.compare_absent(owner, bias, ("bias", dtype));
        }
        (None, None) => {}
    }
    Ok(())
}

fn read(book: &Book<'_>, node: &Node) -> Answer<Weight> {
    let numbers = book.numbers(book.input(node, 1)?)?;
    let groups = usize::try_from(int(node, "group", 1)?).unwrap_or(0);
    let dims = numbers.dims;
    if dims.len() < 3 || groups == 0 || dims.contains(&0) || dims[0] % groups != 0 {
        let why = format!("a weight of the shape {dims:?} in {groups} groups makes no sense");
        return Err(Trouble::Wrong(why));
    }
    Ok(Weight {
        dims,
        values: numbers.values,
        terms: 0,
        groups,
        transposed: node.is("ConvTranspose"),
    })
}

/// Checks that every output sees the same number of shifted inputs.
fn expect_no_border(book: &Book<'_>, node: &Node, weight: &Weight) -> Answer<()> {
    let kernel = &weight.dims[2..];
    let fine = match weight.transposed {
        false => border::is_unpadded(book, node, kernel)?,
        true => border::is_saturated(node, kernel)?,
    };
    match fine {
        true => Ok(()),
        false => Err(Trouble::wrong(
            "a shift in front of it does not reach every output alike, because of the border",
        )),
    }
}

fn add(mut bias: Exact, sum: &Exact) -> Exact {
    for index in 0..bias.len() {
        bias.value[index] += sum.value[index];
        bias.size[index] += sum.size[index];
    }
    bias.terms += sum.terms + 1;
    bias
}

fn compare(
    book: &Book<'_>,
    node: &Node,
    weight: &Weight,
    owner: Owner,
    result: &mut Algebra,
) -> Answer<()> {
    let value = book.input(node, 1)?;
    let name = &book.model.value(value).name;
    let tensor = book.stored(value)?;
    if tensor.dims() != weight.dims {
        let why = format!(
            "it has the shape {:?}, expected {:?}",
            tensor.dims(),
            weight.dims
        );
        result.reject(owner, name, why);
        return Ok(());
    }
    let mut found = Found::new(name, &tensor);
    found.quantum = book.quantum(value);
    result.compare_weight(owner, (&weight.values, weight.terms), &found)
}
