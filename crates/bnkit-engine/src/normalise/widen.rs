//! Wider floats: f16 and bf16 become f32 (tract has no bf16 and several operators without f16), or every float becomes a double.
//!
//! A wider value is exactly the narrower one. What changes is arithmetic, which is the point.

use std::collections::HashMap;

use bnkit_model::{
    DType,
    tensor::{decode_f64, encode_f64},
};
use tract_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType,
    type_proto::Value,
};

use super::{Context, attribute, remove, set_int};
use crate::apart::is_apart;
use crate::constant::make_raw;
use crate::{EngineError, Precision, Result};

/// Attributes whose integer is an element type.
const TYPES: [(&str, &str); 6] = [
    ("Cast", "to"),
    ("EyeLike", "dtype"),
    ("LayerNormalization", "stash_type"),
    ("RMSNormalization", "stash_type"),
    ("MelWeightMatrix", "output_datatype"),
    ("HannWindow", "output_datatype"),
];

impl Precision {
    /// The type that `dtype` becomes.
    pub(crate) fn widened(self, dtype: DType) -> DType {
        match (self, dtype) {
            (Self::F32, DType::F16 | DType::BF16) => DType::F32,
            (Self::F64, DType::F16 | DType::BF16 | DType::F32) => DType::F64,
            _ => dtype,
        }
    }
}

/// Widens every float of one graph (not of the graphs inside it).
pub(super) fn widen(graph: &mut GraphProto, context: &Context) -> Result<()> {
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = sparse.values.as_ref().map_or("", |values| &values.name);
        return Err(EngineError::unsupported_model(format!(
            "the sparse initializer {name:?}"
        )));
    }
    cast_by_number(graph);
    for tensor in &mut graph.initializer {
        let name = tensor.name.clone();
        widen_tensor(&name, tensor, context)?;
    }
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(Value::TensorType(tensor)) =
            value.r#type.as_mut().and_then(|kind| kind.value.as_mut())
        {
            tensor.elem_type = widen_number(tensor.elem_type, context);
        }
    }
    for node in &mut graph.node {
        widen_node(node, context)?;
    }
    Ok(())
}

/// CastLike by a value of declared type as Cast: tract sees that the result is constant only if nothing it reads is an input.
fn cast_by_number(graph: &mut GraphProto) {
    let declared = graph.input.iter().filter_map(|input| {
        let Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()?;
        Some((input.name.clone(), tensor.elem_type))
    });
    let stored = graph.initializer.iter();
    let stored = stored.map(|tensor| (tensor.name.clone(), tensor.data_type));
    let types: HashMap<String, i32> = declared.chain(stored).collect();
    for node in &mut graph.node {
        if node.op_type == "CastLike"
            && let Some(&to) = node.input.get(1).and_then(|like| types.get(like))
        {
            node.op_type = "Cast".into();
            node.input.truncate(1);
            set_int(node, "to", to.into());
        }
    }
}

fn widen_number(number: i32, context: &Context) -> i32 {
    context
        .precision
        .widened(DType::from_onnx(number))
        .to_onnx()
}

fn widen_node(node: &mut NodeProto, context: &Context) -> Result<()> {
    if node.op_type == "Constant" {
        scalar_attributes_to_tensor(node);
    }
    let name = match node.op_type.as_str() {
        "Constant" => node.output.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    for attribute in &mut node.attribute {
        for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
            widen_tensor(&name, tensor, context)?;
        }
        if TYPES.contains(&(node.op_type.as_str(), attribute.name.as_str())) {
            let number = i32::try_from(attribute.i).unwrap_or_default();
            attribute.i = widen_number(number, context).into();
        }
    }
    if context.precision == Precision::F64 {
        match node.op_type.as_str() {
            "LayerNormalization" if attribute(node, "stash_type").is_none() => {
                set_int(node, "stash_type", DType::F64.to_onnx().into());
            }
            "ConstantOfShape" if attribute(node, "value").is_none() => {
                node.attribute.push(tensor_attribute(f64_scalar("", 0.0)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `value_float` and `value_floats` as a tensor, which can be widened.
fn scalar_attributes_to_tensor(node: &mut NodeProto) {
    let tensor = if let Some(value) = attribute(node, "value_float") {
        TensorProto {
            data_type: 1,
            float_data: vec![value.f],
            ..Default::default()
        }
    } else if let Some(values) = attribute(node, "value_floats") {
        TensorProto {
            data_type: 1,
            dims: vec![values.floats.len() as i64],
            float_data: values.floats.clone(),
            ..Default::default()
        }
    } else {
        return;
    };
    remove(node, "value_float");
    remove(node, "value_floats");
    node.attribute.push(tensor_attribute(tensor));
}

fn tensor_attribute(tensor: TensorProto) -> AttributeProto {
    AttributeProto {
        name: "value".into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(tensor),
        ..Default::default()
    }
}

/// A double without dimensions.
pub(super) fn f64_scalar(name: &str, value: f64) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: DType::F64.to_onnx(),
        raw_data: value.to_le_bytes().to_vec(),
        ..Default::default()
    }
}

fn widen_tensor(name: &str, tensor: &mut TensorProto, context: &Context) -> Result<()> {
    let from = DType::from_onnx(tensor.data_type);
    let to = context.precision.widened(from);
    if !is_apart(tensor) {
        make_raw(tensor, context.model_dir)?;
        let perturbed = context.perturbation.is_some_and(|how| how.touches(name));
        if to != from || from.is_float() && perturbed {
            let (narrow, wide) = (from.size().unwrap_or(1), to.size().unwrap_or(1));
            let mut raw = vec![0; tensor.raw_data.len() / narrow * wide];
            widen_elements(name, from, &tensor.raw_data, context, &mut raw)?;
            tensor.raw_data = raw;
        }
    }
    tensor.data_type = to.to_onnx();
    Ok(())
}

/// Writes the elements of a constant, little-endian and stored as `from`, in the type that it is computed in. `out` has the bytes that
/// they then take.
pub(crate) fn widen_elements(
    name: &str,
    from: DType,
    elements: &[u8],
    context: &Context,
    out: &mut [u8],
) -> Result<()> {
    let to = context.precision.widened(from);
    let perturbation = context.perturbation.filter(|how| how.touches(name));
    match (from, to, perturbation) {
        // Nearly all weights of nearly all models go one of these ways.
        (_, _, None) if from == to => out.copy_from_slice(elements),
        (DType::F32, DType::F64, None) => {
            let wide = out.as_chunks_mut::<8>().0.iter_mut();
            for (wide, narrow) in wide.zip(elements.as_chunks::<4>().0) {
                *wide = f64::from(f32::from_le_bytes(*narrow)).to_le_bytes();
            }
        }
        _ => {
            let wrong =
                |error: bnkit_model::Error| EngineError::model(format!("tensor {name:?}: {error}"));
            let mut values = decode_f64(from, elements).map_err(wrong)?;
            if let Some(how) = perturbation {
                how.apply(name, from, &mut values);
            }
            let mut wide = Vec::with_capacity(out.len());
            encode_f64(to, &values, &mut wide).map_err(wrong)?;
            out.copy_from_slice(&wide);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::node;

    fn context(precision: Precision) -> Context<'static> {
        Context {
            opset: 17,
            precision,
            model_dir: None,
            perturbation: None,
            mode: crate::normalise::Mode::Eval,
        }
    }

    #[test]
    fn every_form_of_a_float_constant_becomes_a_double() {
        let mut graph = GraphProto::default();
        // 1.5 in f16, kept in int32_data; 1.0 in bf16, raw.
        graph.initializer.push(TensorProto {
            data_type: 10,
            dims: vec![1],
            int32_data: vec![0x3e00],
            ..Default::default()
        });
        graph.initializer.push(TensorProto {
            data_type: 16,
            raw_data: vec![0x80, 0x3f],
            ..Default::default()
        });
        let mut constant = node("Constant", "c", &[], "c");
        super::super::set_float(&mut constant, "value_float", 0.1);
        graph.node.push(constant);
        let mut cast = node("Cast", "cast", &["c"], "d");
        set_int(&mut cast, "to", 10);
        graph.node.push(cast);
        widen(&mut graph, &context(Precision::F64)).unwrap();
        assert_eq!(graph.initializer[0].raw_data, 1.5f64.to_le_bytes());
        assert_eq!(graph.initializer[1].raw_data, 1.0f64.to_le_bytes());
        let value = attribute(&graph.node[0], "value")
            .unwrap()
            .t
            .as_ref()
            .unwrap();
        assert_eq!(value.raw_data, f64::from(0.1f32).to_le_bytes());
        assert_eq!(graph.node[1].attribute[0].i, 11);
    }

    #[test]
    fn single_precision_leaves_doubles_and_integers_alone() {
        let mut graph = GraphProto::default();
        graph.initializer.push(f64_scalar("d", 2.0));
        graph.initializer.push(TensorProto {
            data_type: 12,
            dims: vec![1],
            uint64_data: vec![7],
            ..Default::default()
        });
        widen(&mut graph, &context(Precision::F32)).unwrap();
        assert_eq!(graph.initializer[0].data_type, 11);
        assert_eq!(graph.initializer[1].raw_data, 7u32.to_le_bytes());
    }
}
