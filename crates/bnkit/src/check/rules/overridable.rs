//! Parameters that a caller may replace.

use bnkit_model::onnx::Origin;

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::site::ROLES;

/// From this IR version on, an initializer need not be a graph input; one that is means it.
const SINCE_IR: i64 = 4;

pub(super) const RULE: Rule = Rule {
    code: "overridable-parameter",
    level: Level::Warning,
    needs: Needs::Graph,
    action: "take the initializers out of the graph's inputs; or fold with --assume-constant",
    explanation: None,
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(graph) = &subject.graph else {
        return Ok(Vec::new());
    };
    let model = &graph.model;
    let mut found = Vec::new();
    if model.ir_version < SINCE_IR {
        return Ok(found);
    }
    for norm in &subject.norms {
        let Some(node) = norm.node else { continue };
        let overridable = ROLES.iter().filter_map(|&(slot, role)| {
            let value = model.value(model.node(node).input(slot)?);
            let is_default = value.origin == Origin::Input && value.tensor.is_some();
            is_default.then_some((role, value.name.as_str()))
        });
        let (roles, names): (Vec<&str>, Vec<&str>) = overridable.unzip();
        let Some(first) = names.first() else { continue };
        let message = format!("a caller may replace its {}", roles.join(", "));
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        found.push(
            Found::at(&norm.name, message)
                .tensor(first)
                .with("tensors", names),
        );
    }
    Ok(found)
}
