//! Reading constants and attributes of one of the two models.

use std::sync::Arc;

use bnkit_model::onnx::{
    AttributeValue, Constants, Model, Node, NotConstant, TensorDef, Types, ValueId,
};
use bnkit_model::{DType, Error, Tensor};

use super::quantised::{self, Scales};

/// Why a node could not be recomputed: its constants are not what the route says (a failure of the proof), they are
/// expressions that are not evaluated (a failure, too), or they could not be read (an error).
#[derive(Debug)]
pub(super) enum Trouble {
    Wrong(String),
    Unknown(String),
    Unreadable(Error),
}

impl Trouble {
    pub(super) fn wrong(why: impl Into<String>) -> Self {
        Self::Wrong(why.into())
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Unreadable(error)
    }
}

/// The result of a recomputation.
pub(super) type Answer<T> = Result<T, Trouble>;

/// A constant in f64.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub(super) dims: Vec<usize>,
    pub(super) values: Vec<f64>,
}

/// A model with what is known of its values.
pub(super) struct Book<'m> {
    pub(super) model: &'m Model,
    pub(super) types: Types,
}

impl<'m> Book<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self {
            model,
            types: Types::derive(model),
        }
    }

    /// Constants by their default values: whether a caller may override one was the plan's question.
    fn constants(&self) -> Constants<'_> {
        Constants::new(self.model, &self.types, true)
    }

    pub(super) fn is_constant(&self, value: ValueId) -> bool {
        self.constants().is_constant(self.behind_dropout(value))
    }

    /// What `value` is in eval mode, where an Identity or a Dropout gives what it reads. A Dropout that a third input may
    /// switch on at run time is left alone.
    pub(super) fn behind_dropout(&self, value: ValueId) -> ValueId {
        let mut behind = value;
        // A cycle ends, too.
        for _ in 0..=self.model.node_count() {
            let Some((id, 0)) = self.model.producer(behind) else {
                break;
            };
            let node = self.model.node(id);
            let decided = |mode| self.constants().ints(mode).is_ok();
            let passes = (node.is("Identity") && node.inputs.len() == 1)
                || (node.is("Dropout") && node.input(2).is_none_or(decided));
            let Some(input) = node.input(0).filter(|_| passes) else {
                break;
            };
            behind = input;
        }
        behind
    }

    fn header(&self, value: ValueId) -> Answer<Arc<TensorDef>> {
        let constant = self.constants().tensor(self.behind_dropout(value));
        constant.map_err(|why| match why {
            NotConstant::Unreadable(error) => Trouble::Unreadable(error),
            why => {
                let name = &self.model.value(value).name;
                let text = format!("\"{name}\" is no constant: {}", why.explain(self.model));
                match why {
                    NotConstant::Unsupported { .. } => Trouble::Unknown(text),
                    _ => Trouble::Wrong(text),
                }
            }
        })
    }

    /// A constant of the original.
    pub(super) fn numbers(&self, value: ValueId) -> Answer<Numbers> {
        if let Some(found) = quantised::read(self, value, Scales::Exact)? {
            return Ok(Numbers {
                dims: found.dims,
                values: found.values,
            });
        }
        let header = self.header(value)?;
        Ok(Numbers {
            values: self.model.read_f64(&header)?,
            dims: header.dims.to_vec(),
        })
    }

    /// A constant that is a vector.
    pub(super) fn vector(&self, value: ValueId) -> Answer<Numbers> {
        let numbers = self.numbers(value)?;
        if numbers.dims.len() == 1 {
            return Ok(numbers);
        }
        let name = &self.model.value(value).name;
        let dims = &numbers.dims;
        Err(Trouble::Wrong(format!(
            "\"{name}\" has the shape {dims:?}, expected a vector"
        )))
    }

    /// A constant as it will be stored; one behind a DequantizeLinear as that makes it of what will be stored.
    pub(super) fn stored(&self, value: ValueId) -> Answer<Tensor> {
        if let Some(found) = quantised::read(self, value, Scales::Stored)? {
            return Ok(Tensor::from_f64(DType::F64, found.dims, &found.values)?);
        }
        Ok(self.model.read_tensor(&*self.header(value)?)?)
    }

    /// The input of `node` in `slot`, which must be there.
    pub(super) fn input(&self, node: &Node, slot: usize) -> Answer<ValueId> {
        let missing = || Trouble::Wrong(format!("input {slot} is absent"));
        node.input(slot).ok_or_else(missing)
    }

    /// How far from what they should be the elements of a constant behind a DequantizeLinear may lie; `None` if `value`
    /// is nothing of the kind.
    pub(super) fn quantum(&self, value: ValueId) -> Option<Vec<f64>> {
        Some(quantised::read(self, value, Scales::Stored).ok()??.quanta)
    }
}

/// The integer attribute `name`.
pub(super) fn int(node: &Node, name: &str, default: i64) -> Answer<i64> {
    match node.attribute(name).map(|attribute| &attribute.value) {
        None => Ok(default),
        Some(AttributeValue::Int(value)) => Ok(*value),
        Some(_) => Err(Trouble::Wrong(format!(
            "attribute \"{name}\" is no integer"
        ))),
    }
}

/// The float attribute `name`, widened.
pub(super) fn float(node: &Node, name: &str, default: f32) -> Answer<f64> {
    match node.attribute(name).map(|attribute| &attribute.value) {
        None => Ok(f64::from(default)),
        Some(AttributeValue::Float(value)) => Ok(f64::from(*value)),
        Some(_) => Err(Trouble::Wrong(format!("attribute \"{name}\" is no float"))),
    }
}

/// The attribute `name` as one integer for each of `count` axes.
pub(super) fn ints(node: &Node, name: &str, count: usize, default: i64) -> Answer<Vec<i64>> {
    match node.attribute(name).map(|attribute| &attribute.value) {
        None => Ok(vec![default; count]),
        Some(AttributeValue::Ints(values)) if values.len() == count => Ok(values.clone()),
        Some(_) => Err(Trouble::Wrong(format!(
            "attribute \"{name}\" is not {count} integers"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use bnkit_model::DType;

    use crate::fold::{Options, plan};
    use crate::verify::algebra;
    use crate::verify::nets::Net;

    /// Conv and BatchNorm, the Conv's bias behind a Dropout or Identity of these inputs.
    fn net(opset: i64, op: &str, inputs: &[&str]) -> Net {
        Net::new("x", &[1, 1, 4, 4])
            .opset(opset)
            .input("late", Some(&[]))
            .constant("w", &[2, 1, 1, 1], &[2.0, 3.0])
            .constant("b", &[2], &[0.5, 0.25])
            .constant("ratio", &[], &[0.5])
            .typed("off", DType::Bool, &[], &[0.0])
            .typed("on", DType::Bool, &[], &[1.0])
            .constant("one", &[2], &[1.0; 2])
            .node(op, inputs, "d")
            .node("Conv", &["x", "w", "d"], "c")
            .node("BatchNormalization", &["c", "one", "b", "b", "one"], "y")
            .output("y")
    }

    #[test]
    fn a_dropout_in_front_of_a_bias_is_what_it_is_in_eval_mode() {
        for (opset, op, inputs, folded) in [
            (17, "Dropout", &["b"][..], 1),
            (17, "Dropout", &["b", "ratio"], 1),
            (17, "Dropout", &["b", "ratio", "off"], 1),
            (17, "Dropout", &["b", "ratio", "on"], 1),
            (17, "Dropout", &["b", "ratio", "late"], 0),
            (6, "Dropout", &["b"], 1),
            // No operators of their opsets: nobody knows what the other inputs mean.
            (6, "Dropout", &["b", "ratio", "w"], 0),
            (10, "Dropout", &["b", "ratio", "off"], 0),
            (17, "Identity", &["b", "x"], 0),
            (17, "Identity", &["b", "b"], 0),
        ] {
            let original = net(opset, op, inputs).model();
            let plan = plan(&original, &Options::default()).unwrap();
            assert_eq!(plan.summary.folded, folded, "{inputs:?}: {:?}", plan.sites);
            let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
            assert!(proof.failures.is_empty(), "{inputs:?}: {proof:?}");
            if folded == 0 {
                let refusal = plan.sites[0].refusal.as_ref().unwrap();
                assert_eq!(refusal.code, "weight-not-constant", "{inputs:?}");
            }
        }
    }
}
