//! From a folded graph back to the checkpoint: which tensors get which content, which are new, which go.
//!
//! A state dict can say less than a graph: each tensor has one content, wherever its module is called, and there are no
//! operators to add. So a fold of the graph is carried back only where changing tensors says the same; where not, this says
//! which BatchNorms have to be left alone, and why, and the fold is planned again without them.
//!
//! What must be true for each tensor: all operators that still read it want the same content. For each BatchNorm: all its
//! calls are gone, or none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bnkit_model::onnx::{
    AttributeValue, Base, Constants, Model, Node, NodeId, Payload, Recipe, TensorDef, Types,
    ValueId,
};
use bnkit_model::safetensors::{StateDict, dtype_of};

use super::bind::{Bound, Tie};
use super::groups::BatchNormGroup;
use super::names;
use crate::Result;
use crate::fold::Plan;
use crate::report::Refusal;
use crate::route::{Route, Side};

/// What a fold does to a checkpoint; tensors by their number.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Tensors with another content.
    pub(crate) replaced: BTreeMap<usize, New>,
    /// Biases that did not exist, each behind the weight it belongs to.
    pub(crate) added: BTreeMap<usize, (String, New)>,
    /// Tensors that go.
    pub(crate) dropped: BTreeSet<usize>,
}

/// A new content.
#[derive(Debug, Clone)]
pub(crate) enum New {
    /// A tensor of the folded graph.
    Folded {
        /// The tensor.
        tensor: TensorDef,
        /// Whether the checkpoint has it with its two axes exchanged.
        transposed: bool,
    },
    /// Elements.
    Values(bnkit_model::Tensor),
}

/// BatchNorms that must be left alone, and why.
pub(crate) type Conflicts = BTreeMap<NodeId, Refusal>;

/// A plan and what it is carried back to.
pub(crate) struct Carrier<'c> {
    pub(crate) bound: &'c Bound,
    pub(crate) dict: &'c StateDict,
    pub(crate) groups: &'c [BatchNormGroup],
    pub(crate) folded: &'c Model,
    pub(crate) routes: &'c [Route],
    /// Names of biases to be, by weight, where they do not follow from the weight's name.
    pub(crate) biases: &'c HashMap<usize, String>,
    readers: HashMap<usize, Vec<(NodeId, usize)>>,
    conflicts: Conflicts,
}

/// What one input of an operator becomes.
#[derive(Debug)]
struct Use {
    node: NodeId,
    slot: usize,
    tensor: TensorDef,
    transposed: bool,
}

/// What the operators want of the tensors.
#[derive(Debug, Default)]
struct Wanted {
    replaced: BTreeMap<usize, Vec<Use>>,
    /// New biases, by the weight.
    added: BTreeMap<usize, Vec<Use>>,
}

impl<'c> Carrier<'c> {
    pub(crate) fn new(
        bound: &'c Bound,
        dict: &'c StateDict,
        groups: &'c [BatchNormGroup],
        plan: &'c Plan,
        biases: &'c HashMap<usize, String>,
    ) -> Self {
        let mut readers: HashMap<usize, Vec<(NodeId, usize)>> = HashMap::new();
        for (id, node) in bound.model.nodes() {
            if node.is("Identity") || node.is("Transpose") {
                continue;
            }
            for slot in 0..node.inputs.len() {
                if let Some(tie) = bound.tie(id, slot) {
                    readers.entry(tie.tensor).or_default().push((id, slot));
                }
            }
        }
        Self {
            bound,
            dict,
            groups,
            folded: plan.apply(),
            routes: &plan.routes,
            biases,
            readers,
            conflicts: Conflicts::new(),
        }
    }

    /// What the plan does to the checkpoint, or which BatchNorms it must leave alone.
    ///
    /// # Errors
    /// If the graph cannot be read.
    pub(crate) fn carry(mut self) -> Result<std::result::Result<Changes, Conflicts>> {
        let mut changes = Changes::default();
        self.drop_groups(&mut changes);
        let mut wanted = self.wanted()?;
        self.add_zeros(&mut wanted);
        self.settle(&wanted, &mut changes)?;
        Ok(match self.conflicts.is_empty() {
            true => Ok(changes),
            false => Err(self.conflicts),
        })
    }

    /// Whether a node of the original stands in the folded graph.
    pub(crate) fn stands(&self, node: NodeId) -> bool {
        self.folded.node(node).alive
    }

    /// The BatchNorms whose affine went into `node`.
    pub(crate) fn sites_into(&self, node: NodeId) -> Vec<NodeId> {
        let into = |route: &&Route| route.absorbed.iter().any(|absorbed| absorbed.node == node);
        self.routes
            .iter()
            .filter(into)
            .map(|route| route.site)
            .collect()
    }

    fn refuse(&mut self, sites: impl IntoIterator<Item = NodeId>, refusal: &Refusal) {
        for site in sites {
            self.conflicts
                .entry(site)
                .or_insert_with(|| refusal.clone());
        }
    }

    fn refuse_into(&mut self, node: NodeId, refusal: &Refusal) {
        self.refuse(self.sites_into(node), refusal);
    }

    /// The BatchNorms that are gone take their tensors along.
    fn drop_groups(&mut self, changes: &mut Changes) {
        let gone: BTreeSet<NodeId> = self.routes.iter().map(|route| route.site).collect();
        let mut by_group: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
        for &node in &gone {
            match group_of(self.bound, self.dict, self.groups, node) {
                Some(group) => by_group.entry(group).or_default().push(node),
                None => {
                    let refusal = Refusal::new(
                        "not-in-checkpoint",
                        "the checkpoint does not say which of its BatchNorms this is: not all of its parameters are there, or several have the same content",
                    );
                    self.refuse([node], &refusal);
                }
            }
        }
        for (group, nodes) in by_group {
            let tensors = tensors_of(&self.groups[group]);
            let places: Vec<usize> = tensors
                .iter()
                .filter_map(|name| self.dict.position(name))
                .collect();
            let still_read = places
                .iter()
                .flat_map(|place| self.readers.get(place).into_iter().flatten())
                .find(|(reader, _)| self.stands(*reader));
            if let Some(&(reader, _)) = still_read {
                let refusal = Refusal::new(
                    "module-called-twice",
                    format!(
                        "{} reads the parameters of \"{}\" too, and stays",
                        self.bound.model.describe(reader),
                        self.groups[group].module
                    ),
                )
                .with("reader", self.bound.model.label(reader));
                self.refuse(nodes, &refusal);
                continue;
            }
            changes.dropped.extend(places);
        }
    }

    /// What the operators that absorbed something want of their tensors.
    fn wanted(&mut self) -> Result<Wanted> {
        let before_types = Types::derive(&self.bound.model);
        let after_types = Types::derive(self.folded);
        let before = Constants::new(&self.bound.model, &before_types, true);
        let after = Constants::new(self.folded, &after_types, true);
        let mut wanted = Wanted::default();
        let changed: BTreeSet<NodeId> = self
            .routes
            .iter()
            .flat_map(|route| route.absorbed.iter().map(|absorbed| absorbed.node))
            .filter(|&node| self.stands(node))
            .collect();
        for node in changed {
            if let Err(refusal) = self.of_node(node, &before, &after, &mut wanted) {
                self.refuse_into(node, &refusal);
            }
        }
        let new: Vec<NodeId> = self
            .folded
            .nodes()
            .filter(|(id, node)| node.is_new() && id.index() >= self.bound.model.node_count())
            .map(|(id, _)| id)
            .collect();
        for node in new {
            self.of_new_node(node, &after, &mut wanted);
        }
        Ok(wanted)
    }

    fn of_node(
        &self,
        id: NodeId,
        before: &Constants<'_>,
        after: &Constants<'_>,
        wanted: &mut Wanted,
    ) -> std::result::Result<(), Refusal> {
        let (was, is) = (self.bound.model.node(id), self.folded.node(id));
        let inexpressible = |what: &str| {
            Refusal::new(
                "not-expressible",
                format!(
                    "{} would have to change in {what}, which no tensor can say",
                    self.bound.model.describe(id)
                ),
            )
        };
        if !same_attributes(was, is) {
            return Err(inexpressible("its attributes"));
        }
        for slot in 0..was.inputs.len().max(is.inputs.len()) {
            let (old, new) = match (was.input(slot), is.input(slot)) {
                (None, None) => continue,
                (Some(_), None) => return Err(inexpressible("its inputs")),
                (None, Some(new)) => {
                    let tensor = after.tensor(new).map_err(|_| inexpressible("its inputs"))?;
                    self.add(id, slot, Arc::unwrap_or_clone(tensor), wanted)?;
                    continue;
                }
                (Some(old), Some(new)) => (old, new),
            };
            // What is no constant is data.
            let Ok(old_tensor) = before.tensor(old) else {
                continue;
            };
            let new_tensor = after.tensor(new).map_err(|_| inexpressible("its inputs"))?;
            if same(&old_tensor, &new_tensor) {
                continue;
            }
            if slot == 2 && self.bound.tie(id, slot).is_none() && is_zero(before, old) {
                // Some exporters write a bias of zeros where the module has none.
                self.add(id, slot, Arc::unwrap_or_clone(new_tensor), wanted)?;
                continue;
            }
            let name = &self.bound.model.value(old).name;
            let tie = self.bound.tie(id, slot).ok_or_else(|| not_there(name))?;
            if old_tensor.dims != new_tensor.dims || old_tensor.dtype != new_tensor.dtype {
                return Err(inexpressible(&format!("the shape of \"{name}\"")));
            }
            wanted.replaced.entry(tie.tensor).or_default().push(Use {
                node: id,
                slot,
                tensor: Arc::unwrap_or_clone(new_tensor),
                transposed: tie.transposed,
            });
        }
        Ok(())
    }

    /// A bias where there was none.
    fn add(
        &self,
        node: NodeId,
        slot: usize,
        mut tensor: TensorDef,
        wanted: &mut Wanted,
    ) -> std::result::Result<(), Refusal> {
        let model = &self.bound.model;
        let weight = (0..model.node(node).inputs.len()).find_map(|slot| self.bound.tie(node, slot));
        let Some(Tie { tensor: weight, .. }) = weight else {
            return Err(not_there(&format!(
                "the weight of {}",
                model.describe(node)
            )));
        };
        let count = tensor.dims.iter().copied().max().unwrap_or(1);
        if tensor.len() != count {
            return Err(Refusal::new(
                "not-expressible",
                format!(
                    "{} would need a bias of shape {:?}",
                    model.describe(node),
                    tensor.dims
                ),
            ));
        }
        tensor.dims = [count].into();
        wanted.added.entry(weight).or_default().push(Use {
            node,
            slot,
            tensor,
            transposed: false,
        });
        Ok(())
    }

    /// The Add behind a MatMul, which is the bias of a Linear; other new operators cannot be said.
    fn of_new_node(&mut self, id: NodeId, after: &Constants<'_>, wanted: &mut Wanted) {
        let node = self.folded.node(id);
        let inputs: Vec<ValueId> = node.inputs.iter().copied().flatten().collect();
        let producer = |value| {
            let (producer, _) = self.folded.producer(value)?;
            self.folded.node(producer).is("MatMul").then_some(producer)
        };
        let matmul = inputs.iter().find_map(|&value| producer(value));
        let constant = inputs.iter().find_map(|&value| after.tensor(value).ok());
        if let (true, Some(matmul), Some(constant)) = (node.is("Add"), matmul, constant)
            && matmul.index() < self.bound.model.node_count()
        {
            if let Err(refusal) =
                self.add(matmul, usize::MAX, Arc::unwrap_or_clone(constant), wanted)
            {
                self.refuse_into(matmul, &refusal);
            }
            return;
        }
        let refusal = Refusal::new(
            "not-expressible",
            format!(
                "a new {} would be needed, which no tensor can say",
                node.op_type
            ),
        );
        let all: Vec<NodeId> = self.routes.iter().map(|route| route.site).collect();
        self.refuse(all, &refusal);
    }

    /// All operators that read a tensor want the same of it.
    fn settle(&mut self, wanted: &Wanted, changes: &mut Changes) -> Result<()> {
        for (&place, uses) in &wanted.replaced {
            if self.agreed(place, uses, |use_, reader| (use_.node, use_.slot) == reader) {
                match self.stored(&uses[0], place)? {
                    Ok(new) => {
                        changes.replaced.insert(place, new);
                    }
                    Err(refusal) => self.refuse_uses(uses, &refusal),
                }
            }
        }
        for (&weight, uses) in &wanted.added {
            let name = &self.dict.tensors()[weight].name;
            let bias = self
                .biases
                .get(&weight)
                .cloned()
                .or_else(|| names::bias(name));
            let free = bias.filter(|bias| self.dict.position(bias).is_none());
            match free {
                Some(bias) => {
                    if self.agreed(weight, uses, |use_, (reader, _)| use_.node == reader) {
                        match self.stored(&uses[0], weight)? {
                            Ok(new) => {
                                changes.added.insert(weight, (bias, new));
                            }
                            Err(refusal) => self.refuse_uses(uses, &refusal),
                        }
                    }
                }
                None => {
                    let refusal = Refusal::new(
                        "not-expressible",
                        format!(
                            "\"{name}\" needs a bias, and there is no free name for it beside the weight"
                        ),
                    );
                    self.refuse_uses(uses, &refusal);
                }
            }
        }
        Ok(())
    }

    /// A new content in the type that the checkpoint has it in; that of the weight `place` for its bias.
    fn stored(&self, use_: &Use, place: usize) -> Result<std::result::Result<New, Refusal>> {
        let mut tensor = use_.tensor.clone();
        let stored = &self.dict.tensors()[place];
        if let Some(dtype) = dtype_of(stored.dtype).filter(|&dtype| dtype != tensor.dtype) {
            let magnitude = self.folded.magnitude(&tensor)?;
            if !magnitude.finite || !dtype.round(magnitude.max_abs).is_finite() {
                let message = format!(
                    "\"{}\" would reach {:e}, which {} cannot hold",
                    stored.name, magnitude.max_abs, stored.dtype
                );
                return Ok(Err(Refusal::new("range", message)));
            }
            tensor.dtype = dtype;
        }
        Ok(Ok(New::Folded {
            tensor,
            transposed: use_.transposed,
        }))
    }

    fn refuse_uses(&mut self, uses: &[Use], refusal: &Refusal) {
        for use_ in uses {
            self.refuse_into(use_.node, refusal);
        }
    }

    /// Layers that took a scale and a shift of 0 get a bias of zeros, as all others get one: the code that loads the file
    /// need not know which shifts were 0.
    fn add_zeros(&self, wanted: &mut Wanted) {
        let layers = ["Conv", "ConvTranspose", "Gemm", "MatMul"];
        for route in self.routes {
            let [absorbed] = route.absorbed.as_slice() else {
                continue;
            };
            let node = self.bound.model.node(absorbed.node);
            if absorbed.side != Side::Output
                || !self.stands(absorbed.node)
                || !layers.iter().any(|layer| node.is(layer))
                || node.inputs.len() > 2
            {
                continue;
            }
            let Some(tie) = (0..2).find_map(|slot| self.bound.tie(absorbed.node, slot)) else {
                continue;
            };
            let there = wanted.added.get(&tie.tensor);
            if there.is_some_and(|uses| uses.iter().any(|use_| use_.node == absorbed.node)) {
                continue;
            }
            let Some(dtype) = dtype_of(self.dict.tensors()[tie.tensor].dtype) else {
                continue;
            };
            let count = absorbed.channels.len();
            let recipe = Recipe::values(vec![0.0; count]);
            wanted.added.entry(tie.tensor).or_default().push(Use {
                node: absorbed.node,
                slot: usize::MAX,
                tensor: TensorDef::computed(dtype, [count].into(), recipe.into()),
                transposed: false,
            });
        }
    }

    /// Whether all that read the tensor agree; else those that want it changed are refused.
    fn agreed(
        &mut self,
        place: usize,
        uses: &[Use],
        is_by: impl Fn(&Use, (NodeId, usize)) -> bool,
    ) -> bool {
        let readers = self.readers.get(&place).into_iter().flatten();
        let other = readers
            .filter(|(node, _)| self.stands(*node))
            .find(|&&reader| !uses.iter().any(|use_| is_by(use_, reader)));
        let differs = uses.iter().find(|use_| {
            use_.transposed != uses[0].transposed || !same(&use_.tensor, &uses[0].tensor)
        });
        let Some(node) = other
            .map(|(node, _)| *node)
            .or(differs.map(|use_| use_.node))
        else {
            return true;
        };
        let name = &self.dict.tensors()[place].name;
        let refusal = Refusal::new(
            "module-called-twice",
            format!(
                "\"{name}\" is read by {} too, which needs it otherwise",
                self.bound.model.describe(node)
            ),
        )
        .with("tensor", name.as_str())
        .with("reader", self.bound.model.label(node));
        self.refuse_uses(uses, &refusal);
        false
    }
}

fn is_zero(constants: &Constants<'_>, value: ValueId) -> bool {
    let elements = constants.f64(value);
    elements.is_ok_and(|elements| elements.values.iter().all(|&element| element == 0.0))
}

fn not_there(name: &str) -> Refusal {
    Refusal::new(
        "not-in-checkpoint",
        format!("\"{name}\" is no tensor of the checkpoint, or could be several of them"),
    )
    .with("value", name)
}

/// The names of a BatchNorm's tensors.
pub(crate) fn tensors_of(group: &BatchNormGroup) -> Vec<&str> {
    let own = [Some(&group.mean), Some(&group.variance)];
    let rest = [&group.gamma, &group.beta, &group.batches].map(Option::as_ref);
    own.into_iter()
        .chain(rest)
        .flatten()
        .map(String::as_str)
        .collect()
}

/// The BatchNorm of the checkpoint that a node is: all its parameters are those of one group.
pub(crate) fn group_of(
    bound: &Bound,
    dict: &StateDict,
    groups: &[BatchNormGroup],
    node: NodeId,
) -> Option<usize> {
    let name = |slot| {
        let tie = bound.tie(node, slot)?;
        Some(dict.tensors()[tie.tensor].name.as_str())
    };
    let (mean, variance) = (name(3)?, name(4)?);
    groups.iter().position(|group| {
        group.mean == mean
            && group.variance == variance
            && group.gamma.as_deref() == name(1)
            && group.beta.as_deref() == name(2)
    })
}

/// Whether two operators have the same attributes, as far as that means something: the factor of an addend that was
/// not there, or was 1, may be given.
fn same_attributes(was: &Node, is: &Node) -> bool {
    let float = |node: &Node, name: &str| match node.attribute(name).map(|it| &it.value) {
        Some(AttributeValue::Float(value)) => Some(*value),
        _ => None,
    };
    let free = |name: &str| {
        name == "beta"
            && is.is("Gemm")
            && (was.input(2).is_none() || float(was, name).is_none_or(|beta| beta == 1.0))
            && float(is, name).is_none_or(|beta| beta == 1.0)
    };
    let equal = |a: &Node, b: &Node| {
        a.attributes.iter().all(|attribute| {
            let other = b.attribute(&attribute.name).map(|other| &other.value);
            free(&attribute.name) || other.is_some_and(|other| other.is_same(&attribute.value))
        })
    };
    equal(was, is) && equal(is, was)
}

/// Whether two tensors have the same content, as far as that can be told without reading them: the same bytes times the
/// same factors.
fn same(a: &TensorDef, b: &TensorDef) -> bool {
    if a.is_same(b) {
        return true;
    }
    let (Payload::Computed(x), Payload::Computed(y)) = (&a.payload, &b.payload) else {
        return false;
    };
    let base = match (&x.base, &y.base) {
        (Base::Stored(x), Base::Stored(y)) => x.is_same(y),
        (Base::Values(x), Base::Values(y)) => x == y,
        _ => false,
    };
    let scales = || {
        x.scales
            .iter()
            .map(|scale| (scale.inner, &scale.factors))
            .eq(y.scales.iter().map(|scale| (scale.inner, &scale.factors)))
    };
    base && scales() && a.dtype == b.dtype && a.dims == b.dims
}
