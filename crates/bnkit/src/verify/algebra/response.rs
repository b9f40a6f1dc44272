//! What a convolution answers to an impulse: for each distance from an output's position to an input, the matrix from
//! input to output channels. Whatever its kernel's shape and padding, two convolutions with the same answer are the same.

use std::collections::BTreeMap;

use bnkit_model::onnx::Node;

use super::Algebra;
use super::book::{Answer, Book, Trouble};
use super::compare::{Expected, Found, Owner};
use super::exact::Exact;
use super::place::{Axis, Place, same_outputs, size};
use super::step::{Scaling, Step, scale_and_shift};
use super::vector::compare_vector;
use crate::route::Side;

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
