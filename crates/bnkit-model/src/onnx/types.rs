//! Element types and shapes of values, as far as they are certain.
//!
//! A shape can decide whether a fold is right, so only evidence counts: what the main graph's inputs declare (a
//! contract with the caller), constants, and what the operators make of them. The file's `value_info` is a hint that
//! nobody checks; it is not read. Whatever is malformed, unusual or differs between versions of an operator is unknown,
//! and so are the inputs of loop bodies and of local functions, operators of other domains and calls of local functions.
//!
//! One pass forwards: the nodes of each scope in topological order, a node's bodies before its outputs. Beside types,
//! the contents of small integer tensors are followed with symbols in them ([`contents`]), because exporters compute
//! the target of a Reshape from the shape of a batch whose size nobody knows.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `attributes` | attributes: absent, as they should be, or malformed |
//! | `axes` | what the numbers of axes and bounds mean |
//! | `at` | what a rule sees of its node, and arithmetic on dimensions |
//! | `rules` | the table: which operator follows which rule |
//! | `elementwise`, `layout`, `matrix`, `reduce`, `resize`, `window` | the rules, one family a file |
//! | `contents` | shape arithmetic with symbols |

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::model::*;
use super::name::Name;
use crate::DType;
use contents::Item;

mod at;
pub(in crate::onnx) mod attributes;
pub(in crate::onnx) mod axes;
mod contents;
mod elementwise;
mod layout;
mod matrix;
mod reduce;
mod resize;
mod rules;
mod window;

/// Shapes of more axes than this are not followed, so that a file cannot make them grow from node to node.
pub(in crate::onnx) const MAX_RANK: usize = 64;

/// Bodies are nested at most as deep as the loader allows; this only bounds the recursion.
const MAX_DEPTH: usize = 64;

/// Derived element types and shapes, by value. Values that are newer than the table are unknown to it.
#[derive(Debug, Clone, Default)]
pub struct Types {
    facts: Vec<Known>,
    /// Every shape of `facts`, in one copy: most values of a network have one of a few.
    shapes: HashSet<Arc<[Dim]>>,
    /// Small integer tensors, by their elements, as far as these are known.
    contents: HashMap<ValueId, Vec<Item>>,
    /// Local functions that hide an operator of ONNX's own.
    hidden: HashSet<Name>,
}

/// What is known of one value, as it is kept.
#[derive(Debug, Clone, Default)]
struct Known {
    dtype: Option<DType>,
    dims: Option<Arc<[Dim]>>,
}

/// What is known of one value, as rules find it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fact {
    dtype: Option<DType>,
    dims: Option<Vec<Dim>>,
}

impl Fact {
    fn new(dtype: Option<DType>, dims: Option<Vec<Dim>>) -> Self {
        let dims = dims.filter(|dims| dims.len() <= MAX_RANK);
        Self { dtype, dims }
    }

    fn of_tensor(tensor: &TensorDef) -> Self {
        let dims = tensor.dims.iter().map(|&dim| Dim::Known(dim as u64));
        Self::new(Some(tensor.dtype), Some(dims.collect()))
    }

    /// What the caller promises to pass. Some old exporters write a size of 0 where they mean an unknown one.
    fn of_contract(declared: &TensorType) -> Self {
        let dim = |dim: &Dim| match dim {
            Dim::Known(0) => Dim::Unknown,
            other => other.clone(),
        };
        let dims = declared.dims.as_ref();
        Self::new(
            Some(declared.dtype).filter(|dtype| *dtype != DType::Other(0)),
            dims.map(|dims| dims.iter().map(dim).collect()),
        )
    }

    /// What holds of a value that is one of two.
    fn either(self, other: &Self) -> Self {
        let dims = match (self.dims, &other.dims) {
            (Some(a), Some(b)) if a.len() == b.len() => {
                let same = |(a, b): (Dim, &Dim)| if a == *b { a } else { Dim::Unknown };
                Some(a.into_iter().zip(b).map(same).collect())
            }
            _ => None,
        };
        Self {
            dtype: self.dtype.filter(|dtype| other.dtype == Some(*dtype)),
            dims,
        }
    }
}

impl Types {
    /// Derives types and shapes for all values of `model`.
    pub fn derive(model: &Model) -> Self {
        let hidden = model.scopes().filter_map(|(_, scope)| match &scope.kind {
            ScopeKind::Function { domain, name } if domain.is_empty() || domain == "ai.onnx" => {
                Some(name.clone())
            }
            _ => None,
        });
        let mut types = Self {
            facts: vec![Known::default(); model.value_count()],
            shapes: HashSet::new(),
            contents: HashMap::new(),
            hidden: hidden.collect(),
        };
        for index in 0..model.value_count() {
            let value = ValueId::new(index);
            types.learn(value, types.leaf(model, model.value(value)));
        }
        types.scope(model, model.main(), 0);
        for (id, scope) in model.scopes() {
            if matches!(scope.kind, ScopeKind::Function { .. }) {
                types.scope(model, id, 0);
            }
        }
        types
    }

    /// The element type of `value`, if certain.
    pub fn dtype(&self, value: ValueId) -> Option<DType> {
        self.facts.get(value.index())?.dtype
    }

    /// The dimensions of `value`, if at least its rank is certain.
    pub fn dims(&self, value: ValueId) -> Option<&[Dim]> {
        self.facts.get(value.index())?.dims.as_deref()
    }

    /// The number of axes of `value`, if certain.
    pub fn rank(&self, value: ValueId) -> Option<usize> {
        self.dims(value).map(<[Dim]>::len)
    }

    /// The size of `value` along `axis`, if certain.
    pub fn dim(&self, value: ValueId, axis: usize) -> Option<u64> {
        self.dims(value)?.get(axis)?.known()
    }

    /// Whether `node` is an operator of ONNX's own, and not a call of a local function of that name.
    pub(in crate::onnx) fn is_own(&self, node: &Node) -> bool {
        node.domain.is_empty() && !self.hidden.contains(&node.op_type)
    }

    /// The elements of a small integer tensor that shape arithmetic determined completely.
    pub(in crate::onnx) fn known_contents(&self, value: ValueId) -> Option<Vec<i64>> {
        let known = |item: &Item| match item {
            Item::Int(value) => Some(*value),
            _ => None,
        };
        self.contents.get(&value)?.iter().map(known).collect()
    }

    fn learn(&mut self, value: ValueId, Fact { dtype, dims }: Fact) {
        let dims = dims.map(|dims| match self.shapes.get(dims.as_slice()) {
            Some(shape) => shape.clone(),
            None => {
                let shape: Arc<[Dim]> = dims.into();
                self.shapes.insert(shape.clone());
                shape
            }
        });
        self.facts[value.index()] = Known { dtype, dims };
    }

    fn fact(&self, value: ValueId) -> Fact {
        Fact {
            dtype: self.dtype(value),
            dims: self.dims(value).map(<[Dim]>::to_vec),
        }
    }

    fn leaf(&self, model: &Model, value: &Value) -> Fact {
        match (value.origin, &value.tensor) {
            (Origin::Initializer, Some(tensor)) => Fact::of_tensor(tensor),
            (Origin::Input, tensor) if value.scope == model.main() => match tensor {
                Some(tensor) if model.ir_version < 4 => Fact::of_tensor(tensor),
                _ => value
                    .declared
                    .as_ref()
                    .map(|declared| Fact::of_contract(declared))
                    .unwrap_or_default(),
            },
            _ => Fact::default(),
        }
    }

    fn scope(&mut self, model: &Model, scope: ScopeId, depth: usize) {
        let Ok(order) = model.topological_order(scope) else {
            return;
        };
        if depth > MAX_DEPTH {
            return;
        }
        let opset = model.scope(scope).onnx_opset().unwrap_or(1);
        for id in order {
            let bodies: Vec<ScopeId> = model.bodies(id).collect();
            for &body in &bodies {
                self.scope(model, body, depth + 1);
            }
            let node = model.node(id);
            if !self.is_own(node) {
                continue;
            }
            let facts = match node.op_type.as_str() {
                "If" => self.branches(model, &bodies),
                _ => rules::outputs(&at::At::new(model, self, node, opset)),
            };
            for (slot, fact) in facts.into_iter().enumerate() {
                if let Some(output) = node.output(slot) {
                    self.learn(output, fact);
                }
            }
            if let Some(output) = node.output(0) {
                let known = &self.facts[output.index()];
                let items = contents::of(&at::At::new(model, self, node, opset), known);
                self.contents.extend(items.map(|items| (output, items)));
            }
        }
    }

    /// The outputs of an If: what both branches agree on.
    fn branches(&self, model: &Model, bodies: &[ScopeId]) -> Vec<Fact> {
        let &[a, b] = bodies else { return Vec::new() };
        let (a, b) = (&model.scope(a).outputs, &model.scope(b).outputs);
        if a.len() != b.len() {
            return Vec::new();
        }
        let pairs = a.iter().zip(b);
        pairs
            .map(|(&a, &b)| self.fact(a).either(&self.fact(b)))
            .collect()
    }
}
