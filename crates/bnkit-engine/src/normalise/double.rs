//! What a graph of doubles needs before tract takes it: operators that insist on single precision somewhere.
//!
//! Operators without a kernel for doubles are exchanged later, in the typed graph (`operators`). Where single precision is part of
//! the meaning (quantisation), it stays: values are cast for that operator, and such a step jumps anyway.

use std::collections::HashSet;

use bnkit_model::DType;
use tract_onnx::pb::{GraphProto, NodeProto};

use super::widen::f64_scalar;
use super::{Context, float, int, node, set_int, text};
use crate::{EngineError, Result};

/// Names of casts to single precision that belong to the operator behind them.
pub(crate) const SINGLE: &str = "bnkit/single/";

/// Rewrites the operators of one graph that has been widened to doubles.
pub(super) fn lower(graph: &mut GraphProto, context: &Context) -> Result<()> {
    let mut lowering = Lowering {
        graph,
        context,
        out: vec![],
    };
    for node in std::mem::take(&mut lowering.graph.node) {
        lowering.node(node)?;
    }
    lowering.graph.node = lowering.out;
    Ok(())
}

/// Rewrites the Gemms of doubles in a graph that computes in several types.
pub(super) fn lower_gemms(graph: &mut GraphProto, context: &Context) -> Result<()> {
    let is_double = |data_type: i32| DType::from_onnx(data_type) == DType::F64;
    let stored = graph.initializer.iter();
    let mut doubles: HashSet<String> = stored
        .filter(|tensor| is_double(tensor.data_type))
        .map(|tensor| tensor.name.clone())
        .collect();
    for node in &graph.node {
        let attributes = node.attribute.iter();
        let mut types = attributes.filter_map(|attribute| match attribute.name.as_str() {
            "value" => attribute.t.as_ref().map(|tensor| tensor.data_type),
            "to" => i32::try_from(attribute.i).ok(),
            _ => None,
        });
        let passes_on = matches!(
            node.op_type.as_str(),
            "Identity" | "Reshape" | "Transpose" | "Expand"
        ) && node
            .input
            .first()
            .is_some_and(|input| doubles.contains(input));
        if types.any(is_double) || passes_on {
            doubles.extend(node.output.iter().cloned());
        }
    }
    let mut lowering = Lowering {
        graph,
        context,
        out: vec![],
    };
    for node in std::mem::take(&mut lowering.graph.node) {
        let of_doubles = node.input.iter().any(|input| doubles.contains(input));
        if node.op_type == "Gemm" && of_doubles {
            lowering.gemm(node)?;
        } else {
            lowering.out.push(node);
        }
    }
    lowering.graph.node = lowering.out;
    Ok(())
}

struct Lowering<'a> {
    graph: &'a mut GraphProto,
    context: &'a Context<'a>,
    out: Vec<NodeProto>,
}

impl Lowering<'_> {
    fn node(&mut self, mut node: NodeProto) -> Result<()> {
        match node.op_type.as_str() {
            "Gemm" => return self.gemm(node),
            "Resize" if text(&node, "keep_aspect_ratio_policy", "stretch") != "stretch" => {
                return Err(EngineError::unsupported(
                    &node,
                    "keep_aspect_ratio_policy, in double precision",
                ));
            }
            "Resize" | "Upsample" => {
                let sizes = if self.context.opset >= 11 {
                    3
                } else {
                    usize::MAX
                };
                for position in (1..node.input.len()).filter(|&position| position != sizes) {
                    self.cast_input(&mut node, position);
                }
            }
            "QuantizeLinear" => {
                self.cast_input(&mut node, 0);
                self.cast_input(&mut node, 1);
            }
            "DequantizeLinear" => return self.dequantize(node),
            "NonMaxSuppression" => {
                for position in [0, 1, 3, 4] {
                    self.cast_input(&mut node, position);
                }
            }
            "Pad" => self.pad(&mut node),
            "GRU" | "LSTM" | "RNN" => self.initial_states(&mut node)?,
            "DynamicQuantizeLinear" | "QLinearConv" | "QLinearMatMul" | "MatMulNBits" => {
                return Err(EngineError::unsupported(
                    &node,
                    "it has no double precision",
                ));
            }
            _ => {}
        }
        self.out.push(node);
        Ok(())
    }

    fn constant(&mut self, node: &NodeProto, role: &str, value: f64) -> String {
        let name = format!(
            "bnkit/{role}/{}",
            node.output.first().map_or("", String::as_str)
        );
        self.graph.initializer.push(f64_scalar(&name, value));
        name
    }

    /// Casts an input to single precision, where it is there.
    fn cast_input(&mut self, user: &mut NodeProto, position: usize) {
        let output = user.output.first().cloned().unwrap_or_default();
        let Some(input) = user.input.get_mut(position).filter(|name| !name.is_empty()) else {
            return;
        };
        let name = format!("{SINGLE}{output}/{position}");
        let mut cast = node("Cast", &name, &[input], &name);
        set_int(&mut cast, "to", DType::F32.to_onnx().into());
        *input = name;
        self.out.push(cast);
    }

    /// A double to pad with: without a constant tract takes a single zero.
    fn pad(&mut self, pad: &mut NodeProto) {
        let by_input = self.context.opset >= 11 && pad.input.len() >= 2;
        let given = pad.input.get(2).is_some_and(|name| !name.is_empty());
        if !by_input || given || text(pad, "mode", "constant") != "constant" {
            return;
        }
        let zero = self.constant(pad, "zero", 0.0);
        if pad.input.len() == 2 {
            pad.input.push(zero);
        } else {
            pad.input[2] = zero;
        }
    }

    /// Absent initial states as zeros: tract would start from single ones. Their shape is (directions, batch, hidden), which the
    /// recurrence weights and the input have between them.
    fn initial_states(&mut self, rnn: &mut NodeProto) -> Result<()> {
        if int(rnn, "layout", 0) != 0 {
            return Err(EngineError::unsupported(
                rnn,
                "layout = 1, in double precision",
            ));
        }
        let states = if rnn.op_type == "LSTM" { 5..7 } else { 5..6 };
        if rnn.input.len() < states.end {
            rnn.input.resize(states.end, String::new());
        }
        let output = rnn
            .output
            .iter()
            .find(|name| !name.is_empty())
            .cloned()
            .unwrap_or_default();
        let step = |role: &str| format!("bnkit/initial/{role}/{output}");
        let (shape, zeros) = (step("shape"), step("zeros"));
        if rnn.input[states.clone()].iter().any(String::is_empty) {
            let zero = self.constant(rnn, "initial/zero", 0.0);
            let mut sizes = vec![];
            for (role, source, axis) in [("directions", 2, 0), ("batch", 0, 1), ("hidden", 2, 2)] {
                let name = step(role);
                let mut size = node("Shape", &name, &[&rnn.input[source]], &name);
                set_int(&mut size, "start", axis);
                set_int(&mut size, "end", axis + 1);
                self.out.push(size);
                sizes.push(name);
            }
            let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
            let mut concat = node("Concat", &shape, &sizes, &shape);
            set_int(&mut concat, "axis", 0);
            self.out.push(concat);
            self.out
                .push(node("Expand", &zeros, &[&zero, &shape], &zeros));
        }
        for state in &mut rnn.input[states] {
            if state.is_empty() {
                state.clone_from(&zeros);
            }
        }
        Ok(())
    }

    /// Gemm as MatMul, Mul and Add: tract's own has f32 constants in it.
    fn gemm(&mut self, gemm: NodeProto) -> Result<()> {
        let [a, b, rest @ ..] = gemm.input.as_slice() else {
            return Err(EngineError::unsupported(
                &gemm,
                "expected at least two inputs",
            ));
        };
        let Some(output) = gemm.output.first() else {
            return Ok(());
        };
        let step = |role: &str| format!("bnkit/gemm/{role}/{output}");
        let (mut a, mut b) = (a.clone(), b.clone());
        for (operand, flag) in [(&mut a, "transA"), (&mut b, "transB")] {
            if int(&gemm, flag, 0) != 0 {
                let name = step(flag);
                self.out.push(node("Transpose", &name, &[operand], &name));
                *operand = name;
            }
        }
        let (alpha, beta) = (float(&gemm, "alpha", 1.0), float(&gemm, "beta", 1.0));
        let addend = rest.first().filter(|name| !name.is_empty() && beta != 0.0);
        let mut value = if alpha == 1.0 && addend.is_none() {
            output.clone()
        } else {
            step("product")
        };
        self.out.push(node("MatMul", &value, &[&a, &b], &value));
        if alpha != 1.0 {
            let scale = self.constant(&gemm, "gemm/alpha", alpha.into());
            let name = if addend.is_none() {
                output.clone()
            } else {
                step("scaled")
            };
            self.out.push(node("Mul", &name, &[&value, &scale], &name));
            value = name;
        }
        if let Some(addend) = addend {
            let mut addend = addend.clone();
            if beta != 1.0 {
                let scale = self.constant(&gemm, "gemm/beta", beta.into());
                let name = step("addend");
                self.out.push(node("Mul", &name, &[&addend, &scale], &name));
                addend = name;
            }
            self.out
                .push(node("Add", output, &[&value, &addend], output));
        }
        Ok(())
    }

    /// (x − zero point)·scale, in doubles. Per-axis parameters need the rank of x, which only a constant has here.
    fn dequantize(&mut self, dequantize: NodeProto) -> Result<()> {
        let [x, scale, rest @ ..] = dequantize.input.as_slice() else {
            return Err(EngineError::unsupported(
                &dequantize,
                "expected at least two inputs",
            ));
        };
        let Some(output) = dequantize.output.first() else {
            return Ok(());
        };
        let rank_of = |name: &String| {
            let tensor = self
                .graph
                .initializer
                .iter()
                .find(|tensor| tensor.name == *name)?;
            Some((tensor.dims.len(), tensor.dims.iter().product::<i64>()))
        };
        let per_tensor = rank_of(scale).is_some_and(|(_, count)| count == 1);
        let shape = match (per_tensor, rank_of(x)) {
            (true, _) => None,
            (false, Some((rank, _))) => {
                let axis = int(&dequantize, "axis", 1);
                let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis })
                    .ok()
                    .filter(|axis| *axis < rank)
                    .ok_or_else(|| {
                        EngineError::unsupported(&dequantize, "its axis is out of range")
                    })?;
                let mut shape = vec![1i64; rank];
                shape[axis] = -1;
                Some(shape)
            }
            (false, None) => {
                return Err(EngineError::unsupported(
                    &dequantize,
                    "scales per axis for a value that is not constant, in double precision",
                ));
            }
        };
        let step = |role: &str| format!("bnkit/dequantize/{role}/{output}");
        let mut out = vec![];
        let mut to_double = |name: &str, role: &str| {
            let cast_name = step(role);
            let mut cast = node("Cast", &cast_name, &[name], &cast_name);
            set_int(&mut cast, "to", DType::F64.to_onnx().into());
            out.push(cast);
            cast_name
        };
        let mut value = to_double(x, "x");
        let mut parameters = vec![scale.clone()];
        if let Some(zero) = rest.first().filter(|name| !name.is_empty()) {
            parameters.push(to_double(zero, "zero"));
        }
        if let Some(shape) = shape {
            let shape_name = step("shape");
            self.graph.initializer.push(tract_onnx::pb::TensorProto {
                name: shape_name.clone(),
                dims: vec![shape.len() as i64],
                data_type: DType::I64.to_onnx(),
                raw_data: shape.iter().flat_map(|dim| dim.to_le_bytes()).collect(),
                ..Default::default()
            });
            for (parameter, role) in parameters.iter_mut().zip(["scale-axis", "zero-axis"]) {
                let name = step(role);
                out.push(node("Reshape", &name, &[parameter, &shape_name], &name));
                *parameter = name;
            }
        }
        if let Some(zero) = parameters.get(1) {
            let name = step("shifted");
            out.push(node("Sub", &name, &[&value, zero], &name));
            value = name;
        }
        out.push(node("Mul", output, &[&value, &parameters[0]], output));
        self.out.extend(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;
    use crate::normalise::set_float;

    fn lowered(node: NodeProto) -> GraphProto {
        let mut graph = GraphProto {
            node: vec![node],
            ..Default::default()
        };
        let context = Context {
            opset: 17,
            precision: Precision::F64,
            model_dir: None,
            perturbation: None,
            mode: crate::normalise::Mode::Eval,
        };
        lower(&mut graph, &context).unwrap();
        graph
    }

    fn operators(graph: &GraphProto) -> Vec<&str> {
        graph
            .node
            .iter()
            .map(|node| node.op_type.as_str())
            .collect()
    }

    #[test]
    fn gemm_is_written_out_and_keeps_its_output() {
        let mut gemm = node("Gemm", "fc", &["x", "w", "c"], "y");
        set_int(&mut gemm, "transB", 1);
        set_float(&mut gemm, "alpha", 0.5);
        set_float(&mut gemm, "beta", 2.0);
        let graph = lowered(gemm);
        assert_eq!(
            operators(&graph),
            ["Transpose", "MatMul", "Mul", "Mul", "Add"]
        );
        assert_eq!(graph.node[4].output, ["y"]);

        let graph = lowered(node("Gemm", "fc", &["x", "w"], "y"));
        assert_eq!(operators(&graph), ["MatMul"]);
        assert_eq!(graph.node[0].output, ["y"]);
    }

    #[test]
    fn resize_keeps_single_scales() {
        let graph = lowered(node("Resize", "up", &["x", "", "scales", "sizes"], "y"));
        assert_eq!(operators(&graph), ["Cast", "Resize"]);
        assert_eq!(graph.node[1].input[3], "sizes");
    }
}
