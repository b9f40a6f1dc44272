//! Which operators may reach tract. It ignores domains, so that `com.acme::BatchNormalization` would run as ONNX's own.

use std::collections::HashSet;
use std::sync::OnceLock;

use tract_onnx::pb::NodeProto;

use super::is_onnx;
use crate::{EngineError, Result, operators::registry};

/// Operators outside ONNX's own domain that tract means when it registers these names.
const FOREIGN: [(&str, &[&str]); 2] = [
    (
        "com.microsoft",
        &[
            "BiasGelu",
            "FastGelu",
            "Gelu",
            "MatMulNBits",
            "QuickGelu",
            "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        ],
    ),
    ("ai.onnx.ml", &["Normalizer", "LinearRegressor"]),
];

/// Operators whose output differs from run to run.
const RANDOM: [&str; 6] = [
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// Refuses what tract does not have, what it would take for something else, and what is random.
pub(super) fn check(node: &mut NodeProto) -> Result<()> {
    if is_onnx(&node.domain) {
        node.domain.clear();
        same_each_time(node)?;
        if node.op_type == "GlobalLpPool" {
            return Err(EngineError::unsupported(
                node,
                "the engine divides by the number of elements, which ONNX does not",
            ));
        }
        // Lowered to Resize, which tract has.
        if known().contains(&node.op_type) || node.op_type == "Upsample" {
            return Ok(());
        }
        return Err(EngineError::unsupported(
            node,
            "the engine has no such operator",
        ));
    }
    let allowed = FOREIGN
        .iter()
        .any(|(domain, names)| *domain == node.domain && names.contains(&node.op_type.as_str()));
    if allowed {
        Ok(())
    } else {
        Err(EngineError::unsupported(
            node,
            "the engine has no operators of this domain",
        ))
    }
}

/// Refuses what is random.
pub(super) fn same_each_time(node: &NodeProto) -> Result<()> {
    if is_onnx(&node.domain) && RANDOM.contains(&node.op_type.as_str()) {
        return Err(EngineError::unsupported(node, "its output is random"));
    }
    Ok(())
}

fn known() -> &'static HashSet<String> {
    static KNOWN: OnceLock<HashSet<String>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        registry(crate::Precision::F32)
            .op_register
            .0
            .into_keys()
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::node;

    #[test]
    fn a_foreign_operator_of_the_same_name_is_refused() {
        let mut foreign = node("BatchNormalization", "bn", &["x"], "y");
        foreign.domain = "com.acme".into();
        let error = check(&mut foreign).unwrap_err().to_string();
        assert!(error.contains("com.acme::BatchNormalization"), "{error}");
        foreign.domain = "ai.onnx".into();
        check(&mut foreign).unwrap();
    }

    #[test]
    fn random_and_unknown_operators_are_refused() {
        assert!(check(&mut node("RandomNormal", "r", &[], "y")).is_err());
        assert!(check(&mut node("Loop", "l", &[], "y")).is_err());
    }
}
