//! The eval-only clean-up: what belongs to training goes, and what nobody reads any more.

use std::collections::HashSet;

use bnkit_model::onnx::{
    AttributeValue, Constants, Edit, Model, Name, NodeId, Origin, ScopeKind, Types, Use, ValueId,
};

use crate::Result;
use crate::fold::{Before, Context};
use crate::report::{Cleanup, Refusal, Site, Warning};
use crate::site::is_training;

/// Tidies up, and keeps a list of what it did.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// What was done, in order.
    pub done: Vec<Cleanup>,
    /// What a person should know about the model as a whole.
    pub warnings: Vec<Warning>,
    /// How many nodes were in training mode and are in eval mode now.
    pub to_eval: usize,
}

impl Cleaner {
    fn note(&mut self, node: &Name, action: &'static str, detail: Option<String>) {
        self.done.push(Cleanup {
            node: node.clone(),
            action,
            detail,
        });
    }

    /// Puts BatchNorms and Dropouts into eval mode, and removes the Dropouts.
    pub(crate) fn set_eval_mode(
        &mut self,
        model: &mut Model,
        types: &Types,
        assume_constant: bool,
        sites: &mut [(NodeId, Site)],
    ) -> Result<()> {
        for (node, site) in sites {
            self.batch_norm_to_eval(model, types, *node, site)?;
        }
        let dropouts: Vec<NodeId> = model
            .nodes()
            .filter(|(_, node)| node.is("Dropout"))
            .map(|(node, _)| node)
            .collect();
        for node in dropouts {
            self.dropout(model, types, assume_constant, node)?;
        }
        Ok(())
    }

    fn batch_norm_to_eval(
        &mut self,
        model: &mut Model,
        types: &Types,
        node: NodeId,
        site: &mut Site,
    ) -> Result<()> {
        let extra: Vec<ValueId> = model
            .node(node)
            .outputs
            .iter()
            .skip(1)
            .copied()
            .flatten()
            .collect();
        let training = is_training(model, node);
        if !training && model.node(node).outputs.len() <= 1 {
            return Ok(());
        }
        // A default that a caller may override is a running statistic, too.
        let constants = Constants::new(model, types, true);
        let is_constant = |slot| {
            model
                .node(node)
                .input(slot)
                .is_some_and(|value| constants.f64(value).is_ok())
        };
        if training && !(is_constant(3) && is_constant(4)) {
            self.warnings.push(Warning {
                code: "stays-in-training",
                message: format!(
                    "{} normalises with statistics of the batch: it has no running statistics and stays in training mode",
                    model.describe(node)
                ),
            });
            return Ok(());
        }
        let Some(outputs) = droppable(model, &extra) else {
            let names: Vec<String> = extra
                .iter()
                .map(|&value| model.value(value).name.to_string())
                .collect();
            let message = "its training outputs are read by other nodes".to_owned();
            site.refusal =
                Some(Refusal::new("training-output-read", message).with("outputs", names));
            self.warnings.push(Warning {
                code: "stays-in-training",
                message: format!(
                    "{} stays in training mode: its training outputs are read",
                    model.describe(node)
                ),
            });
            return Ok(());
        };
        let label = model.label(node).clone();
        for value in outputs {
            let name = model.value(value).name.clone();
            // One at a time: dropping an output renumbers those behind it.
            while let Some(&Use::Output(scope, slot)) = model
                .value(value)
                .uses
                .iter()
                .find(|user| matches!(user, Use::Output(..)))
            {
                model.apply(&[Edit::DropOutput { scope, slot }])?;
            }
            self.warnings.push(Warning {
                code: "training-output-dropped",
                message: format!(
                    "the graph output \"{name}\" was a training output of \"{label}\" and is gone"
                ),
            });
            self.note(&label, "graph-output-dropped", Some(name.into()));
        }
        let mut edits = vec![Edit::TruncateOutputs { node, keep: 1 }];
        let opset = model
            .scope(model.node(node).scope)
            .onnx_opset()
            .unwrap_or(1);
        if training {
            let one = AttributeValue::Int(1);
            match opset {
                ..7 => edits.push(Edit::SetAttribute {
                    node,
                    name: "is_test".to_owned(),
                    value: one,
                }),
                7..14 => {}
                _ => edits.push(Edit::RemoveAttribute {
                    node,
                    name: "training_mode".to_owned(),
                }),
            }
            self.to_eval += 1;
            self.note(&label, "to-eval", None);
        } else {
            self.note(&label, "outputs-dropped", None);
        }
        Ok(model.apply(&edits)?)
    }

    fn dropout(
        &mut self,
        model: &mut Model,
        types: &Types,
        assume_constant: bool,
        node: NodeId,
    ) -> Result<()> {
        let context = Context::new(model, types, assume_constant);
        let mode = dropout_mode(&context, node);
        let label = model.label(node).clone();
        if mode == DropoutMode::Unknown {
            self.warnings.push(Warning {
                code: "dropout-training-mode",
                message: format!(
                    "{} is switched on and off at run time: it stays",
                    model.describe(node)
                ),
            });
            return Ok(());
        }
        if mode == DropoutMode::Training {
            let edit = if context.opset(node) < 7 {
                Edit::SetAttribute {
                    node,
                    name: "is_test".to_owned(),
                    value: AttributeValue::Int(1),
                }
            } else {
                Edit::RemoveInput { node, slot: 2 }
            };
            model.apply(&[edit])?;
            self.to_eval += 1;
            self.note(&label, "to-eval", None);
        }
        let mask_read = model
            .node(node)
            .output(1)
            .is_some_and(|mask| !model.value(mask).uses.is_empty());
        if mask_read {
            return Ok(());
        }
        if let Some(edits) = bypass(model, node) {
            model.apply(&edits)?;
            self.note(&label, "removed", Some("Dropout".to_owned()));
        }
        Ok(())
    }

    /// Removes Identity nodes where the names of inputs and outputs allow it.
    pub(crate) fn bypass_identities(&mut self, model: &mut Model) -> Result<()> {
        let identities: Vec<NodeId> = model
            .nodes()
            // What it makes of more than one input, nobody knows.
            .filter(|(_, node)| node.is("Identity") && node.inputs.len() == 1)
            .map(|(node, _)| node)
            .collect();
        for node in identities {
            if let Some(edits) = bypass(model, node) {
                let label = model.label(node).clone();
                model.apply(&edits)?;
                self.note(&label, "removed", Some("Identity".to_owned()));
            }
        }
        Ok(())
    }

    /// Drops constants that nobody reads, and the nodes that computed constants nobody reads any more.
    pub(crate) fn drop_unread(&mut self, model: &mut Model, before: &Before) -> Result<()> {
        let mut removed_nodes = HashSet::new();
        let mut candidates: Vec<NodeId> = model
            .nodes()
            .filter(|(id, node)| {
                // What computed something unread from the start is not ours to judge, unless it is a plain constant.
                node.domain.is_empty()
                    && CONSTANT_OPERATORS.contains(&node.op_type.as_str())
                    && (node.op_type == "Constant" || before.was_read(*id))
            })
            .map(|(id, _)| id)
            .collect();
        candidates.reverse();
        let mut again = true;
        while again {
            again = false;
            for &node in &candidates {
                let unread = model
                    .node(node)
                    .outputs
                    .iter()
                    .flatten()
                    .all(|&value| model.value(value).uses.is_empty());
                if unread && removed_nodes.insert(node) {
                    let label = model.label(node).clone();
                    let operator = model.node(node).op_type.clone();
                    model.apply(&[Edit::RemoveNode { node }])?;
                    self.note(&label, "constant-dropped", Some(operator.into()));
                    again = true;
                }
            }
        }
        let scopes: Vec<_> = model.scopes().map(|(id, _)| id).collect();
        let mut dropped = Vec::new();
        for scope in scopes {
            for &value in &model.scope(scope).initializers {
                let info = model.value(value);
                // From IR version 4 on an input with a default is a promise to callers.
                let promised = info.origin == Origin::Input
                    && (model.ir_version >= 4 || model.scope(scope).kind != ScopeKind::Main);
                if info.uses.is_empty() && info.tensor.is_some() && !promised {
                    dropped.push(value);
                }
            }
        }
        // As many as there are parameters: no list that is half empty.
        self.done.reserve_exact(dropped.len());
        for &value in &dropped {
            self.note(&model.value(value).name, "constant-dropped", None);
        }
        Ok(model.apply(&[Edit::DropConstants { values: dropped }])?)
    }
}

/// Operators that compute constants from constants: the leaves that a fold leaves behind.
const CONSTANT_OPERATORS: [&str; 25] = [
    "Constant",
    "ConstantOfShape",
    "Identity",
    "Cast",
    "CastLike",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Flatten",
    "Transpose",
    "Expand",
    "Concat",
    "Slice",
    "Gather",
    "Shape",
    "Mul",
    "Add",
    "Sub",
    "Div",
    "Sqrt",
    "Neg",
    "Reciprocal",
    "Pow",
    "DequantizeLinear",
    "Range",
];

/// Those of a BatchNorm's training outputs that are outputs of the main graph, if nothing else reads any.
fn droppable(model: &Model, values: &[ValueId]) -> Option<Vec<ValueId>> {
    let mut outputs = Vec::new();
    for &value in values {
        for user in &model.value(value).uses {
            match *user {
                Use::Output(scope, _) if model.scope(scope).kind == ScopeKind::Main => {
                    if !outputs.contains(&value) {
                        outputs.push(value);
                    }
                }
                _ => return None,
            }
        }
    }
    Some(outputs)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropoutMode {
    /// Passes its data on.
    Eval,
    /// Drops elements.
    Training,
    /// Decided at run time.
    Unknown,
}

/// Opset 1 and 6: is_test; 7 and 10: always eval; from 12 on the third input says. What more inputs mean, nobody knows.
pub(crate) fn dropout_mode(context: &Context<'_>, node: NodeId) -> DropoutMode {
    match context.opset(node) {
        ..12 if context.model.node(node).inputs.len() > 1 => DropoutMode::Unknown,
        ..7 => match context.int(node, "is_test", 0) {
            Ok(0) => DropoutMode::Training,
            Ok(_) => DropoutMode::Eval,
            Err(_) => DropoutMode::Unknown,
        },
        7..12 => DropoutMode::Eval,
        _ => match context.model.node(node).input(2) {
            None => DropoutMode::Eval,
            Some(value) => match context.constants().ints(value) {
                Ok(mode) if mode.values.iter().all(|&mode| mode == 0) => DropoutMode::Eval,
                Ok(_) => DropoutMode::Training,
                Err(_) => DropoutMode::Unknown,
            },
        },
    }
}

/// Whether a Dropout passes its data on unchanged.
pub(crate) fn dropout_is_eval(context: &Context<'_>, node: NodeId) -> bool {
    dropout_mode(context, node) == DropoutMode::Eval
}

/// The edits that take out a node whose first output equals its first input, if every name that has to stay can.
fn bypass(model: &Model, node: NodeId) -> Option<Vec<Edit>> {
    let (input, output) = (model.node(node).input(0)?, model.node(node).output(0)?);
    let seen_by_readers = |value: ValueId, of: ValueId| {
        model.value(of).uses.iter().all(|user| match *user {
            Use::Node(reader, _) => model.is_visible(value, model.node(reader).scope),
            _ => true,
        })
    };
    let only_nodes = |value: ValueId| {
        model
            .value(value)
            .uses
            .iter()
            .all(|user| matches!(user, Use::Node(..)))
    };
    if only_nodes(output) {
        return seen_by_readers(input, output).then(|| {
            vec![
                Edit::ReplaceUses {
                    value: output,
                    by: input,
                },
                Edit::RemoveNode { node },
            ]
        });
    }
    // The output's name has to stay: the producer of the input takes it over.
    let (producer, slot) = model.producer(input)?;
    let same_scope = model.node(producer).scope == model.node(node).scope;
    if !same_scope
        || !model.is_unique_name(output)
        || !only_nodes(input)
        || !seen_by_readers(output, input)
    {
        return None;
    }
    Some(vec![
        Edit::RemoveNode { node },
        Edit::SetOutput {
            node: producer,
            slot,
            value: output.into(),
        },
        Edit::ReplaceUses {
            value: input,
            by: output,
        },
    ])
}
