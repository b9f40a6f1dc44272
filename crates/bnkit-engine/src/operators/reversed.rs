//! `c - x` and `c / x`, hidden from tract's simplification of a Conv followed by a binary operator.
//!
//! It merges the other operand, where it is one number a channel, into bias and kernel. That is right for `x - c` and `x / c`; of
//! `c - x` it makes a Conv whose kernel keeps its sign, of `c / x` one whose kernel is inverted element by element. It asks for the
//! operator by type, so the same operator under a type of ours is computed as before and
//! left alone.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_onnx::tract_core::ops::math::{Div, Sub};
use tract_onnx::tract_core::ops::{logic::IfThenElse, scan::Scan};

/// tract's Sub or Div.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reversed(Box<dyn BinMiniOp>);

impl BinMiniOp for Reversed {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn validation(&self) -> Validation {
        self.0.validation()
    }

    fn operating_datum_type(&self, a: DatumType, b: DatumType) -> TractResult<DatumType> {
        self.0.operating_datum_type(a, b)
    }

    fn result_datum_type(&self, a: DatumType, b: DatumType) -> TractResult<DatumType> {
        self.0.result_datum_type(a, b)
    }

    fn eval_in_a(&self, a: &mut Tensor, b: &Tensor) -> TractResult<()> {
        self.0.eval_in_a(a, b)
    }

    fn eval_out_of_place(&self, c: &mut Tensor, a: &Tensor, b: &Tensor) -> TractResult<()> {
        self.0.eval_out_of_place(c, a, b)
    }

    fn is_commutative(&self) -> bool {
        self.0.is_commutative()
    }

    fn neutral_element(&self) -> Option<i64> {
        self.0.neutral_element()
    }

    fn absorbing_element(&self) -> Option<i64> {
        self.0.absorbing_element()
    }

    fn eval(&self, a: TValue, b: TValue, c_dt: DatumType) -> TractResult<Tensor> {
        self.0.eval(a, b, c_dt)
    }

    fn cost_per_element(&self, dt: DatumType) -> TVec<(Cost, usize)> {
        self.0.cost_per_element(dt)
    }
}

/// Hides every Sub and Div of floats whose second operand is computed, in loop and branch bodies too.
pub(crate) fn hide_reversed(model: &mut TypedModel) -> TractResult<()> {
    for index in 0..model.nodes().len() {
        let computed = model
            .node_input_facts(index)?
            .get(1)
            .is_some_and(|fact| fact.konst.is_none() && fact.datum_type.is_float());
        let op = &mut model.nodes_mut()[index].op;
        if let Some(scan) = op.downcast_mut::<Scan>() {
            hide_reversed(&mut scan.body)?;
        } else if let Some(branch) = op.downcast_mut::<IfThenElse>() {
            hide_reversed(&mut branch.then_body)?;
            hide_reversed(&mut branch.else_body)?;
        } else if computed
            && let Some(TypedBinOp(mini, _)) = op.downcast_mut::<TypedBinOp>()
            && (mini.is::<Sub>() || mini.is::<Div>())
        {
            *mini = Box::new(Reversed(mini.clone()));
        }
    }
    Ok(())
}
