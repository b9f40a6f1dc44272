//! From values to heights, and the values that deserve a line.

use crate::print::units::short;

/// Powers of ten that a logarithmic axis shows at most; what lies below stands at its foot.
const DECADES: f64 = 12.0;
/// Lines across a plot, about.
const LINES: f64 = 5.0;

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

impl Scale {
    /// Holds all the values that it can: finite ones; on a logarithmic axis positive ones, too. `None` if there are none.
    pub(super) fn of(values: impl IntoIterator<Item = f64>, log: bool) -> Option<Self> {
        let usable = |value: &f64| value.is_finite() && (!log || *value > 0.0);
        let mut ends: Option<(f64, f64)> = None;
        for value in values.into_iter().filter(usable) {
            let (low, high) = ends.unwrap_or((value, value));
            ends = Some((low.min(value), high.max(value)));
        }
        let (low, high) = ends?;
        Some(match log {
            true => {
                let high = high.log10();
                let low = low.log10().max(high - DECADES);
                let room = ((high - low) * 0.04).max(0.05);
                Self {
                    low: low - room,
                    high: high + room,
                    log,
                }
            }
            false => {
                // Ends may be so far apart that their difference is infinite.
                let span = (high / 2.0 - low / 2.0) * 2.0;
                let span = if span > 0.0 && span.is_finite() {
                    span
                } else {
                    high.abs().clamp(1e-300, 1e300)
                };
                Self {
                    low: low - 0.04 * span,
                    high: high + 0.04 * span,
                    log,
                }
            }
        })
    }

    /// Where a value lies, from 0 (bottom) to 1 (top).
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = match (self.log, value > 0.0) {
            (true, true) => value.log10(),
            (true, false) => self.low,
            _ => value,
        };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Values for lines across, with their names.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        if self.log {
            return self.powers();
        }
        even(self.low, self.high)
    }

    fn powers(&self) -> Vec<(f64, String)> {
        let within = |value: f64| (self.low..=self.high).contains(&value.log10());
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        let every = ((f64::from(last - first) / LINES).ceil() as i32).max(1);
        let parts: &[f64] = match self.high - self.low < 2.0 {
            true => &[1.0, 2.0, 5.0],
            false => &[1.0],
        };
        let mut ticks = Vec::new();
        for power in (first..=last).filter(|power| power.rem_euclid(every) == 0) {
            for part in parts {
                // Dividing by a power is exact where multiplying by its inverse is not: 0.2, not 0.20000000000000001.
                let value = match power < 0 {
                    true => part / 10f64.powi(-power),
                    false => part * 10f64.powi(power),
                };
                if within(value) {
                    ticks.push((value, short(value)));
                }
            }
        }
        match ticks.len() {
            // Less than a decade: it is nearly even.
            0 | 1 => even(10f64.powf(self.low), 10f64.powf(self.high)),
            _ => ticks,
        }
    }
}

/// Values at equal distances.
fn even(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / LINES;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last.min(first.saturating_add(20)))
        .map(|number| number as f64 * step)
        .map(|value| (value, short(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scale: Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn lines_stand_at_round_numbers() {
        let scale = Scale::of([-1.0, 1.0], false).unwrap();
        assert_eq!(names(scale), ["-1", "-0.5", "0", "0.5", "1"]);
        assert!((scale.place(0.0) - 0.5).abs() < 1e-12);
        let scale = Scale::of([1e-3, 1e3], true).unwrap();
        assert!(names(scale).contains(&"1".to_owned()));
        assert!((scale.place(1.0) - 0.5).abs() < 1e-12);
        let scale = Scale::of([0.3, 3.0], true).unwrap();
        assert_eq!(names(scale), ["0.5", "1", "2"]);
        let scale = Scale::of([0.71, 0.78], true).unwrap();
        assert_eq!(names(scale), ["0.65", "0.7", "0.75", "0.8", "0.85"]);
    }

    #[test]
    fn odd_values_do_no_harm() {
        assert_eq!(Scale::of([f64::NAN, f64::INFINITY], false), None);
        assert_eq!(Scale::of([0.0, -1.0], true), None);
        for ends in [[0.0, 0.0], [5.0, 5.0], [-1e308, 1e308], [1e-320, 1e-319]] {
            let scale = Scale::of(ends, false).unwrap();
            let place = scale.place(ends[0]);
            assert!((0.0..=1.0).contains(&place), "{ends:?}: {place}");
            assert!(scale.ticks().len() <= 21);
        }
        let scale = Scale::of([1e-300, 1.0], true).unwrap();
        assert_eq!(scale.place(0.0), 0.0);
        assert_eq!(scale.place(f64::MAX), 1.0);
    }
}
