//! Reshape, Flatten, Squeeze, Unsqueeze: the elements stay in order, so the channel of each is followed by position.
//!
//! Element e (row-major) has channel (e / inner) % size, with inner the product of the dimensions behind the channel
//! axis. On the other side an axis has to be found of which each index means one channel.

use bnkit_model::onnx::{Dim, NodeId};

use super::{Carrier, Way, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::{Answer, refuse};

/// The most indices of an axis that are followed: each gets a channel of its own, and a file may declare any number.
const MOST: u64 = 1 << 24;

pub(super) const FLATTEN: Carrier = Carrier {
    op_type: "Flatten",
    slots: (1, 1),
    backward,
    forward,
};
pub(super) const RESHAPE: Carrier = Carrier {
    op_type: "Reshape",
    slots: (2, 1),
    backward,
    forward,
};
pub(super) const SQUEEZE: Carrier = Carrier {
    op_type: "Squeeze",
    slots: (2, 1),
    backward,
    forward,
};
pub(super) const UNSQUEEZE: Carrier = Carrier {
    op_type: "Unsqueeze",
    slots: (2, 1),
    backward,
    forward,
};

fn backward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    pass(context, node, affine, false)
}

fn forward(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    if slot != 0 {
        return refuse(
            "no-absorber",
            format!(
                "the affine computes the shape of {}",
                context.model.describe(node)
            ),
        );
    }
    pass(context, node, affine, true)
}

fn pass(context: &Context<'_>, node: NodeId, affine: &Affine, forward: bool) -> Answer<Vec<Way>> {
    if affine.axis.is_none() {
        return through(affine.clone());
    }
    let input = context.types.dims(context.input(node, 0)?);
    let output = context
        .model
        .node(node)
        .output(0)
        .and_then(|value| context.types.dims(value));
    let (Some(input), Some(output)) = (input, output) else {
        return refuse(
            "unknown-shape",
            format!(
                "the shapes around {} are not known",
                context.model.describe(node)
            ),
        );
    };
    let (from, to) = if forward {
        (input, output)
    } else {
        (output, input)
    };
    match refit(affine, from, to) {
        Some(affine) => through(affine),
        None => refuse(
            "channel-axis",
            format!(
                "the channels cannot be followed through {} from {} to {}",
                context.model.describe(node),
                show(from),
                show(to)
            ),
        ),
    }
}

fn show(dims: &[Dim]) -> String {
    let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// The product of the dimensions behind `axis`, and the size of `axis`.
fn block(dims: &[Dim], axis: usize) -> Option<(u64, u64)> {
    let inner = dims
        .get(axis + 1..)?
        .iter()
        .try_fold(1u64, |inner, dim| inner.checked_mul(dim.known()?))?;
    Some((inner, dims.get(axis)?.known()?)).filter(|&(inner, size)| inner > 0 && size > 0)
}

/// The same affine on the elements under other dimensions, if some axis carries it.
fn refit(affine: &Affine, from: &[Dim], to: &[Dim]) -> Option<Affine> {
    let (inner, size) = block(from, affine.axis?)?;
    if size != affine.len() as u64 {
        return None;
    }
    let period = inner.checked_mul(size)?;
    (0..to.len()).find_map(|axis| {
        let (new_inner, new_size) = block(to, axis).filter(|&(_, size)| size <= MOST)?;
        let new_period = new_inner.checked_mul(new_size)?;
        if inner % new_inner == 0 && new_period % period == 0 {
            // A finer or equal axis: index j covers elements of one channel.
            let channel = |j: u64| (j * new_inner / inner % size) as usize;
            return Some(affine.gather((0..new_size).map(channel), axis));
        }
        if new_inner % inner == 0 && new_period == period {
            // A coarser axis: only if all channels of an index agree.
            let each = (new_inner / inner) as usize;
            let agree = |at: usize| {
                let block = at * each..(at + 1) * each;
                affine.scale[block.clone()]
                    .iter()
                    .all(|&s| s == affine.scale[block.start])
                    && affine.shift[block.clone()]
                        .iter()
                        .all(|&t| t == affine.shift[block.start])
            };
            let indices = 0..new_size as usize;
            return indices
                .clone()
                .all(agree)
                .then(|| affine.gather(indices.map(|at| at * each), axis));
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(dims: &[u64]) -> Vec<Dim> {
        // 0 stands for a dimension that is not known.
        dims.iter()
            .map(|&dim| {
                if dim == 0 {
                    Dim::Unknown
                } else {
                    Dim::Known(dim)
                }
            })
            .collect()
    }

    fn scale(affine: Option<Affine>) -> Option<(Vec<f64>, usize)> {
        affine.map(|affine| (affine.scale.clone(), affine.axis.unwrap()))
    }

    #[test]
    fn channels_are_followed_by_position() {
        let two = Affine::per_channel(vec![1., 2.], vec![0., 0.], 1);
        // NCHW to a flat row: each channel repeats H·W times.
        let flat = refit(&two, &dims(&[0, 2, 1, 3]), &dims(&[0, 6]));
        assert_eq!(scale(flat), Some((vec![1., 1., 1., 2., 2., 2.], 1)));
        // 1×1 maps: the axis itself.
        assert_eq!(
            scale(refit(&two, &dims(&[0, 2, 1, 1]), &dims(&[0, 2]))),
            Some((vec![1., 2.], 1))
        );
        // Splitting the channels: (2) to (1, 2).
        assert_eq!(
            scale(refit(&two, &dims(&[0, 2, 4]), &dims(&[0, 1, 2, 4]))),
            Some((vec![1., 2.], 2))
        );
        // The spatial size is not known.
        assert_eq!(refit(&two, &dims(&[0, 2, 0]), &dims(&[0, 0])), None);
        // More indices than anything has.
        assert_eq!(refit(&two, &dims(&[0, 2]), &dims(&[0, 1 << 62])), None);
        // Rows of the result mix channels.
        assert_eq!(refit(&two, &dims(&[0, 2, 3]), &dims(&[0, 3, 2])), None);
    }

    #[test]
    fn blocks_join_only_if_they_agree() {
        let same = Affine::per_channel(vec![1., 1., 2., 2.], vec![0.; 4], 1);
        assert_eq!(
            scale(refit(&same, &dims(&[0, 4]), &dims(&[0, 2, 2]))),
            Some((vec![1., 2.], 1))
        );
        let differ = Affine::per_channel(vec![1., 2., 2., 2.], vec![0.; 4], 1);
        assert_eq!(refit(&differ, &dims(&[0, 4]), &dims(&[0, 2, 2])), None);
    }
}
