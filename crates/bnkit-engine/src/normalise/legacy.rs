//! Operators as early opsets defined them, in the form that later ones have and tract knows.
//!
//! Before opset 7 an operator of two operands broadcast by its attributes `axis` and `broadcast`, which tract ignores: operand B
//! starts at axis `axis` of A. [`ALIGN`], an operator of ours, puts ones behind B's dimensions, after which NumPy's rule does the
//! same.

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType};

use super::{Context, attribute, int, node, remove, set_int, text};
use crate::{EngineError, Result, operators::ALIGN};

const BROADCASTS: [&str; 12] = [
    "Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "PRelu", "Pow", "Sub", "Xor",
];

/// Rewrites what an early opset means differently.
pub(super) fn lower(graph: &mut GraphProto, context: &Context) -> Result<()> {
    let mut out = Vec::with_capacity(graph.node.len());
    let mut constants = vec![];
    for mut node in std::mem::take(&mut graph.node) {
        if super::is_onnx(&node.domain) {
            if context.opset < 7 && BROADCASTS.contains(&node.op_type.as_str()) {
                out.extend(align(&mut node)?);
            }
            match node.op_type.as_str() {
                "Concat" if context.opset < 4 && attribute(&node, "axis").is_none() => {
                    set_int(&mut node, "axis", 1);
                }
                "Reshape" if context.opset < 5 => constants.extend(to_input(&mut node, "shape")),
                "Upsample" if context.opset < 9 => constants.extend(to_input(&mut node, "scales")),
                "Gemm" => remove(&mut node, "broadcast"),
                "Resize" if context.opset == 10 => resize(&mut node, &graph.initializer),
                // tract looks for roi and scales at fixed places here; an empty tensor is "absent".
                "Resize" if (11..13).contains(&context.opset) => {
                    constants.extend(fill_absent(&mut node));
                }
                _ => {}
            }
        }
        out.push(node);
    }
    graph.node = out;
    graph.initializer.extend(constants);
    Ok(())
}

/// Makes operand B of a broadcasting operator one that NumPy's rule aligns.
fn align(binary: &mut NodeProto) -> Result<Option<NodeProto>> {
    let prelu = binary.op_type == "PRelu";
    let by_axis = attribute(binary, "axis").is_some() && int(binary, "broadcast", 0) != 0;
    let axis = if prelu { 1 } else { int(binary, "axis", -1) };
    remove(binary, "axis");
    remove(binary, "broadcast");
    if !(prelu || by_axis) || axis == -1 {
        return Ok(None);
    }
    let [a, b] = binary.input.as_slice() else {
        return Err(EngineError::unsupported(binary, "expected two operands"));
    };
    let aligned = format!(
        "bnkit/aligned/{}",
        binary.output.first().map_or("", String::as_str)
    );
    let mut align = node(ALIGN, &aligned, &[b, a], &aligned);
    set_int(&mut align, "axis", axis);
    binary.input[1] = aligned;
    Ok(Some(align))
}

/// Turns the list attribute `name` into a constant at the second input.
fn to_input(node: &mut NodeProto, name: &str) -> Option<TensorProto> {
    let list = attribute(node, name)?.clone();
    remove(node, name);
    let name = format!("bnkit/{name}/{}", node.output.first()?);
    node.input.truncate(1);
    node.input.push(name.clone());
    let floats = list.r#type == AttributeType::Floats as i32;
    Some(TensorProto {
        name,
        dims: vec![if floats {
            list.floats.len()
        } else {
            list.ints.len()
        } as i64],
        data_type: if floats { 1 } else { 7 },
        float_data: list.floats,
        int64_data: list.ints,
        ..Default::default()
    })
}

/// Resize 10 rounds down (up, where it shrinks an image); tract would round to nearest.
fn resize(node: &mut NodeProto, constants: &[TensorProto]) {
    if text(node, "mode", "nearest") != "nearest" || attribute(node, "nearest_mode").is_some() {
        return;
    }
    let scales = node.input.get(1).and_then(|name| {
        let mut scales = constants
            .iter()
            .find(|tensor| tensor.name == *name)?
            .clone();
        crate::constant::make_raw(&mut scales, None).ok()?;
        bnkit_model::tensor::decode_f64(bnkit_model::DType::F32, &scales.raw_data).ok()
    });
    let shrinks = scales.is_some_and(|scales| scales.iter().any(|&scale| scale < 1.0));
    set_text(node, "nearest_mode", if shrinks { "ceil" } else { "floor" });
}

fn set_text(node: &mut NodeProto, name: &str, value: &str) {
    node.attribute.push(tract_onnx::pb::AttributeProto {
        name: name.into(),
        r#type: AttributeType::String as i32,
        s: value.into(),
        ..Default::default()
    });
}

fn fill_absent(node: &mut NodeProto) -> Vec<TensorProto> {
    let mut out = vec![];
    let at = node.output.first().cloned().unwrap_or_default();
    for (position, input) in node.input.iter_mut().enumerate() {
        if input.is_empty() {
            *input = format!("bnkit/absent/{at}/{position}");
            out.push(TensorProto {
                name: input.clone(),
                dims: vec![0],
                data_type: 1,
                ..Default::default()
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;

    fn lowered(node: NodeProto, opset: i64) -> GraphProto {
        let mut graph = GraphProto {
            node: vec![node],
            ..Default::default()
        };
        let context = Context {
            opset,
            precision: Precision::F32,
            model_dir: None,
            perturbation: None,
            mode: crate::normalise::Mode::Eval,
        };
        lower(&mut graph, &context).unwrap();
        graph
    }

    #[test]
    fn broadcasting_by_axis_is_aligned() {
        let mut add = node("Add", "add", &["x", "b"], "y");
        set_int(&mut add, "broadcast", 1);
        set_int(&mut add, "axis", 1);
        let graph = lowered(add.clone(), 6);
        assert_eq!(graph.node[0].op_type, ALIGN);
        assert_eq!(graph.node[1].input[1], graph.node[0].output[0]);
        assert!(graph.node[1].attribute.is_empty());
        // From opset 7 on the attributes are unknown ones, refused elsewhere.
        assert_eq!(lowered(add, 7).node.len(), 1);
    }

    #[test]
    fn a_shape_attribute_becomes_an_input() {
        let mut reshape = node("Reshape", "r", &["x"], "y");
        reshape.attribute.push(tract_onnx::pb::AttributeProto {
            name: "shape".into(),
            r#type: AttributeType::Ints as i32,
            ints: vec![0, -1],
            ..Default::default()
        });
        let graph = lowered(reshape, 1);
        assert_eq!(graph.initializer[0].int64_data, [0, -1]);
        assert_eq!(graph.node[0].input[1], graph.initializer[0].name);
    }
}
