//! Resize in double precision.
//!
//! tract's Resize computes in f32 whatever its input is. It is linear, though, and goes axis by axis, so its weights can be read off
//! by running it on unit vectors; applied in f64 they are as good as weights computed in f64, once each row is scaled to the sum of
//! one that it has by definition (a constant image must stay exactly constant, or a shift that a fold moves past would not cancel).
//!
//! `tf_crop_and_resize` with values from outside the image is not linear, and is refused.

use tract_onnx::tract_core::internal::*;

/// A Resize whose values are doubles; `inner` is tract's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resample {
    pub(super) inner: Box<dyn TypedOp>,
}

/// For each output position along an axis, the input positions that it reads and their weights.
type Weights = Vec<Vec<(usize, f64)>>;

impl Resample {
    /// The weights along `axis`.
    fn weights(&self, axis: usize, input: &[usize], inputs: &TVec<TValue>) -> TractResult<Weights> {
        let inputs = &only(axis, input.len(), inputs)?;
        let mut shape = tvec!(1; input.len());
        shape[axis] = input[axis];
        let mut output = self.probe(&Tensor::zero::<f32>(&shape)?, inputs)?;
        // Sizes for some axes only (the attribute `axes`) cannot be told apart: take the whole image.
        if output.shape().contains(&0) {
            shape = input.into();
            output = self.probe(&Tensor::zero::<f32>(&shape)?, inputs)?;
        }
        let mut rows: Weights = vec![vec![]; output.shape()[axis]];
        let inner_in: usize = shape[axis + 1..].iter().product();
        let inner_out: usize = output.shape()[axis + 1..].iter().product();
        for position in 0..input[axis] {
            let mut unit = Tensor::zero::<f32>(&shape)?;
            let mut plain = unit.try_as_plain_ram_mut()?;
            for (index, value) in plain.as_slice_mut::<f32>()?.iter_mut().enumerate() {
                *value = f32::from(u8::from(index / inner_in % input[axis] == position));
            }
            let response = self.probe(&unit, inputs)?;
            let response = response.try_as_plain_ram()?;
            let response = response.as_slice::<f32>()?;
            for (place, row) in rows.iter_mut().enumerate() {
                let weight = response[place * inner_out];
                if weight != 0.0 {
                    row.push((position, f64::from(weight)));
                }
            }
        }
        for row in &mut rows {
            let sum: f64 = row.iter().map(|(_, weight)| weight).sum();
            ensure!(
                (sum - 1.0).abs() < 1e-3,
                "Resize with extrapolation has no double precision"
            );
            row.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        Ok(rows)
    }

    fn probe(&self, x: &Tensor, inputs: &TVec<TValue>) -> TractResult<Tensor> {
        let mut inputs = inputs.clone();
        inputs[0] = x.clone().into_tvalue();
        let mut outputs = self.inner.eval(&EvalContext::out_of_plan(), inputs)?;
        Ok(outputs.remove(0).into_tensor())
    }
}

/// The inputs with scales and sizes that change nothing but `axis`, so that the others can be a single element.
fn only(axis: usize, rank: usize, inputs: &TVec<TValue>) -> TractResult<TVec<TValue>> {
    let mut inputs = inputs.clone();
    for input in inputs
        .iter_mut()
        .skip(1)
        .filter(|input| input.len() == rank)
    {
        let mut tensor = input.clone().into_tensor();
        if tensor.datum_type() == DatumType::F32 {
            let mut plain = tensor.try_as_plain_ram_mut()?;
            for (place, scale) in plain.as_slice_mut::<f32>()?.iter_mut().enumerate() {
                *scale = if place == axis { *scale } else { 1.0 };
            }
        } else {
            tensor = tensor.cast_to::<i64>()?.into_owned();
            let mut plain = tensor.try_as_plain_ram_mut()?;
            for (place, size) in plain.as_slice_mut::<i64>()?.iter_mut().enumerate() {
                *size = if place == axis { *size } else { 1 };
            }
        }
        *input = tensor.into_tvalue();
    }
    Ok(inputs)
}

/// `values` of `shape`, resampled along `axis`.
fn apply(values: &[f64], shape: &[usize], axis: usize, rows: &Weights) -> Vec<f64> {
    let inner: usize = shape[axis + 1..].iter().product();
    let mut out = Vec::with_capacity(values.len() / shape[axis].max(1) * rows.len());
    for block in values.chunks_exact((shape[axis] * inner).max(1)) {
        for row in rows {
            let start = out.len();
            out.resize(start + inner, 0.0);
            for &(position, weight) in row {
                let source = &block[position * inner..(position + 1) * inner];
                for (sum, value) in out[start..].iter_mut().zip(source) {
                    *sum += weight * value;
                }
            }
        }
    }
    out
}

impl Op for Resample {
    fn name(&self) -> StaticName {
        "Resample64".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Resample {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut shape: TVec<usize> = inputs[0].shape().into();
        let plain = inputs[0].try_as_plain_ram()?;
        let mut values = plain.as_slice::<f64>()?.to_vec();
        for axis in 0..shape.len() {
            let rows = self.weights(axis, inputs[0].shape(), &inputs)?;
            let unchanged = rows.len() == shape[axis]
                && rows
                    .iter()
                    .enumerate()
                    .all(|(place, row)| *row == [(place, 1.0)]);
            if !unchanged {
                values = apply(&values, &shape, axis, &rows);
                shape[axis] = rows.len();
            }
        }
        let mut output = Tensor::zero::<f64>(&shape)?;
        output
            .try_as_plain_ram_mut()?
            .as_slice_mut::<f64>()?
            .copy_from_slice(&values);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Resample {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.inner.output_facts(inputs)
    }
}
