//! Tiny models, folded by hand: right folds are accepted, wrong ones are not.

use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{
    AttributeValue, Edit, Model, NewTensor, NodeId, Operand, Recipe, ScopeId, ValueId,
};

use super::{Algebra, check};
use crate::route::{Absorbed, Part, Rest, Route, Side};
use crate::verify::nets::{Net, attribute};

/// An original, its folded form, and how it came about.
struct Case {
    original: Model,
    folded: Model,
    routes: Vec<Route>,
}

impl Case {
    fn new(net: Net) -> Self {
        let original = net.model();
        Self {
            folded: original.clone(),
            original,
            routes: Vec::new(),
        }
    }

    fn node(&self, output: &str) -> NodeId {
        self.original
            .nodes()
            .find(|(id, _)| self.original.label(*id) == output)
            .unwrap()
            .0
    }

    fn value(&self, name: &str) -> ValueId {
        let main = self.folded.scope(self.folded.main());
        let nodes = self.folded.nodes();
        let read = nodes.flat_map(|(_, node)| node.inputs.iter().chain(&node.outputs).flatten());
        let mut all = read.chain(&main.initializers);
        *all.find(|&&value| self.folded.value(value).name == name)
            .unwrap()
    }

    fn apply(&mut self, edit: Edit) {
        self.folded.apply(&[edit]).unwrap();
    }

    /// Routes an affine; the node is taken out, and its neighbour keeps its name.
    fn route(&mut self, site: &str, slot: Option<usize>, absorbed: Vec<Absorbed>) -> &mut Self {
        let id = self.node(site);
        self.routes.push(Route {
            site: id,
            constant_slot: slot,
            absorbed,
            via: Vec::new(),
            rest: Rest::Nothing,
        });
        if self.folded.node(id).alive {
            let data = self
                .folded
                .node(id)
                .input(slot.map_or(0, |slot| 1 - slot))
                .unwrap();
            let output = self.folded.node(id).output(0).unwrap();
            let producer = self.folded.producer(data);
            if self.folded.value(output).is_output() {
                self.apply(Edit::RemoveNode { node: id });
                let (node, slot) = producer.unwrap();
                self.apply(Edit::SetOutput {
                    node,
                    slot,
                    value: Operand::Value(output),
                });
            } else {
                self.apply(Edit::ReplaceUses {
                    value: output,
                    by: data,
                });
                self.apply(Edit::RemoveNode { node: id });
            }
        }
        self
    }

    fn absorbed(&self, node: &str, side: Side, channels: &[u32]) -> Absorbed {
        Absorbed {
            node: self.node(node),
            side,
            part: Part::Whole,
            data_slot: 0,
            channels: channels.to_vec(),
            share: 1.0,
        }
    }

    fn typed(&mut self, name: &str, dtype: DType, dims: &[usize], values: &[f64]) -> &mut Self {
        let value = self.value(name);
        let tensor = NewTensor {
            dtype,
            dims: dims.into(),
            recipe: Arc::new(Recipe::values(values.to_vec())),
        };
        self.apply(Edit::SetConstant { value, tensor });
        self
    }

    fn set(&mut self, name: &str, dims: &[usize], values: &[f64]) -> &mut Self {
        self.typed(name, DType::F32, dims, values)
    }

    /// A fresh constant as an input of a node.
    fn add_input(&mut self, node: &str, slot: usize, dims: &[usize], values: &[f64]) -> &mut Self {
        let node = self.node(node);
        let name = format!("new{slot}");
        self.add_constant(&name, dims, values);
        self.apply(Edit::SetInput {
            node,
            slot,
            value: Operand::New(name),
        });
        self
    }

    fn add_constant(&mut self, name: &str, dims: &[usize], values: &[f64]) {
        let scope: ScopeId = self.folded.main();
        let tensor = NewTensor {
            dtype: DType::F32,
            dims: dims.into(),
            recipe: Arc::new(Recipe::values(values.to_vec())),
        };
        self.apply(Edit::AddConstant {
            scope,
            name: name.to_owned(),
            tensor,
        });
    }

    /// A new Add behind a node.
    fn add_behind(&mut self, node: &str, dims: &[usize], values: &[f64]) -> &mut Self {
        let id = self.node(node);
        self.add_constant("shift", dims, values);
        let output = self.folded.node(id).output(0).unwrap();
        let product = Operand::New("product".to_owned());
        self.apply(Edit::SetOutput {
            node: id,
            slot: 0,
            value: product.clone(),
        });
        self.apply(Edit::AddNode {
            after: id,
            op_type: "Add",
            name: "add".to_owned(),
            inputs: vec![product, Operand::New("shift".to_owned())],
            outputs: vec![Operand::Value(output)],
        });
        self
    }

    fn check(&self) -> Algebra {
        check(&self.original, &self.folded, &self.routes).unwrap()
    }

    #[track_caller]
    fn accepts(&self) {
        let algebra = self.check();
        assert!(algebra.failures.is_empty(), "{:?}", algebra.failures);
        assert!(algebra.max_ulp <= 1.0);
        assert_eq!(algebra.checked, self.routes.len());
    }

    /// The tensors (or reasons) that do not agree.
    #[track_caller]
    fn rejects(&self, what: &str) {
        let algebra = self.check();
        let hit = algebra.failures.iter().any(|failure| {
            failure.tensor == what || failure.reason.as_deref().is_some_and(|r| r.contains(what))
        });
        assert!(hit, "{what}: {:?}", algebra.failures);
    }
}

const OUT: Side = Side::Output;
const IN: Side = Side::Input;

/// s = (0.5, 2), t = (0.5, −1.75).
fn norm(net: Net, x: &str, y: &str) -> Net {
    net.constant("g", &[2], &[1.0, 4.0])
        .constant("be", &[2], &[0.5, 0.25])
        .constant("m", &[2], &[0.0, 1.0])
        .constant("v", &[2], &[3.0, 3.0])
        .node("BatchNormalization", &[x, "g", "be", "m", "v"], y)
        .with(attribute("epsilon", AttributeValue::Float(1.0)))
}

/// Conv with 2 inputs and 2 outputs, and a BatchNorm behind it.
fn conv_norm() -> Case {
    let net = Net::new("x", &[2, 2, 4, 4])
        .constant("w", &[2, 2, 1, 1], &[2.0, 3.0, 4.0, 5.0])
        .constant("b", &[2], &[1.0, -1.0])
        .node("Conv", &["x", "w", "b"], "c");
    let mut case = Case::new(norm(net, "c", "y").output("y"));
    let into = case.absorbed("c", OUT, &[0, 1]);
    case.route("y", None, vec![into]);
    case.set("w", &[2, 2, 1, 1], &[1.0, 1.5, 8.0, 10.0]);
    case.set("b", &[2], &[1.0, -3.75]);
    case
}

#[test]
fn conv_before_norm() {
    let case = conv_norm();
    case.accepts();
    assert_eq!(case.check().max_ulp, 0.0);
}

#[test]
fn a_dropped_mean_is_caught() {
    conv_norm().set("b", &[2], &[1.0, -1.75]).rejects("b");
}

#[test]
fn a_doubled_beta_is_caught() {
    conv_norm().set("b", &[2], &[1.5, -3.5]).rejects("b");
}

#[test]
fn a_beta_with_the_wrong_sign_is_caught() {
    conv_norm().set("b", &[2], &[0.0, -4.25]).rejects("b");
}

#[test]
fn a_bias_that_is_not_scaled_is_caught() {
    conv_norm().set("b", &[2], &[1.5, -2.75]).rejects("b");
}

#[test]
fn the_wrong_axis_is_caught() {
    conv_norm()
        .set("w", &[2, 2, 1, 1], &[1.0, 6.0, 2.0, 10.0])
        .rejects("w");
}

#[test]
fn exchanged_channels_are_caught() {
    conv_norm()
        .set("w", &[2, 2, 1, 1], &[4.0, 6.0, 2.0, 2.5])
        .rejects("w");
    // The same, when the route says so too.
    let mut case = conv_norm();
    case.routes[0].absorbed[0].channels = vec![1, 0];
    case.rejects("exchanges channels");
}

#[test]
fn a_transposed_weight_is_caught() {
    conv_norm()
        .set("w", &[2, 2, 1, 1], &[1.0, 8.0, 1.5, 10.0])
        .rejects("w");
}

#[test]
fn a_bias_of_another_node_is_caught() {
    let mut case = conv_norm();
    case.add_input("c", 2, &[2], &[0.5, -1.75]).rejects("new2");
    let mut case = conv_norm();
    let node = case.node("c");
    let value = Operand::Value(case.value("w"));
    case.apply(Edit::SetInput {
        node,
        slot: 2,
        value,
    });
    case.rejects("w");
}

#[test]
fn a_dropped_bias_is_caught() {
    let net = Net::new("x", &[2, 2, 4, 4])
        .constant("w", &[2, 2, 1, 1], &[2.0, 3.0, 4.0, 5.0])
        .node("Conv", &["x", "w"], "c");
    let mut case = Case::new(norm(net, "c", "y").output("y"));
    let into = case.absorbed("c", OUT, &[0, 1]);
    case.route("y", None, vec![into]);
    case.set("w", &[2, 2, 1, 1], &[1.0, 1.5, 8.0, 10.0])
        .rejects("bias");
    case.add_input("c", 2, &[2], &[0.5, -1.75]).accepts();
}

#[test]
fn a_changed_attribute_is_caught() {
    let mut case = conv_norm();
    let edit = Edit::SetAttribute {
        node: case.node("c"),
        name: "pads".to_owned(),
        value: AttributeValue::Ints(vec![1; 4]),
    };
    case.apply(edit);
    case.rejects("attribute \"pads\"");
}

#[test]
fn an_affine_that_nothing_absorbs_is_caught() {
    let mut case = conv_norm();
    case.routes[0].absorbed.clear();
    case.rejects("nothing absorbed");
    let mut case = conv_norm();
    case.routes[0].absorbed[0].part = Part::Scale;
    case.set("b", &[2], &[0.5, -2.0])
        .rejects("nothing absorbed the shift");
}

#[test]
fn a_norm_that_is_still_there_is_caught() {
    let mut case = conv_norm();
    case.folded = case.original.clone();
    case.rejects("still there");
}

/// A Conv whose weight is w and whose BatchNorm has the default epsilon.
fn default_epsilon(dtype: DType, w: &[f64], gamma: &[f64], variance: f64) -> Case {
    let count = w.len();
    let net = Net::new("x", &[1, 1, 2, 2])
        .typed("w", dtype, &[count, 1, 1, 1], w)
        .typed("g", dtype, &[count], gamma)
        .constant("z", &[count], &vec![0.0; count])
        .constant("v", &[count], &vec![variance; count])
        .node("Conv", &["x", "w"], "c")
        .node("BatchNormalization", &["c", "g", "z", "z", "v"], "y")
        .output("y");
    let mut case = Case::new(net);
    let channels: Vec<u32> = (0..count as u32).collect();
    let into = case.absorbed("c", OUT, &channels);
    case.route("y", None, vec![into]);
    case
}

#[test]
fn a_forgotten_epsilon_is_caught() {
    let s = 1.0 / (1.0 + f64::from(1e-5f32)).sqrt();
    let mut case = default_epsilon(DType::F32, &[3.0], &[1.0], 1.0);
    case.set("w", &[1, 1, 1, 1], &[3.0 * s]).accepts();
    assert!(case.check().max_ulp <= 0.5);
    case.set("w", &[1, 1, 1, 1], &[3.0]).rejects("w");
    // 1e-5 as a double is not what the file has.
    let wide = 1.0 / (1.0 + 1e-5f64).sqrt();
    let mut case = default_epsilon(DType::F64, &[3.0], &[1.0], 1.0);
    case.typed("w", DType::F64, &[1, 1, 1, 1], &[3.0 * s])
        .accepts();
    case.typed("w", DType::F64, &[1, 1, 1, 1], &[3.0 * wide])
        .rejects("w");
}

#[test]
fn one_element_off_by_three_ulps_is_caught() {
    let mut values: Vec<f64> = (0..100).map(|index| 0.3 + f64::from(index)).collect();
    let gamma = vec![1.0; 100];
    let mut case = default_epsilon(DType::F32, &values, &gamma, 1.0);
    let s = 1.0 / (1.0 + f64::from(1e-5f32)).sqrt();
    for value in &mut values {
        *value = f64::from(*value as f32) * s;
    }
    case.set("w", &[100, 1, 1, 1], &values).accepts();
    let off = f32::from_bits((values[77] as f32).to_bits() + 3);
    values[77] = f64::from(off);
    case.set("w", &[100, 1, 1, 1], &values);
    let algebra = case.check();
    assert_eq!(algebra.failures.len(), 1);
    let failure = &algebra.failures[0];
    assert_eq!(
        (failure.index, failure.found, failure.route),
        (77, f64::from(off), 0)
    );
    assert!(algebra.max_ulp > 2.0 && algebra.max_ulp < 4.0);
}

#[test]
fn rounding_twice_in_half_precision_is_caught() {
    let round = |value: f64| -> f64 {
        let tensor = bnkit_model::Tensor::from_f64(DType::F16, vec![1], &[value]).unwrap();
        tensor.to_f64().unwrap()[0]
    };
    let w: Vec<f64> = (1..200)
        .map(|index| round(1.0 + f64::from(index) / 200.0))
        .collect();
    let gamma: Vec<f64> = w.iter().rev().map(|value| round(value * 0.7)).collect();
    let s = 1.0 / (3.0 + f64::from(1e-5f32)).sqrt();
    let mut case = default_epsilon(DType::F16, &w, &gamma, 3.0);
    let product = |scale: &dyn Fn(f64) -> f64| -> Vec<f64> {
        w.iter()
            .zip(&gamma)
            .map(|(w, gamma)| w * scale(gamma * s))
            .collect()
    };
    case.typed("w", DType::F16, &[199, 1, 1, 1], &product(&|s| s))
        .accepts();
    // s rounded first, then the product.
    case.typed("w", DType::F16, &[199, 1, 1, 1], &product(&round))
        .rejects("w");
}

#[test]
fn an_overflow_in_half_precision_is_caught() {
    let mut case = default_epsilon(DType::F16, &[60000.0], &[2.0], 1.0);
    let s = 2.0 / (1.0 + f64::from(1e-5f32)).sqrt();
    case.typed("w", DType::F16, &[1, 1, 1, 1], &[60000.0 * s])
        .rejects("w");
    assert_eq!(case.check().max_ulp, f64::INFINITY);
}

#[test]
fn a_shared_weight_must_be_copied() {
    let net = Net::new("x", &[2, 2, 4, 4])
        .constant("w", &[2, 2, 1, 1], &[2.0, 3.0, 4.0, 5.0])
        .constant("b", &[2], &[1.0, -1.0])
        .node("Conv", &["x", "w", "b"], "other")
        .node("Conv", &["x", "w", "b"], "c");
    let mut case = Case::new(norm(net, "c", "y").output("y").output("other"));
    let into = case.absorbed("c", OUT, &[0, 1]);
    case.route("y", None, vec![into]);
    case.set("w", &[2, 2, 1, 1], &[1.0, 1.5, 8.0, 10.0]);
    case.add_input("c", 2, &[2], &[1.0, -3.75])
        .rejects("no route names its reader");
    let mut case = Case {
        folded: case.original.clone(),
        ..case
    };
    let route = case.routes.remove(0);
    case.route("y", None, route.absorbed);
    case.add_input("c", 1, &[2, 2, 1, 1], &[1.0, 1.5, 8.0, 10.0]);
    case.add_input("c", 2, &[2], &[1.0, -3.75]).accepts();
}

mod absorbers;
mod merges;
mod quantised;
mod remainder;
