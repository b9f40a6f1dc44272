//! How tensors are spread over files.

use std::ops::Range;

/// Cuts a list of sizes into runs of at most `limit` bytes, in order, as Hugging Face's libraries do. What is larger
/// than that by itself has a file for itself.
pub(super) fn split(sizes: &[u64], limit: u64) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (at, &size) in sizes.iter().enumerate() {
        if at > start && bytes.saturating_add(size) > limit {
            runs.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(size);
    }
    runs.push(start..sizes.len());
    runs
}

/// The number of bytes that a text says: a number with `kB`, `MB`, `GB`, `TB` (thousands) or `KiB`, `MiB`, `GiB`, `TiB`
/// (1024), or without a unit. Upper and lower case mean the same.
///
/// # Errors
/// If it is no such thing, or 0.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write 5GB (10^9) or 5GiB (2^30)");
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000u64.pow(2),
        "gb" => 1000u64.pow(3),
        "tb" => 1000u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = (number * factor as f64).floor();
    match (1.0..9e18).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_what_fits_and_no_less_than_one_tensor() {
        assert_eq!(split(&[4, 4, 4], 8), [0..2, 2..3]);
        assert_eq!(split(&[9, 1, 9, 9], 8), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(split(&[1, 2, 3], 100), vec![0..3; 1]);
        assert_eq!(split(&[u64::MAX, u64::MAX], 1), [0..1, 1..2]);
        assert_eq!(split(&[], 8), vec![0..0; 1]);
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(parse_size("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_size("1.5 MiB"), Ok(1_572_864));
        assert_eq!(parse_size("500mb"), Ok(500_000_000));
        assert_eq!(parse_size("2KIB"), Ok(2048));
        assert_eq!(parse_size("12"), Ok(12));
        for wrong in [
            "",
            "GB",
            "0",
            "-1GB",
            "5G",
            "5 parsecs",
            "1.2.3MB",
            "1e30TB",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
