//! Tensors: those that are computed, and those whose external data moves to another file.

use std::sync::Arc;

use super::{Encoder, metadata_entry};
use crate::onnx::model::*;
use crate::onnx::segments::{Elements, Segments};
use crate::tensor::element_count;
use crate::wire::Field;
use crate::{Error, Result, proto};
use prost::Message;

/// The keys of `external_data` that are written anew.
const PLACE_KEYS: [&str; 4] = ["location", "offset", "length", "checksum"];

impl Encoder<'_> {
    pub(super) fn initializer(&mut self, id: ValueId) -> Result<Option<Segments>> {
        let value = self.model.value(id);
        match &value.tensor {
            Some(tensor) => self.tensor(tensor, &value.name),
            None => Ok(None),
        }
    }

    /// A tensor that does not stay as it is in the file.
    pub(super) fn tensor(
        &mut self,
        tensor: &Arc<TensorDef>,
        name: &str,
    ) -> Result<Option<Segments>> {
        let encoded = match &tensor.payload {
            Payload::Computed(_) | Payload::Elsewhere(_) => self.computed(tensor, name),
            Payload::External(external) if self.layout.is_some() => self.moved(tensor, external),
            _ => return Ok(None),
        };
        encoded.map(Some).map_err(|error| match error {
            Error::Invalid(_) if !name.is_empty() => error.at(format!("tensor \"{name}\"")),
            error => error,
        })
    }

    /// A tensor whose elements are not in the file: fields that have nothing to do with its type, shape or elements are kept.
    fn computed(&mut self, tensor: &Arc<TensorDef>, name: &str) -> Result<Segments> {
        let old = self.fields(tensor.span.clone().unwrap_or(0..0))?;
        let dtype = self.written_type(tensor);
        let bytes = element_count(&tensor.dims)
            .and_then(|count| dtype.byte_len(count))
            .ok_or_else(|| {
                Error::invalid(format!("{dtype} of shape {:?} has no size", tensor.dims))
            })?;
        let elements = Elements {
            tensor: tensor.clone(),
            dtype,
            bytes,
        };
        let mut out = Segments::default();
        for &dim in tensor.dims.iter() {
            out.varint(1, dim as u64);
        }
        out.varint(2, dtype.to_onnx() as u64);
        if !name.is_empty() {
            out.bytes(8, name.as_bytes());
        }
        let was_external = old
            .iter()
            .any(|field| field.number == 14 && field.value == 1);
        let entries = if was_external {
            self.entries(&old)?
        } else {
            Vec::new()
        };
        let model = self.model;
        let place = match &mut self.layout {
            Some(layout) if was_external => Some(layout.computed(model, elements, &entries)?),
            _ => {
                out.elements(9, elements);
                None
            }
        };
        for field in old
            .iter()
            .filter(|field| !matches!(field.number, 1..=11 | 13 | 14))
        {
            out.copy(field.whole.clone());
        }
        if let Some(place) = place {
            put_place(&mut out, &place, &entries);
        }
        Ok(out)
    }

    /// A stored tensor whose elements go to the output's data file.
    pub(super) fn moved(&mut self, tensor: &TensorDef, external: &External) -> Result<Segments> {
        let bytes = element_count(&tensor.dims).and_then(|count| tensor.dtype.byte_len(count));
        let (source, range) = self.model.external(external, bytes)?;
        let old = self.fields(tensor.span.clone().unwrap_or(0..0))?;
        let entries = self.entries(&old)?;
        let layout = self
            .layout
            .as_mut()
            .ok_or_else(|| Error::invalid("external data has nowhere to go"))?;
        let place = layout.stored(external, source, range);
        let mut out = Segments::default();
        for field in old.iter().filter(|field| !matches!(field.number, 13 | 14)) {
            out.copy(field.whole.clone());
        }
        put_place(&mut out, &place, &entries);
        Ok(out)
    }

    /// The entries of `external_data`.
    fn entries(&mut self, fields: &[Field]) -> Result<Vec<(String, String)>> {
        let mut entries = Vec::new();
        for field in fields.iter().filter(|field| field.number == 13) {
            let bytes = self.window.bytes(field.payload.clone())?;
            let entry = proto::StringStringEntryProto::decode(bytes.as_slice()).unwrap_or_default();
            entries.push((
                entry.key.unwrap_or_default(),
                entry.value.unwrap_or_default(),
            ));
        }
        Ok(entries)
    }
}

fn put_place(out: &mut Segments, place: &External, entries: &[(String, String)]) {
    let mut entry = |key: &str, value: &str| out.bytes(13, &metadata_entry(key, value));
    entry("location", &place.location);
    entry("offset", &place.offset.to_string());
    if let Some(length) = place.length {
        entry("length", &length.to_string());
    }
    if let Some(checksum) = &place.checksum {
        entry("checksum", checksum);
    }
    for (key, value) in entries
        .iter()
        .filter(|(key, _)| !PLACE_KEYS.contains(&key.as_str()))
    {
        entry(key, value);
    }
    out.varint(14, 1);
}
