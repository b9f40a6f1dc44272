//! Dense tensors in memory: a type, dimensions and little-endian elements in row-major order.

use bytes::Bytes;
use half::{bf16, f16};

use crate::dtype::{to_bf16, to_f16};
use crate::{DType, Error, Result};

/// A dense tensor. `data` holds the elements in row-major order, little-endian, exactly `dtype.byte_len(count)` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// A tensor from little-endian bytes.
    ///
    /// # Errors
    /// If the dimensions overflow, the type has no fixed size, or `data` is not exactly as long as they say.
    pub fn new(dtype: DType, dims: Vec<usize>, data: impl Into<Bytes>) -> Result<Self> {
        let data = data.into();
        let count = element_count(&dims)
            .ok_or_else(|| Error::invalid("the dimensions of a tensor overflow"))?;
        let expected = dtype
            .byte_len(count)
            .ok_or_else(|| Error::invalid(format!("tensors of {dtype} have no fixed size")))?;
        if data.len() as u64 != expected {
            return Err(Error::invalid(format!(
                "a {dtype} tensor of shape {dims:?} takes {expected} bytes, found {}",
                data.len()
            )));
        }
        Ok(Self { dtype, dims, data })
    }

    /// A float or integer tensor whose elements are `values`, each rounded once to `dtype`.
    ///
    /// # Errors
    /// As [`Tensor::new`]; also if `dtype` is not a numeric type of whole bytes.
    pub fn from_f64(dtype: DType, dims: Vec<usize>, values: &[f64]) -> Result<Self> {
        let mut data = Vec::with_capacity(values.len() * dtype.size().unwrap_or(8));
        encode_f64(dtype, values, &mut data)?;
        Self::new(dtype, dims, data)
    }

    /// An f32 tensor.
    ///
    /// # Errors
    /// If `values` does not have as many elements as `dims` say.
    pub fn from_f32(dims: Vec<usize>, values: &[f32]) -> Result<Self> {
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Self::new(DType::F32, dims, data)
    }

    /// An i64 tensor.
    ///
    /// # Errors
    /// If `values` does not have as many elements as `dims` say.
    pub fn from_i64(dims: Vec<usize>, values: &[i64]) -> Result<Self> {
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Self::new(DType::I64, dims, data)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions; empty for a scalar.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements: little-endian, row-major.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements under other dimensions.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshaped(self, dims: Vec<usize>) -> Result<Self> {
        Self::new(self.dtype, dims, self.data)
    }

    /// The same matrix with its two axes exchanged; `None` for other ranks, and for types without whole bytes.
    pub fn transposed(&self) -> Option<Self> {
        let (&[rows, columns], size) = (self.dims.as_slice(), self.dtype.size()?) else {
            return None;
        };
        let mut data = Vec::with_capacity(self.data.len());
        for column in 0..columns {
            for row in 0..rows {
                let at = (row * columns + column) * size;
                data.extend_from_slice(&self.data[at..at + size]);
            }
        }
        Some(Self {
            dtype: self.dtype,
            dims: vec![columns, rows],
            data: data.into(),
        })
    }

    /// All elements widened to f64 (exact for floats and for integers up to 2^53).
    ///
    /// # Errors
    /// If the type is not numeric (bool counts as 0 and 1).
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        decode_f64(self.dtype, &self.data)
    }

    /// All elements as i64.
    ///
    /// # Errors
    /// If the type is not an integer or bool.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        macro_rules! read {
            ($t:ty) => {
                self.data
                    .chunks_exact(size_of::<$t>())
                    .map(|bytes| <$t>::from_le_bytes(bytes.try_into().expect("exact chunk")) as i64)
                    .collect()
            };
        }
        Ok(match self.dtype {
            DType::I64 => read!(i64),
            DType::I32 => read!(i32),
            DType::I16 => read!(i16),
            DType::I8 => read!(i8),
            DType::U64 => read!(u64),
            DType::U32 => read!(u32),
            DType::U16 => read!(u16),
            DType::U8 | DType::Bool => read!(u8),
            other => return Err(Error::invalid(format!("expected integers, found {other}"))),
        })
    }
}

/// The number of elements that `dims` describe, `None` on overflow.
pub fn element_count(dims: &[usize]) -> Option<u64> {
    dims.iter()
        .try_fold(1u64, |count, &dim| count.checked_mul(dim as u64))
}

/// Little-endian `bytes` of `dtype` widened to f64.
///
/// # Errors
/// If the type is not numeric, or `bytes` is not a whole number of elements.
pub fn decode_f64(dtype: DType, bytes: &[u8]) -> Result<Vec<f64>> {
    let size = dtype
        .size()
        .ok_or_else(|| Error::invalid(format!("expected numbers, found {dtype}")))?;
    if !bytes.len().is_multiple_of(size) {
        return Err(Error::invalid(format!(
            "{} bytes are no whole number of {dtype} elements",
            bytes.len()
        )));
    }
    macro_rules! read {
        ($t:ty, $widen:expr) => {
            bytes
                .chunks_exact(size_of::<$t>())
                .map(|bytes| $widen(<$t>::from_le_bytes(bytes.try_into().expect("exact chunk"))))
                .collect()
        };
    }
    Ok(match dtype {
        DType::F32 => read!(f32, f64::from),
        DType::F64 => read!(f64, |x| x),
        DType::F16 => read!(f16, f16::to_f64),
        DType::BF16 => read!(bf16, bf16::to_f64),
        DType::I8 => read!(i8, f64::from),
        DType::U8 | DType::Bool => read!(u8, f64::from),
        DType::I16 => read!(i16, f64::from),
        DType::U16 => read!(u16, f64::from),
        DType::I32 => read!(i32, f64::from),
        DType::U32 => read!(u32, f64::from),
        DType::I64 => read!(i64, |x| x as f64),
        DType::U64 => read!(u64, |x| x as f64),
        other => return Err(Error::invalid(format!("expected numbers, found {other}"))),
    })
}

/// Appends `values` to `out` as little-endian `dtype`, each rounded once (floats: to nearest even; integers: truncated
/// and saturated, as a Cast does inside the range).
///
/// # Errors
/// If the type is not numeric.
pub fn encode_f64(dtype: DType, values: &[f64], out: &mut Vec<u8>) -> Result<()> {
    macro_rules! write {
        ($convert:expr) => {
            for &value in values {
                out.extend_from_slice(&$convert(value).to_le_bytes());
            }
        };
    }
    match dtype {
        DType::F32 => write!(|x| x as f32),
        DType::F64 => write!(|x: f64| x),
        DType::F16 => write!(to_f16),
        DType::BF16 => write!(to_bf16),
        DType::I8 => write!(|x| x as i8),
        DType::U8 => write!(|x| x as u8),
        DType::I16 => write!(|x| x as i16),
        DType::U16 => write!(|x| x as u16),
        DType::I32 => write!(|x| x as i32),
        DType::U32 => write!(|x| x as u32),
        DType::I64 => write!(|x| x as i64),
        DType::U64 => write!(|x| x as u64),
        DType::Bool => write!(|x: f64| u8::from(x != 0.0)),
        other => return Err(Error::invalid(format!("cannot compute in {other}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_length_is_an_error() {
        let error = Tensor::new(DType::F32, vec![2, 3], vec![0; 20]).unwrap_err();
        assert!(
            error.to_string().contains("takes 24 bytes, found 20"),
            "{error}"
        );
        assert!(Tensor::new(DType::F32, vec![usize::MAX, 2], vec![]).is_err());
    }

    #[test]
    fn values_survive_each_numeric_type() {
        for dtype in [
            DType::F16,
            DType::BF16,
            DType::F32,
            DType::F64,
            DType::I8,
            DType::I32,
            DType::I64,
        ] {
            let tensor = Tensor::from_f64(dtype, vec![3], &[1.0, -2.0, 96.0]).unwrap();
            assert_eq!(tensor.to_f64().unwrap(), [1.0, -2.0, 96.0], "{dtype}");
        }
    }

    #[test]
    fn strings_are_no_numbers() {
        assert!(Tensor::from_f64(DType::String, vec![1], &[1.0]).is_err());
    }
}
