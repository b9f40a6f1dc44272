//! The layers of a state dict by module, and whether a BatchNorm fits one.

use std::collections::HashMap;

use super::{Layer, Layout};
use crate::state::groups::{BatchNormGroup, Entry, Naming};

/// The weights that may be a layer's, with their module.
const WEIGHTS: [&str; 4] = ["weight", "kernel", "depthwise_kernel", "pointwise_kernel"];

/// All tensors by name, and the layers among them.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    by_name: HashMap<&'a str, &'a Entry>,
    /// The weight of each module: the last one of a separable convolution.
    layers: HashMap<(Naming, String), Weight<'a>>,
    /// The modules of the layers below a module, sorted.
    children: HashMap<(Naming, String), Vec<String>>,
    /// How many tensors lie in a module or below it.
    counts: HashMap<String, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Weight<'a> {
    entry: &'a Entry,
    /// The name without the weight's own, separator included, and what follows it.
    stem: &'a str,
    suffix: &'a str,
    leaf: &'a str,
}

/// How a layer is declared to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A Conv, a Linear; in Keras and flax, any layer whose last axis counts the outputs, or a depthwise one.
    Plain,
    /// PyTorch's ConvTranspose with so many groups.
    Transposed(usize),
}

impl<'a> Index<'a> {
    /// The index of `entries`.
    pub(crate) fn new(entries: &'a [Entry]) -> Self {
        let mut index = Self {
            by_name: entries.iter().map(|e| (e.name.as_str(), e)).collect(),
            layers: HashMap::new(),
            children: HashMap::new(),
            counts: HashMap::new(),
        };
        for entry in entries {
            for (at, _) in entry.name.match_indices(['.', '/']) {
                *index.counts.entry(entry.name[..at].to_owned()).or_default() += 1;
            }
            let Some((naming, module, weight)) = Weight::of(entry) else {
                continue;
            };
            if weight.leaf == "depthwise_kernel" && index.is_layer(naming, module) {
                continue;
            }
            index.layers.insert((naming, module.to_owned()), weight);
            let siblings = index.children.entry((naming, parent(module).to_owned()));
            let siblings = siblings.or_default();
            if let Err(at) = siblings.binary_search_by(|m| m.as_str().cmp(module)) {
                siblings.insert(at, module.to_owned());
            }
        }
        index
    }

    /// Whether `module` has a weight of at least two axes.
    pub(crate) fn is_layer(&self, naming: Naming, module: &str) -> bool {
        self.layers.contains_key(&(naming, module.to_owned()))
    }

    /// The modules of all layers.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (Naming, &str)> {
        self.layers.keys().map(|(naming, m)| (*naming, m.as_str()))
    }

    /// The layers that lie directly beside `module`, sorted, itself included.
    pub(crate) fn siblings(&self, naming: Naming, module: &str) -> &[String] {
        let found = self.children.get(&(naming, parent(module).to_owned()));
        found.map_or(&[], Vec::as_slice)
    }

    /// How many tensors lie in `module` (a path in the file) or below it.
    pub(crate) fn tensors_in(&self, module: &str) -> usize {
        self.counts.get(module).copied().unwrap_or(0)
    }

    /// The shape of a layer's weight.
    pub(crate) fn shape(&self, naming: Naming, module: &str) -> Option<&'a [usize]> {
        let weight = self.layers.get(&(naming, module.to_owned()))?;
        Some(&weight.entry.shape)
    }

    /// Whether a layer could feed a BatchNorm, by its shape alone.
    pub(crate) fn may_feed(&self, module: &str, bn: &BatchNormGroup) -> bool {
        let Some(weight) = self.layers.get(&(bn.naming, module.to_owned())) else {
            return false;
        };
        match (bn.naming, &weight.entry.shape[..]) {
            (Naming::Torch, [first, ..]) => *first == bn.channels,
            (_, [.., _, last]) if weight.leaf != "depthwise_kernel" && *last == bn.channels => true,
            (Naming::Keras, [.., inputs, last]) => inputs.checked_mul(*last) == Some(bn.channels),
            _ => false,
        }
    }

    /// The layer `module`, if its output has the channels of `bn`.
    ///
    /// # Errors
    /// Why it does not fit, with the names and shapes of the tensors.
    pub(crate) fn fit(
        &self,
        module: &str,
        bn: &BatchNormGroup,
        kind: Kind,
    ) -> Result<Layer, String> {
        let Some(weight) = self.layers.get(&(bn.naming, module.to_owned())) else {
            return Err(format!("there is no layer {module:?}"));
        };
        let Entry {
            name,
            shape,
            is_float,
        } = weight.entry;
        if !is_float {
            return Err(format!("tensor {name:?} holds no floating point numbers"));
        }
        let channels = bn.channels;
        let misfit = |outputs: usize, what: &str| {
            Err(format!(
                "tensor {name:?} of shape {shape:?} has {outputs} output channels{what}, the batch norm {:?} has {channels}",
                bn.module
            ))
        };
        let (layout, groups) = match (bn.naming, kind) {
            (Naming::Torch, Kind::Plain) if shape[0] == channels => (Layout::OutFirst, 1),
            (Naming::Torch, Kind::Plain) => return misfit(shape[0], ""),
            (Naming::Torch, Kind::Transposed(groups)) => {
                if shape.len() < 3 {
                    return Err(format!("tensor {name:?} of shape {shape:?} is no kernel"));
                }
                if groups == 0 || shape[0] % groups != 0 {
                    return Err(format!(
                        "tensor {name:?} of shape {shape:?} has {} input channels, which {groups} groups do not divide",
                        shape[0]
                    ));
                }
                match shape[1].checked_mul(groups) {
                    Some(outputs) if outputs == channels => (Layout::Transposed, groups),
                    outputs => {
                        return misfit(outputs.unwrap_or(usize::MAX), " as a transposed one");
                    }
                }
            }
            (_, Kind::Transposed(_)) => {
                return Err(format!(
                    "tensor {name:?}: transposed kernels of keras and flax are not supported"
                ));
            }
            (_, Kind::Plain) => (self.out_last(weight, bn)?, 1),
        };
        let bias = format!("{}bias{}", weight.stem, weight.suffix);
        let found = self.by_name.get(bias.as_str());
        if let Some(found) = found
            && (found.shape != [channels] || !found.is_float)
        {
            return Err(format!(
                "tensor {bias:?} of shape {:?} is no bias for {channels} channels",
                found.shape
            ));
        }
        Ok(Layer {
            module: module.to_owned(),
            weight: name.clone(),
            shape: shape.clone(),
            bias: found.map(|_| bias.clone()),
            new_bias: bias,
            layout,
            groups,
        })
    }

    /// The layout of a kernel whose last axes count the outputs.
    fn out_last(&self, weight: &Weight<'_>, bn: &BatchNormGroup) -> Result<Layout, String> {
        let Entry { name, shape, .. } = weight.entry;
        let [.., inputs, last] = shape[..] else {
            return Err(format!("tensor {name:?} of shape {shape:?} is no kernel"));
        };
        let outputs = if weight.leaf == "depthwise_kernel" {
            inputs.saturating_mul(last)
        } else {
            last
        };
        if outputs == bn.channels {
            return Ok(match weight.leaf {
                "depthwise_kernel" => Layout::OutLastTwo,
                _ => Layout::OutLast,
            });
        }
        // Keras 3 calls a depthwise kernel "kernel", too. With one output per input, a transposed kernel of one input
        // channel is the only other reading, and it has the same channels in the same places.
        if bn.naming == Naming::Keras && shape.len() > 2 && inputs == bn.channels {
            if last == 1 {
                return Ok(Layout::OutLastTwo);
            }
            return Err(format!(
                "tensor {name:?} of shape {shape:?} looks like a transposed kernel [kh, kw, O, I], which is not supported"
            ));
        }
        Err(format!(
            "tensor {name:?} of shape {shape:?} has {outputs} output channels, the batch norm {:?} has {}",
            bn.module, bn.channels
        ))
    }
}

impl<'a> Weight<'a> {
    /// The convention, the module and the parts of a name, if it is that of a layer's weight.
    fn of(entry: &'a Entry) -> Option<(Naming, &'a str, Self)> {
        let name = entry.name.as_str();
        if entry.shape.len() < 2 {
            return None;
        }
        let (plain, suffix) = match name.strip_suffix(":0") {
            Some(plain) => (plain, ":0"),
            None => (name, ""),
        };
        let at = plain.rfind(['.', '/'])?;
        let (module, leaf) = (&plain[..at], &plain[at + 1..]);
        if !WEIGHTS.contains(&leaf) {
            return None;
        }
        let weight = Self {
            entry,
            stem: &plain[..=at],
            suffix,
            leaf,
        };
        if leaf == "weight" {
            return Some((Naming::Torch, module, weight));
        }
        let flax = module
            .strip_prefix("params")
            .and_then(|m| m.strip_prefix(['.', '/']));
        Some(match flax {
            Some(module) => (Naming::Flax, module, weight),
            None => (Naming::Keras, module, weight),
        })
    }
}

/// The module that `module` lies in; empty at the top.
pub(crate) fn parent(module: &str) -> &str {
    module.rfind(['.', '/']).map_or("", |at| &module[..at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::groups;

    fn fit(
        weight: &str,
        shape: &[usize],
        bias: Option<usize>,
        bn: &str,
        channels: usize,
    ) -> Result<Layer, String> {
        let entry = |name: String, shape: Vec<usize>| Entry {
            name,
            shape,
            is_float: true,
        };
        let (mean, variance) = bn.split_once('|').unwrap();
        let mut entries = vec![
            entry(weight.to_owned(), shape.to_vec()),
            entry(mean.to_owned(), vec![channels]),
            entry(variance.to_owned(), vec![channels]),
        ];
        let leaf = ["depthwise_kernel", "pointwise_kernel", "kernel", "weight"]
            .into_iter()
            .find(|leaf| weight.contains(leaf))
            .unwrap();
        if let Some(size) = bias {
            entries.push(entry(weight.replace(leaf, "bias"), vec![size]));
        }
        let groups = groups::find(&entries).groups;
        let index = Index::new(&entries);
        let module = index.modules().next().unwrap().1.to_owned();
        index.fit(&module, &groups[0], Kind::Plain)
    }

    const TORCH: &str = "b.running_mean|b.running_var";
    const KERAS: &str = "b/moving_mean:0|b/moving_variance:0";
    const FLAX: &str = "batch_stats/b/mean|batch_stats/b/var";

    #[test]
    fn the_layout_follows_the_convention_and_the_shape() {
        type Case<'a> = (&'a str, &'a [usize], &'a str, usize, Layout, &'a str);
        let cases: [Case<'_>; 7] = [
            (
                "a.weight",
                &[8, 3, 3, 3],
                TORCH,
                8,
                Layout::OutFirst,
                "a.bias",
            ),
            ("a.weight", &[8, 3], TORCH, 8, Layout::OutFirst, "a.bias"),
            (
                "a/kernel:0",
                &[3, 3, 4, 8],
                KERAS,
                8,
                Layout::OutLast,
                "a/bias:0",
            ),
            (
                "a/depthwise_kernel:0",
                &[3, 3, 4, 2],
                KERAS,
                8,
                Layout::OutLastTwo,
                "a/bias:0",
            ),
            // Keras 3 names a depthwise kernel like any other.
            (
                "a/kernel:0",
                &[3, 3, 8, 1],
                KERAS,
                8,
                Layout::OutLastTwo,
                "a/bias:0",
            ),
            (
                "a/pointwise_kernel:0",
                &[1, 1, 4, 8],
                KERAS,
                8,
                Layout::OutLast,
                "a/bias:0",
            ),
            (
                "params/a/kernel",
                &[4, 8],
                FLAX,
                8,
                Layout::OutLast,
                "params/a/bias",
            ),
        ];
        for (weight, shape, bn, channels, layout, bias) in cases {
            for size in [None, Some(channels)] {
                let layer = fit(weight, shape, size, bn, channels).unwrap();
                assert_eq!((layer.layout, layer.groups), (layout, 1), "{weight}");
                assert_eq!(layer.new_bias, bias);
                assert_eq!(layer.bias.as_deref(), size.map(|_| bias), "{weight}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_says_which_tensor_and_why() {
        type Case<'a> = (&'a str, &'a [usize], Option<usize>, &'a str, &'a str);
        let cases: [Case<'_>; 5] = [
            (
                "a.weight",
                &[4, 8, 3, 3],
                None,
                TORCH,
                "\"a.weight\" of shape [4, 8, 3, 3] has 4",
            ),
            (
                "a.weight",
                &[8, 8, 3, 3],
                Some(7),
                TORCH,
                "\"a.bias\" of shape [7]",
            ),
            (
                "a/kernel:0",
                &[3, 3, 8, 4],
                None,
                KERAS,
                "looks like a transposed kernel",
            ),
            (
                "a/kernel:0",
                &[3, 3, 5, 4],
                None,
                KERAS,
                "has 4 output channels",
            ),
            (
                "params/a/kernel",
                &[3, 3, 8, 1],
                None,
                FLAX,
                "has 1 output channels",
            ),
        ];
        for (weight, shape, bias, bn, message) in cases {
            let error = fit(weight, shape, bias, bn, 8).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
