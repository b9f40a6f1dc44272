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
    // Where several channels become one, the route names one of them for all that are equal; if only s goes there, in s. Zeros are
    // equal, whatever their sign.
    let bits = |value: f64| (value + 0.0).to_bits();
    let key = |channel: usize, shifts: bool| {
        let shift = shifts.then(|| bits(t.value[channel]));
        (bits(s.value[channel]), shift)
    };
    let reached = |counts: &dyn Fn(Part, f64) -> bool| {
        let mut reached = vec![false; s.len()];
        let mut named = HashSet::new();
        for absorbed in absorbed {
            let (part, share) = (absorbed.part, absorbed.share);
            for &channel in absorbed.channels.iter().filter(|_| counts(part, share)) {
                let channel = channel as usize;
                if let Some(reached) = reached.get_mut(channel) {
                    *reached = true;
                    named.insert(key(channel, adds_shift(part, share)));
                }
            }
        }
        let equal = |channel| [true, false].map(|shifts| named.contains(&key(channel, shifts)));
        let all = reached.into_iter().enumerate();
        all.map(|(channel, reached)| reached || equal(channel) != [false, false])
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

#[cfg(test)]
mod tests {
    use bnkit_model::onnx::{AttributeValue, Model};

    use crate::fold::{Options, plan};
    use crate::verify::algebra;
    use crate::verify::nets::{Net, attribute};

    /// A Conv of two channels, which become eight: 0, 2, 4 and 6 are the first of them.
    fn net(gamma: [f64; 8], beta: [f64; 8]) -> Model {
        Net::new("x", &[1, 1, 4, 2])
            .constant("w", &[2, 1, 1, 1], &[2.0, 3.0])
            .constant("gamma", &[8], &gamma)
            .constant("beta", &[8], &beta)
            .constant("zero", &[8], &[0.0; 8])
            .constant("var", &[8], &[1.0; 8])
            .node("Conv", &["x", "w"], "c")
            .node("SpaceToDepth", &["c"], "d")
            .with(attribute("blocksize", AttributeValue::Int(2)))
            .node(
                "BatchNormalization",
                &["d", "gamma", "beta", "zero", "var"],
                "y",
            )
            .output("y")
            .model()
    }

    #[test]
    fn channels_that_become_one_are_named_once() {
        let aggressive = Options {
            aggressive: true,
            ..Options::default()
        };
        let (equal, zeros) = ([0.5; 8], [0.0, 1.0, -0.0, 1.0, 0.0, 1.0, -0.0, 1.0]);
        let odd = [0.5, 0.5, 0.5, 0.25, 0.5, 0.5, 0.5, 0.5];
        for (gamma, beta, options, folded) in [
            (equal, equal, Options::default(), (1, 0)),
            // Zeros are equal, whatever their sign.
            (zeros, [0.0; 8], Options::default(), (1, 0)),
            (zeros, zeros, Options::default(), (1, 0)),
            // The shifts differ, and stay.
            (equal, odd, aggressive.clone(), (0, 1)),
            (odd, equal, aggressive, (0, 0)),
        ] {
            let original = net(gamma, beta);
            let plan = plan(&original, &options).unwrap();
            let summary = &plan.summary;
            assert_eq!(
                (summary.folded, summary.half_folded),
                folded,
                "{:?}",
                plan.sites
            );
            let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
            assert!(proof.failures.is_empty(), "{:?}", proof.failures);
        }
    }
}
