//! Reading the header of a tensor: its type, its shape, and where its elements are.

use std::sync::Arc;

use prost::Message;

use super::{decode, is_bytes};
use crate::onnx::model::{External, Payload, Span, TensorDef};
use crate::source::Window;
use crate::tensor::element_count;
use crate::wire::{Fields, WireType, malformed};
use crate::{DType, Error, Limits, Result, proto};

/// What the fields of a `TensorProto` say, before it is checked.
#[derive(Default)]
struct Header {
    name: String,
    dims: Vec<i64>,
    dtype: i32,
    raw: Option<Span>,
    /// Bytes of the typed fields.
    typed: u64,
    external: bool,
    entries: Vec<(String, String)>,
}

impl Header {
    fn read(window: &mut Window<'_>, span: Span) -> Result<Self> {
        let most = usize::try_from(Limits::get().tensor_rank).unwrap_or(usize::MAX);
        let mut header = Self::default();
        let mut fields = Fields::new(window, span);
        while let Some(field) = fields.next()? {
            match field.number {
                1 if field.wire == WireType::Varint => header.dims.push(field.value as i64),
                1 => {
                    let bytes = fields.window().bytes(field.whole.clone())?;
                    let packed = proto::TensorProto::decode(bytes.as_slice());
                    let packed =
                        packed.map_err(|error| malformed(field.whole.start, &error.to_string()))?;
                    header.dims.extend(packed.dims);
                }
                2 => header.dtype = field.value as i32,
                8 => {
                    is_bytes(&field)?;
                    header.name = fields.window().text(field.payload)?;
                }
                9 => {
                    is_bytes(&field)?;
                    header.raw = Some(field.payload);
                }
                // An empty string has no payload, but a tag.
                6 => header.typed += field.whole.end - field.whole.start,
                4 | 5 | 7 | 10 | 11 => header.typed += field.payload.end - field.payload.start,
                13 => {
                    let entry: proto::StringStringEntryProto =
                        decode(fields.window(), &field, "external_data")?;
                    let entry = (
                        entry.key.unwrap_or_default(),
                        entry.value.unwrap_or_default(),
                    );
                    header.entries.push(entry);
                }
                14 => header.external = field.value == 1,
                _ => {}
            }
            // One more than there may be is enough to know; the name may come later.
            header.dims.truncate(most.saturating_add(1));
        }
        if header.dims.len() > most {
            let message = format!("has more than {most} dimensions");
            return Err(Error::invalid(message).at(format!("tensor \"{}\"", header.name)));
        }
        Ok(header)
    }

    fn check(self, span: Span) -> Result<TensorDef> {
        let dim = |&dim: &i64| {
            usize::try_from(dim).map_err(|_| Error::invalid(format!("a dimension is {dim}")))
        };
        let dims = self
            .dims
            .iter()
            .map(dim)
            .collect::<Result<Arc<[usize]>>>()?;
        let dtype = DType::from_onnx(self.dtype);
        // Where a type has a size at all, that of the tensor must be a number of bytes a machine could have.
        let fits = |&count: &u64| {
            let bytes = dtype.bits().map_or(Some(count), |_| dtype.byte_len(count));
            count <= isize::MAX as u64 && bytes.is_some_and(|bytes| bytes <= isize::MAX as u64)
        };
        let count = element_count(&dims)
            .filter(fits)
            .ok_or_else(|| Error::invalid(format!("the shape {dims:?} overflows")))?;
        let payload = self.payload(dtype, &dims, count)?;
        Ok(TensorDef {
            dtype,
            dims,
            payload,
            span: Some(span),
        })
    }

    fn payload(self, dtype: DType, dims: &[usize], count: u64) -> Result<Payload> {
        let expected = dtype.byte_len(count);
        let mismatch = |expected: u64, found: String| {
            Err(Error::invalid(format!(
                "a {dtype} tensor of shape {dims:?} takes {expected} bytes, {found}"
            )))
        };
        if self.external {
            let external = external_entry(&self.entries)?;
            return match (external.length, expected) {
                (Some(found), Some(expected)) if found != expected => {
                    mismatch(expected, format!("its external data has {found}"))
                }
                _ => Ok(Payload::External(external.into())),
            };
        }
        if let Some(raw) = self.raw.filter(|raw| self.typed == 0 || !raw.is_empty()) {
            let found = raw.end - raw.start;
            return match expected {
                Some(expected) if expected != found => mismatch(expected, format!("found {found}")),
                _ => Ok(Payload::Raw(raw)),
            };
        }
        // Every element of a typed field takes at least a byte, or a quarter of one where sub-byte types are packed
        // (complex values take more); the exact count is checked when the elements are read.
        if count > self.typed.saturating_mul(4) {
            let message = format!(
                "a {dtype} tensor of shape {dims:?} has {count} elements, found {} bytes of data",
                self.typed
            );
            return Err(Error::invalid(message));
        }
        Ok(Payload::Typed)
    }
}

/// Reads the header of the tensor in `span` and checks that the payload has the size that it says.
pub(in crate::onnx) fn tensor(window: &mut Window<'_>, span: Span) -> Result<(String, TensorDef)> {
    let mut header = Header::read(window, span.clone())?;
    let name = std::mem::take(&mut header.name);
    match header.check(span) {
        Ok(tensor) => Ok((name, tensor)),
        Err(error) => Err(error.at(format!("tensor \"{name}\""))),
    }
}

/// The name of the tensor in `span`, whatever the rest of it says.
pub(super) fn tensor_name(window: &mut Window<'_>, span: Span) -> Result<String> {
    Header::read(window, span).map(|header| header.name)
}

fn external_entry(entries: &[(String, String)]) -> Result<External> {
    let mut external = External {
        location: String::new(),
        offset: 0,
        length: None,
        checksum: None,
    };
    for (key, value) in entries {
        let number = || {
            let wrong = |_| {
                Error::invalid(format!(
                    "the external data's {key} \"{value}\" is no number of bytes"
                ))
            };
            value.parse::<u64>().map_err(wrong)
        };
        match key.as_str() {
            "location" => external.location = value.clone(),
            "offset" => external.offset = number()?,
            "length" => external.length = Some(number()?),
            "checksum" => external.checksum = Some(value.clone()),
            _ => {}
        }
    }
    if external.location.is_empty() {
        return Err(Error::invalid("the external data names no file"));
    }
    Ok(external)
}
