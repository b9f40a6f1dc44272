//! A graph with the weights of a checkpoint: which tensor of the state dict each constant of the graph is.
//!
//! Names decide. Exporters rename some initializers (a transposed Linear, everything after some optimisers) and merge equal
//! ones, which are then told apart by the Identity nodes that bear the old names. What has no name of the checkpoint is
//! recognised by its content, type and shape (transposed, too), if that leaves one possibility; among several, the one that
//! belongs to the module of the operator's other tensors. Where doubts remain, nothing is tied: the fold then refuses.
//!
//! A tensor that is stored in fewer bits than the graph computes in is widened, which is exact.
//!
//! A tensor that is tied by name is read from the checkpoint, never from the graph: the graph may be exported from another
//! training state of the same network.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bnkit_model::onnx::{
    AttributeValue, Constants, Edit, Model, NewTensor, NodeId, Origin, Recipe, TensorDef, Types,
    ValueId,
};
use bnkit_model::safetensors::{StateDict, Tensor, dtype_of};
use bnkit_model::{DType, Error as ModelError, tensor};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::names;
use crate::{Error, Result};

/// A graph that computes with the tensors of a checkpoint.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The graph.
    pub(crate) model: Model,
    /// Which tensor each constant is.
    values: HashMap<ValueId, Tie>,
    /// The same for what one node reads, where a value stands for several tensors.
    slots: HashMap<(NodeId, usize), Tie>,
    /// How it went.
    pub(crate) report: Binding,
    /// A tensor that the graph has in more bits than the checkpoint, if there is one.
    pub(crate) widened: Option<usize>,
}

/// A constant of the graph that is a tensor of the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tie {
    /// The number of the tensor.
    pub(crate) tensor: usize,
    /// Whether the graph has it transposed (two axes).
    pub(crate) transposed: bool,
}

impl Tie {
    fn turned(self) -> Self {
        Self {
            transposed: !self.transposed,
            ..self
        }
    }
}

/// How the constants of a graph were found in a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// Tensors of the checkpoint that the graph has by name.
    pub by_name: usize,
    /// Tensors that were recognised by content.
    pub by_content: usize,
    /// Float constants of the graph that are in the checkpoint under no name, or under several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmatched_in_graph: Vec<String>,
    /// Float tensors of the checkpoint that the graph does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmatched_in_checkpoint: Vec<String>,
}

impl Bound {
    /// Ties the constants of `graph` to the tensors of `dict`.
    ///
    /// # Errors
    /// If a tensor has another type or shape than the constant of its name, or nothing in the graph is in the checkpoint.
    pub(crate) fn new(graph: &Model, dict: &StateDict) -> Result<Self> {
        let mut bound = Self {
            model: graph.clone(),
            values: HashMap::new(),
            slots: HashMap::new(),
            report: Binding::default(),
            widened: None,
        };
        bound.by_name(graph, dict)?;
        bound.report.by_name = bound.values.len();
        bound.by_content(dict)?;
        if bound.values.is_empty() && bound.slots.is_empty() {
            let path = dict
                .path()
                .map_or(String::new(), |path| path.display().to_string());
            return Err(Error::Request(format!(
                "{path}: no tensor is in the graph, by name or by content: is it the graph of another network?"
            )));
        }
        bound.account(dict);
        Ok(bound)
    }

    /// A graph whose constants are tied by whoever made it.
    pub(crate) fn tied(model: Model, values: HashMap<ValueId, Tie>) -> Self {
        Self {
            report: Binding::default(),
            slots: HashMap::new(),
            widened: None,
            model,
            values,
        }
    }

    /// The tensor that `node` reads in `slot`, behind any number of Identity and Transpose nodes.
    pub(crate) fn tie(&self, node: NodeId, slot: usize) -> Option<Tie> {
        if let Some(tie) = self.slots.get(&(node, slot)) {
            return Some(*tie);
        }
        self.value_tie(self.model.node(node).input(slot)?)
    }

    fn value_tie(&self, mut value: ValueId) -> Option<Tie> {
        const MAX_STEPS: usize = 64;
        let mut turned = false;
        for _ in 0..MAX_STEPS {
            if let Some(&tie) = self.values.get(&value) {
                return Some(if turned { tie.turned() } else { tie });
            }
            let Origin::Node(node, 0) = self.model.value(value).origin else {
                return None;
            };
            let info = self.model.node(node);
            if info.is("Transpose") {
                let swaps = match info.attribute("perm").map(|perm| &perm.value) {
                    Some(AttributeValue::Ints(perm)) => **perm == [1, 0],
                    // Without one, all axes are reversed; a tie that is turned has two.
                    None => true,
                    _ => false,
                };
                if !swaps {
                    return None;
                }
                turned = !turned;
            } else if !info.is("Identity") {
                return None;
            }
            value = info.input(0)?;
        }
        None
    }

    fn by_name(&mut self, graph: &Model, dict: &StateDict) -> Result<()> {
        let types = Types::derive(graph);
        let constants = Constants::new(graph, &types, true);
        let mut edits = Vec::new();
        for (value, name) in named(graph) {
            let Some(place) = dict.position(name) else {
                continue;
            };
            let tensor = &dict.tensors()[place];
            let Ok(own) = constants.tensor(value) else {
                continue;
            };
            check(dict, tensor, &own)?;
            if dtype_of(tensor.dtype) != Some(own.dtype) {
                self.widened.get_or_insert(place);
            }
            let tie = Tie {
                tensor: place,
                transposed: false,
            };
            self.values.insert(value, tie);
            edits.push(borrow(dict, tensor, value, &own));
        }
        Ok(self.model.apply(&edits)?)
    }

    fn by_content(&mut self, dict: &StateDict) -> Result<()> {
        let untied: Vec<ValueId> = initializers(&self.model)
            .filter(|(value, _)| !self.values.contains_key(value))
            .map(|(value, _)| value)
            .collect();
        if untied.is_empty() {
            return Ok(());
        }
        let known = Contents::of(dict, &self.tied_tensors(), &self.wanted(&untied))?;
        let mut candidates: HashMap<ValueId, Vec<Tie>> = HashMap::new();
        for value in untied {
            let Some(def) = &self.model.value(value).tensor else {
                continue;
            };
            // External data that is not there is no reason to fail: nothing is known of it, that is all.
            let Ok(content) = self.model.read_tensor(def) else {
                continue;
            };
            match known.get(&content).as_slice() {
                [] => {}
                [only] => {
                    self.values.insert(value, *only);
                    self.report.by_content += 1;
                }
                several => {
                    candidates.insert(value, several.to_vec());
                }
            }
        }
        self.by_module(dict, &candidates);
        Ok(())
    }

    /// Decides between several tensors of the same content by the module that the operator's other tensors belong to.
    fn by_module(&mut self, dict: &StateDict, candidates: &HashMap<ValueId, Vec<Tie>>) {
        let module = |tie: &Tie| names::module(&dict.tensors()[tie.tensor].name);
        let nodes: Vec<NodeId> = self.model.nodes().map(|(node, _)| node).collect();
        let mut found = Vec::new();
        for node in nodes {
            let inputs = &self.model.node(node).inputs;
            let open: Vec<(usize, &Vec<Tie>)> = inputs
                .iter()
                .enumerate()
                .filter_map(|(slot, input)| Some((slot, candidates.get(&(*input)?)?)))
                .collect();
            if open.is_empty() {
                continue;
            }
            let certain: BTreeSet<&str> = (0..inputs.len())
                .filter_map(|slot| self.tie(node, slot))
                .map(|tie| names::module(&dict.tensors()[tie.tensor].name))
                .collect();
            let possible = match certain.len() {
                0 => common(
                    open.iter()
                        .map(|(_, ties)| ties.iter().map(module).collect()),
                ),
                _ => certain,
            };
            let [only] = Vec::from_iter(possible)[..] else {
                continue;
            };
            for (slot, ties) in open {
                let inside: Vec<&Tie> = ties.iter().filter(|tie| module(tie) == only).collect();
                let role = names::role(node_op(&self.model, node), slot);
                let fits =
                    |tie: &&&Tie| role.is_none_or(|role| role(&dict.tensors()[tie.tensor].name));
                let inside: Vec<&&Tie> = inside.iter().filter(fits).collect();
                if let [tie] = inside[..] {
                    found.push(((node, slot), **tie));
                }
            }
        }
        self.report.by_content += found.len();
        self.slots.extend(found);
    }

    fn tied_tensors(&self) -> BTreeSet<usize> {
        self.values.values().map(|tie| tie.tensor).collect()
    }

    /// Types and shapes that the content of a tensor is worth reading for; both ways for two axes.
    fn wanted(&self, values: &[ValueId]) -> BTreeSet<(i32, Vec<usize>)> {
        let mut wanted = BTreeSet::new();
        for &value in values {
            if let Some(def) = &self.model.value(value).tensor {
                wanted.insert((def.dtype.to_onnx(), def.dims.to_vec()));
                if let [rows, columns] = def.dims[..] {
                    wanted.insert((def.dtype.to_onnx(), vec![columns, rows]));
                }
            }
        }
        wanted
    }

    fn account(&mut self, dict: &StateDict) {
        let mut used = self.tied_tensors();
        used.extend(self.slots.values().map(|tie| tie.tensor));
        let by_slot: BTreeSet<ValueId> = self
            .slots
            .keys()
            .filter_map(|&(node, slot)| self.model.node(node).input(slot))
            .collect();
        let rest = initializers(&self.model)
            .filter(|(value, _)| !self.values.contains_key(value) && !by_slot.contains(value));
        self.report.unmatched_in_graph = rest.map(|(_, name)| name.to_owned()).collect();
        let rest = dict.tensors().iter().enumerate();
        self.report.unmatched_in_checkpoint = rest
            .filter(|(place, tensor)| tensor.is_float() && !used.contains(place))
            .map(|(_, tensor)| tensor.name.clone())
            .collect();
    }
}

fn node_op(model: &Model, node: NodeId) -> &str {
    &model.node(node).op_type
}

/// What is in all of these sets.
fn common<'n>(mut sets: impl Iterator<Item = BTreeSet<&'n str>>) -> BTreeSet<&'n str> {
    let first = sets.next().unwrap_or_default();
    sets.fold(first, |so_far, set| &so_far & &set)
}

/// The values of the main graph that could be parameters, by name: initializers and what is called like one behind an
/// Identity, or written as a Constant.
fn named(model: &Model) -> impl Iterator<Item = (ValueId, &str)> {
    let values = (0..model.value_count()).map(|index| model.value_id(index));
    values.filter_map(|id| {
        let value = model.value(id);
        let usable = match value.origin {
            Origin::Initializer | Origin::Input => value.tensor.is_some(),
            Origin::Node(node, 0) => {
                model.node(node).is("Identity") || model.node(node).is("Constant")
            }
            _ => false,
        };
        (usable && value.scope == model.main()).then_some((id, value.name.as_str()))
    })
}

/// The float initializers of the main graph.
fn initializers(model: &Model) -> impl Iterator<Item = (ValueId, &str)> {
    named(model).filter(|&(value, _)| {
        let tensor = &model.value(value).tensor;
        tensor
            .as_ref()
            .is_some_and(|tensor| tensor.dtype.is_float() && !tensor.dims.is_empty())
    })
}

/// Makes a constant of the graph a tensor of the checkpoint, widened if that is stored in fewer bits.
fn borrow(dict: &StateDict, tensor: &Tensor, value: ValueId, own: &TensorDef) -> Edit {
    let elements = dict.stored(tensor);
    match dtype_of(tensor.dtype) {
        Some(stored) if stored != own.dtype => {
            let base = TensorDef::borrowed(stored, tensor.shape.as_slice().into(), elements);
            let tensor = NewTensor {
                dtype: own.dtype,
                dims: own.dims.clone(),
                recipe: Arc::new(Recipe::of(&base.into())),
            };
            Edit::SetConstant { value, tensor }
        }
        _ => Edit::BorrowConstant {
            value,
            dtype: own.dtype,
            dims: own.dims.clone(),
            elements,
        },
    }
}

/// Whether all numbers of one type are numbers of the other.
fn widens(from: DType, to: DType) -> bool {
    use DType::{BF16, F16, F32, F64};
    from == to || matches!((from, to), (F16 | BF16, F32 | F64) | (F32, F64))
}

/// The tensor of the checkpoint can stand for the constant of the graph.
fn check(dict: &StateDict, tensor: &Tensor, own: &TensorDef) -> Result<()> {
    let message = if *tensor.shape != *own.dims {
        format!(
            "it has shape {:?}, the graph has {:?}: is it the graph of another network?",
            tensor.shape, own.dims
        )
    } else if !dtype_of(tensor.dtype).is_some_and(|dtype| widens(dtype, own.dtype)) {
        format!(
            "it is {}, the graph has {}: export the graph from this checkpoint as it is, or pair by names",
            tensor.dtype, own.dtype
        )
    } else {
        return Ok(());
    };
    Err(dict.in_tensor(tensor, ModelError::invalid(message)).into())
}

/// The tensors of a checkpoint by their content.
struct Contents(HashMap<Key, Vec<Tie>>);

#[derive(PartialEq, Eq, Hash)]
struct Key {
    dtype: i32,
    dims: Vec<usize>,
    digest: [u8; 32],
}

impl Key {
    fn of(tensor: &tensor::Tensor) -> Self {
        Self {
            dtype: tensor.dtype().to_onnx(),
            dims: tensor.dims().to_vec(),
            digest: Sha256::digest(tensor.data()).into(),
        }
    }
}

impl Contents {
    /// Reads the tensors of the wanted types and shapes that are not tied yet.
    fn of(
        dict: &StateDict,
        tied: &BTreeSet<usize>,
        wanted: &BTreeSet<(i32, Vec<usize>)>,
    ) -> Result<Self> {
        let mut known: HashMap<Key, Vec<Tie>> = HashMap::new();
        for (place, tensor) in dict.tensors().iter().enumerate() {
            let Some(dtype) = dtype_of(tensor.dtype).filter(|dtype| dtype.is_float()) else {
                continue;
            };
            let kind = (dtype.to_onnx(), tensor.shape.clone());
            if tied.contains(&place) || !wanted.contains(&kind) {
                continue;
            }
            let content = dict.read(tensor)?;
            let mut add = |content: &tensor::Tensor, transposed| {
                let tie = Tie {
                    tensor: place,
                    transposed,
                };
                known.entry(Key::of(content)).or_default().push(tie);
            };
            add(&content, false);
            if let Some(turned) = content.transposed()
                && turned != content
            {
                add(&turned, true);
            }
        }
        Ok(Self(known))
    }

    fn get(&self, content: &tensor::Tensor) -> Vec<Tie> {
        self.0.get(&Key::of(content)).cloned().unwrap_or_default()
    }
}
