//! Element types of tensors, as ONNX numbers them (`TensorProto.DataType`).

use std::fmt;

use half::{bf16, f16};

/// The element type of a tensor. Types without a name here are carried as [`DType::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary32 (ONNX 1).
    F32,
    /// Unsigned 8-bit integer (ONNX 2).
    U8,
    /// Signed 8-bit integer (ONNX 3).
    I8,
    /// Unsigned 16-bit integer (ONNX 4).
    U16,
    /// Signed 16-bit integer (ONNX 5).
    I16,
    /// Signed 32-bit integer (ONNX 6).
    I32,
    /// Signed 64-bit integer (ONNX 7).
    I64,
    /// UTF-8 strings (ONNX 8); they have no fixed size and no raw form.
    String,
    /// Boolean, one byte each (ONNX 9).
    Bool,
    /// IEEE 754 binary16 (ONNX 10).
    F16,
    /// IEEE 754 binary64 (ONNX 11).
    F64,
    /// Unsigned 32-bit integer (ONNX 12).
    U32,
    /// Unsigned 64-bit integer (ONNX 13).
    U64,
    /// bfloat16: the upper half of a binary32 (ONNX 16).
    BF16,
    /// Any other ONNX type (complex, 8-bit floats, 4-bit and 2-bit types …), by its number.
    Other(i32),
}

impl DType {
    /// The type with this `TensorProto.DataType` number.
    pub fn from_onnx(number: i32) -> Self {
        match number {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            8 => Self::String,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            13 => Self::U64,
            16 => Self::BF16,
            other => Self::Other(other),
        }
    }

    /// The `TensorProto.DataType` number of this type.
    pub fn to_onnx(self) -> i32 {
        match self {
            Self::F32 => 1,
            Self::U8 => 2,
            Self::I8 => 3,
            Self::U16 => 4,
            Self::I16 => 5,
            Self::I32 => 6,
            Self::I64 => 7,
            Self::String => 8,
            Self::Bool => 9,
            Self::F16 => 10,
            Self::F64 => 11,
            Self::U32 => 12,
            Self::U64 => 13,
            Self::BF16 => 16,
            Self::Other(number) => number,
        }
    }

    /// Bits of one element, or `None` where ONNX gives no fixed size (strings, unknown types).
    pub fn bits(self) -> Option<u64> {
        Some(match self {
            Self::U8 | Self::I8 | Self::Bool => 8,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 16,
            Self::F32 | Self::I32 | Self::U32 => 32,
            Self::F64 | Self::I64 | Self::U64 => 64,
            Self::String => return None,
            Self::Other(number) => match number {
                14 => 64,          // complex64
                15 => 128,         // complex128
                17..=20 | 24 => 8, // float8 variants
                21..=23 => 4,      // uint4, int4, float4e2m1
                25 | 26 => 2,      // uint2, int2
                _ => return None,
            },
        })
    }

    /// Bytes that `count` elements occupy in `raw_data` (sub-byte types are packed), `None` if unknown or too large.
    pub fn byte_len(self, count: u64) -> Option<u64> {
        Some(self.bits()?.checked_mul(count)?.div_ceil(8))
    }

    /// Bytes of one element, for types of whole bytes.
    pub fn size(self) -> Option<usize> {
        self.bits()
            .filter(|bits| bits % 8 == 0)
            .map(|bits| (bits / 8) as usize)
    }

    /// Whether arithmetic is done in this type: f16, bf16, f32, f64.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Whether this is an integer type of whole bytes (bool excluded).
    pub fn is_integer(self) -> bool {
        matches!(
            self,
            Self::U8
                | Self::I8
                | Self::U16
                | Self::I16
                | Self::I32
                | Self::I64
                | Self::U32
                | Self::U64
        )
    }

    /// The largest finite magnitude of a float type.
    pub fn max_finite(self) -> Option<f64> {
        Some(match self {
            Self::F16 => 65504.0,
            Self::BF16 => bf16::MAX.to_f64(),
            Self::F32 => f64::from(f32::MAX),
            Self::F64 => f64::MAX,
            _ => return None,
        })
    }

    /// `value` rounded once to this type (nearest, ties to even) and widened again; unchanged for types that are neither
    /// floats nor integers. Integers do not saturate here.
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::F16 => to_f16(value).to_f64(),
            Self::BF16 => to_bf16(value).to_f64(),
            Self::F32 => f64::from(value as f32),
            integer if integer.is_integer() => value.round_ties_even(),
            _ => value,
        }
    }
}

/// `value` as f16, rounded once. `f16::from_f64` goes by way of f32 where the processor has the conversion, and drops the
/// lower half of the fraction where not: it rounds twice, or not to nearest.
pub(crate) fn to_f16(value: f64) -> f16 {
    f16::from_f32(round_to_odd(value))
}

/// `value` as bfloat16, rounded once.
pub(crate) fn to_bf16(value: f64) -> bf16 {
    bf16::from_f32(round_to_odd(value))
}

/// `value` as f32, where an inexact result has its last bit set. Rounding that once more, to a type at least two bits
/// shorter, gives what rounding `value` itself would have given.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if !nearest.is_finite() || f64::from(nearest) == value {
        return nearest;
    }
    let away = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::F32 => "float32",
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::String => "string",
            Self::Bool => "bool",
            Self::F16 => "float16",
            Self::F64 => "float64",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::BF16 => "bfloat16",
            Self::Other(number) => return write!(f, "type {number}"),
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for number in 0..40 {
            assert_eq!(DType::from_onnx(number).to_onnx(), number);
        }
    }

    #[test]
    fn sub_byte_types_are_packed() {
        assert_eq!(DType::Other(22).byte_len(3), Some(2));
        assert_eq!(DType::F32.byte_len(u64::MAX), None);
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        assert_eq!(DType::F16.round(2049.0), 2048.0);
        assert_eq!(DType::F16.round(2051.0), 2052.0);
        assert_eq!(DType::BF16.round(257.0), 256.0);
    }

    #[test]
    fn rounding_happens_once() {
        // A hair above a tie: f32 in between would make it a tie, and the tie goes down.
        let hair = 2f64.powi(-40);
        assert_eq!(
            DType::F16.round(1.0 + 2f64.powi(-11) + hair),
            1.0 + 2f64.powi(-10)
        );
        assert_eq!(DType::F16.round(1.0 + 2f64.powi(-11) - hair), 1.0);
        assert_eq!(
            DType::F16.round(-1.0 - 3.0 * 2f64.powi(-11) + hair),
            -1.0 - 2f64.powi(-10)
        );
        assert_eq!(
            DType::BF16.round(1.0 + 2f64.powi(-8) + hair),
            1.0 + 2f64.powi(-7)
        );
        // Subnormals and the ends of the range.
        assert_eq!(DType::F16.round(2f64.powi(-25)), 0.0);
        assert_eq!(
            DType::F16.round(2f64.powi(-25) + 2f64.powi(-60)),
            2f64.powi(-24)
        );
        assert_eq!(DType::F16.round(65519.999), 65504.0);
        assert_eq!(DType::F16.round(65520.0), f64::INFINITY);
        assert_eq!(DType::F16.round(1e300), f64::INFINITY);
        assert_eq!(DType::BF16.round(-1e39), f64::NEG_INFINITY);
        assert!(DType::F16.round(f64::NAN).is_nan());
    }
}
