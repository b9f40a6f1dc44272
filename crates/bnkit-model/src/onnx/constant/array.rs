//! Elements in memory, and how they are moved about: everything is a walk over the result with a stride per axis.

use crate::DType;

/// The elements of a constant: f64 for floats, i64 for integers and booleans.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Elements {
    Float(Vec<f64>),
    Int(Vec<i64>),
}

/// A constant that was read or computed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub(super) dtype: DType,
    pub(super) dims: Vec<usize>,
    pub(super) elements: Elements,
}

/// Why an operator cannot be evaluated, in words.
pub(super) type Why<T> = Result<T, String>;

impl Array {
    pub(super) fn float(dtype: DType, dims: Vec<usize>, values: Vec<f64>) -> Self {
        Self {
            dtype,
            dims,
            elements: Elements::Float(values),
        }
    }

    pub(super) fn int(dtype: DType, dims: Vec<usize>, values: Vec<i64>) -> Self {
        Self {
            dtype,
            dims,
            elements: Elements::Int(values),
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.elements {
            Elements::Float(values) => values.len(),
            Elements::Int(values) => values.len(),
        }
    }

    pub(super) fn ints(&self) -> Option<&[i64]> {
        match &self.elements {
            Elements::Int(values) => Some(values),
            Elements::Float(_) => None,
        }
    }

    pub(super) fn into_ints(self) -> Option<Vec<i64>> {
        match self.elements {
            Elements::Int(values) => Some(values),
            Elements::Float(_) => None,
        }
    }

    pub(super) fn into_f64(self) -> Vec<f64> {
        match self.elements {
            Elements::Float(values) => values,
            Elements::Int(values) => values.into_iter().map(|value| value as f64).collect(),
        }
    }

    /// The same elements under other dimensions.
    pub(super) fn reshaped(mut self, dims: Vec<usize>) -> Why<Self> {
        if count(&dims, u64::MAX)? != self.len() {
            return Err(format!("{:?} cannot become {dims:?}", self.dims));
        }
        self.dims = dims;
        Ok(self)
    }

    /// The elements at `indices`, under `dims`.
    pub(super) fn pick(&self, dims: Vec<usize>, indices: impl Iterator<Item = usize>) -> Self {
        let elements = match &self.elements {
            Elements::Float(values) => {
                Elements::Float(indices.map(|index| values[index]).collect())
            }
            Elements::Int(values) => Elements::Int(indices.map(|index| values[index]).collect()),
        };
        Self {
            dtype: self.dtype,
            dims,
            elements,
        }
    }

    /// A walk from the element at `start`, with a stride for each axis of the result. Every step must stay inside.
    pub(super) fn walk(
        &self,
        dims: Vec<usize>,
        start: usize,
        strides: &[isize],
        limit: u64,
    ) -> Why<Self> {
        let total = count(&dims, limit)?;
        let indices = Walk {
            at: vec![0; dims.len()],
            position: start,
            left: total,
            strides,
            dims: dims.clone(),
        };
        Ok(self.pick(dims, indices))
    }

    /// The array repeated along its axes of size 1 and along new axes in front, up to `dims`.
    pub(super) fn expanded(self, dims: &[usize], limit: u64) -> Why<Self> {
        if self.dims == dims {
            return Ok(self);
        }
        let missing = dims.len().checked_sub(self.dims.len());
        let missing =
            missing.ok_or_else(|| format!("{:?} cannot be expanded to {dims:?}", self.dims))?;
        let mut strides = vec![0; missing];
        for (axis, stride) in self.strides().into_iter().enumerate() {
            strides.push(match (self.dims[axis], dims[missing + axis]) {
                (1, _) => 0,
                (from, to) if from == to => stride,
                _ => return Err(format!("{:?} cannot be expanded to {dims:?}", self.dims)),
            });
        }
        self.walk(dims.to_vec(), 0, &strides, limit)
    }

    /// How far apart neighbours along each axis are.
    pub(super) fn strides(&self) -> Vec<isize> {
        let mut strides = vec![1isize; self.dims.len()];
        for axis in (1..self.dims.len()).rev() {
            // No overflow: the dimensions describe elements that exist (or none: then nothing is walked over).
            strides[axis - 1] = strides[axis].saturating_mul(self.dims[axis] as isize);
        }
        strides
    }
}

/// The number of elements that `dims` describe, if it is at most `limit`.
pub(super) fn count(dims: &[usize], limit: u64) -> Why<usize> {
    let count = crate::tensor::element_count(dims).filter(|&count| count <= limit);
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| {
        format!("a constant of shape {dims:?} has too many elements to be evaluated")
    })
}

/// The shape that two are broadcast to.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Why<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |dims: &[usize], axis: usize| match (axis + dims.len()).checked_sub(rank) {
        Some(axis) => dims[axis],
        None => 1,
    };
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (a, b) if a == b => Ok(a),
            (1, other) | (other, 1) => Ok(other),
            _ => Err(format!(
                "{a:?} and {b:?} cannot be broadcast against each other"
            )),
        })
        .collect()
}

/// Row-major walk over `dims`.
struct Walk<'a> {
    at: Vec<usize>,
    position: usize,
    left: usize,
    strides: &'a [isize],
    dims: Vec<usize>,
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let current = self.position;
        for axis in (0..self.dims.len()).rev() {
            let stride = self.strides[axis];
            self.at[axis] += 1;
            if self.at[axis] < self.dims[axis] {
                self.position = self.position.wrapping_add_signed(stride);
                break;
            }
            let back = stride.wrapping_mul(self.at[axis] as isize - 1);
            self.position = self.position.wrapping_add_signed(back.wrapping_neg());
            self.at[axis] = 0;
        }
        Some(current)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
