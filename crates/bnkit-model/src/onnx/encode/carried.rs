//! External tensors in the parts of a model that are carried and not understood (sparse tensors, lists of tensors,
//! training information): when external data moves, they have to be told where to.

use super::{Encoder, put};
use crate::onnx::load;
use crate::onnx::model::{Payload, Span};
use crate::onnx::segments::Segments;
use crate::{Error, Result};

/// A kind of message that may have a tensor in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Carried {
    Training,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Carried {
    /// The kind of message in field `number`.
    fn inside(self, number: u32) -> Option<Self> {
        Some(match (self, number) {
            (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Graph, 1) => Self::Node,
            (Self::Node, 5) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            _ => return None,
        })
    }
}

/// Three messages to a nested graph, as many graphs as the loader accepts.
const MAX_DEPTH: usize = 100;

impl Encoder<'_> {
    /// The field that `span` is, if there are external tensors in it.
    pub(super) fn carried_field(&mut self, kind: Carried, span: &Span) -> Result<Option<Segments>> {
        let payload = self.field(span)?.payload;
        self.carried(kind, payload, 0)
    }

    fn carried(&mut self, kind: Carried, span: Span, depth: usize) -> Result<Option<Segments>> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid("graphs are nested too deeply"));
        }
        if let Carried::Tensor = kind {
            let (name, tensor) = load::tensor(&mut self.window, span)?;
            return match &tensor.payload {
                Payload::External(_) => self.tensor(&tensor.into(), &name),
                _ => Ok(None),
            };
        }
        let mut changed = false;
        let mut out = Segments::default();
        for field in self.fields(span)? {
            let replaced = match kind.inside(field.number) {
                Some(inside) => self.carried(inside, field.payload, depth + 1)?,
                None => None,
            };
            changed |= replaced.is_some();
            put(&mut out, field.number, replaced, field.whole);
        }
        Ok(changed.then_some(out))
    }
}
