//! Attributes that tract ignores would make it compute something else without a word. So every attribute of the operators below
//! must be one that it honours, or one that changes nothing here.

use tract_onnx::pb::NodeProto;

use super::{int, remove, text};
use crate::{EngineError, Result};

const CONV: &[&str] = &[
    "auto_pad",
    "dilations",
    "group",
    "kernel_shape",
    "pads",
    "strides",
];
/// tract takes `hidden_size` from the weights, but computes a reversed sequence forwards and any activation as the default one.
const RECURRENT: &[&str] = &["hidden_size", "layout", "linear_before_reset"];

/// The attributes that tract honours, for operators of ONNX's own domain; `None` for operators that are not listed.
fn honoured(op_type: &str) -> Option<&'static [&'static str]> {
    Some(match op_type {
        "ArgMax" | "ArgMin" => &["axis", "keepdims", "select_last_index"],
        "AveragePool" => &[
            "auto_pad",
            "ceil_mode",
            "count_include_pad",
            "dilations",
            "kernel_shape",
            "pads",
            "strides",
        ],
        "BatchNormalization" | "InstanceNormalization" => &["epsilon"],
        "BitShift" => &["direction"],
        "Cast" => &["to"],
        "Celu" | "Elu" | "LeakyRelu" | "ThresholdedRelu" => &["alpha"],
        "Clip" => &["max", "min"],
        "Compress" | "Concat" | "Flatten" | "Gather" | "GatherElements" | "Hardmax"
        | "LogSoftmax" | "OneHot" | "Softmax" => &["axis"],
        "Constant" => &[
            "value",
            "value_float",
            "value_floats",
            "value_int",
            "value_ints",
            "value_string",
            "value_strings",
        ],
        "ConstantOfShape" => &["value"],
        "Conv" | "ConvInteger" | "QLinearConv" => CONV,
        "ConvTranspose" => &[
            "auto_pad",
            "dilations",
            "group",
            "kernel_shape",
            "output_padding",
            "pads",
            "strides",
        ],
        "CumSum" => &["exclusive", "reverse"],
        "DepthToSpace" => &["blocksize", "mode"],
        "DequantizeLinear" | "QuantizeLinear" => &["axis"],
        "Einsum" => &["equation"],
        "EyeLike" => &["dtype", "k"],
        "GatherND" => &["batch_dims"],
        "Gelu" => &["approximate"],
        "Gemm" => &["alpha", "beta", "transA", "transB"],
        "GridSample" => &["align_corners", "mode", "padding_mode"],
        "GroupNormalization" => &["epsilon", "num_groups"],
        "GRU" | "LSTM" | "RNN" => RECURRENT,
        "HardSigmoid" => &["alpha", "beta"],
        "If" => &["else_branch", "then_branch"],
        "IsInf" => &["detect_negative", "detect_positive"],
        "LayerNormalization" | "RMSNormalization" => &["axis", "epsilon", "stash_type"],
        "LpNormalization" => &["axis", "p"],
        "LRN" => &["alpha", "beta", "bias", "size"],
        "MaxPool" => &[
            "auto_pad",
            "ceil_mode",
            "dilations",
            "kernel_shape",
            "pads",
            "storage_order",
            "strides",
        ],
        "MeanVarianceNormalization" => &["axes"],
        "Mod" => &["fmod"],
        "NonMaxSuppression" => &["center_point_box"],
        "Pad" => &["mode", "pads", "value"],
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
        | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => {
            &["axes", "keepdims", "noop_with_empty_axes"]
        }
        "Reshape" => &["allowzero"],
        "Resize" => &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
        "Scan" => &[
            "body",
            "num_scan_inputs",
            "scan_input_axes",
            "scan_input_directions",
            "scan_output_axes",
            "scan_output_directions",
        ],
        "Scatter" | "ScatterElements" => &["axis", "reduction"],
        "ScatterND" => &["reduction"],
        "Selu" => &["alpha", "gamma"],
        "Shape" => &["end", "start"],
        "Shrink" => &["bias", "lambd"],
        "Slice" => &["axes", "ends", "starts"],
        "SpaceToDepth" => &["blocksize"],
        "Split" => &["axis", "split", "num_outputs"],
        "Squeeze" | "Unsqueeze" => &["axes"],
        "TopK" => &["axis", "largest"],
        "Transpose" => &["perm"],
        "Trilu" => &["upper"],
        "Abs" | "Acos" | "Acosh" | "Add" | "And" | "Asin" | "Asinh" | "Atan" | "Atanh"
        | "CastLike" | "Ceil" | "Cos" | "Cosh" | "Div" | "Equal" | "Erf" | "Exp" | "Expand"
        | "Floor" | "GlobalAveragePool" | "GlobalMaxPool" | "Greater" | "GreaterOrEqual"
        | "HardSwish" | "Identity" | "IsNaN" | "Less" | "LessOrEqual" | "Log" | "MatMul"
        | "Max" | "Mean" | "Min" | "Mish" | "Mul" | "Neg" | "NonZero" | "Not" | "Or" | "PRelu"
        | "Pow" | "Reciprocal" | "Relu" | "Round" | "Sigmoid" | "Sign" | "Sin" | "Sinh"
        | "Size" | "Softplus" | "Softsign" | "Sqrt" | "Sub" | "Sum" | "Swish" | "Tan" | "Tanh"
        | "Tile" | "Where" | "Xor" => &[],
        _ => return None,
    })
}

/// Whether an attribute changes nothing, with the value that it has.
fn harmless(node: &NodeProto, name: &str) -> bool {
    match (node.op_type.as_str(), name) {
        // A hint for in-place computation, long gone.
        (_, "consumed_inputs") => true,
        // The order of equal rank is not promised either way.
        ("TopK", "sorted") => true,
        // Only for 8-bit floats, which the engine does not have.
        ("Cast" | "CastLike" | "QuantizeLinear", "saturate" | "round_mode") => true,
        ("GroupNormalization", "stash_type") => true,
        ("DequantizeLinear" | "QuantizeLinear", "block_size" | "output_dtype" | "precision") => {
            int(node, name, 0) == 0
        }
        ("GRU" | "LSTM" | "RNN", "input_forget") => int(node, name, 0) == 0,
        ("GRU" | "LSTM" | "RNN", "direction") => {
            matches!(text(node, name, "forward"), "forward" | "bidirectional")
        }
        ("GRU" | "LSTM" | "RNN", "activations") => {
            let default: &[&str] = match node.op_type.as_str() {
                "GRU" => &["Sigmoid", "Tanh"],
                "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
                _ => &["Tanh"],
            };
            super::attribute(node, name).is_none_or(|attribute| {
                attribute
                    .strings
                    .iter()
                    .enumerate()
                    .all(|(i, given)| given == default[i % default.len()].as_bytes())
            })
        }
        ("Swish", "alpha") => super::float(node, name, 1.0) == 1.0,
        _ => false,
    }
}

/// Refuses attributes that tract would ignore; makes explicit padding and `auto_pad` agree.
pub(super) fn check(node: &mut NodeProto) -> Result<()> {
    let Some(honoured) = honoured(&node.op_type).filter(|_| super::is_onnx(&node.domain)) else {
        return Ok(());
    };
    let ignored = node.attribute.iter().find(|attribute| {
        !honoured.contains(&attribute.name.as_str()) && !harmless(node, &attribute.name)
    });
    if let Some(attribute) = ignored {
        let reason = format!(
            "the engine does not know its attribute {:?}",
            attribute.name
        );
        return Err(EngineError::unsupported(node, reason));
    }
    // tract looks at pads first; where auto_pad is given, ONNX Runtime looks at that.
    if honoured.contains(&"auto_pad") && !matches!(text(node, "auto_pad", "NOTSET"), "NOTSET" | "")
    {
        remove(node, "pads");
    }
    if node.op_type == "Selu" {
        for (name, value) in [("alpha", 1.673_263_2), ("gamma", 1.050_701)] {
            if super::attribute(node, name).is_none() {
                super::set_float(node, name, value);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::{node, set_float, set_int};

    #[test]
    fn an_ignored_attribute_is_refused_by_name() {
        let mut lstm = node("LSTM", "rnn", &["x"], "y");
        set_float(&mut lstm, "clip", 3.0);
        let error = check(&mut lstm).unwrap_err().to_string();
        assert!(
            error.contains("\"clip\"") && error.contains("rnn"),
            "{error}"
        );
    }

    #[test]
    fn harmless_values_pass() {
        let mut quantize = node("QuantizeLinear", "q", &["x", "s"], "y");
        set_int(&mut quantize, "block_size", 0);
        check(&mut quantize).unwrap();
        set_int(&mut quantize, "block_size", 32);
        assert!(check(&mut quantize).is_err());
    }
}
