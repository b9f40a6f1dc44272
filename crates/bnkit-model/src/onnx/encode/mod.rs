//! The model as a message again: what nobody touched is copied as a range of the file, what changed is encoded field by
//! field with the fields that this crate does not know, and what contains it is encoded around it.
//!
//! This file walks along the model message and the scopes, `node` encodes nodes and attributes, `tensor` tensors,
//! `carried` finds external tensors in the parts of a model that are only carried along.

mod carried;
mod node;
mod tensor;

use prost::Message;

use self::carried::Carried;
use super::layout::Layout;
use super::model::*;
use super::segments::{Segment, Segments};
use crate::source::Window;
use crate::wire::{Field, Fields};
use crate::{DType, Error, Result, proto};

/// How computed constants are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Rounded once, to the type they are stored in.
    Stored,
    /// Not rounded: floats (and the int32 of quantised biases) as `DOUBLE`, whatever their type was. For proofs; the types of such a graph do not match.
    Exact,
}

impl Model {
    /// The model as a file would hold it. External tensors stay references; computed ones are put inside.
    ///
    /// # Errors
    /// If a tensor cannot be read or computed.
    pub fn to_bytes(&self, precision: Precision) -> Result<Vec<u8>> {
        let segments = Encoder::new(self, precision, None).model()?;
        let mut out = Vec::with_capacity(usize::try_from(segments.len()).unwrap_or(0));
        for segment in segments.iter() {
            match segment {
                Segment::File(range) => {
                    let start = out.len();
                    out.resize(start + (range.end - range.start) as usize, 0);
                    self.source.read_at(range.start, &mut out[start..])?;
                }
                Segment::Bytes(bytes) => out.extend_from_slice(bytes),
                Segment::Elements(elements) => {
                    self.write_elements(&elements.tensor, elements.dtype, &mut |part| {
                        out.extend_from_slice(part);
                        Ok(())
                    })?;
                }
            }
        }
        debug_assert_eq!(out.len() as u64, segments.len());
        Ok(out)
    }
}

/// Encodes a model. Its functions return the content of a message that has to be written anew, `None` where the file's
/// own will do.
pub(super) struct Encoder<'m> {
    model: &'m Model,
    window: Window<'m>,
    precision: Precision,
    /// Where external tensors go; `None` leaves them where they are.
    layout: Option<&'m mut Layout>,
}

impl<'m> Encoder<'m> {
    pub(super) fn new(
        model: &'m Model,
        precision: Precision,
        layout: Option<&'m mut Layout>,
    ) -> Self {
        Self {
            model,
            window: Window::new(model.source()),
            precision,
            layout,
        }
    }

    /// The whole model.
    pub(super) fn model(self) -> Result<Segments> {
        let path = self.model.source().path();
        self.fields_of_model().map_err(|error| match path {
            Some(path) => error.in_file(path),
            None => error,
        })
    }

    fn fields_of_model(mut self) -> Result<Segments> {
        let model = self.model;
        let mut out = Segments::default();
        let mut entries = model.metadata.iter();
        for item in &model.items {
            let span = item.span.clone().unwrap_or(0..0);
            match &item.kind {
                ItemKind::Scope(id) => {
                    let number = if *id == model.main() { 7 } else { 25 };
                    put(&mut out, number, self.scope(*id)?, span);
                }
                ItemKind::Metadata => {
                    // Edits change values and append entries, so the n-th field is still the n-th entry.
                    if let Some((key, value)) = entries.next() {
                        put(&mut out, 14, self.metadata(key, value, &span)?, span);
                    }
                }
                ItemKind::Other(20) if self.layout.is_some() => {
                    let replaced = self.carried_field(Carried::Training, &span)?;
                    put(&mut out, 20, replaced, span);
                }
                _ => out.copy(span),
            }
        }
        for (key, value) in entries {
            out.bytes(14, &metadata_entry(key, value));
        }
        Ok(out)
    }

    fn metadata(&mut self, key: &str, value: &str, span: &Span) -> Result<Option<Segments>> {
        if !self.model.metadata_dirty {
            return Ok(None);
        }
        let field = self.field(span)?;
        let bytes = self.window.bytes(field.payload)?;
        let stored = proto::StringStringEntryProto::decode(bytes.as_slice()).unwrap_or_default();
        if stored.key() == key && stored.value() == value {
            return Ok(None);
        }
        let mut out = Segments::default();
        out.bytes(1, key.as_bytes());
        out.bytes(2, value.as_bytes());
        Ok(Some(out))
    }

    /// A graph or function.
    fn scope(&mut self, id: ScopeId) -> Result<Option<Segments>> {
        let scope = self.model.scope(id);
        let function = matches!(scope.kind, ScopeKind::Function { .. });
        let mut changed = scope.dirty;
        let mut out = Segments::default();
        let number = if function { 7 } else { 1 };
        let mut next = scope.ends.first;
        for item in scope.items.iter().chain(&scope.added) {
            let (number, replaced) = match &item.kind {
                // An edit removed it, or declares it anew.
                ItemKind::Node(node) if !self.model.node(*node).alive => continue,
                ItemKind::Initializer(value) | ItemKind::Input(value) if !self.stands(*value) => {
                    continue;
                }
                ItemKind::ValueInfo(value) if scope.dirty && !self.is_living(scope, *value) => {
                    continue;
                }
                ItemKind::Node(node) => {
                    changed |= self.nodes(&mut out, number, &mut next, Some(*node))?;
                    continue;
                }
                ItemKind::Initializer(value) => (5, self.initializer(*value)?),
                ItemKind::Input(value) if item.span.is_none() || scope.outdated.contains(value) => {
                    (11, Some(self.value_info(*value)?))
                }
                ItemKind::Other(number) => (*number, self.other(*number, function, item)?),
                _ => (0, None),
            };
            changed |= replaced.is_some();
            put_item(&mut out, number, replaced, item.span.as_ref())?;
        }
        changed |= self.nodes(&mut out, number, &mut next, None)?;
        Ok(changed.then_some(out))
    }

    /// The nodes from `next` to `last`, and the new ones behind it; all that are left without a `last`. Whether any of them had to be
    /// encoded.
    fn nodes(
        &mut self,
        out: &mut Segments,
        number: u32,
        next: &mut Option<NodeId>,
        last: Option<NodeId>,
    ) -> Result<bool> {
        let mut changed = false;
        let mut passed = false;
        while let Some(id) = *next {
            let node = self.model.node(id);
            if passed && !node.is_new() {
                break;
            }
            let replaced = self.node(id)?;
            changed |= replaced.is_some();
            put_item(out, number, replaced, node.span.as_ref())?;
            passed |= last == Some(id);
            *next = self.model.next_node(id);
        }
        Ok(changed)
    }

    /// Whether a constant or input is still one.
    fn stands(&self, id: ValueId) -> bool {
        let origin = self.model.value(id).origin;
        matches!(origin, Origin::Initializer | Origin::Input)
    }

    /// A field of a graph or function that is only carried along, but may hold external tensors.
    fn other(&mut self, number: u32, function: bool, item: &Item) -> Result<Option<Segments>> {
        let kind = match number {
            11 if function => Carried::Attribute,
            15 if !function => Carried::Sparse,
            _ => return Ok(None),
        };
        match &item.span {
            Some(span) if self.layout.is_some() => self.carried_field(kind, span),
            _ => Ok(None),
        }
    }

    /// Whether what the file says of a value still holds.
    fn is_living(&self, scope: &Scope, value: Option<ValueId>) -> bool {
        value.is_some_and(|value| {
            self.model.value(value).origin != Origin::Removed && !scope.outdated.contains(&value)
        })
    }

    /// The declaration of a constant that is an input too (before IR version 4).
    fn value_info(&mut self, id: ValueId) -> Result<Segments> {
        let value = self.model.value(id);
        let Some(tensor) = &value.tensor else {
            return Err(Error::invalid(format!(
                "the input \"{}\" was added without a value",
                value.name
            )));
        };
        let mut shape = Segments::default();
        for &dim in tensor.dims.iter() {
            let mut size = Segments::default();
            size.varint(1, dim as u64);
            shape.message(1, size);
        }
        let mut kind = Segments::default();
        kind.varint(1, self.written_type(tensor).to_onnx() as u64);
        kind.message(2, shape);
        let mut declared = Segments::default();
        declared.message(1, kind);
        let mut out = Segments::default();
        out.bytes(1, value.name.as_bytes());
        out.message(2, declared);
        Ok(out)
    }

    /// The type in which a tensor is written.
    fn written_type(&self, tensor: &TensorDef) -> DType {
        let computed = matches!(tensor.payload, Payload::Computed(_));
        match self.precision {
            // A computed int32 is a quantised bias: it has digits behind the point until it is stored.
            Precision::Exact
                if computed && (tensor.dtype.is_float() || tensor.dtype == DType::I32) =>
            {
                DType::F64
            }
            _ => tensor.dtype,
        }
    }

    /// The fields of the message in `span`.
    fn fields(&mut self, span: Span) -> Result<Vec<Field>> {
        let mut fields = Fields::new(&mut self.window, span);
        let mut all = Vec::new();
        while let Some(field) = fields.next()? {
            all.push(field);
        }
        Ok(all)
    }

    /// The one field that `span` is.
    fn field(&mut self, span: &Span) -> Result<Field> {
        let field = Fields::new(&mut self.window, span.clone()).next()?;
        field.ok_or_else(|| Error::invalid("a field of the file is empty"))
    }
}

/// As [`put`], of something that is in no file if it has no `span`.
fn put_item(
    out: &mut Segments,
    number: u32,
    replaced: Option<Segments>,
    span: Option<&Span>,
) -> Result<()> {
    match (replaced, span) {
        (replaced, Some(span)) => put(out, number, replaced, span.clone()),
        (Some(added), None) => out.message(number, added),
        (None, None) => return Err(Error::invalid("an added thing cannot be encoded")),
    }
    Ok(())
}

/// Appends field `number`: `replaced`, or else what the file has in `span`.
fn put(out: &mut Segments, number: u32, replaced: Option<Segments>, span: Span) {
    match replaced {
        Some(message) => out.message(number, message),
        None => out.copy(span),
    }
}

/// The content of an entry of `metadata_props` or `external_data`.
fn metadata_entry(key: &str, value: &str) -> Vec<u8> {
    let entry = proto::StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    entry.encode_to_vec()
}
