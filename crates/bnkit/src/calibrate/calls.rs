//! What the engine calls the output of each BatchNorm: it writes local functions out, and names their values after the calls.
//!
//! The rule is the engine's (`normalise/functions.rs`): calls are numbered in the order in which they are written out, depth first; a name
//! in a function gets `CALL/NUMBER/` in front, unless it is one of the function's inputs or outputs, which have the caller's names. The
//! jobs check that every BatchNorm of the engine is found here.

use std::collections::HashMap;

use bnkit_model::onnx::{Model, NodeId, ScopeId, ScopeKind, ValueId};

use crate::site::is_batch_norm;

/// How deep calls may be nested; the engine refuses models that go deeper.
const MAX_DEPTH: usize = 64;
/// How many calls are followed; the engine refuses models with more nodes than this.
const MAX_CALLS: usize = 1 << 18;

/// The outputs of each BatchNorm node, one for each time that its scope is written out.
pub(crate) fn outputs(model: &Model) -> HashMap<NodeId, Vec<String>> {
    let functions = model
        .scopes()
        .filter_map(|(id, scope)| match &scope.kind {
            ScopeKind::Function { domain, name } => Some(((domain.as_str(), name.as_str()), id)),
            _ => None,
        })
        .collect();
    let mut walk = Walk {
        model,
        functions,
        calls: 0,
        found: HashMap::new(),
    };
    walk.scope(model.main(), &Names::default(), 0);
    walk.found
}

/// What names become where a function is written out.
#[derive(Default)]
struct Names<'m> {
    given: HashMap<&'m str, String>,
    prefix: String,
}

impl Names<'_> {
    fn of(&self, name: &str) -> String {
        match self.given.get(name) {
            Some(given) => given.clone(),
            None => format!("{}{name}", self.prefix),
        }
    }
}

struct Walk<'m> {
    model: &'m Model,
    functions: HashMap<(&'m str, &'m str), ScopeId>,
    calls: usize,
    found: HashMap<NodeId, Vec<String>>,
}

impl<'m> Walk<'m> {
    fn name(&self, value: Option<ValueId>) -> &'m str {
        value.map_or("", |value| &self.model.value(value).name)
    }

    fn scope(&mut self, scope: ScopeId, names: &Names<'m>, depth: usize) {
        let model = self.model;
        for id in model.nodes_of(scope) {
            let node = model.node(id);
            let key = (node.domain.as_str(), node.op_type.as_str());
            if let Some(&function) = self.functions.get(&key) {
                if depth < MAX_DEPTH && self.calls < MAX_CALLS {
                    let inner = self.call(id, function, names);
                    self.scope(function, &inner, depth + 1);
                }
                continue;
            }
            if is_batch_norm(model, id) {
                let output = names.of(self.name(node.output(0)));
                self.found.entry(id).or_default().push(output);
            }
            for body in model.bodies(id) {
                self.scope(body, names, depth);
            }
        }
    }

    /// The names inside a function that `call` calls.
    fn call(&mut self, call: NodeId, function: ScopeId, outer: &Names<'m>) -> Names<'m> {
        let node = self.model.node(call);
        let label = match node.name.as_str() {
            "" => outer.of(self.name(node.output(0))),
            name => format!("{}{name}", outer.prefix),
        };
        let prefix = format!("{label}/{}/", self.calls);
        self.calls += 1;
        let mut given = HashMap::new();
        let scope = self.model.scope(function);
        for (slot, &formal) in scope.inputs.iter().enumerate() {
            let actual = node
                .input(slot)
                .map(|value| outer.of(self.name(Some(value))));
            given.insert(self.name(Some(formal)), actual.unwrap_or_default());
        }
        for (slot, &formal) in scope.outputs.iter().enumerate() {
            if let Some(actual) = node.output(slot) {
                let actual = outer.of(self.name(Some(actual)));
                given.entry(self.name(Some(formal))).or_insert(actual);
            }
        }
        Names { given, prefix }
    }
}
