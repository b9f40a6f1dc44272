//! An affine on its way into an operator.

use std::sync::Arc;

use super::book::{Answer, Trouble};
use super::exact::Exact;
use crate::route::{Absorbed, Part, Side, UNTOUCHED};

/// y = s·x + t, in numbers.
#[derive(Debug, Clone)]
pub(super) struct Scaling {
    pub(super) s: Arc<Exact>,
    pub(super) t: Arc<Exact>,
    /// The axis of its channels, counted from the last one (0), if that is known.
    pub(super) axis: Option<usize>,
}

/// An affine that an operator absorbs, or the part of it that it absorbs.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The index of the route.
    pub(super) route: usize,
    pub(super) side: Side,
    pub(super) part: Part,
    pub(super) data_slot: usize,
    channels: Vec<u32>,
    s: Arc<Exact>,
    t: Arc<Exact>,
    /// The axis of the channels counted from the last one, where nothing on the way moved it.
    axis: Option<usize>,
}

/// One channel of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) s: f64,
    pub(super) s_size: f64,
    pub(super) t: f64,
    pub(super) t_size: f64,
}

impl Step {
    /// `plain` says that nothing on the way rearranged the channels: then every feature has the channel of its number.
    pub(super) fn new(
        route: usize,
        absorbed: &Absorbed,
        scaling: &Scaling,
        plain: bool,
    ) -> Answer<Self> {
        let count = scaling.s.len();
        let beyond = |&&c: &&u32| c as usize >= count && c != UNTOUCHED;
        if let Some(channel) = absorbed.channels.iter().find(beyond) {
            let why = format!("the route names channel {channel} of an affine with {count}");
            return Err(Trouble::Wrong(why));
        }
        let own = |(feature, &channel): (usize, &u32)| feature == channel as usize;
        if plain && count > 1 && !absorbed.channels.iter().enumerate().all(own) {
            return Err(Trouble::wrong(
                "the route exchanges channels, though nothing on the way does",
            ));
        }
        let t = match absorbed.part {
            Part::Scale => Arc::new(Exact::zeros(count)),
            Part::Whole | Part::Shift if absorbed.share == 1.0 => scaling.t.clone(),
            // A power of two or its negative: exact.
            Part::Whole | Part::Shift => {
                let mut t = Exact::clone(&scaling.t);
                t.value.iter_mut().for_each(|t| *t *= absorbed.share);
                t.size.iter_mut().for_each(|t| *t *= absorbed.share.abs());
                Arc::new(t)
            }
        };
        Ok(Self {
            route,
            side: absorbed.side,
            part: absorbed.part,
            data_slot: absorbed.data_slot,
            channels: absorbed.channels.clone(),
            s: scaling.s.clone(),
            t,
            axis: scaling.axis.filter(|_| plain && count > 1),
        })
    }

    /// How many features the route says there are.
    pub(super) fn features(&self) -> usize {
        self.channels.len()
    }

    /// Checks that the operator has as many features as the route says.
    pub(super) fn expect_features(&self, count: usize) -> Answer<()> {
        if self.features() == count {
            return Ok(());
        }
        Err(Trouble::Wrong(format!(
            "the operator has {count} features, the route {}",
            self.features()
        )))
    }

    /// Checks that the channels lie on the axis where the operator has its features, counted from the last one.
    pub(super) fn expect_axis(&self, axis: usize) -> Answer<()> {
        match self.axis {
            Some(found) if found != axis => Err(Trouble::Wrong(format!(
                "the channels lie on axis -{}, the features on axis -{}",
                found + 1,
                axis + 1
            ))),
            _ => Ok(()),
        }
    }

    /// Where the features of the operator must lie, counted from the last axis, if that is known.
    pub(super) fn axis(&self) -> Option<usize> {
        self.axis
    }

    /// What acts on a feature.
    pub(super) fn at(&self, feature: usize) -> Pair {
        if self.channels[feature] == UNTOUCHED {
            return Pair {
                s: 1.0,
                s_size: 1.0,
                t: 0.0,
                t_size: 0.0,
            };
        }
        let channel = self.channels[feature] as usize;
        Pair {
            s: self.s.value[channel],
            s_size: self.s.size[channel],
            t: self.t.value[channel],
            t_size: self.t.size[channel],
        }
    }

    /// Roundings in s.
    pub(super) fn s_terms(&self) -> usize {
        self.s.terms
    }

    /// Roundings in t.
    pub(super) fn t_terms(&self) -> usize {
        self.t.terms
    }

    /// Whether some feature is shifted.
    pub(super) fn shifts(&self) -> bool {
        (0..self.features()).any(|feature| self.at(feature).t != 0.0)
    }

    /// Whether some feature is scaled.
    pub(super) fn scales(&self) -> bool {
        (0..self.features()).any(|feature| self.at(feature).s != 1.0)
    }

    /// Checks that nothing is shifted.
    pub(super) fn expect_no_shift(&self) -> Answer<()> {
        match self.shifts() {
            true => Err(Trouble::wrong("the operator cannot absorb a shift here")),
            false => Ok(()),
        }
    }

    /// Checks that nothing is scaled.
    pub(super) fn expect_no_scale(&self) -> Answer<()> {
        match self.scales() {
            true => Err(Trouble::wrong("the operator cannot absorb a scale here")),
            false => Ok(()),
        }
    }

    /// Checks that the route takes the data from `slot`.
    pub(super) fn expect_data_in(&self, slot: usize) -> Answer<()> {
        if self.data_slot == slot {
            return Ok(());
        }
        Err(Trouble::Wrong(format!(
            "the route takes the data from input {}, expected {slot}",
            self.data_slot
        )))
    }

    /// Checks that s alone or s and t are absorbed: what an operator with a weight can do.
    pub(super) fn expect_scale(&self) -> Answer<()> {
        match self.part {
            Part::Shift => Err(Trouble::wrong("the operator cannot absorb a shift alone")),
            Part::Whole | Part::Scale => Ok(()),
        }
    }
}

/// `addend` becomes s·addend + t, feature by feature. An absent one is zeros, and stays absent if nothing is shifted.
pub(super) fn scale_and_shift(addend: &mut Option<Exact>, step: &Step) {
    if addend.is_none() && !step.shifts() {
        return;
    }
    let mut sum = addend
        .take()
        .unwrap_or_else(|| Exact::zeros(step.features()));
    for feature in 0..step.features() {
        let pair = step.at(feature);
        sum.value[feature] = sum.value[feature] * pair.s + pair.t;
        sum.size[feature] = sum.size[feature] * pair.s_size + pair.t_size;
    }
    sum.terms += step.s_terms() + step.t_terms() + 2;
    *addend = Some(sum);
}
