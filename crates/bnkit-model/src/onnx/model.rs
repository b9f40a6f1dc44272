//! The model as a graph: scopes, nodes, values and tensors, in arenas that are addressed by small ids.
//!
//! Every name is resolved once, when the model is loaded: a node holds the ids of the values it reads and writes, a
//! value knows who reads it, from whatever scope. Each thing that came from a file remembers the byte range it came
//! from, so that what nobody touches is written as it was read.
//!
//! Readers get `&Model`. All changes go through [`Model::apply`](crate::onnx::Edit), in `edit.rs`.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use super::external::ExternalFiles;
use super::meanings::{Bearers, Meanings};
use super::name::Name;
use super::order::{Ends, Neighbours};
use super::recipe::Recipe;
use super::uses::{Use, Uses};
use crate::DType;
use crate::source::Source;
use crate::stored::Stored;

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("Addresses ", $what, " of a [`Model`].")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(NonZeroU32);

        impl $name {
            pub(crate) fn new(index: usize) -> Self {
                // One more, so that an absent id takes no more room than one.
                let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
                Self(number.expect("a file holds fewer than 2^32 things"))
            }

            /// The position in the arena; ids are dense, so this can index a side table.
            pub fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    };
}
id!(
    ScopeId,
    "a scope: the main graph, a body, or a local function"
);
id!(NodeId, "a node");
id!(
    ValueId,
    "a value: an input, a constant, or what a node computes"
);

/// A range of bytes of the model file.
pub type Span = Range<u64>;

/// An ONNX model.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) source: Arc<Source>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) externals: Arc<ExternalFiles>,
    /// The IR version; 0 if the file has none.
    pub ir_version: i64,
    /// Name and version of the tool that wrote the file, as far as given.
    pub producer: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) values: Vec<Value>,
    pub(crate) items: Vec<Item>,
    pub(crate) metadata: Vec<(String, String)>,
    /// Whether an edit changed `metadata`, so that it has to be compared with what the file holds.
    pub(crate) metadata_dirty: bool,
    /// The names of values of all scopes but the main graph, whose own table has the others.
    pub(crate) inner_names: Bearers,
    /// The names of the nodes that stand in the graph, once a fresh one was asked for.
    pub(crate) node_names: OnceLock<Bearers>,
}

/// What kind of scope this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeKind {
    /// The model's graph.
    Main,
    /// A graph attribute of a node (If, Loop, Scan …).
    Body {
        /// The node that owns the attribute.
        owner: NodeId,
        /// The attribute's name.
        attribute: Name,
    },
    /// A model-local function.
    Function {
        /// Its domain.
        domain: Name,
        /// Its name: the `op_type` of nodes that call it.
        name: Name,
    },
}

/// A namespace with its nodes: the main graph, a body, or a local function.
#[derive(Debug, Clone)]
pub struct Scope {
    /// What it is.
    pub kind: ScopeKind,
    /// The scope whose values are visible too; `None` for the main graph and for functions.
    pub parent: Option<ScopeId>,
    /// The inputs, in order.
    pub inputs: Vec<ValueId>,
    /// The outputs, in order.
    pub outputs: Vec<ValueId>,
    /// Constants that are initializers of this scope, in file order.
    pub initializers: Vec<ValueId>,
    /// Operator sets: domain ("" for ONNX's own) and version.
    pub opsets: Arc<Vec<(String, i64)>>,
    pub(crate) names: Meanings,
    pub(crate) ends: Ends,
    /// The fields of the file, also of what edits removed; copies of a model share them.
    pub(crate) items: Arc<Vec<Item>>,
    /// Initializers and inputs that edits added. (Nodes of edits stand among the others, by `neighbours`.)
    pub(crate) added: Vec<Item>,
    /// Values whose declaration in the file, as an input or by a `value_info`, holds no longer.
    pub(crate) outdated: HashSet<ValueId>,
    pub(crate) dirty: bool,
}

impl Scope {
    /// The version of ONNX's own operators that is in force here.
    pub fn onnx_opset(&self) -> Option<i64> {
        let version = |wanted: &str| self.opsets.iter().find(|(domain, _)| domain == wanted);
        version("")
            .or_else(|| version("ai.onnx"))
            .map(|&(_, version)| version)
    }
}

/// One field of a graph, function or model message, in file order: what the writer walks along.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub kind: ItemKind,
    /// The whole field, tag included; `None` for what an edit added.
    pub span: Option<Span>,
}

impl Item {
    /// What an edit added.
    pub(crate) fn added(kind: ItemKind) -> Self {
        Self { kind, span: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ItemKind {
    Node(NodeId),
    Initializer(ValueId),
    Input(ValueId),
    Output(ValueId),
    /// A type annotation for a value; `None` if no value has the name.
    ValueInfo(Option<ValueId>),
    /// The graph or function of this scope (in the model message).
    Scope(ScopeId),
    Metadata,
    /// Anything else, by field number: copied.
    Other(u32),
}

/// The values in the slots of a node. As many as a BatchNorm has need no list of their own.
pub type Slots = SmallVec<[Option<ValueId>; 5]>;

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands.
    pub scope: ScopeId,
    /// Its name; may be empty, and need not be unique.
    pub name: Name,
    /// The operator.
    pub op_type: Name,
    /// The operator's domain; "" is ONNX's own ("ai.onnx" is read as "").
    pub domain: Name,
    /// What it reads; `None` where an optional input is absent. Never ends with `None`.
    pub inputs: Slots,
    /// What it writes; `None` where an optional output is absent. Never ends with `None`.
    pub outputs: Slots,
    /// Its attributes, in file order.
    pub attributes: Vec<Attribute>,
    /// Whether it still stands in the graph.
    pub alive: bool,
    /// Whether it calls a model-local function, which may have the name of an operator.
    pub calls_function: bool,
    pub(crate) neighbours: Neighbours,
    pub(crate) span: Option<Span>,
    pub(crate) dirty: bool,
}

impl Node {
    /// The input in `slot`, if present.
    pub fn input(&self, slot: usize) -> Option<ValueId> {
        self.inputs.get(slot).copied().flatten()
    }

    /// The output in `slot`, if present.
    pub fn output(&self, slot: usize) -> Option<ValueId> {
        self.outputs.get(slot).copied().flatten()
    }

    /// Whether this is ONNX's own operator `op_type`.
    pub fn is(&self, op_type: &str) -> bool {
        self.domain.is_empty() && self.op_type == op_type && !self.calls_function
    }

    /// Whether an edit made it: it stands in no file.
    pub fn is_new(&self) -> bool {
        self.span.is_none()
    }

    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
    }
}

/// An attribute of a node.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// Its name.
    pub name: Name,
    /// What it holds.
    pub value: AttributeValue,
    /// The whole field in the node, tag included; `None` for what an edit added.
    pub(crate) span: Option<Span>,
}

impl Attribute {
    /// What a Constant node holds.
    pub(crate) fn constant(tensor: TensorDef) -> Self {
        Self {
            name: "value".into(),
            value: AttributeValue::Tensor(tensor.into()),
            span: None,
        }
    }
}

/// What an attribute holds.
#[derive(Debug, Clone)]
pub enum AttributeValue {
    /// One float.
    Float(f32),
    /// One integer.
    Int(i64),
    /// A string, by its bytes.
    String(Vec<u8>),
    /// Floats.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// A tensor.
    Tensor(Arc<TensorDef>),
    /// A body.
    Graph(ScopeId),
    /// Several bodies.
    Graphs(Vec<ScopeId>),
    /// In a local function: the value of the calling node's attribute of this name.
    Reference(String),
    /// Anything else (strings, types, sparse tensors …): carried.
    Other,
}

impl AttributeValue {
    /// Whether two attributes say the same. Those that hold something other than numbers and strings are not looked into.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Floats(a), Self::Floats(b)) => a == b,
            (Self::Ints(a), Self::Ints(b)) => a == b,
            (Self::Reference(a), Self::Reference(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An input of its scope; if it also has a tensor, that is its default.
    Input,
    /// An initializer of its scope.
    Initializer,
    /// An output of a node.
    Node(NodeId, usize),
    /// Nothing any more: its producer was removed by an edit.
    Removed,
}

/// A value: one name in one scope.
#[derive(Debug, Clone)]
pub struct Value {
    /// The scope that defines it.
    pub scope: ScopeId,
    /// Its name.
    pub name: Name,
    /// Where it comes from.
    pub origin: Origin,
    /// Its content, for an initializer.
    pub tensor: Option<Arc<TensorDef>>,
    /// Who reads it.
    pub uses: Uses,
    /// Whether one of those is an annotation.
    pub(crate) annotated: bool,
    /// The type that the file declares for it: a contract for inputs, a hint elsewhere.
    pub declared: Option<Arc<TensorType>>,
}

impl Value {
    /// A value that nobody reads yet.
    pub(crate) fn new(scope: ScopeId, name: Name, origin: Origin) -> Self {
        Self {
            scope,
            name,
            origin,
            tensor: None,
            uses: Uses::default(),
            annotated: false,
            declared: None,
        }
    }

    /// Who reads it, if it is read once.
    pub fn only_use(&self) -> Option<Use> {
        self.uses.only()
    }

    /// Whether a quantization annotation or training information names it.
    pub fn is_annotated(&self) -> bool {
        self.annotated
    }

    /// Whether a scope returns it.
    pub fn is_output(&self) -> bool {
        self.uses.iter().any(|user| matches!(user, Use::Output(..)))
    }
}

/// A declared tensor type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// The element type.
    pub dtype: DType,
    /// The dimensions; `None` for an unknown rank.
    pub dims: Option<Vec<Dim>>,
}

/// One dimension of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known.
    Known(u64),
    /// Named: equal to every other dimension of that name.
    Symbol(Arc<str>),
    /// Unknown.
    Unknown,
}

impl Dim {
    /// The size, if known.
    pub fn known(&self) -> Option<u64> {
        match self {
            Self::Known(size) => Some(*size),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(size) => write!(f, "{size}"),
            Self::Symbol(name) => f.write_str(name),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// A tensor of the model, by its header; the elements stay where they are until someone reads them.
#[derive(Debug, Clone)]
pub struct TensorDef {
    /// The element type.
    pub dtype: DType,
    /// The dimensions. Those of a file's tensors are shared: many are of the same shape.
    pub dims: Arc<[usize]>,
    /// Where the elements are.
    pub payload: Payload,
    /// The `TensorProto` message, without tag and length.
    pub(crate) span: Option<Span>,
}

impl TensorDef {
    /// A tensor that is not in the file: what `recipe` makes.
    pub fn computed(dtype: DType, dims: Arc<[usize]>, recipe: Arc<Recipe>) -> Self {
        Self {
            dtype,
            dims,
            payload: Payload::Computed(recipe),
            span: None,
        }
    }

    /// A tensor whose elements are those of another checkpoint.
    pub fn borrowed(dtype: DType, dims: Arc<[usize]>, elements: Stored) -> Self {
        Self {
            dtype,
            dims,
            payload: Payload::Elsewhere(elements),
            span: None,
        }
    }

    /// Whether two tensors are the same by what they say of themselves: the same bytes, or the same recipe.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = match (&self.payload, &other.payload) {
            (Payload::Raw(a), Payload::Raw(b)) => a == b,
            (Payload::Typed, Payload::Typed) => self.span.is_some() && self.span == other.span,
            (Payload::External(a), Payload::External(b)) => a == b,
            (Payload::Elsewhere(a), Payload::Elsewhere(b)) => a.is_same(b),
            (Payload::Computed(a), Payload::Computed(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same && self.dtype == other.dtype && self.dims == other.dims
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where the elements of a tensor are.
#[derive(Debug, Clone)]
pub enum Payload {
    /// In `raw_data`, at this range of the model file.
    Raw(Span),
    /// In the typed fields (`float_data`, `int32_data` …) of the message.
    Typed,
    /// In another file.
    External(Arc<External>),
    /// In another checkpoint, in the form of `raw_data`.
    Elsewhere(Stored),
    /// Nowhere yet: computed when it is written or read.
    Computed(Arc<Recipe>),
}

/// A part of an external data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The file, relative to the model's folder, as the model says.
    pub location: String,
    /// Where the elements begin, in bytes.
    pub offset: u64,
    /// How many bytes they take; `None` if not given.
    pub length: Option<u64>,
    /// The `checksum` entry (SHA-1, hexadecimal), if given.
    pub checksum: Option<String>,
}
