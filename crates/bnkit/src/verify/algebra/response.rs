//! What a convolution answers to an impulse: for each distance from an output's position to an input, the matrix from
//! input to output channels. Whatever its kernel's shape and padding, two convolutions with the same answer are the same.

use std::collections::BTreeMap;

use bnkit_model::onnx::{Dim, Node};

use super::Algebra;
use super::book::{Answer, Book, Trouble, int};
use super::border::Window;
use super::compare::{Expected, Found, Owner};
use super::exact::Exact;
use super::step::{Scaling, Step, scale_and_shift};
use super::vector::compare_vector;
use crate::route::Side;

/// How an axis of the input becomes one of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    stride: i64,
    /// Zeros before and behind the input.
    pads: (i64, i64),
    /// By how much the input is longer than the outputs before strides, negative: pads less the reach of the kernel.
    growth: i64,
}

/// The answer of a convolution to an impulse.
#[derive(Debug, Clone)]
pub(super) struct Response {
    groups: usize,
    outputs: usize,
    /// Inputs of a group.
    inputs: usize,
    axes: Vec<Axis>,
    /// By distance: outputs × inputs of the group.
    taps: BTreeMap<Vec<i64>, Exact>,
    bias: Option<Exact>,
}

/// What a Conv says of itself, apart from numbers.
struct Place {
    groups: usize,
    dims: Vec<usize>,
    axes: Vec<Axis>,
    dilations: Vec<i64>,
}

impl Place {
    fn of(book: &Book<'_>, node: &Node, dims: &[usize]) -> Answer<Self> {
        let groups = usize::try_from(int(node, "group", 1)?).unwrap_or(0);
        let fits =
            dims.len() >= 3 && groups > 0 && !dims.contains(&0) && dims[0].is_multiple_of(groups);
        if !node.is("Conv") || !fits {
            let why = format!("{groups} groups with a weight of the shape {dims:?}");
            return Err(Trouble::Wrong(why));
        }
        let window = Window::of(node, &dims[2..])?;
        let count = window.kernel.len();
        let mut axes = Vec::with_capacity(count);
        for axis in 0..count {
            let (stride, dilation) = (window.strides[axis], window.dilations[axis]);
            let reach = (window.kernel[axis] - 1)
                .checked_mul(dilation)
                .filter(|_| stride > 0 && dilation > 0);
            let reach = reach.ok_or_else(|| Trouble::wrong("its window makes no sense"))?;
            let pads = match window.auto.as_str() {
                "NOTSET" | "" => (window.pads[axis], window.pads[axis + count]),
                "VALID" => (0, 0),
                "SAME_UPPER" | "SAME_LOWER" => {
                    let total = same_total(book, node, axis, stride, reach)?;
                    let half = total / 2;
                    match window.auto == "SAME_UPPER" {
                        true => (half, total - half),
                        false => (total - half, half),
                    }
                }
                other => return Err(Trouble::Wrong(format!("it pads by \"{other}\""))),
            };
            axes.push(Axis {
                stride,
                pads,
                growth: pads.0 + pads.1 - reach,
            });
        }
        Ok(Self {
            groups,
            dims: dims.to_vec(),
            axes,
            dilations: window.dilations,
        })
    }

    /// How far each tap is from the position of the output, in the order of the weight.
    fn distances(&self) -> Vec<Vec<i64>> {
        let mut all: Vec<Vec<i64>> = vec![Vec::new()];
        for (axis, &size) in self.dims[2..].iter().enumerate() {
            let far = |tap: usize| tap as i64 * self.dilations[axis] - self.axes[axis].pads.0;
            let longer = |start: &Vec<i64>| {
                let start = start.clone();
                (0..size).map(move |tap| [start.as_slice(), &[far(tap)]].concat())
            };
            all = all.iter().flat_map(longer).collect();
        }
        all
    }
}

/// What SAME pads in total: so that ⌈size / stride⌉ outputs come out.
fn same_total(book: &Book<'_>, node: &Node, axis: usize, stride: i64, reach: i64) -> Answer<i64> {
    if stride == 1 || reach == 0 {
        return Ok(reach);
    }
    let size = size(book, node, axis).ok_or_else(|| {
        Trouble::wrong("its padding depends on the size of its input, which is not known")
    })?;
    let outputs = (size + stride - 1) / stride;
    Ok(((outputs - 1) * stride + reach + 1 - size).max(0))
}

/// The size of a spatial axis of what a node reads, if it is known.
fn size(book: &Book<'_>, node: &Node, axis: usize) -> Option<i64> {
    let dims = book.types.dims(node.input(0)?)?;
    let size = dims.get(axis + 2).and_then(Dim::known)?;
    i64::try_from(size).ok().filter(|&size| size > 0)
}

impl Response {
    /// The answer of a Conv of the original.
    pub(super) fn of_conv(book: &Book<'_>, node: &Node) -> Answer<Self> {
        let numbers = book.numbers(book.input(node, 1)?)?;
        let place = Place::of(book, node, &numbers.dims)?;
        let (outputs, inputs) = (numbers.dims[0], numbers.dims[1]);
        let distances = place.distances();
        let mut taps = BTreeMap::new();
        for (tap, distance) in distances.iter().enumerate() {
            let matrix = numbers.values.iter().skip(tap).step_by(distances.len());
            taps.insert(distance.clone(), Exact::stored(matrix.copied().collect()));
        }
        let bias = match node.input(2) {
            None => None,
            Some(value) => Some(Exact::stored(book.vector(value)?.values)),
        };
        if bias.as_ref().is_some_and(|bias| bias.len() != outputs) {
            return Err(Trouble::wrong("the bias does not fit the weight"));
        }
        Ok(Self {
            groups: place.groups,
            outputs,
            inputs,
            axes: place.axes,
            taps,
            bias,
        })
    }

    /// The answer of y = s·x + t, written like `beside`.
    pub(super) fn of_affine(scaling: Option<&Scaling>, beside: &Self) -> Answer<Self> {
        let count = beside.inputs * beside.groups;
        let lengths = scaling.map_or((count, count), |affine| (affine.s.len(), affine.t.len()));
        if count != beside.outputs || lengths != (count, count) {
            return Err(Trouble::wrong("an identity with other outputs than inputs"));
        }
        let mut matrix = Exact::zeros(count * beside.inputs);
        for group in 0..beside.groups {
            for number in 0..beside.inputs {
                let channel = group * beside.inputs + number;
                let at = channel * beside.inputs + number;
                let (value, size) = match scaling {
                    Some(affine) => (affine.s.value[channel], affine.s.size[channel]),
                    None => (1.0, 1.0),
                };
                (matrix.value[at], matrix.size[at]) = (value, size);
            }
        }
        matrix.terms = scaling.map_or(0, |affine| affine.s.terms);
        let axis = Axis {
            stride: 1,
            pads: (0, 0),
            growth: 0,
        };
        Ok(Self {
            groups: beside.groups,
            outputs: count,
            inputs: beside.inputs,
            axes: vec![axis; beside.axes.len()],
            taps: BTreeMap::from([(vec![0; beside.axes.len()], matrix)]),
            bias: scaling.map(|affine| Exact::clone(&affine.t)),
        })
    }

    /// Absorbs an affine.
    pub(super) fn absorb(&mut self, step: &Step) -> Answer<()> {
        step.expect_scale()?;
        step.expect_data_in(0)?;
        step.expect_axis(self.axes.len())?;
        let (inputs, per_group) = (self.inputs, self.outputs / self.groups);
        let feature = |at: usize| match step.side {
            Side::Output => at / inputs,
            Side::Input => at / inputs / per_group * inputs + at % inputs,
        };
        step.expect_features(match step.side {
            Side::Output => self.outputs,
            Side::Input => self.inputs * self.groups,
        })?;
        if step.side == Side::Input && step.shifts() {
            self.expect_no_border()?;
            let mut shift = Exact::zeros(self.outputs);
            for matrix in self.taps.values() {
                for at in 0..matrix.len() {
                    let pair = step.at(feature(at));
                    shift.value[at / inputs] += matrix.value[at] * pair.t;
                    shift.size[at / inputs] += matrix.size[at] * pair.t_size;
                }
            }
            shift.terms = self.terms() + step.t_terms() + self.taps.len() * inputs + 1;
            self.bias = Some(plus(self.bias.take(), &shift));
        }
        for matrix in self.taps.values_mut() {
            for at in 0..matrix.len() {
                let pair = step.at(feature(at));
                matrix.value[at] *= pair.s;
                matrix.size[at] *= pair.s_size;
            }
            matrix.terms += step.s_terms() + 1;
        }
        if step.side == Side::Output {
            scale_and_shift(&mut self.bias, step);
        }
        Ok(())
    }

    fn terms(&self) -> usize {
        let terms = self.taps.values().map(|matrix| matrix.terms);
        terms.max().unwrap_or(0)
    }

    fn expect_no_border(&self) -> Answer<()> {
        match self.axes.iter().all(|axis| axis.pads == (0, 0)) {
            true => Ok(()),
            false => Err(Trouble::wrong(
                "a shift before it does not reach its border",
            )),
        }
    }

    /// Adds another answer to the same input, of which `node` of `book` is a reader.
    pub(super) fn add(&mut self, other: &Self, book: &Book<'_>, node: &Node) -> Answer<()> {
        let shape = |one: &Self| (one.groups, one.outputs, one.inputs, one.axes.len());
        if shape(self) != shape(other) {
            return Err(Trouble::wrong("the branches differ in channels or groups"));
        }
        for axis in 0..self.axes.len() {
            let (a, b) = (self.axes[axis], other.axes[axis]);
            same_outputs(a, b, size(book, node, axis))?;
            let pads = (a.pads.0.max(b.pads.0), a.pads.1.max(b.pads.1));
            self.axes[axis].pads = pads;
        }
        for (distance, matrix) in &other.taps {
            let sum = plus(self.taps.remove(distance), matrix);
            self.taps.insert(distance.clone(), sum);
        }
        if let Some(bias) = &other.bias {
            self.bias = Some(plus(self.bias.take(), bias));
        }
        Ok(())
    }

    /// The answer of this one to the answer of `first`, which has one tap.
    pub(super) fn behind(&self, first: &Self) -> Answer<Self> {
        self.expect_no_border()?;
        first.expect_no_border()?;
        let plain = first
            .axes
            .iter()
            .all(|axis| axis.stride == 1 && axis.growth == 0);
        let zero = vec![0; self.axes.len()];
        let (Some(before), 1) = (first.taps.get(&zero), first.taps.len()) else {
            return Err(Trouble::wrong(
                "the first of a sequence has more than one tap",
            ));
        };
        let fits = first.groups == self.groups && first.outputs == self.inputs * self.groups;
        if !plain || !fits {
            return Err(Trouble::wrong(
                "the operators of a sequence do not fit together",
            ));
        }
        let (outputs, middles, inputs) = (self.outputs, self.inputs, first.inputs);
        let group = |output: usize| output / (outputs / self.groups);
        let (mut taps, mut bias) = (BTreeMap::new(), self.bias.clone());
        for (distance, matrix) in &self.taps {
            let mut product = Exact::zeros(outputs * inputs);
            let mut shift = Exact::zeros(outputs);
            for output in 0..outputs {
                for middle in 0..middles {
                    let at = output * middles + middle;
                    let (weight, size) = (matrix.value[at], matrix.size[at]);
                    let row = group(output) * middles + middle;
                    for input in 0..inputs {
                        let (to, from) = (output * inputs + input, row * inputs + input);
                        product.value[to] += weight * before.value[from];
                        product.size[to] += size * before.size[from];
                    }
                    if let Some(bias) = &first.bias {
                        shift.value[output] += weight * bias.value[row];
                        shift.size[output] += size * bias.size[row];
                    }
                }
            }
            product.terms = matrix.terms + before.terms + middles + 1;
            taps.insert(distance.clone(), product);
            if let Some(inner) = &first.bias {
                shift.terms = matrix.terms + inner.terms + middles + 1;
                bias = Some(plus(bias, &shift));
            }
        }
        Ok(Self {
            inputs,
            taps,
            bias,
            ..self.clone()
        })
    }

    /// Compares with what a Conv of the folded model answers.
    pub(super) fn compare(
        mut self,
        book: &Book<'_>,
        node: &Node,
        owner: Owner,
        result: &mut Algebra,
    ) -> Answer<()> {
        let value = book.input(node, 1)?;
        let name = &book.model.value(value).name;
        let tensor = book.stored(value)?;
        let place = Place::of(book, node, tensor.dims())?;
        if (place.groups, place.dims[0], place.dims[1]) != (self.groups, self.outputs, self.inputs)
            || place.axes.len() != self.axes.len()
        {
            let why = format!("{:?} in {} groups", place.dims, place.groups);
            return Err(Trouble::Wrong(format!("the weight does not fit: {why}")));
        }
        for (axis, (&here, &there)) in self.axes.iter().zip(&place.axes).enumerate() {
            same_outputs(here, there, size(book, node, axis))?;
        }
        let distances = place.distances();
        let mut expected = Exact::zeros(tensor.len());
        for (tap, distance) in distances.iter().enumerate() {
            let Some(matrix) = self.taps.remove(distance) else {
                continue;
            };
            for at in 0..matrix.len() {
                expected.value[at * distances.len() + tap] = matrix.value[at];
                expected.size[at * distances.len() + tap] = matrix.size[at];
            }
            expected.terms = expected.terms.max(matrix.terms);
        }
        if let Some((distance, _)) = self
            .taps
            .iter()
            .find(|(_, matrix)| matrix.size.iter().any(|&size| size != 0.0))
        {
            let why = format!("its kernel does not see the inputs at a distance of {distance:?}");
            return Err(Trouble::Wrong(why));
        }
        let found = Found::new(name, &tensor);
        result.compare(owner, &Expected::Sums(&expected), &found, |index| index)?;
        let bias = self.bias.unwrap_or_else(|| Exact::zeros(self.outputs));
        match node.input(2) {
            Some(value) => compare_vector(book, value, &bias, owner, result),
            None => {
                result.compare_absent(owner, &bias, ("bias", tensor.dtype()));
                Ok(())
            }
        }
    }
}

/// Checks that two axes give as many outputs: for every size, or for the known one.
fn same_outputs(a: Axis, b: Axis, size: Option<i64>) -> Answer<()> {
    let outputs = |axis: Axis, size: i64| (size + axis.growth - 1).div_euclid(axis.stride) + 1;
    let alike = a.growth == b.growth
        || size.is_some_and(|size| outputs(a, size) == outputs(b, size) && outputs(a, size) > 0);
    match a.stride == b.stride && alike {
        true => Ok(()),
        false => Err(Trouble::wrong(
            "the strides or the sizes of the outputs differ",
        )),
    }
}

fn plus(sum: Option<Exact>, other: &Exact) -> Exact {
    let Some(mut sum) = sum else {
        return other.clone();
    };
    for index in 0..sum.len().min(other.len()) {
        sum.value[index] += other.value[index];
        sum.size[index] += other.size[index];
    }
    sum.terms += other.terms + 1;
    sum
}
