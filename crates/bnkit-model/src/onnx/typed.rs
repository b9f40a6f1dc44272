//! Tensors whose elements are in typed fields (`float_data`, `int32_data` …): the same elements as `raw_data` has them.

use std::ops::Range;
use std::sync::Arc;

use super::model::{Span, TensorDef};
use crate::source::{Source, Window};
use crate::wire::{Field, Fields, WireType, malformed};
use crate::{DType, Error, Result};

/// The field that holds elements of a type, and how many bytes of its values are kept for each.
#[derive(Clone, Copy)]
enum Layout {
    /// Fixed-size values, as they are.
    Fixed { field: u32, wire: WireType },
    /// Varints, of which the lower bytes count.
    Varints { field: u32, bytes: usize },
}

impl Layout {
    fn of(dtype: DType) -> Option<Self> {
        let varints = |field, bytes| Some(Self::Varints { field, bytes });
        match dtype {
            DType::F32 | DType::Other(14) => Some(Self::Fixed {
                field: 4,
                wire: WireType::Fixed32,
            }),
            DType::F64 | DType::Other(15) => Some(Self::Fixed {
                field: 10,
                wire: WireType::Fixed64,
            }),
            DType::I64 => varints(7, 8),
            DType::U64 => varints(11, 8),
            DType::U32 => varints(11, 4),
            DType::I32 => varints(5, 4),
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => varints(5, 2),
            _ if dtype.bits()? <= 8 => varints(5, 1),
            _ => None,
        }
    }
}

/// Where the elements of `tensor` are, or else a copy of them.
pub(super) fn locate(
    source: &Arc<Source>,
    tensor: &TensorDef,
) -> Result<(Arc<Source>, Range<u64>)> {
    let layout = Layout::of(tensor.dtype).ok_or_else(|| {
        Error::invalid(format!("elements of {} have no fixed size", tensor.dtype))
    })?;
    let (Layout::Fixed { field: number, .. } | Layout::Varints { field: number, .. }) = layout;
    let parts = fields(source, tensor.span.clone().unwrap_or(0..0), |field| {
        field.number == number
    })?;
    if let (Layout::Fixed { .. }, [part]) = (layout, parts.as_slice())
        && part.wire == WireType::Bytes
    {
        return Ok((source.clone(), part.payload.clone()));
    }
    let mut out = Vec::new();
    for part in &parts {
        let bytes = source.read(part.payload.clone())?;
        match (layout, part.wire) {
            (Layout::Fixed { .. }, WireType::Bytes) => out.extend_from_slice(&bytes),
            (Layout::Fixed { wire, .. }, found) if found == wire => out.extend_from_slice(&bytes),
            (Layout::Varints { bytes: keep, .. }, WireType::Bytes | WireType::Varint) => {
                varints(&bytes, keep, &mut out)
                    .ok_or_else(|| malformed(part.whole.start, "a varint is cut off"))?;
            }
            _ => {
                return Err(malformed(
                    part.whole.start,
                    "elements of a tensor have the wrong wire type",
                ));
            }
        }
    }
    let length = out.len() as u64;
    Ok((Arc::new(Source::memory(out)), 0..length))
}

/// The name of the tensor in `span`, for messages.
pub(super) fn name(source: &Source, span: Span) -> Option<String> {
    let field = fields(source, span, |field| field.number == 8)
        .ok()?
        .pop()?;
    Window::new(source).text(field.payload).ok()
}

fn fields(source: &Source, span: Span, wanted: impl Fn(&Field) -> bool) -> Result<Vec<Field>> {
    let mut window = Window::new(source);
    let mut fields = Fields::new(&mut window, span);
    let mut found = Vec::new();
    while let Some(field) = fields.next()? {
        if wanted(&field) {
            found.push(field);
        }
    }
    Ok(found)
}

/// Appends the lower `keep` bytes of each varint in `bytes`; `None` if the last one is cut off.
fn varints(bytes: &[u8], keep: usize, out: &mut Vec<u8>) -> Option<()> {
    let (mut value, mut shift) = (0u64, 0);
    for &byte in bytes {
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            out.extend_from_slice(&value.to_le_bytes()[..keep]);
            (value, shift) = (0, 0);
        }
    }
    (shift == 0).then_some(())
}
