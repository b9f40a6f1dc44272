//! The walk of an affine: backwards (`pull`) or forwards (`push`) along carriers, until absorbers take it.
//!
//! A walk changes nothing. It gives the absorptions that make the move true, or the refusal that stopped it.

use bnkit_model::onnx::{Model, NodeId, Origin, Use, ValueId};

use super::absorb::{Absorption, absorber};
use super::carry::carrier;
use super::context::Context;
use crate::affine::Affine;
use crate::refusal::{Answer, Stop, refuse};
use crate::report::Refusal;
use crate::route::Side;

/// How many operators a walk may pass before it gives up.
const MAX_STEPS: usize = 256;

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
}

/// Walks backwards: `affine` stands behind `value`, and only `reader` may read it.
pub(crate) fn pull(
    context: &Context<'_>,
    value: ValueId,
    reader: NodeId,
    affine: &Affine,
) -> Answer<Journey> {
    let mut journey = Journey::default();
    back(context, value, reader, affine, &mut journey)?;
    Ok(journey)
}

fn back(
    context: &Context<'_>,
    value: ValueId,
    reader: NodeId,
    affine: &Affine,
    journey: &mut Journey,
) -> Answer<()> {
    if journey.via.len() + journey.arrivals.len() >= MAX_STEPS {
        return refuse(
            "no-absorber",
            format!("nothing absorbed it within {MAX_STEPS} operators"),
        );
    }
    require_single_reader(context.model, value, reader)?;
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
        let absorption = (absorber.output)(context, node, affine)?;
        let rest = absorption.rest.clone();
        let data_slot = absorption.data_slot;
        journey.arrivals.push(Arrival {
            node,
            side: Side::Output,
            slot: 0,
            affine: affine.clone(),
            absorption,
            rule: absorber.rule.code,
        });
        return match rest {
            None => Ok(()),
            Some(rest) => back(
                context,
                context.input(node, data_slot)?,
                node,
                &rest,
                journey,
            ),
        };
    }
    let Some(carrier) = carrier(context, node) else {
        return Err(not_an_absorber(context.model, node));
    };
    let ways = (carrier.backward)(context, node, slot, affine)?;
    journey.via.push(node);
    let (arrivals, via) = (journey.arrivals.len(), journey.via.len());
    let mut last = None;
    for way in ways {
        journey.arrivals.truncate(arrivals);
        journey.via.truncate(via);
        let walked = way.iter().try_for_each(|(slot, affine)| {
            back(context, context.input(node, *slot)?, node, affine, journey)
        });
        match walked {
            Err(Stop::Refused(refusal)) => last = Some(refusal),
            done => return done,
        }
    }
    Err(last.map_or_else(|| not_an_absorber(context.model, node), Stop::Refused))
}

/// Walks forwards: `affine` stands before everything that reads `value`, and all of it must absorb.
pub(crate) fn push(context: &Context<'_>, value: ValueId, affine: &Affine) -> Answer<Journey> {
    let mut journey = Journey::default();
    forth(context, value, affine, &mut journey)?;
    Ok(journey)
}

fn forth(
    context: &Context<'_>,
    value: ValueId,
    affine: &Affine,
    journey: &mut Journey,
) -> Answer<()> {
    let info = context.model.value(value);
    let before = journey.arrivals.len() + journey.via.len();
    for user in &info.uses {
        if journey.via.len() + journey.arrivals.len() >= MAX_STEPS {
            return refuse(
                "no-absorber",
                format!("nothing absorbed it within {MAX_STEPS} operators"),
            );
        }
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
        if let Some(absorber) = absorber(context, node) {
            let absorption = (absorber.input)(context, node, slot, affine)?;
            let affine = affine.clone();
            let rule = absorber.rule.code;
            journey.arrivals.push(Arrival {
                node,
                side: Side::Input,
                slot,
                affine,
                absorption,
                rule,
            });
            continue;
        }
        let Some(carrier) = carrier(context, node) else {
            return Err(not_an_absorber(context.model, node));
        };
        let ways = (carrier.forward)(context, node, slot, affine)?;
        let way = ways.into_iter().next().unwrap_or_default();
        journey.via.push(node);
        for (slot, affine) in way {
            if let Some(output) = context.model.node(node).output(slot) {
                forth(context, output, &affine, journey)?;
            }
        }
    }
    if journey.arrivals.len() + journey.via.len() == before {
        return refuse("no-absorber", format!("nothing reads \"{}\"", info.name));
    }
    Ok(())
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
    Refusal::new(
        "no-absorber",
        format!("{} neither absorbs nor carries it", model.describe(node)),
    )
    .with("node", model.label(node))
    .with("operator", model.node(node).op_type.as_str())
    .into()
}

/// Refuses to change a value that anybody but `reader` sees.
fn require_single_reader(model: &Model, value: ValueId, reader: NodeId) -> Answer<()> {
    let info = model.value(value);
    let mut readers = Vec::new();
    for user in &info.uses {
        match *user {
            Use::Node(node, slot) if reads_no_element(model, node, slot) => {}
            Use::Node(node, _) => readers.push(node),
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
    if let [only] = *readers.as_slice()
        && only == reader
    {
        return Ok(());
    }
    let names: Vec<String> = readers
        .iter()
        .map(|&node| model.label(node).to_owned())
        .collect();
    Err(Refusal::new(
        "shared-output",
        format!("\"{}\" is read by {} nodes", info.name, readers.len()),
    )
    .with("value", info.name.as_str())
    .with("readers", names)
    .into())
}
