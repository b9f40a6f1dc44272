//! Element-wise functions in double precision that tract has in single precision only, or as functions of two values.

// The macro writes public items without documentation.
#![allow(missing_docs, unreachable_pub)]

use tract_onnx::tract_core::element_wise;
use tract_onnx::tract_core::internal::*;

/// 1 / (1 + e⁻ˣ)
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

element_wise!(sigmoid64, Sigmoid64, [f64] => |_, xs| {
    xs.iter_mut().for_each(|x| *x = sigmoid(*x));
    Ok(())
});

element_wise!(silu64, Silu64, [f64] => |_, xs| {
    xs.iter_mut().for_each(|x| *x *= sigmoid(*x));
    Ok(())
});

element_wise!(hard_swish64, HardSwish64, [f64] => |_, xs| {
    xs.iter_mut().for_each(|x| *x *= (*x / 6.0 + 0.5).clamp(0.0, 1.0));
    Ok(())
});

element_wise!(leaky_relu64, LeakyRelu64 { alpha: f32 }, [f64] => |op, xs| {
    xs.iter_mut().for_each(|x| if *x < 0.0 { *x *= f64::from(op.alpha) });
    Ok(())
});

element_wise!(erf64, Erf64, [f64] => |_, xs| {
    xs.iter_mut().for_each(|x| *x = libm::erf(*x));
    Ok(())
});

element_wise!(round64, Round64, [f64] => |_, xs| {
    xs.iter_mut().for_each(|x| *x = x.round_ties_even());
    Ok(())
});

element_wise!(gelu_tanh64, GeluTanh64, [f64] => |_, xs| {
    let scale = (2.0 / std::f64::consts::PI).sqrt();
    xs.iter_mut().for_each(|x| *x *= 0.5 * (1.0 + (scale * (*x + 0.044_715 * x.powi(3))).tanh()));
    Ok(())
});

element_wise!(at_least64, AtLeast64 { bound: f64 }, [f64] => |op, xs| {
    xs.iter_mut().for_each(|x| *x = x.max(op.bound));
    Ok(())
});

element_wise!(at_most64, AtMost64 { bound: f64 }, [f64] => |op, xs| {
    xs.iter_mut().for_each(|x| *x = x.min(op.bound));
    Ok(())
});
