//! The inputs that two models are compared on: seeded random ones, or samples of real data.
//!
//! Random inputs are a fallback: real data exercises the ranges that matter. Sizes that a model leaves open are guessed in a fixed
//! order until the model runs, so that the same model, seed and version always give the same samples. What cannot be guessed (an
//! unknown rank) is asked for.

mod from_data;
mod shapes;

use bnkit_engine::InputSpec;
use bnkit_model::{DType, Error, Limits, Result, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use from_data::from_data;
pub(crate) use from_data::tensors_of;
pub use shapes::{NamedShape, parse_shape};

/// One value for each input of a model.
pub type Sample = Vec<(String, Tensor)>;

/// `count` random samples of the same shapes.
///
/// Floats are drawn from N(0, 1) and rounded to the input's type; integers from a small range that is a valid index nearly everywhere
/// (bytes: the whole range of pixels), masks are all ones. `given` are shapes that the user fixed. `runs` says whether the model runs
/// on a sample; its error is returned if it never does.
///
/// # Errors
/// If a shape can neither be taken from the model nor guessed, if a given shape contradicts the model, or if no guess runs.
pub fn generate(
    specs: &[InputSpec],
    given: &[NamedShape],
    count: usize,
    seed: u64,
    runs: &mut dyn FnMut(&Sample) -> Result<(), String>,
) -> Result<Vec<Sample>> {
    let mut tried: Vec<Vec<NamedShape>> = vec![];
    let mut first_error = None;
    for guess in shapes::GUESSES {
        let shapes = shapes::resolve(specs, given, &guess)?;
        if tried.contains(&shapes) {
            continue;
        }
        let sample = draw(specs, &shapes, seed, 0)?;
        match runs(&sample) {
            Ok(()) => {
                let rest = (1..count as u64).map(|number| draw(specs, &shapes, seed, number));
                return std::iter::once(Ok(sample))
                    .chain(rest)
                    .take(count)
                    .collect();
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
        tried.push(shapes);
    }
    let guessed: Vec<String> = tried.iter().map(|shapes| shapes::show(shapes)).collect();
    Err(Error::invalid(format!(
        "the model does not run on {}: {}; give its input shapes with --shape NAME=1x3x224x224",
        guessed.join(", nor on "),
        first_error.unwrap_or_default()
    )))
}

/// Sample `number` of `seed`. Every input has a random stream of its own: adding one does not change the others.
fn draw(specs: &[InputSpec], shapes: &[NamedShape], seed: u64, number: u64) -> Result<Sample> {
    specs
        .iter()
        .zip(shapes)
        .enumerate()
        .map(|(position, (spec, (_, dims)))| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream((number << 16) | position as u64);
            let tensor = random_tensor(spec, dims, &mut random)
                .map_err(|error| error.at(format!("input {:?}", spec.name)))?;
            Ok((spec.name.clone(), tensor))
        })
        .collect()
}

fn random_tensor(spec: &InputSpec, dims: &[usize], random: &mut ChaCha8Rng) -> Result<Tensor> {
    let most = Limits::get().sample_elements;
    let count = bnkit_model::tensor::element_count(dims).filter(|&count| count <= most);
    let count = count.ok_or_else(|| {
        Error::invalid(format!(
            "shape {dims:?} has more than {most} elements, too many for values made up"
        ))
    })? as usize;
    let mut below = |bound: u64| (random.next_u64() >> 11) % bound;
    let mask = spec.name.to_ascii_lowercase().contains("mask");
    let values: Vec<f64> = match spec.dtype {
        dtype if dtype.is_float() => normal(count, random),
        DType::Bool if mask => vec![1.0; count],
        DType::Bool => (0..count).map(|_| below(2) as f64).collect(),
        DType::U8 => (0..count).map(|_| below(256) as f64).collect(),
        dtype if dtype.is_integer() && mask => vec![1.0; count],
        dtype if dtype.is_integer() => (0..count).map(|_| below(8) as f64).collect(),
        other => return Err(Error::invalid(format!("no random values for type {other}"))),
    };
    Tensor::from_f64(spec.dtype, dims.to_vec(), &values)
}

/// Standard normal values by Box and Muller.
fn normal(count: usize, random: &mut ChaCha8Rng) -> Vec<f64> {
    let mut unit = || ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let mut out = Vec::with_capacity(count + 1);
    while out.len() < count {
        let radius = (-2.0 * unit().ln()).sqrt();
        let angle = std::f64::consts::TAU * unit();
        out.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    out.truncate(count);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bnkit_engine::Dim;

    fn spec(name: &str, dtype: DType, dims: Vec<Dim>) -> InputSpec {
        InputSpec {
            name: name.into(),
            dtype,
            dims: Some(dims),
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_samples() {
        let specs = [
            spec("x", DType::F16, vec![Dim::Unknown, Dim::Fixed(50)]),
            spec(
                "attention_mask",
                DType::I64,
                vec![Dim::Unknown, Dim::Fixed(4)],
            ),
        ];
        let make = |seed| generate(&specs, &[], 3, seed, &mut |_| Ok(())).unwrap();
        let samples = make(1);
        assert_eq!(samples, make(1));
        assert_ne!(samples, make(2));
        assert_eq!(samples.len(), 3);
        assert_ne!(samples[0][0], samples[1][0]);
        assert_eq!(samples[0][0].1.dtype(), DType::F16);
        assert_eq!(samples[0][1].1.to_i64().unwrap(), [1; 4]);
    }

    #[test]
    fn values_are_standard_normal() {
        let specs = [spec(
            "x",
            DType::F32,
            vec![Dim::Fixed(1), Dim::Fixed(10_000)],
        )];
        let sample = generate(&specs, &[], 1, 7, &mut |_| Ok(()))
            .unwrap()
            .remove(0);
        let values = sample[0].1.to_f64().unwrap();
        let mean = values.iter().sum::<f64>() / 1e4;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e4;
        assert!(
            mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
    }

    #[test]
    fn sizes_are_guessed_until_the_model_runs() {
        let dims = vec![
            Dim::Symbol("N".into()),
            Dim::Fixed(3),
            Dim::Unknown,
            Dim::Unknown,
        ];
        let specs = [spec("x", DType::F32, dims)];
        let mut runs = |sample: &Sample| match sample[0].1.dims() {
            [1, 3, 32, 32] => Ok(()),
            other => Err(format!("{other:?}?")),
        };
        let samples = generate(&specs, &[], 2, 0, &mut runs).unwrap();
        assert_eq!(samples[1][0].1.dims(), [1, 3, 32, 32]);
        let error = generate(&specs, &[], 2, 0, &mut |_| Err("no".into()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("x=1x3x64x64") && error.contains("--shape"),
            "{error}"
        );
    }
}
