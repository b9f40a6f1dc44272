//! Nodes and attributes.

use super::carried::Carried;
use super::{Encoder, put};
use crate::onnx::model::*;
use crate::onnx::segments::Segments;
use crate::{Error, Result};

impl Encoder<'_> {
    /// A node. Of one that an edit touched, everything but its inputs, outputs and attributes is copied.
    pub(super) fn node(&mut self, id: NodeId) -> Result<Option<Segments>> {
        let node = self.model.node(id);
        let Some(span) = &node.span else {
            return self.new_node(id).map(Some);
        };
        let place = |error: Error| error.at(self.model.describe(id));
        let mut attributes = Vec::with_capacity(node.attributes.len());
        for attribute in &node.attributes {
            attributes.push((attribute, self.attribute(attribute).map_err(place)?));
        }
        if !node.dirty && attributes.iter().all(|(_, replaced)| replaced.is_none()) {
            return Ok(None);
        }
        let payload = self.field(span)?.payload;
        let fields = self.fields(payload)?;
        let mut out = Segments::default();
        if !node.dirty {
            let mut attributes = attributes.into_iter();
            for field in fields {
                let replaced = match field.number {
                    5 => attributes.next().and_then(|(_, replaced)| replaced),
                    _ => None,
                };
                put(&mut out, 5, replaced, field.whole);
            }
            return Ok(Some(out));
        }
        // Inputs, outputs and attributes have the numbers 1, 2 and 5, so this is the order of the numbers.
        self.names(&mut out, 1, &node.inputs);
        self.names(&mut out, 2, &node.outputs);
        for field in fields.iter().filter(|field| matches!(field.number, 3 | 4)) {
            out.copy(field.whole.clone());
        }
        for (attribute, replaced) in attributes {
            put(
                &mut out,
                5,
                replaced,
                attribute.span.clone().unwrap_or(0..0),
            );
        }
        for field in fields.iter().filter(|field| field.number > 5) {
            out.copy(field.whole.clone());
        }
        Ok(Some(out))
    }

    fn new_node(&mut self, id: NodeId) -> Result<Segments> {
        let node = self.model.node(id);
        let mut out = Segments::default();
        self.names(&mut out, 1, &node.inputs);
        self.names(&mut out, 2, &node.outputs);
        if !node.name.is_empty() {
            out.bytes(3, node.name.as_bytes());
        }
        out.bytes(4, node.op_type.as_bytes());
        for attribute in &node.attributes {
            let encoded = self
                .attribute(attribute)
                .map_err(|error| error.at(self.model.describe(id)))?;
            out.message(5, encoded.unwrap_or_default());
        }
        if !node.domain.is_empty() {
            out.bytes(7, node.domain.as_bytes());
        }
        Ok(out)
    }

    fn names(&self, out: &mut Segments, number: u32, values: &[Option<ValueId>]) {
        for value in values {
            let name = value.map_or("", |id| self.model.value(id).name.as_str());
            out.bytes(number, name.as_bytes());
        }
    }

    /// An attribute: one that an edit made, or one in which something changed.
    fn attribute(&mut self, attribute: &Attribute) -> Result<Option<Segments>> {
        let Some(span) = &attribute.span else {
            return self.new_attribute(attribute).map(Some);
        };
        let bodies: &[ScopeId] = match &attribute.value {
            AttributeValue::Graph(body) => std::slice::from_ref(body),
            AttributeValue::Graphs(bodies) => bodies,
            AttributeValue::Tensor(tensor) => {
                let Some(mut replaced) = self.tensor(tensor, "")? else {
                    return Ok(None);
                };
                let start = tensor.span.as_ref().map(|span| span.start);
                return self.rebuilt(span, |number, payload| {
                    let is_it = number == 5 && Some(payload.start) == start;
                    is_it.then(|| std::mem::take(&mut replaced))
                });
            }
            AttributeValue::Other if self.layout.is_some() => {
                return self.carried_field(Carried::Attribute, span);
            }
            _ => return Ok(None),
        };
        let mut replaced = Vec::with_capacity(bodies.len());
        for &body in bodies {
            replaced.push(self.scope(body)?);
        }
        if replaced.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut replaced = replaced.into_iter();
        self.rebuilt(span, |number, _| match number {
            6 | 11 => replaced.next().flatten(),
            _ => None,
        })
    }

    /// The attribute in `span`, with some of its fields replaced.
    fn rebuilt(
        &mut self,
        span: &Span,
        mut replace: impl FnMut(u32, &Span) -> Option<Segments>,
    ) -> Result<Option<Segments>> {
        let payload = self.field(span)?.payload;
        let mut out = Segments::default();
        for field in self.fields(payload)? {
            let replaced = replace(field.number, &field.payload);
            put(&mut out, field.number, replaced, field.whole);
        }
        Ok(Some(out))
    }

    fn new_attribute(&mut self, attribute: &Attribute) -> Result<Segments> {
        let mut out = Segments::default();
        out.bytes(1, attribute.name.as_bytes());
        let kind = match &attribute.value {
            AttributeValue::Float(value) => {
                out.float(2, *value);
                1
            }
            AttributeValue::Int(value) => {
                out.varint(3, *value as u64);
                2
            }
            AttributeValue::String(value) => {
                out.bytes(4, value);
                3
            }
            AttributeValue::Tensor(tensor) => {
                let encoded = self.tensor(tensor, "")?;
                let encoded = encoded.or_else(|| tensor.span.clone().map(copied));
                out.message(5, encoded.unwrap_or_default());
                4
            }
            AttributeValue::Floats(values) => {
                values.iter().for_each(|value| out.float(7, *value));
                6
            }
            AttributeValue::Ints(values) => {
                values.iter().for_each(|value| out.varint(8, *value as u64));
                7
            }
            AttributeValue::Graph(_)
            | AttributeValue::Graphs(_)
            | AttributeValue::Reference(_)
            | AttributeValue::Other => {
                let message = format!("attribute \"{}\" cannot be made anew", attribute.name);
                return Err(Error::invalid(message));
            }
        };
        out.varint(20, kind);
        Ok(out)
    }
}

fn copied(span: Span) -> Segments {
    let mut out = Segments::default();
    out.copy(span);
    out
}
