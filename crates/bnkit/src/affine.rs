//! The affine that moves: y = s·x + t, one (s, t) for each channel, in f64.

use crate::route::UNTOUCHED;

/// A per-channel affine on its way through the graph.
///
/// `scale`, `shift` and `channels` have one entry for each feature along `axis` of the value that the affine is at, or
/// one entry altogether if `axis` is `None`: the same affine for every element.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Affine {
    /// s.
    pub(crate) scale: Vec<f64>,
    /// t.
    pub(crate) shift: Vec<f64>,
    /// For each feature, the channel of the site that its s and t come from; [`UNTOUCHED`] where it has s = 1, t = 0
    /// because the site does not act on it.
    pub(crate) channels: Vec<u32>,
    /// The axis of the current value that the features lie along.
    pub(crate) axis: Option<usize>,
    /// What the site's t was multiplied by to give this t: ½ if two equal parts make it, −1 if it is subtracted.
    pub(crate) share: f64,
}

impl Affine {
    /// An affine with one (s, t) for each channel of `axis`.
    pub(crate) fn per_channel(scale: Vec<f64>, shift: Vec<f64>, axis: usize) -> Self {
        let channels = (0..scale.len() as u32).collect();
        Self {
            scale,
            shift,
            channels,
            axis: Some(axis),
            share: 1.0,
        }
    }

    /// One (s, t) for every element.
    pub(crate) fn uniform(scale: f64, shift: f64) -> Self {
        Self {
            scale: vec![scale],
            shift: vec![shift],
            channels: vec![0],
            axis: None,
            share: 1.0,
        }
    }

    /// s = γ/√(σ²+ε), t = β − μ·s (Ioffe & Szegedy 2015, algorithm 2, in eval mode), on axis 1.
    pub(crate) fn batch_norm(
        gamma: &[f64],
        beta: &[f64],
        mean: &[f64],
        variance: &[f64],
        epsilon: f64,
    ) -> Self {
        let scale: Vec<f64> = gamma
            .iter()
            .zip(variance)
            .map(|(gamma, variance)| gamma / (variance + epsilon).sqrt())
            .collect();
        let shift = beta
            .iter()
            .zip(mean.iter().zip(&scale))
            .map(|(beta, (mean, scale))| beta - mean * scale)
            .collect();
        Self::per_channel(scale, shift, 1)
    }

    /// The number of features (1 for a uniform affine).
    pub(crate) fn len(&self) -> usize {
        self.scale.len()
    }

    /// Whether t is 0 everywhere.
    pub(crate) fn has_no_shift(&self) -> bool {
        self.shift.iter().all(|&shift| shift == 0.0)
    }

    /// Whether s is 1 everywhere.
    pub(crate) fn has_no_scale(&self) -> bool {
        self.scale.iter().all(|&scale| scale == 1.0)
    }

    /// The same affine without t.
    pub(crate) fn scale_only(&self) -> Self {
        Self {
            shift: vec![0.0; self.len()],
            ..self.clone()
        }
    }

    /// The same affine with t multiplied by `factor`.
    pub(crate) fn with_shift_times(&self, factor: f64) -> Self {
        Self {
            shift: self.shift.iter().map(|shift| shift * factor).collect(),
            share: self.share * factor,
            ..self.clone()
        }
    }

    /// An affine on `count` features along `axis` that does to feature `places[i]` what this one does to its feature
    /// i, and leaves the others as they are.
    pub(crate) fn placed(&self, places: &[usize], count: usize, axis: usize) -> Self {
        let mut placed = Self {
            scale: vec![1.0; count],
            shift: vec![0.0; count],
            channels: vec![UNTOUCHED; count],
            axis: Some(axis),
            share: self.share,
        };
        for (index, &place) in places.iter().enumerate() {
            let index = if self.axis.is_none() { 0 } else { index };
            placed.scale[place] = self.scale[index];
            placed.shift[place] = self.shift[index];
            placed.channels[place] = self.channels[index];
        }
        placed
    }

    /// Whether no feature is changed by both affines, which lie along the same axis.
    pub(crate) fn is_disjoint(&self, other: &Self) -> bool {
        let moved =
            |affine: &Self, index: usize| affine.scale[index] != 1.0 || affine.shift[index] != 0.0;
        self.axis.is_some()
            && self.axis == other.axis
            && self.len() == other.len()
            && (0..self.len()).all(|index| !moved(self, index) || !moved(other, index))
    }

    /// The affine of the features `sources` of this one, in that order, along `axis`.
    pub(crate) fn gather(&self, sources: impl Iterator<Item = usize>, axis: usize) -> Self {
        let pick = |index: usize| if self.axis.is_none() { 0 } else { index };
        let sources: Vec<usize> = sources.map(pick).collect();
        Self {
            scale: sources.iter().map(|&index| self.scale[index]).collect(),
            shift: sources.iter().map(|&index| self.shift[index]).collect(),
            channels: sources.iter().map(|&index| self.channels[index]).collect(),
            axis: Some(axis),
            share: self.share,
        }
    }

    /// The same affine at another axis.
    pub(crate) fn at(mut self, axis: usize) -> Self {
        self.axis = self.axis.map(|_| axis);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_norm_is_an_affine() {
        // γ = 3, β = 1, μ = 2, σ² = 3.75, ε = 0.25: s = 3/2, t = 1 − 2·1.5 = −2.
        let affine = Affine::batch_norm(&[3.0], &[1.0], &[2.0], &[3.75], 0.25);
        assert_eq!((affine.scale[0], affine.shift[0]), (1.5, -2.0));
    }

    #[test]
    fn gathering_remembers_the_channels() {
        let affine = Affine::per_channel(vec![1.0, 2.0], vec![0.0, 5.0], 1);
        let picked = affine.gather([1, 1, 0].into_iter(), 3);
        assert_eq!(picked.scale, [2.0, 2.0, 1.0]);
        assert_eq!(picked.channels, [1, 1, 0]);
        assert_eq!(picked.axis, Some(3));
        assert_eq!(Affine::uniform(2.0, 0.0).gather(0..3, 1).scale, [2.0; 3]);
    }

    #[test]
    fn placing_leaves_the_others_alone() {
        let affine = Affine::per_channel(vec![2.0, 3.0], vec![5.0, 0.0], 1);
        let placed = affine.placed(&[3, 1], 4, 2);
        assert_eq!(placed.scale, [1.0, 3.0, 1.0, 2.0]);
        assert_eq!(placed.shift, [0.0, 0.0, 0.0, 5.0]);
        assert_eq!(placed.channels, [UNTOUCHED, 1, UNTOUCHED, 0]);
        assert_eq!(placed.axis, Some(2));
        assert!(placed.is_disjoint(&affine.placed(&[0, 2], 4, 2)));
        assert!(!placed.is_disjoint(&affine.placed(&[0, 1], 4, 2)));
        assert!(!placed.is_disjoint(&affine.placed(&[0, 2], 4, 1)));
    }

    #[test]
    fn a_share_of_the_shift_is_remembered() {
        let half = Affine::uniform(2.0, 3.0).with_shift_times(0.5);
        assert_eq!((half.shift[0], half.share), (1.5, 0.5));
        assert_eq!(half.with_shift_times(-1.0).share, -0.5);
    }
}
