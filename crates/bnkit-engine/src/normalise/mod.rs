//! The rewrites that a copy of the model undergoes before tract sees it.
//!
//! tract ignores operator domains and attributes it does not know, runs `training_mode = 1` as eval, cannot expand functions and
//! panics on some legal graphs. Each file here takes away one such difference, or refuses the model by name: computing something
//! else than the model says is never an option. The order matters: functions first, so that everything later sees their nodes;
//! types last but for the operators that depend on them.

mod attributes;
mod double;
mod eval;
mod functions;
mod legacy;
mod operators;
mod tidy;
mod train;
mod widen;

use std::path::Path;

pub(crate) use double::SINGLE;
pub(crate) use widen::widen_elements;

use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, attribute_proto::AttributeType,
};

use crate::{Perturbation, Precision, Result};

/// What the model is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// BatchNorms use their running statistics, Dropout does nothing.
    Eval,
    /// BatchNorms use the statistics of what they see.
    Train {
        /// Whether Dropout drops.
        dropout: bool,
    },
}

/// What the rewrites need to know of the model as a whole.
pub(crate) struct Context<'a> {
    /// Version of ONNX's own operator set; 1 if the model names none.
    pub(crate) opset: i64,
    /// The precision to run in.
    pub(crate) precision: Precision,
    /// Where external data lies.
    pub(crate) model_dir: Option<&'a Path>,
    /// What happens to constants on their way.
    pub(crate) perturbation: Option<&'a Perturbation>,
    /// What the model is run for.
    pub(crate) mode: Mode,
}

/// The version of ONNX's own operators that a model imports.
pub(crate) fn opset(model: &ModelProto) -> i64 {
    model
        .opset_import
        .iter()
        .find(|import| is_onnx(&import.domain))
        .map_or(1, |import| import.version)
}

/// Whether `domain` is that of ONNX's own operators.
pub(crate) fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Makes `model` one that tract computes as ONNX says.
pub(crate) fn normalise(model: &mut ModelProto, context: &Context) -> Result<()> {
    functions::inline(model)?;
    let Some(graph) = model.graph.as_mut() else {
        return Ok(());
    };
    eval::drop_training_outputs(graph);
    for_each_graph(graph, &mut |graph| {
        tidy::tidy(graph);
        for node in &mut graph.node {
            operators::check(node)?;
        }
        train::dropout(graph, context)?;
        eval::eval(graph)?;
        train::norms(graph, context)?;
        legacy::lower(graph, context)?;
        for node in &mut graph.node {
            attributes::check(node)?;
        }
        widen::widen(graph, context)?;
        match context.precision {
            Precision::F64 => double::lower(graph, context),
            Precision::F32 => double::lower_gemms(graph, context),
        }
    })
}

/// Puts `model` into eval mode and widens its floats, for an engine that needs no more than that to compute what ONNX says. Elements
/// in other files come into the model.
#[cfg(feature = "ort")]
pub(crate) fn to_eval(model: &mut ModelProto, context: &Context) -> Result<()> {
    functions::inline(model)?;
    let Some(graph) = model.graph.as_mut() else {
        return Ok(());
    };
    eval::drop_training_outputs(graph);
    for_each_graph(graph, &mut |graph| {
        for node in &graph.node {
            operators::same_each_time(node)?;
            if !is_onnx(&node.domain) && ["BatchNormalization", "Dropout"].contains(&&*node.op_type)
            {
                return Err(crate::EngineError::unsupported(
                    node,
                    "it is not known what that is in eval mode",
                ));
            }
        }
        eval::eval(graph)?;
        widen::widen(graph, context)
    })
}

/// Calls `work` on a graph and on every graph inside it, outer ones first.
pub(crate) fn for_each_graph(
    graph: &mut GraphProto,
    work: &mut dyn FnMut(&mut GraphProto) -> Result<()>,
) -> Result<()> {
    work(graph)?;
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                for_each_graph(inner, work)?;
            }
        }
    }
    Ok(())
}

/// The attribute of this name.
pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
}

/// An integer attribute, or `default`.
pub(crate) fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

/// A float attribute, or `default`.
pub(crate) fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |attribute| attribute.f)
}

/// A string attribute, or `default`.
pub(crate) fn text<'a>(node: &'a NodeProto, name: &str, default: &'a str) -> &'a str {
    attribute(node, name).map_or(default, |attribute| {
        std::str::from_utf8(&attribute.s).unwrap_or(default)
    })
}

/// Removes the attribute of this name.
pub(crate) fn remove(node: &mut NodeProto, name: &str) {
    node.attribute.retain(|attribute| attribute.name != name);
}

/// Sets an integer attribute.
pub(crate) fn set_int(node: &mut NodeProto, name: &str, value: i64) {
    remove(node, name);
    node.attribute.push(AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..Default::default()
    });
}

/// Sets a float attribute.
pub(crate) fn set_float(node: &mut NodeProto, name: &str, value: f32) {
    remove(node, name);
    node.attribute.push(AttributeProto {
        name: name.into(),
        r#type: AttributeType::Float as i32,
        f: value,
        ..Default::default()
    });
}

/// A node of ONNX's own operators.
pub(crate) fn node(op_type: &str, name: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        name: name.into(),
        input: input.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    }
}
