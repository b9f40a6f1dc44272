//! The element-wise end of an LSTM step in double precision: tract fuses it into an operator for f32 and f16.

use tract_onnx::tract_core::internal::*;

use super::elementwise::sigmoid;

/// From the gates' sums (batch, 4·hidden; input, output, forget, cell) and the cell state: hidden state and cell state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LstmCell {
    pub(super) hidden: usize,
}

impl Op for LstmCell {
    fn name(&self) -> StaticName {
        "LstmCell64".into()
    }

    op_as_typed_op!();
}

impl EvalOp for LstmCell {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (gates, state) = (inputs[0].try_as_plain_ram()?, inputs[1].try_as_plain_ram()?);
        let (gates, state) = (gates.as_slice::<f64>()?, state.as_slice::<f64>()?);
        ensure!(
            gates.len() == 4 * state.len(),
            "LSTM gates and state of different sizes"
        );
        let mut hidden = Tensor::zero::<f64>(inputs[1].shape())?;
        let mut cell = Tensor::zero::<f64>(inputs[1].shape())?;
        let (mut hidden_plain, mut cell_plain) =
            (hidden.try_as_plain_ram_mut()?, cell.try_as_plain_ram_mut()?);
        let (h, c) = (
            hidden_plain.as_slice_mut::<f64>()?,
            cell_plain.as_slice_mut::<f64>()?,
        );
        for (index, previous) in state.iter().enumerate() {
            let (row, unit) = (index / self.hidden, index % self.hidden);
            let gate = |number: usize| gates[(4 * row + number) * self.hidden + unit];
            c[index] = sigmoid(gate(2)) * previous + sigmoid(gate(0)) * gate(3).tanh();
            h[index] = sigmoid(gate(1)) * c[index].tanh();
        }
        Ok(tvec!(hidden.into_tvalue(), cell.into_tvalue()))
    }
}

impl TypedOp for LstmCell {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let fact = inputs[1].datum_type.fact(inputs[1].shape.clone());
        Ok(tvec!(fact.clone(), fact))
    }
}
