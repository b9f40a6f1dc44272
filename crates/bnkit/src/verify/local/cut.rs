//! Which nodes a neighbourhood has: those of its routes and what computes shapes for them, in the original; what leads
//! from the same inputs to the same outputs, in the folded model.

use std::collections::{HashMap, HashSet};

use bnkit_model::DType;
use bnkit_model::onnx::{Constants, Model, NodeId, Types, Use, ValueId};

use super::Pair;
use crate::route::{Merge, Route};

/// A neighbourhood with more nodes than this is most of a network.
const MAX_NODES: usize = 4096;

/// A neighbourhood in both models.
#[derive(Debug)]
pub(super) struct Cut {
    /// Nodes of the original.
    pub(super) original: HashSet<NodeId>,
    /// Nodes of the folded model.
    pub(super) folded: HashSet<NodeId>,
    /// Values that come from outside: in the original, and in the folded model.
    pub(super) inputs: Vec<(ValueId, ValueId)>,
    /// Values that are read outside: in the original, and in the folded model.
    pub(super) outputs: Vec<(ValueId, ValueId)>,
}

/// Routes and merges that share nodes, by their indices (merges behind routes), with all their nodes.
pub(super) fn groups(routes: &[Route], merges: &[Merge]) -> Vec<(Vec<usize>, Vec<NodeId>)> {
    let of_route = |route: &Route| -> Vec<NodeId> {
        let absorbed = route.absorbed.iter().map(|absorbed| absorbed.node);
        let along = route.via.iter().copied();
        std::iter::once(route.site)
            .chain(along)
            .chain(absorbed)
            .collect()
    };
    let of_merge = |merge: &Merge| {
        let mut nodes = merge.merged.nodes();
        nodes.push(merge.into);
        nodes
    };
    let named: Vec<Vec<NodeId>> = routes
        .iter()
        .map(of_route)
        .chain(merges.iter().map(of_merge))
        .collect();
    // Each node leads to the group that first named it, each group to the one that it became a part of.
    let mut group_of: HashMap<NodeId, usize> = HashMap::new();
    let mut parent: Vec<usize> = (0..named.len()).collect();
    let root = |parent: &mut [usize], mut group: usize| {
        while parent[group] != group {
            parent[group] = parent[parent[group]];
            group = parent[group];
        }
        group
    };
    for (index, nodes) in named.iter().enumerate() {
        for &node in nodes {
            let other = *group_of.entry(node).or_insert(index);
            let (a, b) = (root(&mut parent, index), root(&mut parent, other));
            parent[a.max(b)] = a.min(b);
        }
    }
    let mut groups: Vec<(Vec<usize>, Vec<NodeId>)> = vec![Default::default(); named.len()];
    for (index, nodes) in named.iter().enumerate() {
        let group = &mut groups[root(&mut parent, index)];
        group.0.push(index);
        group.1.extend(nodes);
    }
    groups.retain(|(routes, _)| !routes.is_empty());
    for (_, nodes) in &mut groups {
        nodes.sort_unstable();
        nodes.dedup();
    }
    groups
}

impl Cut {
    pub(super) fn new(pair: &Pair<'_>, nodes: &[NodeId]) -> Result<Self, String> {
        let model = pair.original;
        let Some(scope) = nodes.first().map(|&node| model.node(node).scope) else {
            return Err("it has no nodes".to_owned());
        };
        if nodes.iter().any(|&node| model.node(node).scope != scope) {
            return Err("it reaches into a body".to_owned());
        }
        if nodes.len() > MAX_NODES {
            return Err(format!("it has {} nodes", nodes.len()));
        }
        let mut core: HashSet<NodeId> = nodes.iter().copied().collect();
        core.extend(swept_away(pair, nodes));
        let (original, inputs) = close(model, &pair.original_types, core.clone())?;
        let outputs = outputs(pair, &core, &original)?;
        // Values mostly keep their names. Where an affine next door has moved on, its neighbour may have a new one.
        let same = inputs.iter().map(|&value| (value, value)).collect();
        let moved = |value| entrance(pair, &core, value, 0).unwrap_or(value);
        let moved = inputs.iter().map(|&value| (value, moved(value))).collect();
        let slice = |inputs: Vec<(ValueId, ValueId)>| {
            slice(pair, &original, &inputs, &outputs).map(|folded| (folded, inputs))
        };
        let (folded, inputs) = slice(same).or_else(|why| slice(moved).map_err(|_| why))?;
        Ok(Self {
            original,
            folded,
            inputs,
            outputs,
        })
    }
}

/// What the readers of `value` among `nodes` read in the folded model.
fn entrance(
    pair: &Pair<'_>,
    nodes: &HashSet<NodeId>,
    value: ValueId,
    depth: usize,
) -> Option<ValueId> {
    pair.original
        .value(value)
        .uses
        .iter()
        .find_map(|user| match *user {
            Use::Node(id, slot) if nodes.contains(&id) => match pair.folded.node(id).alive {
                true => pair.folded.node(id).input(slot),
                false if depth < nodes.len() => {
                    entrance(pair, nodes, pair.original.node(id).output(0)?, depth + 1)
                }
                false => None,
            },
            _ => None,
        })
}

/// Whether a node sees only the shape or the type of what it reads there.
fn sees_no_value(model: &Model, id: NodeId, slot: usize) -> bool {
    let node = model.node(id);
    match slot {
        0 => node.is("Shape") || node.is("Size"),
        _ => node.is("CastLike"),
    }
}

/// Nodes behind `nodes` that are gone from the folded model, though no route names them: an Identity, a Dropout.
fn swept_away(pair: &Pair<'_>, nodes: &[NodeId]) -> HashSet<NodeId> {
    let mut found = HashSet::new();
    let mut open = nodes.to_vec();
    while let Some(id) = open.pop() {
        let outputs = pair.original.node(id).outputs.iter().flatten();
        for user in outputs.flat_map(|&value| &pair.original.value(value).uses) {
            if let Use::Node(id, _) = *user
                && !pair.folded.node(id).alive
                && !pair.named.contains(&id)
                && found.insert(id)
            {
                open.push(id);
            }
        }
    }
    found
}

/// `nodes` with what computes their shapes and indices, and the values that they read from outside.
fn close(
    model: &Model,
    types: &Types,
    mut nodes: HashSet<NodeId>,
) -> Result<(HashSet<NodeId>, Vec<ValueId>), String> {
    let constants = Constants::new(model, types, true);
    let mut open: Vec<NodeId> = nodes.iter().copied().collect();
    open.sort_unstable();
    let mut inputs = Vec::new();
    while let Some(id) = open.pop() {
        for &value in model.node(id).inputs.iter().flatten() {
            let producer = model.producer(value).map(|(node, _)| node);
            let is_inside = producer.is_some_and(|node| nodes.contains(&node));
            if is_inside || inputs.contains(&value) || constants.is_constant(value) {
                continue;
            }
            match (producer, types.dtype(value)) {
                (_, None) | (_, Some(DType::F16 | DType::BF16 | DType::F32 | DType::F64)) => {
                    inputs.push(value);
                }
                (Some(node), _) if nodes.len() < MAX_NODES => {
                    nodes.insert(node);
                    open.push(node);
                }
                (_, Some(dtype)) => {
                    let name = &model.value(value).name;
                    return Err(format!(
                        "it depends on \"{name}\", an input of type {dtype}"
                    ));
                }
            }
        }
    }
    // What came from outside first may turn out to be computed inside.
    let inside = |value: &ValueId| {
        model
            .producer(*value)
            .is_some_and(|(node, _)| nodes.contains(&node))
    };
    inputs.retain(|value| !inside(value));
    inputs.sort_unstable();
    Ok((nodes, inputs))
}

/// What `nodes` compute for others than those `inside`, and what these others read in the folded model.
fn outputs(
    pair: &Pair<'_>,
    nodes: &HashSet<NodeId>,
    inside: &HashSet<NodeId>,
) -> Result<Vec<(ValueId, ValueId)>, String> {
    let (original, folded) = (pair.original, pair.folded);
    let mut found = Vec::new();
    let mut sorted: Vec<&NodeId> = nodes.iter().collect();
    sorted.sort_unstable();
    let results = sorted.into_iter().flat_map(|&id| {
        let node = original.node(id);
        // What a BatchNorm gives out in training mode is no result in eval mode.
        let count = if node.is("BatchNormalization") {
            1
        } else {
            node.outputs.len()
        };
        node.outputs.iter().take(count).flatten()
    });
    for &value in results {
        let content = original.value(value);
        let mut read = false;
        let mut successor = None;
        for user in &content.uses {
            match *user {
                // A Shape does not see what the values are.
                Use::Node(id, slot)
                    if inside.contains(&id) || sees_no_value(original, id, slot) => {}
                Use::Node(id, slot) => {
                    read = true;
                    let now = folded.node(id);
                    successor = successor.or(now.input(slot).filter(|_| now.alive));
                }
                Use::Output(scope, slot) => {
                    read = true;
                    // Outputs of training mode may be gone, and others have moved up.
                    let name = &content.name;
                    let outputs = &folded.scope(scope).outputs;
                    let named = outputs
                        .iter()
                        .find(|&&other| folded.value(other).name == *name);
                    successor = successor.or(named.or(outputs.get(slot)).copied());
                }
                Use::Annotation(_) => {}
            }
        }
        match (read, successor) {
            (false, _) => {}
            (true, Some(successor)) => found.push((value, successor)),
            (true, None) => {
                let name = &content.name;
                return Err(format!(
                    "nobody reads \"{name}\" any more in the folded model"
                ));
            }
        }
    }
    match found.is_empty() {
        true => Err("nobody reads its results".to_owned()),
        false => Ok(found),
    }
}

/// The nodes of the folded model that compute the outputs from the inputs and constants: those that there were, and new
/// ones.
fn slice(
    pair: &Pair<'_>,
    original: &HashSet<NodeId>,
    inputs: &[(ValueId, ValueId)],
    outputs: &[(ValueId, ValueId)],
) -> Result<HashSet<NodeId>, String> {
    let model = pair.folded;
    let constants = Constants::new(model, &pair.folded_types, true);
    let is_input = |value: ValueId| inputs.iter().any(|&(_, input)| input == value);
    let mut nodes = HashSet::new();
    let mut open: Vec<ValueId> = outputs.iter().map(|&(_, output)| output).collect();
    while let Some(value) = open.pop() {
        if is_input(value) || constants.is_constant(value) {
            continue;
        }
        let producer = model.producer(value).map(|(node, _)| node);
        let known = |node: &NodeId| original.contains(node) || !pair.standing.contains(node);
        let Some(node) = producer.filter(known) else {
            let name = &model.value(value).name;
            return Err(format!(
                "the folded model reads \"{name}\", the original does not"
            ));
        };
        if nodes.insert(node) {
            open.extend(model.node(node).inputs.iter().flatten());
        }
    }
    Ok(nodes)
}
