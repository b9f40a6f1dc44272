//! Attributes, read strictly: one that is there but of another type, or that a local function's caller decides, is
//! malformed (`None`), never its default.

use super::super::model::{AttributeValue, Node, TensorDef};

/// The integer `name`, or `default` if the node has none.
pub(in crate::onnx) fn int(node: &Node, name: &str, default: i64) -> Option<i64> {
    match node.attribute(name).map(|attribute| &attribute.value) {
        None => Some(default),
        Some(AttributeValue::Int(value)) => Some(*value),
        Some(_) => None,
    }
}

/// The switch `name`: 0 or 1, off if the node has none.
pub(in crate::onnx) fn flag(node: &Node, name: &str) -> Option<bool> {
    match int(node, name, 0)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// The integers `name`; `Some(None)` if the node has none.
pub(in crate::onnx) fn ints<'n>(node: &'n Node, name: &str) -> Option<Option<&'n [i64]>> {
    match node.attribute(name).map(|attribute| &attribute.value) {
        None => Some(None),
        Some(AttributeValue::Ints(values)) => Some(Some(values)),
        Some(_) => None,
    }
}

/// The floats `name`; `Some(None)` if the node has none.
pub(in crate::onnx) fn floats<'n>(node: &'n Node, name: &str) -> Option<Option<&'n [f32]>> {
    match node.attribute(name).map(|attribute| &attribute.value) {
        None => Some(None),
        Some(AttributeValue::Floats(values)) => Some(Some(values)),
        Some(_) => None,
    }
}

/// The string `name`, or `default` if the node has none.
pub(in crate::onnx) fn string<'n>(
    node: &'n Node,
    name: &str,
    default: &'static str,
) -> Option<&'n [u8]> {
    match node.attribute(name).map(|attribute| &attribute.value) {
        None => Some(default.as_bytes()),
        Some(AttributeValue::String(value)) => Some(value),
        Some(_) => None,
    }
}

/// The tensor `name`; `Some(None)` if the node has none.
pub(in crate::onnx) fn tensor<'n>(node: &'n Node, name: &str) -> Option<Option<&'n TensorDef>> {
    match node.attribute(name).map(|attribute| &attribute.value) {
        None => Some(None),
        Some(AttributeValue::Tensor(tensor)) => Some(Some(tensor)),
        Some(_) => None,
    }
}
