//! Numbers as people read them.

/// "1 node", "2 nodes".
pub(crate) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Bytes in decimal units, as file managers and `ls --si` show them.
pub(crate) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    if value < 1000.0 {
        return format!("{number} B");
    }
    for unit in ["kB", "MB", "GB"] {
        value /= 1000.0;
        if value < 999.95 {
            return format!("{value:.1} {unit}");
        }
    }
    format!("{:.1} TB", value / 1000.0)
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An error or a tolerance: its magnitude is what counts.
pub(crate) fn sci(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value.is_finite() => format!("{value:.1e}"),
        _ => special(value),
    }
}

/// A statistic: three digits.
pub(crate) fn short(value: f64) -> String {
    if !value.is_finite() {
        return special(value);
    }
    let magnitude = value.abs();
    if value != 0.0 && !(1e-3..1e5).contains(&magnitude) {
        return sci(value);
    }
    let before = if magnitude < 1.0 {
        0
    } else {
        magnitude.log10().floor() as usize
    };
    let text = format!("{value:.*}", 2_usize.saturating_sub(before));
    let text = if magnitude < 0.1 && value != 0.0 {
        format!("{value:.4}")
    } else {
        text
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// "0.5 … 1.5", or one number if there is only one.
pub(crate) fn range(min: f64, max: f64) -> String {
    let (low, high) = (short(min), short(max));
    if low == high {
        low
    } else {
        format!("{low} … {high}")
    }
}

/// Dimensions as in "1×3×N".
pub(crate) fn shape(dims: Option<&[String]>) -> String {
    match dims {
        None => "?".to_owned(),
        Some([]) => "scalar".to_owned(),
        Some(dims) => dims.join("×"),
    }
}

fn special(value: f64) -> String {
    match (value.is_nan(), value < 0.0) {
        (true, _) => "NaN".to_owned(),
        (false, true) => "-Inf".to_owned(),
        (false, false) => "Inf".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(102_488_105), "102.5 MB");
        assert_eq!(bytes(999_960), "1.0 MB");
        assert_eq!(bytes(2_800_000_000), "2.8 GB");
        assert_eq!(bytes(u64::MAX), "18446744.1 TB");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(25_557_032), "25,557,032");
    }

    #[test]
    fn numbers() {
        assert_eq!(sci(2.4e-6), "2.4e-6");
        assert_eq!(sci(0.0), "0");
        assert_eq!(sci(f64::NAN), "NaN");
        assert_eq!(short(0.0), "0");
        assert_eq!(short(1.5), "1.5");
        assert_eq!(short(-0.25), "-0.25");
        assert_eq!(short(0.012_34), "0.0123");
        assert_eq!(short(123.456), "123");
        assert_eq!(short(200.0), "200");
        assert_eq!(short(1e-5), "1.0e-5");
        assert_eq!(short(f64::NEG_INFINITY), "-Inf");
        assert_eq!(range(0.5, 1.5), "0.5 … 1.5");
        assert_eq!(range(1.0, 1.0), "1");
    }

    #[test]
    fn things() {
        assert_eq!(count(1, "node"), "1 node");
        assert_eq!(count(0, "node"), "0 nodes");
        assert_eq!(shape(Some(&["N".into(), "3".into()])), "N×3");
        assert_eq!(shape(Some(&[])), "scalar");
        assert_eq!(shape(None), "?");
    }
}
