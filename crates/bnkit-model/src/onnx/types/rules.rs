//! The table: which operator follows which rule. What is not in it has outputs of unknown type.

use super::at::At;
use super::{Fact, elementwise, layout, matrix, reduce, resize, window};
use crate::DType;

/// What is known of the outputs of a node of ONNX's own domain; outputs beyond the list are unknown.
pub(super) fn outputs(at: &At<'_>) -> Vec<Fact> {
    match at.node.op_type.as_str() {
        "MaxPool" => window::pool(at, true),
        "Dropout" => elementwise::dropout(at),
        "Split" => layout::split(at),
        "TopK" => reduce::top_k(at),
        _ => single(at).into_iter().collect(),
    }
}

fn single(at: &At<'_>) -> Option<Fact> {
    match at.node.op_type.as_str() {
        "Constant" => elementwise::constant(at),
        // The result has the type and shape of the first input.
        "Abs"
        | "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "BatchNormalization"
        | "BitwiseNot"
        | "Ceil"
        | "Celu"
        | "Clip"
        | "Cos"
        | "Cosh"
        | "CumSum"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Gelu"
        | "GroupNormalization"
        | "HardSigmoid"
        | "HardSwish"
        | "Hardmax"
        | "Identity"
        | "InstanceNormalization"
        | "LRN"
        | "LayerNormalization"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "MeanVarianceNormalization"
        | "Mish"
        | "Neg"
        | "PRelu"
        | "RMSNormalization"
        | "Reciprocal"
        | "Relu"
        | "ReverseSequence"
        | "Round"
        | "Scatter"
        | "ScatterElements"
        | "ScatterND"
        | "Selu"
        | "Shrink"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tan"
        | "Tanh"
        | "ThresholdedRelu"
        | "Trilu" => elementwise::same(at, at.dtype(0)),
        "Not" | "IsNaN" | "IsInf" => elementwise::same(at, Some(DType::Bool)),
        "Cast" => elementwise::cast(at),
        "CastLike" => elementwise::same(at, at.dtype(1)),
        "QuantizeLinear" => elementwise::quantize(at),
        "DequantizeLinear" => elementwise::dequantize(at),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "BitShift" | "BitwiseAnd" | "BitwiseOr"
        | "BitwiseXor" => elementwise::binary(at),
        "Min" | "Max" | "Sum" | "Mean" => elementwise::variadic(at),
        "And" | "Or" | "Xor" | "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" => {
            elementwise::comparison(at)
        }
        "Where" => elementwise::choice(at),
        "Conv" => window::conv(at, 0, 1, at.dtype(0).or(at.dtype(1))),
        "ConvInteger" => window::conv(at, 0, 1, Some(DType::I32)),
        "QLinearConv" => window::conv(at, 0, 3, at.dtype(7)),
        "ConvTranspose" => window::conv_transpose(at),
        "AveragePool" | "LpPool" => window::pool(at, false).into_iter().next(),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => window::global_pool(at),
        "Gemm" => matrix::gemm(at),
        "MatMul" => matrix::mat_mul(at, 0, 1, at.dtype(0).or(at.dtype(1))),
        "MatMulInteger" => matrix::mat_mul(at, 0, 1, Some(DType::I32)),
        "QLinearMatMul" => matrix::mat_mul(at, 0, 3, at.dtype(7)),
        "Flatten" => layout::flatten(at),
        "Reshape" => layout::reshape(at),
        "Transpose" => layout::transpose(at),
        "Squeeze" => layout::squeeze(at),
        "Unsqueeze" => layout::unsqueeze(at),
        "Concat" => layout::concat(at),
        "Slice" => layout::slice(at),
        "Pad" => layout::pad(at),
        "Gather" => layout::gather(at),
        "GatherElements" => Some(Fact::new(at.dtype(0), at.dims(1).map(<[_]>::to_vec))),
        "Expand" => layout::expand(at),
        "Tile" => layout::tile(at),
        "Shape" => layout::shape(at),
        "Size" => Some(Fact::new(Some(DType::I64), Some(Vec::new()))),
        "ConstantOfShape" => layout::constant_of_shape(at),
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
        | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSumSquare" => reduce::reduce(at, 18),
        "ReduceSum" => reduce::reduce(at, 13),
        "ArgMax" | "ArgMin" => reduce::arg(at),
        "Resize" => resize::resize(at),
        "Upsample" => resize::upsample(at),
        "DepthToSpace" => resize::depth_to_space(at),
        "SpaceToDepth" => resize::space_to_depth(at),
        _ => None,
    }
}
