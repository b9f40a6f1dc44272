//! Operators with a vector, which are affines themselves: BatchNorm, and Mul, Add, Sub, Div by a constant.

use std::sync::Arc;

use bnkit_model::onnx::{Node, ValueId};

use super::Algebra;
use super::book::{Answer, Book, Numbers, Trouble, float};
use super::compare::{Expected, Found, Owner};
use super::exact::Exact;
use super::step::{Scaling, Step};
use crate::route::{Part, Side};

/// What such an operator computes at the moment.
#[derive(Debug)]
pub(super) enum Vector {
    BatchNorm(BatchNorm),
    Elementwise(Elementwise),
}

#[derive(Debug)]
pub(super) struct BatchNorm {
    gamma: Exact,
    beta: Exact,
    mean: Vec<f64>,
    variance: Vec<f64>,
    epsilon: f64,
    /// The channel axis, counted from the last one.
    axis: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// x·c
    Mul,
    /// x + c
    Add,
    /// x − c
    Minus,
    /// c − x
    From,
    /// x / c
    Div,
}

#[derive(Debug)]
pub(super) struct Elementwise {
    op: Op,
    slot: usize,
    constant: Exact,
    /// The only axis of the constant that is not 1, counted from the last one.
    axis: Option<usize>,
}

/// Whether nodes of this kind are handled here.
pub(super) fn is_vector(node: &Node) -> bool {
    ["BatchNormalization", "Mul", "Add", "Sub", "Div"]
        .iter()
        .any(|op| node.is(op))
}

impl Vector {
    /// What `node` of the original computes; the constant of an elementwise operator is its input in `slot`.
    pub(super) fn read(book: &Book<'_>, node: &Node, slot: usize) -> Answer<Self> {
        if node.is("BatchNormalization") {
            return BatchNorm::read(book, node).map(Self::BatchNorm);
        }
        let op = match (node.op_type.as_str(), slot) {
            ("Mul", 0 | 1) => Op::Mul,
            ("Add", 0 | 1) => Op::Add,
            ("Sub", 1) => Op::Minus,
            ("Sub", 0) => Op::From,
            ("Div", 1) => Op::Div,
            _ => return Err(Trouble::wrong("it is no affine with a constant there")),
        };
        let numbers = book.numbers(book.input(node, slot)?)?;
        Ok(Self::Elementwise(Elementwise {
            op,
            slot,
            axis: single_axis(&numbers.dims)?.filter(|_| node.attribute("axis").is_none()),
            constant: Exact::stored(numbers.values),
        }))
    }

    /// An Add of several constants, with another input than the one in `slot`.
    pub(super) fn sum(constants: Vec<Numbers>, slot: usize) -> Answer<Self> {
        let mut sum: Option<(Exact, Option<usize>)> = None;
        for numbers in constants {
            let axis = single_axis(&numbers.dims)?;
            let one = Exact::stored(numbers.values);
            let Some((so_far, along)) = sum else {
                sum = Some((one, axis));
                continue;
            };
            let count = so_far.len().max(one.len());
            let (mut so_far, one) = (so_far.widened(count), one.widened(count));
            if so_far.len() != one.len() || along.zip(axis).is_some_and(|(a, b)| a != b) {
                return Err(Trouble::wrong("its constants do not lie along one axis"));
            }
            for index in 0..count {
                so_far.value[index] += one.value[index];
                so_far.size[index] += one.size[index];
            }
            so_far.terms += 1;
            sum = Some((so_far, along.or(axis)));
        }
        let (constant, axis) =
            sum.ok_or_else(|| Trouble::wrong("it is no affine with a constant there"))?;
        Ok(Self::Elementwise(Elementwise {
            op: Op::Add,
            slot,
            constant,
            axis,
        }))
    }

    /// Whether this is an elementwise operator whose constant is not in `slot`.
    pub(super) fn has_constant_elsewhere(&self, slot: usize) -> bool {
        matches!(self, Self::Elementwise(state) if state.slot != slot)
    }

    /// Compares the constant of an elementwise operator with `value` of the folded model.
    pub(super) fn compare_constant(
        &self,
        book: &Book<'_>,
        value: ValueId,
        owner: Owner,
        result: &mut Algebra,
    ) -> Answer<()> {
        match self {
            Self::BatchNorm(_) => Err(Trouble::wrong("it is no affine with one constant")),
            Self::Elementwise(state) => {
                let (constant, axis) = (&state.constant, state.axis);
                compare_broadcast(book, value, constant, axis, owner, result)
            }
        }
    }

    /// The affine that it is.
    pub(super) fn scaling(&self) -> Scaling {
        match self {
            Self::BatchNorm(state) => state.scaling(),
            Self::Elementwise(state) => state.scaling(),
        }
    }

    pub(super) fn absorb(&mut self, step: &Step) -> Answer<()> {
        match self {
            Self::BatchNorm(state) => state.absorb(step),
            Self::Elementwise(state) => state.absorb(step),
        }
    }

    /// Compares with what `node` of the folded model has.
    pub(super) fn compare(
        &self,
        book: &Book<'_>,
        node: &Node,
        owner: Owner,
        result: &mut Algebra,
    ) -> Answer<()> {
        match self {
            Self::BatchNorm(state) => state.compare(book, node, owner, result),
            Self::Elementwise(state) => state.compare(book, node, owner, result),
        }
    }
}

impl BatchNorm {
    fn read(book: &Book<'_>, node: &Node) -> Answer<Self> {
        let vector = |slot| -> Answer<Numbers> { book.vector(book.input(node, slot)?) };
        let [gamma, beta, mean, variance] = [vector(1)?, vector(2)?, vector(3)?, vector(4)?];
        let count = gamma.values.len();
        if [&beta, &mean, &variance]
            .iter()
            .any(|other| other.values.len() != count)
        {
            return Err(Trouble::wrong("its parameters differ in length"));
        }
        let rank = node.input(0).and_then(|value| book.types.rank(value));
        Ok(Self {
            gamma: Exact::stored(gamma.values),
            beta: Exact::stored(beta.values),
            mean: mean.values,
            variance: variance.values,
            epsilon: float(node, "epsilon", 1e-5)?,
            axis: rank.and_then(|rank| rank.checked_sub(2)),
        })
    }

    /// s = γ/√(σ² + ε), t = β − μ·s.
    fn scaling(&self) -> Scaling {
        let count = self.gamma.len();
        let (mut s, mut t) = (Exact::zeros(count), Exact::zeros(count));
        for channel in 0..count {
            let deviation = (self.variance[channel] + self.epsilon).sqrt();
            s.value[channel] = self.gamma.value[channel] / deviation;
            s.size[channel] = self.gamma.size[channel] / deviation;
            let mean = self.mean[channel];
            t.value[channel] = self.beta.value[channel] - mean * s.value[channel];
            t.size[channel] = self.beta.size[channel] + mean.abs() * s.size[channel];
        }
        s.terms = self.gamma.terms + 3;
        t.terms = self.beta.terms + s.terms + 2;
        Scaling {
            s: Arc::new(s),
            t: Arc::new(t),
            axis: self.axis,
        }
    }

    fn absorb(&mut self, step: &Step) -> Answer<()> {
        step.expect_scale()?;
        step.expect_data_in(0)?;
        step.expect_features(self.gamma.len())?;
        if let Some(axis) = self.axis {
            step.expect_axis(axis)?;
        }
        for channel in 0..self.gamma.len() {
            let pair = step.at(channel);
            let deviation = (self.variance[channel] + self.epsilon).sqrt();
            let (gamma, gamma_size) = (self.gamma.value[channel], self.gamma.size[channel]);
            let (beta, beta_size) = (self.beta.value[channel], self.beta.size[channel]);
            let mean = self.mean[channel];
            self.gamma.value[channel] = gamma * pair.s;
            self.gamma.size[channel] = gamma_size * pair.s_size;
            match step.side {
                // s·(a·(x − μ) + β) + t
                Side::Output => {
                    self.beta.value[channel] = beta * pair.s + pair.t;
                    self.beta.size[channel] = beta_size * pair.s_size + pair.t_size;
                }
                // a·(s·x + t − μ) + β = a·s·(x − μ) + [β + a·(t − μ + s·μ)]
                Side::Input => {
                    let moved = pair.t - mean + pair.s * mean;
                    let moved_size = pair.t_size + mean.abs() + pair.s_size * mean.abs();
                    self.beta.value[channel] = beta + gamma / deviation * moved;
                    self.beta.size[channel] = beta_size + gamma_size / deviation * moved_size;
                }
            }
        }
        self.beta.terms += self.gamma.terms + step.s_terms() + step.t_terms() + 8;
        self.gamma.terms += step.s_terms() + 1;
        Ok(())
    }

    fn compare(
        &self,
        book: &Book<'_>,
        node: &Node,
        owner: Owner,
        result: &mut Algebra,
    ) -> Answer<()> {
        let mean = Exact::stored(self.mean.clone());
        let variance = Exact::stored(self.variance.clone());
        for (slot, expected) in [&self.gamma, &self.beta, &mean, &variance]
            .iter()
            .enumerate()
        {
            let value = book.input(node, slot + 1)?;
            compare_vector(book, value, expected, owner, result)?;
        }
        Ok(())
    }
}

/// Compares a vector with a stored one of the same length.
pub(super) fn compare_vector(
    book: &Book<'_>,
    value: ValueId,
    expected: &Exact,
    owner: Owner,
    result: &mut Algebra,
) -> Answer<()> {
    let name = &book.model.value(value).name;
    let tensor = book.stored(value)?;
    if tensor.dims() != [expected.len()] {
        let why = format!(
            "it has the shape {:?}, expected [{}]",
            tensor.dims(),
            expected.len()
        );
        result.reject(owner, name, why);
        return Ok(());
    }
    let mut found = Found::new(name, &tensor);
    found.quantum = book.quantum(value);
    result.compare(owner, &Expected::Sums(expected), &found, |index| index)
}

impl Elementwise {
    fn scaling(&self) -> Scaling {
        let count = self.constant.len();
        let (mut s, mut t) = (Exact::stored(vec![1.0; count]), Exact::zeros(count));
        let constant = &self.constant;
        for channel in 0..count {
            let (value, size) = (constant.value[channel], constant.size[channel]);
            match self.op {
                Op::Mul => (s.value[channel], s.size[channel]) = (value, size),
                Op::Add => (t.value[channel], t.size[channel]) = (value, size),
                Op::Minus => (t.value[channel], t.size[channel]) = (-value, size),
                Op::From => {
                    s.value[channel] = -1.0;
                    (t.value[channel], t.size[channel]) = (value, size);
                }
                Op::Div => {
                    s.value[channel] = 1.0 / value;
                    s.size[channel] = (1.0 / value).abs();
                }
            }
        }
        s.terms = match self.op {
            Op::Mul => constant.terms,
            Op::Div => constant.terms + 1,
            Op::Add | Op::Minus | Op::From => 0,
        };
        t.terms = constant.terms;
        Scaling {
            s: Arc::new(s),
            t: Arc::new(t),
            axis: self.axis,
        }
    }

    fn absorb(&mut self, step: &Step) -> Answer<()> {
        step.expect_data_in(1 - self.slot)?;
        self.widen(step)?;
        match (self.op, step.part, step.side) {
            // s·(x·c) = x·(c·s) = (s·x)·c, and so for x / c.
            (Op::Mul | Op::Div, Part::Scale | Part::Whole, _) => step.expect_no_shift()?,
            // s·(x ± c) + t, where x comes with s already.
            (Op::Add | Op::Minus | Op::From, Part::Shift, Side::Output) => {}
            // (x ± c) + t and (x + t) ± c
            (Op::Add | Op::Minus | Op::From, Part::Shift | Part::Whole, _) => {
                step.expect_no_scale()?;
            }
            (Op::Add | Op::Minus | Op::From, Part::Scale, _) => {
                return Err(Trouble::wrong("an addition cannot absorb a scale"));
            }
            (Op::Mul | Op::Div, Part::Shift, _) => {
                return Err(Trouble::wrong("a multiplication cannot absorb a shift"));
            }
        }
        for feature in 0..self.constant.len() {
            let pair = step.at(feature);
            let (value, size) = (self.constant.value[feature], self.constant.size[feature]);
            let (value, size) = match (self.op, step.side) {
                (Op::Mul, _) => (value * pair.s, size * pair.s_size),
                (Op::Div, _) => (value / pair.s, size / pair.s.abs()),
                // s·(x + c) + t = s·x + (s·c + t); s·(c − x) + t = (s·c + t) − s·x
                (Op::Add | Op::From, Side::Output) => {
                    (pair.s * value + pair.t, pair.s_size * size + pair.t_size)
                }
                // s·(x − c) + t = s·x − (s·c − t)
                (Op::Minus, Side::Output) => {
                    (pair.s * value - pair.t, pair.s_size * size + pair.t_size)
                }
                // (x + t) + c
                (Op::Add, Side::Input) => (value + pair.t, size + pair.t_size),
                // (x + t) − c = x − (c − t); c − (x + t) = (c − t) − x
                (Op::Minus | Op::From, Side::Input) => (value - pair.t, size + pair.t_size),
            };
            self.constant.value[feature] = value;
            self.constant.size[feature] = size;
        }
        self.constant.terms += step.s_terms() + step.t_terms() + 2;
        Ok(())
    }

    /// Gives the constant as many elements as the route says that there are features.
    fn widen(&mut self, step: &Step) -> Answer<()> {
        if self.constant.len() == 1 && step.features() > 1 {
            let constant = std::mem::take(&mut self.constant);
            self.constant = constant.widened(step.features());
            self.axis = step.axis();
            return Ok(());
        }
        if let Some(axis) = self.axis {
            step.expect_axis(axis)?;
        }
        step.expect_features(self.constant.len())
    }

    fn compare(
        &self,
        book: &Book<'_>,
        node: &Node,
        owner: Owner,
        result: &mut Algebra,
    ) -> Answer<()> {
        let value = book.input(node, self.slot)?;
        compare_broadcast(book, value, &self.constant, self.axis, owner, result)
    }
}

/// Compares with a stored constant of which at most one axis, the one at `axis` from the last if that is known, is not 1.
pub(super) fn compare_broadcast(
    book: &Book<'_>,
    value: ValueId,
    expected: &Exact,
    axis: Option<usize>,
    owner: Owner,
    result: &mut Algebra,
) -> Answer<()> {
    let name = &book.model.value(value).name;
    let tensor = book.stored(value)?;
    let (count, stored) = (expected.len(), tensor.len());
    let found_axis = single_axis(tensor.dims())?;
    let fits = stored == count || stored == 1 || (count == 1 && stored > 0);
    if !fits || axis.zip(found_axis).is_some_and(|(a, b)| a != b) {
        let place = axis.map_or(String::new(), |axis| format!(" on axis -{}", axis + 1));
        let why = format!(
            "it has the shape {:?}, expected {count}{place}",
            tensor.dims()
        );
        result.reject(owner, name, why);
        return Ok(());
    }
    let found = Found::new(name, &tensor);
    let wide = match count {
        1 => Some(expected.clone().widened(stored)),
        _ => None,
    };
    let expected = Expected::Sums(wide.as_ref().unwrap_or(expected));
    result.compare(owner, &expected, &found, |index| index.min(stored - 1))
}

/// The only axis that is not 1, counted from the last one.
pub(super) fn single_axis(dims: &[usize]) -> Answer<Option<usize>> {
    let mut axes = dims
        .iter()
        .rev()
        .enumerate()
        .filter(|&(_, &size)| size != 1);
    match (axes.next(), axes.next()) {
        (found, None) => Ok(found.map(|(axis, _)| axis)),
        _ => Err(Trouble::Wrong(format!(
            "a constant of the shape {dims:?} is no vector along one axis"
        ))),
    }
}
