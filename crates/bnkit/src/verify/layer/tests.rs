//! A layer folded by hand, rightly and wrongly; which channel an element belongs to.

use super::*;

struct Numbers(Vec<f64>, DType);

impl Elements for Numbers {
    fn for_each(&self, visit: Visit<'_>) -> Result<()> {
        visit(0, &self.0)
    }
    fn dtype(&self) -> DType {
        self.1
    }
}

fn norm() -> Norm {
    Norm {
        gamma: vec![2.0, -1.0],
        beta: vec![0.5, 3.0],
        mean: vec![0.25, -4.0],
        variance: vec![0.75, 3.0],
        epsilon: 0.25,
    }
}

/// Weights [2, 3] with γ/√(σ²+ε) = 2 and −1/√3.25, folded by hand.
fn distance(spoil: impl Fn(&mut Vec<f64>, &mut Vec<f64>)) -> Distance {
    let before = Numbers(vec![1.0, 2.0, -0.5, 4.0, 0.125, 7.0], DType::F32);
    let s = [2.0, -1.0 / 3.25f64.sqrt()];
    let t = [0.5 - 0.25 * s[0], 3.0 + 4.0 * s[1]];
    let mut weight: Vec<f64> = before
        .0
        .iter()
        .enumerate()
        .map(|(e, w)| w * s[e / 3])
        .collect();
    let mut bias = vec![0.1 * s[0] + t[0], -0.2 * s[1] + t[1]];
    spoil(&mut weight, &mut bias);
    let after = Numbers(weight, DType::F32);
    let pair = Pair {
        name: "layer".to_owned(),
        channels: Channels::First { inner: 3 },
        before: Layer {
            weight: &before,
            bias: vec![0.1, -0.2],
            norm: Some(norm()),
        },
        after: Layer {
            weight: &after,
            bias,
            norm: None,
        },
    };
    compare(&[pair], 1).unwrap()[0]
}

#[test]
fn a_right_fold_differs_by_rounding_only() {
    let distance = distance(|_, _| {});
    assert!(distance.is_small(), "{distance:?}");
    assert!(
        distance.exact < 1e-14 && distance.stored > 0.0,
        "{distance:?}"
    );
}

#[test]
fn a_wrong_fold_is_seen() {
    assert!(!distance(|weight, _| weight[4] *= 1.0 + 1e-6).is_small());
    assert!(!distance(|weight, _| weight.swap(0, 1)).is_small());
    assert!(
        !distance(|_, bias| bias[0] += 0.5).is_small(),
        "a dropped mean"
    );
    assert!(!distance(|_, bias| bias[1] = f64::NAN).is_small());
}

#[test]
fn channels_follow_the_layout() {
    // [I = 4, O/g = 2, k = 3] with two groups: W[i, j] is channel (i div 2)·2 + j.
    let channels = Channels::Grouped {
        rows: 2,
        columns: 2,
        inner: 3,
    };
    let of = |i: usize, j: usize| channels.run((i * 2 + j) * 3 + 1).0;
    assert_eq!([of(0, 0), of(1, 1), of(2, 0), of(3, 1)], [0, 1, 2, 3]);
    assert_eq!(channels.run(7), (0, 2));
    assert_eq!(Channels::Last { count: 5 }.run(13), (3, 1));
}
