//! The elements of one tensor in two checkpoints, read in chunks at the same pace.

use bnkit_model::stored::{CHUNK, Stored};
use bnkit_model::tensor::decode_f64;
use bnkit_model::{DType, Result};

use super::report::ElementChange;

/// Bytes that are compared at once.
const PART: usize = 1 << 17;

/// Whether two tensors hold the same bytes.
///
/// # Errors
/// If they cannot be read.
pub(super) fn are_equal(a: &Stored, b: &Stored) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let mut readers = [Reader::new(a), Reader::new(b)];
    loop {
        let [left, right] = &mut readers;
        let (left, right) = (left.next(PART)?, right.next(PART)?);
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// Measures how far two tensors with the same number of elements are apart.
///
/// # Errors
/// If they cannot be read, or are no numbers.
pub(super) fn measure(a: (&Stored, DType), b: (&Stored, DType)) -> Result<ElementChange> {
    let mut sums = Sums::default();
    let mut readers = [Reader::new(a.0), Reader::new(b.0)];
    let size = |dtype: DType| dtype.size().unwrap_or(1);
    let same = a.1 == b.1;
    loop {
        let [left, right] = &mut readers;
        let left = left.next(CHUNK * size(a.1))?;
        let right = right.next(CHUNK * size(b.1))?;
        if left.is_empty() {
            return Ok(sums.finish());
        }
        if same {
            let width = size(a.1);
            let pairs = left.chunks_exact(width).zip(right.chunks_exact(width));
            sums.found.changed += pairs.filter(|(a, b)| a != b).count() as u64;
        }
        let (left, right) = (decode_f64(a.1, left)?, decode_f64(b.1, right)?);
        for (&a, &b) in left.iter().zip(&right) {
            let differ = a != b && !(a.is_nan() && b.is_nan());
            sums.found.changed += u64::from(!same && differ);
            sums.add(a, b);
        }
    }
}

/// What adds up over the elements.
#[derive(Default)]
struct Sums {
    found: ElementChange,
    largest: f64,
    squares: f64,
    difference: f64,
}

impl Sums {
    fn add(&mut self, a: f64, b: f64) {
        let found = &mut self.found;
        found.count += 1;
        for (side, value) in [a, b].into_iter().enumerate() {
            found.nan[side] += u64::from(value.is_nan());
            found.infinite[side] += u64::from(value.is_infinite());
        }
        if a.is_finite() && b.is_finite() {
            let delta = (b - a).abs();
            found.max_abs = found.max_abs.max(delta);
            self.difference += delta * delta;
            self.largest = self.largest.max(a.abs());
            self.squares += a * a;
        }
    }

    fn finish(self) -> ElementChange {
        // 0/0 is no change; x/0 has no measure, and stays infinite.
        let over = |part: f64, whole: f64| if part == 0.0 { 0.0 } else { part / whole };
        ElementChange {
            max_rel: over(self.found.max_abs, self.largest),
            l2_rel: over(self.difference.sqrt(), self.squares.sqrt()),
            ..self.found
        }
    }
}

/// Stored elements, from the beginning on.
struct Reader<'s> {
    stored: &'s Stored,
    done: u64,
    buffer: Vec<u8>,
}

impl<'s> Reader<'s> {
    fn new(stored: &'s Stored) -> Self {
        Self {
            stored,
            done: 0,
            buffer: Vec::new(),
        }
    }

    /// The next bytes, at most `size`; none at the end.
    fn next(&mut self, size: usize) -> Result<&[u8]> {
        let left = self.stored.len() - self.done;
        self.buffer.resize(left.min(size as u64) as usize, 0);
        let offset = self.stored.range.start + self.done;
        self.stored.source.read_at(offset, &mut self.buffer)?;
        self.done += self.buffer.len() as u64;
        Ok(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use bnkit_model::source::Source;

    use super::*;

    fn stored(bytes: Vec<u8>) -> Stored {
        Stored {
            range: 0..bytes.len() as u64,
            source: Source::memory(bytes).into(),
        }
    }

    fn floats(values: &[f32]) -> Stored {
        stored(values.iter().flat_map(|it| it.to_le_bytes()).collect())
    }

    fn measured(a: &[f32], b: &[f32]) -> ElementChange {
        measure((&floats(a), DType::F32), (&floats(b), DType::F32)).unwrap()
    }

    #[test]
    fn differences_are_measured_against_the_first() {
        // Δ = (0, 3, -4): the largest is 4 of 8, ‖Δ‖ = 5, ‖a‖ = √(16 + 0 + 64).
        let change = measured(&[4.0, 0.0, 8.0], &[4.0, 3.0, 4.0]);
        assert_eq!((change.count, change.changed), (3, 2));
        assert_eq!((change.max_abs, change.max_rel), (4.0, 0.5));
        assert!((change.l2_rel - 5.0 / 80f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn two_zeros_differ_in_their_bits_and_by_nothing() {
        let change = measured(&[0.0, 1.0], &[-0.0, 1.0]);
        assert_eq!(
            (change.changed, change.max_abs, change.l2_rel),
            (1, 0.0, 0.0)
        );
        assert!(!are_equal(&floats(&[0.0]), &floats(&[-0.0])).unwrap());
    }

    #[test]
    fn payloads_of_nan_count_as_bits() {
        let (one, other) = (f32::from_bits(0x7fc0_0001), f32::from_bits(0x7fc0_0002));
        let change = measured(&[one, 1.0], &[other, f32::INFINITY]);
        assert_eq!((change.changed, change.nan), (2, [1, 1]));
        assert_eq!((change.infinite, change.max_abs), ([0, 1], 0.0));
        assert!(change.is_worse());
        assert!(are_equal(&floats(&[one]), &floats(&[one])).unwrap());
    }

    #[test]
    fn other_types_are_compared_by_value() {
        // 1.5 and 0.1 in f16: the first exactly, the second as 0.0999755859375.
        let halves = stored(vec![0x00, 0x3e, 0x66, 0x2e]);
        let doubles = stored(
            [1.5f64, 0.1]
                .iter()
                .flat_map(|it| it.to_le_bytes())
                .collect(),
        );
        let change = measure((&doubles, DType::F64), (&halves, DType::F16)).unwrap();
        assert_eq!((change.count, change.changed), (2, 1));
        assert!((change.max_abs - (0.1 - 0.099_975_585_937_5)).abs() < 1e-17);
    }

    #[test]
    fn from_nothing_there_is_no_ratio() {
        let change = measured(&[0.0], &[2.0]);
        assert_eq!(
            (change.max_abs, change.max_rel, change.l2_rel),
            (2.0, f64::INFINITY, f64::INFINITY)
        );
    }

    #[test]
    fn a_late_difference_is_found() {
        let mut values = vec![1.0f32; 3 * CHUNK + 5];
        let before = floats(&values);
        assert!(are_equal(&before, &floats(&values)).unwrap());
        values[3 * CHUNK + 4] = 2.0;
        let after = floats(&values);
        assert!(!are_equal(&before, &after).unwrap());
        let change = measure((&before, DType::F32), (&after, DType::F32)).unwrap();
        assert_eq!((change.count, change.changed), (values.len() as u64, 1));
    }
}
