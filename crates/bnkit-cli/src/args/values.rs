//! Values that need more than a type: shapes, tolerances, methods, shards, suppressions.

use bnkit::calibrate::{Convention, Method, Shard};
use bnkit::check::Suppression;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// `name=1x3x224x224`, or `1x3x224x224` for the only input of a model (the name is then empty).
pub(super) fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    // The last "=": names of values may contain one, sizes cannot.
    let (name, sizes) = text.rsplit_once('=').unwrap_or(("", text));
    let dims = sizes
        .split('x')
        .map(|size| match size.trim().parse() {
            Ok(0) => Err("a size must be at least 1".to_owned()),
            Ok(size) => Ok(size),
            Err(_) => Err(format!("{size:?} is no size; write name=1x3x224x224")),
        })
        .collect::<Result<_, _>>()?;
    Ok((name.to_owned(), dims))
}

/// A finite number ≥ 0.
pub(super) fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number that is not negative, as in 1e-5".to_owned()),
    }
}

/// A finite number > 0.
pub(super) fn factor(text: &str) -> Result<f64, String> {
    match tolerance(text) {
        Ok(value) if value > 0.0 => Ok(value),
        _ => Err("expected a number above 0, as in 8".to_owned()),
    }
}

/// A share from 0 to 1, as in `0.9` or `90%`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => tolerance(percent.trim()).map(|percent| percent / 100.0),
        None => tolerance(text),
    };
    match share {
        Ok(share) if share <= 1.0 => Ok(share),
        _ => Err("expected a share from 0 to 1, as in 0.9 or 90%".to_owned()),
    }
}

/// `I/N` with I from 1 to N.
pub(super) fn shard(text: &str) -> Result<Shard, String> {
    text.parse()
        .map_err(|error: bnkit::Error| error.to_string())
}

/// `CODE:GLOB=REASON`, or the three in braces.
pub(super) fn suppression(text: &str) -> Result<Suppression, String> {
    text.parse()
        .map_err(|error: bnkit::Error| error.to_string())
}

/// How batch statistics become running statistics.
pub(super) fn method() -> impl TypedValueParser<Value = Method> {
    let words = [
        ("precise", "moments of all batches together"),
        (
            "average",
            "the average of the batches, as PyTorch's update_bn",
        ),
        (
            "ema",
            "a moving average from the stored values on, as training does it",
        ),
        (
            "sequential",
            "in eval mode: passes until the statistics stay the same",
        ),
    ];
    words_of(words).try_map(|word| word.parse::<Method>())
}

/// Whose momentum and whose variance.
pub(super) fn convention() -> impl TypedValueParser<Value = Convention> {
    let words = [
        (
            "onnx",
            "momentum weighs the history, the variance divides by n",
        ),
        (
            "torch",
            "momentum weighs the batch, the variance divides by n - 1",
        ),
        ("keras", "as onnx"),
    ];
    words_of(words).try_map(|word| word.parse::<Convention>())
}

fn words_of<const N: usize>(words: [(&'static str, &'static str); N]) -> PossibleValuesParser {
    PossibleValuesParser::new(words.map(|(word, help)| PossibleValue::new(word).help(help)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_with_and_without_a_name() {
        assert_eq!(shape("x=1x3x8x8"), Ok(("x".to_owned(), vec![1, 3, 8, 8])));
        assert_eq!(shape("a=b=2"), Ok(("a=b".to_owned(), vec![2])));
        assert_eq!(shape("1x3"), Ok((String::new(), vec![1, 3])));
        for wrong in ["", "x=", "x=1x", "x=0x3", "x=1,3", "x=-1x3", "1x3=x"] {
            assert!(shape(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tolerances_are_finite_and_not_negative() {
        assert_eq!(tolerance("1e-5"), Ok(1e-5));
        assert_eq!(tolerance("0"), Ok(0.0));
        assert!(factor("0").is_err());
        for wrong in ["-1", "nan", "inf", "", "x"] {
            assert!(tolerance(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_numbers_or_per_cent() {
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(share("25%"), Ok(0.25));
        assert_eq!(share("100 %"), Ok(1.0));
        for wrong in ["1.1", "101%", "-1%", "nan", "%", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
