//! Whether all of an affine went somewhere, and whether what stands in its place is the rest of it.

use std::collections::HashSet;

use bnkit_model::onnx::{NodeId, ValueId};

use super::Algebra;
use super::book::{Answer, Book, Trouble};
use super::compare::Owner;
use super::exact::Exact;
use super::step::Scaling;
use super::vector::compare_broadcast;
use crate::route::{Part, Rest, Route, Side};

/// Checks that s and t of every channel went somewhere, or stayed as the route says. Forwards, a Slice may have left
/// channels behind.
pub(super) fn everything_arrived(
    route: &Route,
    scaling: &Scaling,
    keeps_channels: bool,
) -> Answer<()> {
    let absorbed = &route.absorbed;
    let adds_shift = |part: Part, share: f64| part != Part::Scale && share != 0.0;
    let lowered = matches!(route.rest, Rest::Lowered { .. });
    match (lowered, absorbed.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => return Err(Trouble::wrong("it is said to stay and to be absorbed")),
        (false, true) => return Err(Trouble::wrong("nothing absorbed the affine")),
        (false, false) => {}
    }
    if route.rest != Rest::Nothing
        && absorbed
            .iter()
            .any(|absorbed| adds_shift(absorbed.part, absorbed.share))
    {
        return Err(Trouble::wrong("the shift stays, and is absorbed too"));
    }
    let sides = |side: Side| absorbed.iter().all(|absorbed| absorbed.side == side);
    match route.rest {
        Rest::Shift { .. } if !sides(Side::Output) => {
            return Err(Trouble::wrong(
                "the shift stays behind a scale that went forwards",
            ));
        }
        Rest::ShiftBefore { .. } if !sides(Side::Input) => {
            return Err(Trouble::wrong(
                "the shift stays before a scale that went backwards",
            ));
        }
        _ => {}
    }
    let backwards = absorbed
        .iter()
        .any(|absorbed| absorbed.side == Side::Output);
    if !backwards && !keeps_channels {
        return Ok(());
    }
    let (s, t) = (&scaling.s, &scaling.t);
    let reached = |counts: &dyn Fn(Part, f64) -> bool| {
        let mut reached = vec![false; s.len()];
        for absorbed in absorbed {
            if counts(absorbed.part, absorbed.share) {
                for &channel in &absorbed.channels {
                    if let Some(channel) = reached.get_mut(channel as usize) {
                        *channel = true;
                    }
                }
            }
        }
        // Where several channels become one, the route names one of them for all that are equal.
        let key = |channel: usize| (s.value[channel].to_bits(), t.value[channel].to_bits());
        let named = (0..s.len()).filter(|&channel| reached[channel]).map(key);
        let named: HashSet<(u64, u64)> = named.collect();
        let all = 0..s.len();
        all.map(|channel| reached[channel] || named.contains(&key(channel)))
            .collect::<Vec<bool>>()
    };
    let scaled = reached(&|part, _| part != Part::Shift);
    if s.value
        .iter()
        .zip(scaled)
        .any(|(&s, reached)| s != 1.0 && !reached)
    {
        return Err(Trouble::wrong("nothing absorbed the scale"));
    }
    let mut shifts = t.value.iter().zip(reached(&adds_shift));
    if route.rest == Rest::Nothing && shifts.any(|(&t, reached)| t != 0.0 && !reached) {
        return Err(Trouble::wrong("nothing absorbed the shift"));
    }
    Ok(())
}

/// Checks the constants of the nodes that stand in the place of the affine.
pub(super) fn check(
    folded: &Book<'_>,
    route: &Route,
    scaling: &Scaling,
    is_new: impl Fn(NodeId) -> bool,
) -> Answer<()> {
    let expect = |id: NodeId, op: &str, expected: &Exact| -> Answer<()> {
        let gone = || Trouble::Wrong(format!("there is no new {op} in its place"));
        if !is_new(id) || id.index() >= folded.model.node_count() {
            return Err(gone());
        }
        let node = folded.model.node(id);
        if !node.alive || !node.is(op) || node.inputs.len() != 2 {
            return Err(gone());
        }
        let constant = constant(folded, [0, 1].map(|slot| node.input(slot))).ok_or_else(gone)?;
        let owner = Owner {
            route: 0,
            node: route.site,
        };
        let mut result = Algebra::default();
        compare_broadcast(folded, constant, expected, scaling.axis, owner, &mut result)?;
        match result.failures.first() {
            None => Ok(()),
            Some(failure) => Err(Trouble::Wrong(format!(
                "the {op} in its place: {}",
                failure.describe()
            ))),
        }
    };
    match route.rest {
        Rest::Nothing => Ok(()),
        Rest::Shift { add } => expect(add, "Add", &scaling.t),
        Rest::ShiftBefore { add } => expect(add, "Add", &quotients(scaling)?),
        Rest::Lowered { mul, add } => {
            expect(mul, "Mul", &scaling.s)?;
            expect(add, "Add", &scaling.t)
        }
    }
}

/// The constant of two operands, the second if both are.
fn constant(book: &Book<'_>, operands: [Option<ValueId>; 2]) -> Option<ValueId> {
    let [first, second] = operands;
    let (first, second) = (first?, second?);
    match (book.is_constant(first), book.is_constant(second)) {
        (true, false) => Some(first),
        // What the BatchNorm read may be a constant, too; a rest reads it first.
        (_, true) => Some(second),
        (false, false) => None,
    }
}

/// t/s, channel by channel: with relative errors of t and of s. Where t is 0, nothing is added.
fn quotients(scaling: &Scaling) -> Answer<Exact> {
    let (s, t) = (&scaling.s, &scaling.t);
    let mut quotients = Exact::zeros(t.len());
    for channel in 0..t.len() {
        if t.value[channel] == 0.0 {
            continue;
        }
        let scale = s.value[channel];
        let quotient = t.value[channel] / scale;
        if !quotient.is_finite() {
            return Err(Trouble::Wrong(format!(
                "channel {channel} has a shift and the scale {scale}"
            )));
        }
        quotients.value[channel] = quotient;
        quotients.size[channel] = t.size[channel] / scale.abs() * (s.size[channel] / scale.abs());
    }
    quotients.terms = t.terms + s.terms + 1;
    Ok(quotients)
}
