//! Stored against recomputed.

use bnkit_model::onnx::NodeId;
use bnkit_model::tensor::decode_f64;
use bnkit_model::{DType, Tensor};

use super::book::Answer;
use super::exact::{Exact, Grid, slack};
use super::{Algebra, AlgebraFailure};

/// At most this many elements of a tensor are named.
const NAMED: usize = 4;
/// Elements that are widened at a time.
const CHUNK: usize = 16 * 1024;

/// What a tensor belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    /// The last route that touched the node.
    pub(super) route: usize,
    pub(super) node: NodeId,
}

/// The recomputed elements of a tensor.
pub(super) enum Expected<'a> {
    /// Products: each element is one term, after this many roundings.
    Products(&'a [f64], usize),
    /// Sums.
    Sums(&'a Exact),
}

impl Expected<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Products(values, _) => values.len(),
            Self::Sums(sums) => sums.len(),
        }
    }

    fn at(&self, index: usize) -> (f64, f64) {
        match self {
            Self::Products(values, terms) => (values[index], slack(*terms, values[index].abs())),
            Self::Sums(sums) => (sums.value[index], sums.slack(index)),
        }
    }
}

/// A tensor of the folded model.
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) tensor: &'a Tensor,
    /// What the operator multiplies it by (Gemm's beta).
    pub(super) factor: f64,
    /// The distance of the numbers it can stand for, where that is not its type's.
    pub(super) quantum: Option<Vec<f64>>,
}

impl<'a> Found<'a> {
    pub(super) fn new(name: &'a str, tensor: &'a Tensor) -> Self {
        Self {
            name,
            tensor,
            factor: 1.0,
            quantum: None,
        }
    }
}

impl Algebra {
    /// Notes a constant that cannot be evaluated.
    pub(super) fn doubt(&mut self, owner: Owner, what: &str, reason: String) {
        self.reject(owner, what, reason);
        if let Some(failure) = self.failures.last_mut() {
            failure.unknown = true;
        }
    }

    /// Notes something that is wrong, but is not a number.
    pub(super) fn reject(&mut self, owner: Owner, what: &str, reason: String) {
        self.failures.push(AlgebraFailure {
            route: owner.route,
            node: owner.node,
            tensor: what.to_owned(),
            index: 0,
            expected: f64::NAN,
            found: f64::NAN,
            allowed: 0.0,
            reason: Some(reason),
            unknown: false,
        });
    }

    /// Compares element by element. `place` gives, for each recomputed element, its position in the stored tensor.
    pub(super) fn compare(
        &mut self,
        owner: Owner,
        expected: &Expected<'_>,
        found: &Found<'_>,
        place: impl Fn(usize) -> usize,
    ) -> Answer<()> {
        let values = found.tensor.to_f64()?;
        let mut named = 0;
        for index in 0..expected.len() {
            let at = place(index);
            let quantum = found.quantum.as_deref().map(|quantum| match quantum {
                [one] => *one,
                many => many.get(at).copied().unwrap_or(0.0),
            });
            let (value, slack) = expected.at(index);
            let stored = values[at] * found.factor;
            let grid = Grid::of(found.tensor.dtype());
            let ulp = match quantum {
                Some(quantum) => quantum.abs(),
                None => {
                    grid.map_or(0.0, |grid| grid.ulp(value / found.factor)) * found.factor.abs()
                }
            };
            self.element(
                owner,
                found.name,
                at,
                (value, slack),
                (stored, ulp),
                &mut named,
            );
        }
        Ok(())
    }

    /// Compares a weight: as many stored as recomputed elements, in the same order.
    pub(super) fn compare_weight(
        &mut self,
        owner: Owner,
        (values, terms): (&[f64], usize),
        found: &Found<'_>,
    ) -> Answer<()> {
        let dtype = found.tensor.dtype();
        let plain = found.quantum.is_none();
        let (Some(size), Some(grid), true) = (dtype.size(), Grid::of(dtype), plain) else {
            return self.compare(owner, &Expected::Products(values, terms), found, |index| {
                index
            });
        };
        let mut named = 0;
        let relative = slack(terms, 1.0);
        let parts = found.tensor.data().chunks(CHUNK * size);
        for (part, (bytes, values)) in parts.zip(values.chunks(CHUNK)).enumerate() {
            let stored = decode_f64(dtype, bytes)?;
            for (index, (&value, &stored)) in values.iter().zip(&stored).enumerate() {
                let (ulp, slack) = (grid.ulp(value), value.abs() * relative);
                // The common case; NaN is not in it.
                let excess = (stored - value).abs() - slack;
                if excess <= ulp {
                    self.max_ulp = self.max_ulp.max(excess / ulp);
                    continue;
                }
                let at = part * CHUNK + index;
                self.element(
                    owner,
                    found.name,
                    at,
                    (value, slack),
                    (stored, ulp),
                    &mut named,
                );
            }
        }
        Ok(())
    }

    /// Compares with a tensor that is not there: all of it should be zero.
    pub(super) fn compare_absent(
        &mut self,
        owner: Owner,
        expected: &Exact,
        (name, dtype): (&str, DType),
    ) {
        let mut named = 0;
        for index in 0..expected.len() {
            let ulp = Grid::of(dtype).map_or(0.0, |grid| grid.ulp(0.0));
            let (value, slack) = (expected.value[index], expected.slack(index));
            self.element(owner, name, index, (value, slack), (0.0, ulp), &mut named);
        }
    }

    fn element(
        &mut self,
        owner: Owner,
        tensor: &str,
        index: usize,
        (expected, slack): (f64, f64),
        (found, ulp): (f64, f64),
        named: &mut usize,
    ) {
        let distance = (found - expected).abs();
        let excess = distance - slack;
        let in_ulps = match excess.is_finite() {
            true if excess <= 0.0 => 0.0,
            true => excess / ulp,
            false => f64::INFINITY,
        };
        self.max_ulp = self.max_ulp.max(in_ulps);
        let allowed = ulp + slack;
        if distance <= allowed {
            return;
        }
        *named += 1;
        if *named <= NAMED {
            self.failures.push(AlgebraFailure {
                route: owner.route,
                node: owner.node,
                tensor: tensor.to_owned(),
                index,
                expected,
                found,
                allowed,
                reason: None,
                unknown: false,
            });
        }
    }
}
