//! Plans that do not read the weights they scale.
//!
//! A weight with NaN in it, or one that its scale takes beyond the range of its type, is no place to fold into. To know that,
//! a plan reads every such weight, and saving reads it again. Where nothing happens between the two, the first
//! reading can be left out: all weights are taken for good, and looked at while they are written. Very seldom one is not;
//! then nothing is written, and the plan is made again by one that looks.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{Base, Model, NewTensor, Payload, Recipe};

use super::context::require_range;
use crate::Result;
use crate::refusal::Stop;

/// Scaled weights that nobody has looked at.
#[derive(Debug, Default)]
pub(crate) struct Unseen(RefCell<Vec<Arc<Recipe>>>);

impl Unseen {
    /// Notes how an f32 tensor is computed.
    pub(super) fn note(&self, tensor: Arc<Recipe>) {
        self.0.borrow_mut().push(tensor);
    }

    /// Whether all are good, as far as saving `folded` does not find out: a weight that is scaled once more or merged is not
    /// written, and neither is that of a move that came to nothing; but a plan that looks would have stopped at it.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(super) fn are_good(&self, folded: &Model) -> Result<bool> {
        let written: HashSet<_> = folded
            .constants()
            .filter_map(|tensor| match &tensor.payload {
                Payload::Computed(recipe) => Some(Arc::as_ptr(recipe)),
                _ => None,
            })
            .collect();
        let unseen = self.0.borrow();
        let unwritten = unseen
            .iter()
            .filter(|recipe| !written.contains(&Arc::as_ptr(recipe)));
        for recipe in unwritten {
            let dims = match &recipe.base {
                Base::Stored(base) => base.dims.clone(),
                Base::Values(values) => [values.len()].into(),
            };
            let tensor = NewTensor {
                dtype: DType::F32,
                dims,
                recipe: recipe.clone(),
            };
            match require_range(folded, &tensor) {
                Ok(()) => {}
                Err(Stop::Refused(_)) => return Ok(false),
                Err(Stop::Broken(error)) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use bnkit_model::Error;
    use bnkit_model::onnx::{Model, Precision};

    use crate::fold::plan::plan_unseen;
    use crate::fold::{Options, Plan, plan};
    use crate::verify::nets::Net;

    /// A MatMul that is scaled twice: by a Mul, and by the BatchNorm behind that.
    fn net(weight: [f64; 2], scales: [f64; 2]) -> Model {
        Net::new("x", &[3, 1])
            .constant("w", &[1, 2], &weight)
            .constant("f", &[2], &[scales[0]; 2])
            .constant("g", &[2], &[scales[1]; 2])
            .constant("b", &[2], &[0.5, 0.25])
            .constant("m", &[2], &[0.0, 0.0])
            .constant("v", &[2], &[1.0, 1.0])
            .node("MatMul", &["x", "w"], "p")
            .node("Mul", &["p", "f"], "q")
            .node("BatchNormalization", &["q", "g", "b", "m", "v"], "y")
            .output("y")
            .model()
    }

    fn bytes(plan: &Plan) -> bnkit_model::Result<Vec<u8>> {
        plan.apply().to_bytes(Precision::Stored)
    }

    #[test]
    fn good_weights_make_the_same_model() {
        let model = net([0.5, -2.0], [3.0, 0.25]);
        let options = Options::default();
        let unseen = plan_unseen(model.clone(), &options)
            .unwrap()
            .expect("a plan");
        let seen = plan(&model, &options).unwrap();
        assert_eq!(seen.summary.folded, 1);
        assert_eq!(bytes(&unseen).unwrap(), bytes(&seen).unwrap());
    }

    #[test]
    fn bad_weights_are_found_when_they_are_written() {
        for bad in [f64::NAN, f64::INFINITY, 2e38] {
            let model = net([0.5, bad], [1.0, 3.0]);
            let unseen = plan_unseen(model, &Options::default()).unwrap();
            let written = bytes(&unseen.expect("a plan"));
            assert!(
                matches!(written, Err(Error::NotFinite)),
                "{bad}: {written:?}"
            );
        }
    }

    #[test]
    fn a_weight_that_was_bad_in_between_is_left_to_a_plan_that_looks() {
        let model = net([0.5, 2e38], [3.0, 0.25]);
        assert!(plan_unseen(model, &Options::default()).unwrap().is_none());
    }
}
