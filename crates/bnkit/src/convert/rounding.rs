//! What rounding to another float type does to a tensor: error, overflow, and what becomes 0 or subnormal.

use bnkit_model::DType;

use super::report::Rounding;

/// What was seen of a tensor so far.
#[derive(Debug)]
pub(super) struct Seen {
    from: DType,
    to: DType,
    elements: u64,
    max_abs: f64,
    max_rel: f64,
    overflowed: u64,
    zeroed: u64,
    subnormal: u64,
    not_finite: u64,
}

impl Seen {
    pub(super) fn new(from: DType, to: DType) -> Self {
        Self {
            from,
            to,
            elements: 0,
            max_abs: 0.0,
            max_rel: 0.0,
            overflowed: 0,
            zeroed: 0,
            subnormal: 0,
            not_finite: 0,
        }
    }

    /// Looks at more elements.
    pub(super) fn add(&mut self, values: &[f64]) {
        let (least_before, least) = (least_normal(self.from), least_normal(self.to));
        self.elements += values.len() as u64;
        for &value in values {
            if !value.is_finite() {
                self.not_finite += 1;
                continue;
            }
            let rounded = self.to.round(value);
            if !rounded.is_finite() {
                self.overflowed += 1;
                continue;
            }
            if rounded == value {
                // Nothing is lost, even if the value is subnormal now.
                continue;
            }
            let error = (rounded - value).abs();
            self.max_abs = self.max_abs.max(error);
            self.max_rel = self.max_rel.max(error / value.abs());
            if rounded == 0.0 {
                self.zeroed += 1;
            } else if rounded.abs() < least && value.abs() >= least_before {
                self.subnormal += 1;
            }
        }
    }

    pub(super) fn into_report(self, name: String, statistic: bool) -> Rounding {
        Rounding {
            name,
            from: self.from.to_string(),
            to: self.to.to_string(),
            elements: self.elements,
            max_abs: self.max_abs,
            max_rel: self.max_rel,
            overflowed: self.overflowed,
            zeroed: self.zeroed,
            subnormal: self.subnormal,
            not_finite: self.not_finite,
            statistic,
        }
    }
}

/// The smallest normal number of a float type (IEEE 754 binary16, binary32, binary64; bfloat16 has binary32's exponents).
fn least_normal(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-14),
        DType::BF16 | DType::F32 => f64::from(f32::MIN_POSITIVE),
        _ => f64::MIN_POSITIVE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_loss_is_counted() {
        let mut seen = Seen::new(DType::F32, DType::F16);
        // Exact; 2049 is a tie and goes down by 1; beyond the range; too small; subnormal and inexact; subnormal, exact.
        let subnormal = f64::from(3.3e-6f32);
        seen.add(&[1.0, -2049.0, 7e4, 1e-9, subnormal, 2f64.powi(-20)]);
        seen.add(&[f64::NAN, f64::INFINITY]);
        let report = seen.into_report("w".to_owned(), false);
        assert_eq!(report.elements, 8);
        assert_eq!((report.overflowed, report.not_finite), (1, 2));
        assert_eq!((report.zeroed, report.subnormal), (1, 1));
        assert_eq!((report.max_abs, report.max_rel), (1.0, 1.0));
    }

    #[test]
    fn what_was_subnormal_before_did_not_become_it() {
        let mut seen = Seen::new(DType::F32, DType::BF16);
        seen.add(&[f64::from(f32::from_bits(0x0001_8001))]);
        assert_eq!(seen.into_report(String::new(), false).subnormal, 0);
    }
}
