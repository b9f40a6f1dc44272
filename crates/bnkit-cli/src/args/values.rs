//! Values that need more than a type: shapes and tolerances.

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
}
