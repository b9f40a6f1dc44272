//! The list of edits: what may be done to a model, as values.
//!
//! Whoever wants to change a model describes the change as [`Edit`]s, from `&Model`; `apply.rs` is the only code that
//! carries them out. An edit cannot refuse: it is the caller who proved that it is right.

use std::sync::Arc;

use super::model::*;
use super::recipe::Recipe;
use crate::DType;
use crate::stored::Stored;

/// A value as an edit names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// A value of the model.
    Value(ValueId),
    /// The value of this (fresh) name, which an earlier edit of the same list made, or which this output makes.
    New(String),
}

impl From<ValueId> for Operand {
    fn from(value: ValueId) -> Self {
        Self::Value(value)
    }
}

/// A tensor to put in place of, or beside, those of the file.
#[derive(Debug, Clone)]
pub struct NewTensor {
    /// The element type it is rounded to.
    pub dtype: DType,
    /// Its dimensions.
    pub dims: Arc<[usize]>,
    /// How it is computed.
    pub recipe: Arc<Recipe>,
}

impl NewTensor {
    /// As a tensor of a model.
    pub fn into_def(self) -> TensorDef {
        TensorDef::computed(self.dtype, self.dims, self.recipe)
    }
}

/// One change to a model.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Takes a node (without bodies) out; what it wrote is gone unless a later [`Edit::SetOutput`] takes it over.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// Makes a node read `value` in `slot`; slots between are absent.
    SetInput {
        /// The node.
        node: NodeId,
        /// The input slot.
        slot: usize,
        /// What it reads from now on.
        value: Operand,
    },
    /// Makes an input slot of a node absent.
    RemoveInput {
        /// The node.
        node: NodeId,
        /// The input slot.
        slot: usize,
    },
    /// Makes a node write `value` in `slot`: an orphan of a removed node, or a fresh name. What it wrote is gone.
    SetOutput {
        /// The node.
        node: NodeId,
        /// The output slot.
        slot: usize,
        /// What it writes from now on.
        value: Operand,
    },
    /// Drops all outputs from `keep` on.
    TruncateOutputs {
        /// The node.
        node: NodeId,
        /// How many outputs stay.
        keep: usize,
    },
    /// Sets an attribute, in place or at the end.
    SetAttribute {
        /// The node.
        node: NodeId,
        /// The attribute.
        name: String,
        /// Its new content.
        value: AttributeValue,
    },
    /// Removes an attribute.
    RemoveAttribute {
        /// The node.
        node: NodeId,
        /// The attribute.
        name: String,
    },
    /// Makes every node that reads `value` read `by`; outputs of scopes are not touched.
    ReplaceUses {
        /// The value that is read now.
        value: ValueId,
        /// What is read from now on; visible wherever `value` is read.
        by: ValueId,
    },
    /// Gives a constant another content, under the same name. If a Constant node held it, an initializer does now
    /// (in a function, which has none, a Constant node still does).
    SetConstant {
        /// The constant.
        value: ValueId,
        /// Its new content.
        tensor: NewTensor,
    },
    /// Gives an initializer the elements of another checkpoint, as they are there.
    BorrowConstant {
        /// The initializer.
        value: ValueId,
        /// The element type.
        dtype: DType,
        /// Its dimensions.
        dims: Arc<[usize]>,
        /// Where the elements are; exactly as many bytes as type and dimensions say.
        elements: Stored,
    },
    /// Adds a constant under a fresh name.
    AddConstant {
        /// Where.
        scope: ScopeId,
        /// Its name.
        name: String,
        /// Its content.
        tensor: NewTensor,
    },
    /// Drops initializers that nobody reads. All at once costs about as much as one.
    DropConstants {
        /// The initializers.
        values: Vec<ValueId>,
    },
    /// Takes a value out of the outputs of its scope; outputs behind it move up.
    DropOutput {
        /// The scope.
        scope: ScopeId,
        /// Which output.
        slot: usize,
    },
    /// Adds a node of ONNX's own domain right behind another.
    AddNode {
        /// The node it comes after.
        after: NodeId,
        /// Its operator.
        op_type: &'static str,
        /// Its name.
        name: String,
        /// What it reads.
        inputs: Vec<Operand>,
        /// What it writes.
        outputs: Vec<Operand>,
    },
    /// Adds a node of ONNX's own domain in front of another of its scope, or behind all of them.
    InsertNode {
        /// Where.
        scope: ScopeId,
        /// The node that comes next; `None` for the end.
        before: Option<NodeId>,
        /// Its operator.
        op_type: String,
        /// Its name.
        name: String,
        /// What it reads; `None` where an optional input is absent.
        inputs: Vec<Option<Operand>>,
        /// What it writes.
        outputs: Vec<Operand>,
        /// Its attributes.
        attributes: Vec<(String, AttributeValue)>,
    },
    /// Sets an entry of the model's `metadata_props`.
    SetMetadata {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
}
