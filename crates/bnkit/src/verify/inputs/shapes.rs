//! Shapes: what the user gives, what the model says, and guesses for the rest.

use std::collections::HashMap;

use bnkit_engine::{Dim, InputSpec};
use bnkit_model::{Error, Result};

/// The shape of an input, by its name.
pub type NamedShape = (String, Vec<usize>);

/// Sizes to try for what a model leaves open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess {
    spatial: usize,
    channels: usize,
    sequence: usize,
}

const fn guess(spatial: usize, channels: usize, sequence: usize) -> Guess {
    Guess {
        spatial,
        channels,
        sequence,
    }
}

/// In this order. Small images first: they are quicker, and most networks for images take any size that is a multiple of 32.
pub(super) const GUESSES: [Guess; 14] = [
    guess(64, 3, 8),
    guess(224, 3, 8),
    guess(32, 3, 8),
    guess(96, 3, 16),
    guess(16, 3, 1),
    guess(64, 1, 32),
    guess(224, 1, 64),
    guess(32, 1, 128),
    guess(28, 1, 256),
    guess(128, 3, 8),
    guess(256, 3, 8),
    guess(299, 3, 8),
    guess(320, 3, 8),
    guess(640, 3, 8),
];

/// Reads `name=1x3x224x224`. The name may itself contain `=`.
///
/// # Errors
/// If the text is not of this form.
pub fn parse_shape(text: &str) -> Result<NamedShape> {
    text.rsplit_once('=')
        .filter(|(name, _)| !name.is_empty())
        .and_then(|(name, dims)| {
            let dims = dims
                .split('x')
                .map(|dim| dim.parse().ok().filter(|&size| size > 0))
                .collect::<Option<Vec<usize>>>()?;
            Some((name.to_owned(), dims))
        })
        .ok_or_else(|| Error::invalid(format!("shape {text:?}: expected NAME=1x3x224x224")))
}

/// `name=1x3x224x224` of each.
pub(super) fn show(shapes: &[NamedShape]) -> String {
    let one = |(name, dims): &NamedShape| {
        let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
        format!("{name}={}", dims.join("x"))
    };
    shapes.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The shape of every input: given, declared, or guessed. A symbol has one size throughout.
pub(super) fn resolve(
    specs: &[InputSpec],
    given: &[NamedShape],
    guess: &Guess,
) -> Result<Vec<NamedShape>> {
    if let Some((name, _)) = given
        .iter()
        .find(|(name, _)| specs.iter().all(|spec| spec.name != *name))
    {
        let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        return Err(Error::invalid(format!(
            "a shape is given for {name:?}, but the inputs are {known:?}"
        )));
    }
    let mut symbols = HashMap::new();
    for (name, dims) in given {
        for spec in specs.iter().filter(|spec| spec.name == *name) {
            check(spec, dims)?;
            for (dim, &size) in spec.dims.iter().flatten().zip(dims) {
                if let Dim::Symbol(symbol) = dim {
                    symbols.insert(symbol.as_str(), size);
                }
            }
        }
    }
    specs
        .iter()
        .map(|spec| {
            if let Some(shape) = given.iter().find(|(name, _)| *name == spec.name) {
                return Ok(shape.clone());
            }
            let Some(dims) = &spec.dims else {
                return Err(Error::invalid(format!(
                    "input {:?}: its rank is not known; give its shape with --shape {}=1x3x224x224",
                    spec.name, spec.name
                )));
            };
            let sizes = dims
                .iter()
                .enumerate()
                .map(|(axis, dim)| match dim {
                    Dim::Fixed(size) => *size,
                    Dim::Symbol(symbol) => *symbols
                        .entry(symbol)
                        .or_insert_with(|| guess.size(Some(symbol), axis, dims.len())),
                    Dim::Unknown => guess.size(None, axis, dims.len()),
                })
                .collect();
            Ok((spec.name.clone(), sizes))
        })
        .collect()
}

/// Refuses a shape that contradicts the declared one.
pub(super) fn check(spec: &InputSpec, dims: &[usize]) -> Result<()> {
    let Some(declared) = &spec.dims else {
        return Ok(());
    };
    let fits = declared.len() == dims.len()
        && declared
            .iter()
            .zip(dims)
            .all(|(declared, size)| match declared {
                Dim::Fixed(fixed) => fixed == size,
                _ => true,
            });
    if fits {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "input {:?}: expected shape {}, found {dims:?}",
        spec.name,
        declared_shape(declared)
    )))
}

/// A declared shape, as `[N, 3, ?, ?]`.
pub(super) fn declared_shape(dims: &[Dim]) -> String {
    let names: Vec<String> = dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Symbol(symbol) => symbol.clone(),
            Dim::Unknown => "?".into(),
        })
        .collect();
    format!("[{}]", names.join(", "))
}

impl Guess {
    /// The size of an open dimension, by its symbol and place.
    fn size(&self, symbol: Option<&str>, axis: usize, rank: usize) -> usize {
        let name = symbol.unwrap_or_default().to_ascii_lowercase();
        let batch = name.contains("batch") || matches!(name.as_str(), "n" | "b" | "bs");
        if batch || axis == 0 {
            1
        } else if rank >= 4 && axis == 1 {
            self.channels
        } else if rank >= 4 {
            self.spatial
        } else {
            self.sequence
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bnkit_model::DType;

    fn spec(name: &str, dims: Option<Vec<Dim>>) -> InputSpec {
        InputSpec {
            name: name.into(),
            dtype: DType::F32,
            dims,
        }
    }

    #[test]
    fn shapes_are_read() {
        assert_eq!(parse_shape("x=1x3x8").unwrap(), ("x".into(), vec![1, 3, 8]));
        assert_eq!(parse_shape("a=b=4").unwrap(), ("a=b".into(), vec![4]));
        for wrong in ["x", "x=", "=1", "x=1xx2", "x=0", "x=-1"] {
            assert!(parse_shape(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_symbol_has_one_size() {
        let specs = [
            spec(
                "a",
                Some(vec![Dim::Symbol("batch".into()), Dim::Symbol("len".into())]),
            ),
            spec("b", Some(vec![Dim::Symbol("len".into()), Dim::Fixed(4)])),
        ];
        let shapes = resolve(&specs, &[], &GUESSES[0]).unwrap();
        assert_eq!(show(&shapes), "a=1x8 b=8x4");
        let shapes = resolve(&specs, &[("b".into(), vec![5, 4])], &GUESSES[0]).unwrap();
        assert_eq!(show(&shapes), "a=1x5 b=5x4");
    }

    #[test]
    fn what_is_given_must_fit_the_model() {
        let specs = [spec("a", Some(vec![Dim::Unknown, Dim::Fixed(3)]))];
        let error =
            |given: &[NamedShape]| resolve(&specs, given, &GUESSES[0]).unwrap_err().to_string();
        assert!(error(&[("a".into(), vec![1, 4])]).contains("expected shape [?, 3], found [1, 4]"));
        assert!(error(&[("b".into(), vec![1])]).contains("\"b\""));
        let unknown = resolve(&[spec("x", None)], &[], &GUESSES[0]).unwrap_err();
        assert!(unknown.to_string().contains("--shape x="));
    }
}
