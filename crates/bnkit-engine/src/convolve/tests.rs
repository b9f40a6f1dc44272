//! tract's own convolution in double precision is the oracle.

use super::depthwise::Depthwise;
use super::*;
use tract_onnx::tract_core::model::TypedNode;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::cnn::{PaddingSpec, PoolSpec};

/// Vectors of this processor, and shorter ones.
pub(super) fn architectures() -> Vec<Arch> {
    let mut all = vec![Arch::new(), Arch::Scalar];
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    all.extend(pulp::x86::V3::try_new().map(Arch::V3));
    all
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count)
        .map(|n| (n * 37 % 101) as f32 / 50.0 - 1.0)
        .collect()
}

/// Sizes as (input channels, output channels, groups), then rows and columns.
struct Case(
    [usize; 3],
    [usize; 2],
    [usize; 2],
    [usize; 2],
    [usize; 2],
    [usize; 2],
    [usize; 2],
);

/// Ours, in what `T` is, against tract's.
fn compare<T: Real>(name: &str, case: &Case, tolerance: f64) {
    let &Case([channels, kernels, group], image, kernel, strides, dilations, before, after) = case;
    let shaped =
        |count: usize, shape: &[usize]| tensor1(&numbers(count)).into_shape(shape).unwrap();
    let pixels = image[0] * image[1];
    let x = shaped(2 * channels * pixels, &[2, channels, image[0], image[1]]);
    let depth = channels / group;
    let w = shaped(
        kernels * depth * kernel[0] * kernel[1],
        &[kernels, depth, kernel[0], kernel[1]],
    );
    let conv = Conv {
        pool_spec: PoolSpec {
            data_format: DataFormat::NCHW,
            kernel_shape: kernel.into_iter().collect(),
            padding: PaddingSpec::Explicit(
                before.into_iter().collect(),
                after.into_iter().collect(),
            ),
            dilations: Some(dilations.into_iter().collect()),
            strides: Some(strides.into_iter().collect()),
            input_channels: channels,
            output_channels: kernels,
        },
        kernel_fmt: KernelFormat::OIHW,
        group,
        q_params: None,
    };
    let b = tensor1(&numbers(kernels));
    let model = |kind: DatumType| {
        let mut model = TypedModel::default();
        let shape = [2, channels, image[0], image[1]];
        let source = model.add_source("x", kind.fact(shape)).unwrap();
        let constant = |tensor: &Tensor| tensor.cast_to_dt(kind).unwrap().into_owned();
        let w = model.add_const("w", constant(&w)).unwrap();
        let b = model.add_const("b", constant(&b)).unwrap();
        // As tract reads a bias: what becomes of a cast is not known before the graph is simplified.
        let b = model.wire_node("bias", cast(kind), &[b]).unwrap()[0];
        let y = model.wire_node("y", conv.clone(), &[source, w, b]).unwrap();
        model.select_output_outlets(&y).unwrap();
        model
    };
    let run = |model: TypedModel, kind: DatumType| {
        let plan = model.into_optimized().unwrap().into_runnable().unwrap();
        let x = x.cast_to_dt(kind).unwrap().into_owned();
        let y = plan.run(tvec!(x.into_tvalue())).unwrap().remove(0);
        let y = y.cast_to::<f64>().unwrap().into_owned();
        let values = y
            .try_as_plain_ram()
            .unwrap()
            .as_slice::<f64>()
            .unwrap()
            .to_vec();
        (y.shape().to_vec(), values)
    };
    let (shape, expected) = run(model(DatumType::F64), DatumType::F64);
    let mut ours = model(T::datum_type());
    exchange::<T>(&mut ours, Which::All, &Buffers::default()).unwrap();
    let is_ours = |node: &TypedNode| node.op_is::<Convolve<T>>() || node.op_is::<Depthwise<T>>();
    assert!(ours.nodes().iter().any(is_ours), "{name}");
    let (found_shape, found) = run(ours, T::datum_type());
    assert_eq!(found_shape, shape, "{name}");
    // One product of the numbers above is a multiple of 1/2500, so that no wrong or missing one is below this.
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (found - expected).abs() < tolerance,
            "{name}: {found} instead of {expected} at {index}"
        );
    }
}

#[test]
fn every_geometry_gives_what_tract_gives() {
    let one = [1, 1];
    let cases = [
        (
            "three by three",
            Case([5, 64, 1], [14, 14], [3, 3], one, one, one, one),
        ),
        (
            "three by three, by Winograd",
            Case([40, 70, 1], [15, 17], [3, 3], one, one, one, [2, 0]),
        ),
        (
            "odd channels",
            Case([3, 37, 1], [9, 12], [3, 3], one, one, one, one),
        ),
        (
            "many channels",
            Case([3, 130, 1], [7, 8], [3, 3], one, one, one, one),
        ),
        (
            "stem",
            Case([3, 64, 1], [32, 32], [7, 7], [2, 2], one, [3, 3], [3, 3]),
        ),
        (
            "narrow",
            Case([4, 16, 1], [5, 3], [3, 3], one, one, one, one),
        ),
        (
            "one pixel",
            Case([20, 33, 1], one, [3, 3], [2, 2], one, one, one),
        ),
        (
            "deep, several passes",
            Case([260, 48, 1], [12, 23], [3, 3], one, one, one, one),
        ),
        (
            "steps",
            Case([4, 24, 1], [15, 20], [3, 2], [2, 3], one, [0, 0], [0, 1]),
        ),
        (
            "holes",
            Case([4, 24, 1], [20, 21], [3, 3], [1, 2], [2, 3], [2, 3], [2, 3]),
        ),
        (
            "groups",
            Case([8, 64, 2], [10, 10], [3, 3], one, one, one, one),
        ),
        (
            "uneven padding",
            Case([3, 32, 1], [11, 11], [4, 4], [2, 2], one, [1, 0], [2, 3]),
        ),
        (
            "more padding than image",
            Case([2, 16, 1], [2, 2], [5, 5], [3, 3], one, [4, 4], [4, 4]),
        ),
        (
            "patches",
            Case([3, 48, 1], [16, 16], [4, 4], [4, 4], one, [0, 0], [0, 0]),
        ),
        (
            "pointwise",
            Case([12, 24, 1], [14, 14], one, one, one, [0, 0], [0, 0]),
        ),
        (
            "pointwise, odd",
            Case([7, 19, 1], [7, 7], one, one, one, [0, 0], [0, 0]),
        ),
        (
            "pointwise, one pixel",
            Case([40, 30, 1], one, one, one, one, [0, 0], [0, 0]),
        ),
        (
            "pointwise, strided",
            Case([12, 40, 1], [14, 15], one, [2, 2], one, [0, 0], [0, 0]),
        ),
        (
            "pointwise, padded",
            Case([6, 20, 1], [4, 4], one, one, one, one, one),
        ),
        (
            "pointwise, groups",
            Case([6, 32, 2], [6, 6], one, one, one, [0, 0], [0, 0]),
        ),
        (
            "depthwise",
            Case([3, 3, 3], [7, 7], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
        ),
        (
            "depthwise, large",
            Case(
                [3, 3, 3],
                [112, 112],
                [3, 3],
                [2, 2],
                [1, 1],
                [1, 1],
                [1, 1],
            ),
        ),
        (
            "depthwise, odd",
            Case([3, 3, 3], [14, 15], [5, 5], [2, 2], [1, 1], [1, 2], [2, 1]),
        ),
        (
            "depthwise, uneven steps",
            Case([3, 3, 3], [9, 30], [3, 5], [2, 3], [1, 1], [0, 0], [0, 0]),
        ),
        (
            "depthwise, holes",
            Case([3, 3, 3], [20, 11], [3, 3], [1, 1], [2, 3], [2, 3], [2, 3]),
        ),
        (
            "depthwise, steps and holes",
            Case([3, 3, 3], [16, 16], [2, 7], [3, 2], [2, 1], [1, 0], [0, 4]),
        ),
        (
            "depthwise, one pixel",
            Case([3, 3, 3], [1, 1], [3, 3], [2, 2], [1, 1], [1, 1], [1, 1]),
        ),
        (
            "depthwise, one row",
            Case([3, 3, 3], [5, 64], [1, 3], [1, 4], [1, 1], [0, 1], [0, 0]),
        ),
    ];
    for (name, case) in &cases {
        compare::<f32>(name, case, 1e-4);
        compare::<f64>(name, case, 1e-12);
    }
}
