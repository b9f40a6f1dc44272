//! Names: which value a name means in a scope, and whether the nodes of a scope can be ordered at all.

use std::collections::HashMap;

use super::meanings::Bearers;
use super::model::{AttributeValue, Model, NodeId, Origin, ScopeId, ScopeKind, Value, ValueId};
use super::uses::Use;
use crate::{Error, Result};

/// The value that `name` means in `scope`: its own, or that of the nearest scope around it.
pub(crate) fn lookup(model: &Model, scope: ScopeId, name: &str) -> Option<ValueId> {
    let mut scope = Some(scope);
    while let Some(id) = scope {
        if let Some(value) = model.meaning(id, name) {
            return Some(value);
        }
        scope = model.scope(id).parent;
    }
    None
}

/// The value that `name` means where `reader` stands in `scope` (`None`: at its end). A node of the scope, or of one
/// around it, that only stands further down hides nothing; but if no other value has the name, its output is meant.
pub(crate) fn lookup_from(
    model: &Model,
    scope: ScopeId,
    reader: Option<NodeId>,
    name: &str,
) -> Option<ValueId> {
    let (mut scope, mut reader) = (scope, reader);
    let mut later = None;
    loop {
        let current = model.scope(scope);
        if let Some(value) = model.meaning(scope, name) {
            // The ids of a scope's nodes follow their order in the file.
            match (model.value(value).origin, reader) {
                (Origin::Node(node, _), Some(reader)) if node >= reader => {
                    later = later.or(Some(value))
                }
                _ => return Some(value),
            }
        }
        let (ScopeKind::Body { owner, .. }, Some(parent)) = (&current.kind, current.parent) else {
            return later;
        };
        (scope, reader) = (parent, Some(*owner));
    }
}

impl Model {
    /// Whether the name of `value` means `value` in `scope`: the scope sees it, and nothing nearer has the same name.
    pub fn is_visible(&self, value: ValueId, scope: ScopeId) -> bool {
        lookup(self, scope, &self.value(value).name) == Some(value)
    }

    /// Whether no body inside the scope of `value` has a value of the same name, which would hide it there.
    pub fn is_unique_name(&self, value: ValueId) -> bool {
        let Value { scope, name, .. } = self.value(value);
        let in_main = u32::from(self.meaning(self.main(), name).is_some());
        if in_main + self.inner_names.count(name, &self.values) <= 1 {
            return true;
        }
        let inside = |mut inner: ScopeId| {
            while let Some(outer) = self.scope(inner).parent {
                if outer == *scope {
                    return true;
                }
                inner = outer;
            }
            false
        };
        !self.values.iter().any(|other| {
            other.name == *name && other.origin != Origin::Removed && inside(other.scope)
        })
    }

    /// A value that is read though nothing computes it any more: a mistake of whoever edited the model.
    pub fn dangling(&self) -> Option<ValueId> {
        let read = self
            .nodes()
            .flat_map(|(_, node)| node.inputs.iter().flatten());
        let returned = self.scopes().flat_map(|(_, scope)| &scope.outputs);
        read.chain(returned)
            .copied()
            .find(|&value| self.value(value).origin == Origin::Removed)
    }

    /// A name that no value of the model has: `wanted`, or `wanted` with a number.
    pub fn fresh_name(&self, wanted: &str) -> String {
        let main = self.main();
        fresh(wanted, |name| {
            self.meaning(main, name).is_some() || self.inner_names.count(name, &self.values) > 0
        })
    }

    /// A name that no node of the model has: `wanted`, or `wanted` with a number.
    pub fn fresh_node_name(&self, wanted: &str) -> String {
        let taken = self.node_names.get_or_init(|| {
            let mut taken = Bearers::default();
            for (id, _) in self.nodes().filter(|(_, node)| !node.name.is_empty()) {
                taken.add(id.index(), &self.nodes);
            }
            taken
        });
        fresh(wanted, |name| taken.count(name, &self.nodes) > 0)
    }

    /// The value of this name that `scope` itself defines.
    pub(super) fn meaning(&self, scope: ScopeId, name: &str) -> Option<ValueId> {
        self.scope(scope).names.get(name, &self.values)
    }

    /// From now on the name of `id` means `id` in its scope. What it meant before, if anything.
    pub(super) fn bind(&mut self, id: ValueId) -> Option<ValueId> {
        let scope = self.value(id).scope;
        if scope != self.main() {
            self.inner_names.add(id.index(), &self.values);
        }
        self.scopes[scope.index()].names.insert(id, &self.values)
    }

    /// The name of a value that is gone means nothing in its scope any more, or already another value.
    pub(super) fn unbind(&mut self, id: ValueId) {
        let scope = self.value(id).scope;
        self.scopes[scope.index()].names.remove(id, &self.values);
        if scope != self.main() {
            self.inner_names.remove(id.index(), &self.values);
        }
    }

    /// Notes the name of a node that stands in the graph from now on.
    pub(super) fn take_node_name(&mut self, node: NodeId) {
        if let Some(taken) = self.node_names.get_mut()
            && !self.nodes[node.index()].name.is_empty()
        {
            taken.add(node.index(), &self.nodes);
        }
    }

    /// Gives up the name of a node that stands there no longer.
    pub(super) fn free_node_name(&mut self, node: NodeId) {
        if let Some(taken) = self.node_names.get_mut() {
            taken.remove(node.index(), &self.nodes);
        }
    }

    /// The bodies of a node, in the order of its attributes.
    pub fn bodies(&self, node: NodeId) -> impl Iterator<Item = ScopeId> {
        self.node(node)
            .attributes
            .iter()
            .flat_map(|attribute| match &attribute.value {
                AttributeValue::Graph(body) => vec![*body],
                AttributeValue::Graphs(bodies) => bodies.clone(),
                _ => Vec::new(),
            })
    }

    /// The nodes of a scope in an order in which every node comes after those whose outputs it (or a body of it)
    /// reads. A sorted file keeps its order.
    ///
    /// # Errors
    /// If the nodes depend on each other in a circle.
    pub fn topological_order(&self, scope: ScopeId) -> Result<Vec<NodeId>> {
        let nodes: Vec<NodeId> = self.nodes_of(scope).collect();
        let position: HashMap<NodeId, usize> =
            nodes.iter().enumerate().map(|(at, &id)| (id, at)).collect();
        let readers = |at: usize| {
            let outputs = self.node(nodes[at]).outputs.iter().flatten();
            outputs
                .flat_map(|&value| &self.value(value).uses)
                .filter_map(|&user| position.get(&self.enclosing(user, scope)?).copied())
        };
        if (0..nodes.len()).all(|at| readers(at).all(|reader| reader > at)) {
            return Ok(nodes);
        }
        let mut waiting = vec![0usize; nodes.len()];
        for reader in (0..nodes.len()).flat_map(readers) {
            waiting[reader] += 1;
        }
        let mut ready: std::collections::BTreeSet<usize> =
            (0..nodes.len()).filter(|&at| waiting[at] == 0).collect();
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(at) = ready.pop_first() {
            order.push(nodes[at]);
            for reader in readers(at) {
                waiting[reader] -= 1;
                if waiting[reader] == 0 {
                    ready.insert(reader);
                }
            }
        }
        match waiting.iter().position(|&left| left > 0) {
            None => Ok(order),
            Some(at) => Err(Error::invalid(format!(
                "{} depends on its own output: the graph has a cycle",
                self.describe(nodes[at])
            ))),
        }
    }

    /// The node of `scope` that reads through `user`: the reading node itself, or the node whose body (at any depth)
    /// it is in. `None` for a read from elsewhere, or by the scope's own outputs.
    fn enclosing(&self, user: Use, scope: ScopeId) -> Option<NodeId> {
        let (mut at, mut node) = match user {
            Use::Node(node, _) => (self.node(node).scope, Some(node)),
            Use::Output(inner, _) | Use::Annotation(inner) => (inner, None),
        };
        while at != scope {
            let ScopeKind::Body { owner, .. } = &self.scope(at).kind else {
                return None;
            };
            node = Some(*owner);
            at = self.node(*owner).scope;
        }
        node
    }
}

fn fresh(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    if !is_taken(wanted) {
        return wanted.to_owned();
    }
    let mut numbered = (1u64..).map(|number| format!("{wanted}_{number}"));
    numbered
        .find(|name| !is_taken(name))
        .expect("there are more numbers than names")
}

/// Checks that the nodes of every scope can be ordered.
pub(crate) fn check_order(model: &Model) -> Result<()> {
    for (id, _) in model.scopes() {
        model.topological_order(id)?;
    }
    debug_assert!(
        model
            .values
            .iter()
            .all(|value| value.origin != Origin::Removed)
    );
    Ok(())
}
