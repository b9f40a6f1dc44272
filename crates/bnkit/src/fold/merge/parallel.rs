//! Branches of one input that are added: k×k + 1×1 + BatchNorm + identity become one Conv, with the smaller kernels
//! where they lie in the window of the largest, an identity on the diagonal, and the biases added.

use std::collections::HashSet;

use bnkit_model::onnx::{Edit, NodeId, ValueId};

use super::kernel::{Kernel, volume};
use super::tree::{Place, Tree, only_reader};
use super::{Ground, Merging, Outcome, into_conv, positions};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::{Answer, Stop};
use crate::report::Refusal;
use crate::route::{Branch, Merged};
use crate::site::{Parameters, is_batch_norm, is_training};

/// A term of the sum that may be merged with others of the same input.
#[derive(Debug, Clone, Copy)]
struct Member {
    place: Place,
    value: ValueId,
    branch: Branch,
}

/// The input of a term that is a Conv or a BatchNorm.
fn member(
    ground: &Ground<'_>,
    tree: &Tree,
    place: Place,
    value: ValueId,
) -> Option<(Member, ValueId)> {
    let model = ground.context.model;
    let (node, 0) = model.producer(value)? else {
        return None;
    };
    let info = model.node(node);
    if info.scope != model.node(tree.root()).scope {
        return None;
    }
    let branch = if info.is("Conv") {
        Branch::Conv(node)
    } else if is_batch_norm(model, node) && ground.may_merge(node) {
        Branch::BatchNorm(node)
    } else {
        return None;
    };
    Some((
        Member {
            place,
            value,
            branch,
        },
        info.input(0)?,
    ))
}

/// Looks for branches of one input among the terms of a tree, the first of its inputs first.
pub(super) fn merge(ground: &Ground<'_>, tree: &Tree, refusals: &mut Vec<Refusal>) -> Outcome {
    let leaves = tree.leaves();
    let found: Vec<(Member, ValueId)> = leaves
        .iter()
        .filter_map(|&(place, value)| member(ground, tree, place, value))
        .collect();
    let mut inputs: Vec<ValueId> = Vec::new();
    for (member, input) in &found {
        if matches!(member.branch, Branch::Conv(_)) && !inputs.contains(input) {
            inputs.push(*input);
        }
    }
    for input in inputs {
        // A constant among the terms is no branch: what it adds is known without it, and the sum keeps it.
        let is_constant = ground.context.constants().is_constant(input);
        let identities = leaves.iter();
        let identities = identities.filter(|&&(_, value)| value == input && !is_constant);
        let mut members: Vec<Member> = found
            .iter()
            .filter(|&&(_, of)| of == input)
            .map(|&(member, _)| member)
            .collect();
        members.extend(identities.map(|&(place, value)| Member {
            place,
            value,
            branch: Branch::Input,
        }));
        if members.len() < 2 {
            continue;
        }
        match group(ground, tree, input, &members, refusals) {
            Ok(None) => {}
            Ok(Some(merging)) => return Ok(Some(merging)),
            Err(Stop::Refused(refusal)) => refusals.push(*refusal),
            Err(Stop::Broken(error)) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Merges those of `members` that fit together. The others stay, and why goes to `refusals`.
fn group(
    ground: &Ground<'_>,
    tree: &Tree,
    input: ValueId,
    members: &[Member],
    refusals: &mut Vec<Refusal>,
) -> Answer<Option<Merging>> {
    let context = &ground.context;
    let mut note = |member: &Member, stop: Stop| -> Answer<()> {
        match stop {
            Stop::Refused(refusal) => {
                let name = match member.branch {
                    Branch::Conv(node) | Branch::BatchNorm(node) => context.model.label(node),
                    Branch::Input => context.model.value(member.value).name.as_str(),
                };
                refusals.push(refusal.with("branch", name));
                Ok(())
            }
            broken => Err(broken),
        }
    };
    let mut convs: Vec<(Member, NodeId, Kernel)> = Vec::new();
    for member in members {
        if let Branch::Conv(node) = member.branch {
            match conv(ground, member, node) {
                Ok(kernel) => convs.push((*member, node, kernel)),
                Err(stop) => note(member, stop)?,
            }
        }
    }
    // The first of the largest, in the order of the file.
    convs.sort_by_key(|&(_, node, _)| node);
    let size = |(_, _, kernel): &(Member, NodeId, Kernel)| volume(&kernel.windows);
    let Some(largest) = convs.iter().map(size).max() else {
        return Ok(None);
    };
    let at = convs.iter().position(|conv| size(conv) == largest);
    let (first, into, base) = convs.remove(at.expect("one is the largest"));
    let mut windows = base.windows.clone();
    let mut taps = largest;
    let mut parts: Vec<(Member, Kernel)> = Vec::new();
    let others = convs
        .into_iter()
        .map(|(member, _, kernel)| (member, Ok(kernel)));
    let rest = members
        .iter()
        .filter(|member| !matches!(member.branch, Branch::Conv(_)))
        .map(|member| (*member, affine(context, member, &base)));
    for (member, kernel) in others.chain(rest) {
        let own = |kernel: &Kernel| match member.branch {
            Branch::Conv(_) => volume(&kernel.windows),
            Branch::BatchNorm(_) | Branch::Input => 0,
        };
        let fitted = kernel.and_then(|kernel| {
            kernel.require_like(&base)?;
            let union = Kernel::union(context, input, &windows, &kernel.windows)?;
            let (before, after) = (taps + own(&kernel), volume(&union));
            if after > before {
                let message =
                    format!("one kernel of {after} taps for kernels of {before} together");
                return Err(Refusal::new("merge-cost", message).into());
            }
            Ok((kernel, union))
        });
        match fitted {
            Ok((kernel, union)) => {
                taps += own(&kernel);
                windows = union;
                parts.push((member, kernel));
            }
            Err(stop) => note(&member, stop)?,
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let mut merged = base.empty(windows);
    merged.add(&base);
    parts.iter().for_each(|(_, kernel)| merged.add(kernel));
    merged.require_digits()?;
    let mut all = vec![(first, base)];
    all.extend(parts);
    finish(ground, tree, into, &all, merged).map(Some)
}

/// What a Conv among the branches computes, if nobody else reads it.
fn conv(ground: &Ground<'_>, member: &Member, node: NodeId) -> Answer<Kernel> {
    require_own(&ground.context, member.value)?;
    ground.require_shallow(node)?;
    Kernel::of_conv(&ground.context, node)
}

/// What another branch computes, beside `base`.
fn affine(context: &Context<'_>, member: &Member, base: &Kernel) -> Answer<Kernel> {
    let Branch::BatchNorm(node) = member.branch else {
        let channels = base.inputs * base.groups;
        let identity = Affine::per_channel(vec![1.0; channels], vec![0.0; channels], 1);
        return Kernel::of_affine(&identity, base);
    };
    require_own(context, member.value)?;
    let info = context.model.node(node);
    if is_training(context.model, node) || info.outputs.len() != 1 {
        let message = format!("{} is in training mode", context.model.describe(node));
        return Err(Refusal::new("training-output-read", message).into());
    }
    let parameters = Parameters::read(context, node)?;
    if let Some(finding) = parameters.findings.first() {
        return Err(Refusal::new("bad-statistics", finding.message.clone()).into());
    }
    Kernel::of_affine(&parameters.affine(), base)
}

/// Refuses a value that somebody besides the sum sees.
fn require_own(context: &Context<'_>, value: ValueId) -> Answer<()> {
    let info = context.model.value(value);
    if only_reader(context.model, value).is_some() {
        return Ok(());
    }
    let (code, message) = match info.is_output() {
        true => ("graph-output", "is an output, so its value must stay"),
        false => ("shared-output", "is read by others too"),
    };
    Err(Refusal::new(code, format!("\"{}\" {message}", info.name))
        .with("value", info.name.as_str())
        .into())
}

/// The edits, and what is to be told.
fn finish(
    ground: &Ground<'_>,
    tree: &Tree,
    into: NodeId,
    all: &[(Member, Kernel)],
    merged: Kernel,
) -> Answer<Merging> {
    let model = ground.context.model;
    let (first, base) = &all[0];
    let positions = positions(&ground.context, into);
    let (mut parameters, mut macs) = (0, Some(0));
    for (member, kernel) in all {
        let (elements, each) = match member.branch {
            Branch::Conv(_) => (kernel.parameters(), kernel.weight.len()),
            Branch::BatchNorm(_) => (4 * kernel.outputs as u64, kernel.outputs),
            Branch::Input => (0, 0),
        };
        parameters += elements;
        macs = macs.zip(positions).map(|(sum, positions): (u64, u64)| {
            sum.saturating_add(positions.saturating_mul(each as u64))
        });
    }
    // A place in the root comes behind every Conv; one further up may not.
    let kept = all.iter().map(|(member, _)| member.place);
    let kept = kept
        .clone()
        .find(|&(sum, _)| sum == 0)
        .unwrap_or(first.place);
    let removed: HashSet<Place> = all
        .iter()
        .map(|(member, _)| member.place)
        .filter(|&place| place != kept)
        .collect();
    let mut edits = into_conv(&ground.context, into, base, &merged)?;
    let nodes: Vec<NodeId> = all[1..]
        .iter()
        .filter_map(|(member, _)| match member.branch {
            Branch::Conv(node) | Branch::BatchNorm(node) => Some(node),
            Branch::Input => None,
        })
        .collect();
    let adds: Vec<NodeId> = tree.sums.iter().map(|sum| sum.node).collect();
    let rest = tree.shrink(model, (kept, first.value), &removed);
    edits.extend(rest.edits);
    edits.extend(nodes.into_iter().map(|node| Edit::RemoveNode { node }));
    if let Some(sum) = rest.instead {
        // What computes the sum now takes over the name, which appears earlier then.
        let output = model.node(tree.root()).output(0);
        let output = output.expect("a sum has an output");
        if !model.is_unique_name(output) {
            let name = &model.value(output).name;
            let message = format!("\"{name}\" is also the name of another value, in a body");
            return Err(Refusal::new("name-conflict", message)
                .with("value", name.as_str())
                .into());
        }
        let (node, slot) = model.producer(sum).expect("a branch or a sum");
        edits.push(Edit::SetOutput {
            node,
            slot,
            value: output.into(),
        });
    }
    Ok(Merging {
        rule: super::BRANCHES.code,
        into,
        edits,
        record: Merged::Branches {
            branches: all.iter().map(|(member, _)| member.branch).collect(),
            sums: adds,
        },
        parameters: (parameters, merged.parameters()),
        macs: macs.zip(positions).map(|(before, positions)| {
            (before, positions.saturating_mul(merged.weight.len() as u64))
        }),
    })
}
