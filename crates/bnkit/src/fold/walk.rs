//! The walk of an affine: backwards (`pull`) or forwards (`push`) along carriers, until absorbers take it.
//!
//! A walk changes nothing. It gives the absorptions that make the move true, or the refusal that stopped it.

use std::collections::HashMap;

use bnkit_model::onnx::{Edit, Model, NodeId, Origin, Use, ValueId};

use super::absorb::{self, Absorber, Absorption};
use super::carry::{Way, carrier, joins_branches};
use super::context::Context;
use super::operands::require_slots;
use crate::affine::Affine;
use crate::refusal::{Answer, Stop, refuse};
use crate::report::Refusal;
use crate::route::Side;

/// How many values a walk may look at before it gives up, the ways that it tried in vain included: where branches
/// meet there are several, and those behind them multiply.
const MAX_STEPS: usize = 256;
/// How many readers of a shared value a refusal names. All of them, for each of them, would be a report of quadratic size.
const NAMED_READERS: usize = 32;

/// An absorber at the end of a walk.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The absorbing node.
    pub node: NodeId,
    /// The side at which the affine arrived.
    pub side: Side,
    /// The input slot, for an arrival from before.
    pub slot: usize,
    /// The affine as it arrived.
    pub affine: Affine,
    /// What absorbing it takes.
    pub absorption: Absorption,
    /// The rule that absorbs it.
    pub rule: &'static str,
}

/// Where an affine ends up.
#[derive(Debug, Default)]
pub(crate) struct Journey {
    /// The absorbers, in the order of the walk.
    pub arrivals: Vec<Arrival>,
    /// The carriers, in the order of the walk.
    pub via: Vec<NodeId>,
    /// The values looked at so far.
    steps: usize,
}

impl Journey {
    fn step(&mut self) -> Answer<()> {
        if self.steps >= MAX_STEPS {
            return refuse(
                "no-absorber",
                format!("nothing absorbed it within {MAX_STEPS} operators"),
            );
        }
        self.steps += 1;
        Ok(())
    }

    /// Notes a carrier; it may be passed several times, by different channels.
    fn pass(&mut self, node: NodeId) {
        if !self.via.contains(&node) {
            self.via.push(node);
        }
    }

    /// Notes an absorber. It may be reached twice, by different channels: then the order does not matter, as long as
    /// each only changes constants.
    fn arrive(&mut self, model: &Model, arrival: Arrival) -> Answer<()> {
        let adds_node = |arrival: &Arrival| {
            let edits = &arrival.absorption.edits;
            edits
                .iter()
                .any(|edit| matches!(edit, Edit::AddNode { .. }))
        };
        let meets = |earlier: &Arrival| {
            earlier.node == arrival.node
                && !(earlier.side == arrival.side
                    && earlier.slot == arrival.slot
                    && earlier.affine.is_disjoint(&arrival.affine)
                    && !adds_node(earlier)
                    && !adds_node(&arrival))
        };
        if self.arrivals.iter().any(meets) {
            let message = format!(
                "it reaches {} on two ways that meet there",
                model.describe(arrival.node)
            );
            return Err(Refusal::new("no-absorber", message)
                .with("node", model.label(arrival.node))
                .into());
        }
        self.arrivals.push(arrival);
        Ok(())
    }
}

/// The absorber for a node. An Add or Sub of two branches has no constant to absorb into: it carries.
fn absorber(context: &Context<'_>, node: NodeId) -> Option<&'static Absorber> {
    absorb::absorber(context, node).filter(|_| !joins_branches(context, node))
}

/// Walks backwards: `affine` stands at an input slot of `reader`, and nothing else may read what is there.
pub(crate) fn pull(
    context: &Context<'_>,
    reader: NodeId,
    slot: usize,
    affine: &Affine,
) -> Answer<Journey> {
    let mut journey = Journey::default();
    let value = context.input(reader, slot)?;
    back(context, value, reader, &[slot], affine, &mut journey)?;
    Ok(journey)
}

/// `affine` stands behind `value`, which `reader` reads in `slots`, and nobody else.
fn back(
    context: &Context<'_>,
    value: ValueId,
    reader: NodeId,
    slots: &[usize],
    affine: &Affine,
    journey: &mut Journey,
) -> Answer<()> {
    journey.step()?;
    require_single_reader(context.model, value, reader, slots)?;
    let info = context.model.value(value);
    let (node, slot) = match info.origin {
        Origin::Node(node, slot) => (node, slot),
        Origin::Input => {
            return Err(Refusal::new(
                "graph-input",
                format!(
                    "\"{}\" is an input: nothing before it can absorb",
                    info.name
                ),
            )
            .with("value", info.name.as_str())
            .into());
        }
        Origin::Initializer | Origin::Removed => {
            return Err(
                Refusal::new("no-absorber", format!("\"{}\" is a constant", info.name))
                    .with("value", info.name.as_str())
                    .into(),
            );
        }
    };
    if context.model.node(node).scope != context.model.node(reader).scope {
        return Err(Refusal::new(
            "other-scope",
            format!(
                "\"{}\" is computed outside of the body that reads it",
                info.name
            ),
        )
        .with("value", info.name.as_str())
        .into());
    }
    if slot == 0
        && let Some(absorber) = absorber(context, node)
    {
        require_slots(context, node, absorber.slots)?;
        let absorption = (absorber.output)(context, node, affine)?;
        let rest = absorption.rest.clone();
        let data_slot = absorption.data_slot;
        let arrival = Arrival {
            node,
            side: Side::Output,
            slot: 0,
            affine: affine.clone(),
            absorption,
            rule: absorber.rule.code,
        };
        journey.arrive(context.model, arrival)?;
        return match rest {
            None => Ok(()),
            Some(rest) => {
                let value = context.input(node, data_slot)?;
                back(context, value, node, &[data_slot], &rest, journey)
            }
        };
    }
    let Some(carrier) = carrier(context, node) else {
        return Err(not_an_absorber(context.model, node));
    };
    require_slots(context, node, carrier.slots)?;
    let ways = (carrier.backward)(context, node, slot, affine)?;
    journey.pass(node);
    let (arrivals, via) = (journey.arrivals.len(), journey.via.len());
    let mut last = None;
    for way in ways {
        journey.arrivals.truncate(arrivals);
        journey.via.truncate(via);
        match back_along(context, node, &way, journey) {
            Err(Stop::Refused(refusal)) => last = Some(refusal),
            done => return done,
        }
    }
    Err(last.map_or_else(|| not_an_absorber(context.model, node), Stop::Refused))
}

/// Walks on behind a carrier, from all slots of one way. A value that it reads in several of them is changed once, so
/// the same has to be asked of it in each.
fn back_along(context: &Context<'_>, node: NodeId, way: &Way, journey: &mut Journey) -> Answer<()> {
    let mut values: Vec<(ValueId, Vec<usize>, &Affine)> = Vec::new();
    let mut known: HashMap<ValueId, usize> = HashMap::new();
    for (slot, affine) in way {
        let value = context.input(node, *slot)?;
        let index = *known.entry(value).or_insert(values.len());
        match values.get_mut(index) {
            None => values.push((value, vec![*slot], affine)),
            Some((_, slots, asked)) if *asked == affine => slots.push(*slot),
            Some(_) => {
                let name = &context.model.value(value).name;
                let message = format!(
                    "{} reads \"{name}\" twice, each time with another part of the affine",
                    context.model.describe(node)
                );
                return Err(Refusal::new("shared-output", message)
                    .with("value", name.as_str())
                    .into());
            }
        }
    }
    for (value, slots, affine) in values {
        back(context, value, node, &slots, affine, journey)?;
    }
    Ok(())
}

/// Walks forwards: `affine` stands before everything that reads `value`, and all of it must absorb.
pub(crate) fn push(context: &Context<'_>, value: ValueId, affine: &Affine) -> Answer<Journey> {
    let mut journey = Journey::default();
    forth(context, value, affine, &mut journey)?;
    if journey.arrivals.is_empty() {
        let name = &context.model.value(value).name;
        return refuse("no-absorber", format!("nothing makes use of \"{name}\""));
    }
    Ok(journey)
}

fn forth(
    context: &Context<'_>,
    value: ValueId,
    affine: &Affine,
    journey: &mut Journey,
) -> Answer<()> {
    let info = context.model.value(value);
    let mut is_read = false;
    for user in &info.uses {
        journey.step()?;
        let &Use::Node(node, slot) = user else {
            return Err(
                Refusal::new("graph-output", format!("\"{}\" is an output", info.name))
                    .with("value", info.name.as_str())
                    .into(),
            );
        };
        if reads_no_element(context.model, node, slot) {
            continue;
        }
        if context.model.node(node).scope != info.scope {
            return Err(Refusal::new(
                "other-scope",
                format!("\"{}\" is read in a body too", info.name),
            )
            .with("value", info.name.as_str())
            .into());
        }
        is_read = true;
        if let Some(absorber) = absorber(context, node) {
            require_slots(context, node, absorber.slots)?;
            let absorption = (absorber.input)(context, node, slot, affine)?;
            let arrival = Arrival {
                node,
                side: Side::Input,
                slot,
                affine: affine.clone(),
                absorption,
                rule: absorber.rule.code,
            };
            journey.arrive(context.model, arrival)?;
            continue;
        }
        let Some(carrier) = carrier(context, node) else {
            return Err(not_an_absorber(context.model, node));
        };
        require_slots(context, node, carrier.slots)?;
        let ways = (carrier.forward)(context, node, slot, affine)?;
        let way = ways.into_iter().next().unwrap_or_default();
        journey.pass(node);
        for (slot, affine) in way {
            let output = context.model.node(node).output(slot);
            // Of several outputs, some may have no reader.
            if let Some(output) = output.filter(|&output| is_used(context.model, output)) {
                forth(context, output, &affine, journey)?;
            }
        }
    }
    if !is_read {
        return refuse("no-absorber", format!("nothing reads \"{}\"", info.name));
    }
    Ok(())
}

fn is_used(model: &Model, value: ValueId) -> bool {
    !model.value(value).uses.is_empty()
}

/// Whether a node reads only the type or the shape of what is in this slot; an affine changes neither.
fn reads_no_element(model: &Model, node: NodeId, slot: usize) -> bool {
    let node = model.node(node);
    match slot {
        0 => node.is("Shape") || node.is("Size"),
        _ => node.is("CastLike"),
    }
}

fn not_an_absorber(model: &Model, node: NodeId) -> Stop {
    let op = &model.node(node);
    if op.is("QuantizeLinear") || op.is("DequantizeLinear") {
        let message = format!("{} rounds: that is not linear", model.describe(node));
        return Refusal::new("quantised-activation", message)
            .with("node", model.label(node))
            .into();
    }
    Refusal::new(
        "no-absorber",
        format!("{} neither absorbs nor carries it", model.describe(node)),
    )
    .with("node", model.label(node))
    .with("operator", model.node(node).op_type.as_str())
    .into()
}

/// Refuses to change a value that anybody but `reader` sees, or that it sees in other slots than these.
fn require_single_reader(
    model: &Model,
    value: ValueId,
    reader: NodeId,
    slots: &[usize],
) -> Answer<()> {
    let info = model.value(value);
    let (mut readers, mut count) = (Vec::new(), 0);
    let mut others = false;
    for user in &info.uses {
        match *user {
            Use::Node(node, slot) if reads_no_element(model, node, slot) => {}
            Use::Node(node, slot) => {
                others |= node != reader || !slots.contains(&slot);
                count += 1;
                if readers.len() < NAMED_READERS {
                    readers.push(node);
                }
            }
            Use::Output(..) | Use::Annotation(_) => {
                return Err(Refusal::new(
                    "graph-output",
                    format!("\"{}\" is an output, so its value must stay", info.name),
                )
                .with("value", info.name.as_str())
                .into());
            }
        }
    }
    if !others {
        return Ok(());
    }
    let names: Vec<String> = readers
        .iter()
        .map(|&node| model.label(node).to_string())
        .collect();
    Err(Refusal::new(
        "shared-output",
        format!("\"{}\" is read by {count} nodes", info.name),
    )
    .with("value", info.name.as_str())
    .with("readers", names)
    .into())
}
