//! The dimensions of the inputs of a neighbourhood: those that are certain, and where there are none, some that its
//! operators take.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bnkit_model::onnx::{AttributeValue, Constants, Dim, Model, Node, Types, Use, ValueId};

use super::Pair;
use super::cut::Cut;

const BATCH: usize = 2;
/// Spatial axes are at least this long, where nothing says how long they are.
const SPATIAL: usize = 8;
/// So many values are looked at to find out what an input needs.
const MAX_VALUES: usize = 64;
/// Inputs of more elements than this take too long to run.
const MAX_ELEMENTS: usize = 1 << 26;

/// What an operator needs of its data.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    rank: Option<usize>,
    channels: Option<usize>,
    /// Size of the last axis, if the operator contracts it.
    last: Option<usize>,
}

struct Sizes<'a> {
    model: &'a Model,
    types: &'a Types,
    cut: &'a Cut,
    /// How long spatial axes are, where nothing else says it.
    spatial: usize,
    /// Sizes that were given to symbols.
    symbols: HashMap<Arc<str>, usize>,
}

/// Dimensions for each input of the cut.
pub(super) fn dims(pair: &Pair<'_>, cut: &Cut) -> Result<Vec<Vec<usize>>, String> {
    let mut sizes = Sizes {
        model: pair.original,
        types: &pair.original_types,
        cut,
        spatial: SPATIAL,
        symbols: HashMap::new(),
    };
    sizes.spatial = sizes.field_of_view();
    let shrink = cut.inputs.len() == 1 && sizes.is_local();
    let mut all = Vec::new();
    for &(input, _) in &cut.inputs {
        let mut dims = sizes.input(input)?;
        if shrink {
            for size in dims.iter_mut().skip(2) {
                *size = (*size).min(sizes.spatial);
            }
        }
        let count = dims
            .iter()
            .try_fold(1usize, |count, &size| count.checked_mul(size));
        if !count.is_some_and(|count| (1..=MAX_ELEMENTS).contains(&count)) {
            return Err(format!("its input would have the shape {dims:?}"));
        }
        all.push(dims);
    }
    Ok(all)
}

impl Sizes<'_> {
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        let mut ids: Vec<_> = self.cut.original.iter().collect();
        ids.sort_unstable();
        ids.into_iter().map(|&id| self.model.node(id))
    }

    fn input(&mut self, value: ValueId) -> Result<Vec<usize>, String> {
        let known = self.types.dims(value).map(<[Dim]>::to_vec);
        let need = self.need(value, &mut HashSet::new());
        let name = &self.model.value(value).name;
        let unknown = || format!("nothing says how many axes \"{name}\" has");
        let rank = match &known {
            Some(dims) => dims.len(),
            None => need.rank.ok_or_else(unknown)?,
        };
        let dims = known.unwrap_or_else(|| vec![Dim::Unknown; rank]);
        let is_known = |dim: &Dim| dim.known().is_some();
        if rank > 2 && !dims[2..].iter().all(is_known) && self.nodes().any(rearranges) {
            return self.rearranged(name, &dims, need);
        }
        let mut sizes = Vec::new();
        for (axis, dim) in dims.iter().enumerate() {
            let chosen = match axis {
                _ if axis + 1 == rank && need.last.is_some() => need.last,
                0 => Some(BATCH),
                1 => need.channels,
                _ => Some(self.spatial),
            };
            let symbol = match dim {
                Dim::Symbol(symbol) => Some(symbol),
                _ => None,
            };
            let size = match (dim, symbol.and_then(|symbol| self.symbols.get(symbol))) {
                (Dim::Known(size), _) => usize::try_from(*size).ok(),
                (_, Some(&size)) => Some(size),
                _ => chosen,
            };
            let unknown = || format!("nothing says how long axis {axis} of \"{name}\" is");
            let size = size.ok_or_else(unknown)?;
            if let Some(symbol) = symbol {
                self.symbols.insert(symbol.clone(), size);
            }
            sizes.push(size);
        }
        Ok(sizes)
    }

    /// For a value whose channels and positions become one axis that is contracted: as many positions as the weight has.
    fn rearranged(&self, name: &str, dims: &[Dim], need: Need) -> Result<Vec<usize>, String> {
        let unknown = || format!("nothing says how large \"{name}\" is before it is rearranged");
        let simple = self
            .nodes()
            .all(|node| !rearranges(node) || node.is("Flatten") || node.is("Reshape"));
        let contracted = self.nodes().find_map(|node| match node.op_type.as_str() {
            "Gemm" => self.need_of(node, 0).last,
            "MatMul" => self.need_of(node, 0).last,
            _ => None,
        });
        let known = dims[1].known().and_then(|size| usize::try_from(size).ok());
        let (Some(contracted), Some(channels)) = (contracted, known.or(need.channels)) else {
            return Err(unknown());
        };
        let untouched = dims[2..].iter().all(|dim| dim.known().is_none());
        let windows = self.nodes().any(|node| window(self.model, node).is_some());
        if !simple || windows || !untouched || channels == 0 || contracted % channels != 0 {
            return Err(unknown());
        }
        let mut sizes = vec![1; dims.len()];
        sizes[..3].copy_from_slice(&[BATCH, channels, contracted / channels]);
        Ok(sizes)
    }

    /// What the readers of `value` in the cut need of it.
    fn need(&self, value: ValueId, seen: &mut HashSet<ValueId>) -> Need {
        let mut all = Need::default();
        if seen.len() > MAX_VALUES || !seen.insert(value) {
            return all;
        }
        for user in &self.model.value(value).uses {
            let Use::Node(id, slot) = *user else { continue };
            if !self.cut.original.contains(&id) {
                continue;
            }
            let node = self.model.node(id);
            let mut need = self.need_of(node, slot);
            if let (true, Some(output)) = (keeps_layout(node), node.output(0)) {
                let behind = self.need(output, seen);
                need.rank = need.rank.or(behind.rank);
                need.channels = need.channels.or(behind.channels);
                need.last = need.last.or(behind.last);
            } else if is_pool(node) && need.rank.is_none() {
                let behind = node.output(0).map(|output| self.need(output, seen));
                need.channels = behind.and_then(|behind| behind.channels);
                need.rank = need.rank.or(behind.and_then(|behind| behind.rank));
            }
            all.rank = all.rank.or(need.rank);
            all.channels = all.channels.or(need.channels);
            all.last = all.last.or(need.last);
        }
        all
    }

    /// What a node needs of its input in `slot`, by its own constants.
    fn need_of(&self, node: &Node, slot: usize) -> Need {
        let dims = |slot| constant_dims(self.model, self.types, node, slot);
        let int = |name: &str, default| int(node, name, default);
        let mut need = Need::default();
        match (node.op_type.as_str(), slot) {
            ("Conv", 0) => {
                if let Some([_, per_group, kernel @ ..]) = dims(1).as_deref() {
                    let groups = usize::try_from(int("group", 1)).unwrap_or(1);
                    need.rank = Some(kernel.len() + 2);
                    need.channels = per_group.checked_mul(groups);
                }
            }
            ("ConvTranspose", 0) => {
                if let Some([inputs, _, kernel @ ..]) = dims(1).as_deref() {
                    need.rank = Some(kernel.len() + 2);
                    need.channels = Some(*inputs);
                }
            }
            ("BatchNormalization", 0) => {
                need.channels = dims(1).and_then(|dims| dims.first().copied());
            }
            ("Gemm", 0) if int("transA", 0) == 0 => {
                if let Some([rows, columns]) = dims(1).as_deref() {
                    let contracted = if int("transB", 0) == 0 {
                        *rows
                    } else {
                        *columns
                    };
                    need = Need {
                        rank: Some(2),
                        channels: Some(contracted),
                        last: Some(contracted),
                    };
                }
            }
            ("MatMul", 0) => {
                if let Some([.., contracted, _]) = dims(1).as_deref() {
                    need.last = Some(*contracted);
                }
            }
            ("MatMul", 1) => {
                // W·x with a channel axis has rank 3.
                if let Some([.., contracted]) = dims(0).as_deref() {
                    need.rank = Some(3);
                    need.channels = Some(*contracted);
                }
            }
            _ => {}
        }
        need
    }

    /// How long spatial axes must be for all windows in the cut to fit, one behind the other.
    fn field_of_view(&self) -> usize {
        let windows: Vec<(usize, usize)> = self
            .nodes()
            .filter_map(|node| window(self.model, node))
            .collect();
        let strides = windows
            .iter()
            .fold(1usize, |all, window| all.saturating_mul(window.1));
        let reach = windows
            .iter()
            .fold(3usize, |all, window| all.saturating_add(window.0));
        reach.saturating_mul(strides.min(64)).clamp(SPATIAL, 4096)
    }

    /// Whether all nodes do the same at every position, whatever the size of the whole.
    fn is_local(&self) -> bool {
        const LOCAL: [&str; 16] = [
            "Add",
            "AveragePool",
            "BatchNormalization",
            "Cast",
            "Conv",
            "ConvTranspose",
            "Div",
            "Dropout",
            "Identity",
            "LeakyRelu",
            "MaxPool",
            "Mul",
            "PRelu",
            "Relu",
            "Sub",
            "GlobalAveragePool",
        ];
        self.nodes().all(|node| {
            let follows_size = node.attribute("auto_pad").is_some()
                || node.attribute("output_shape").is_some()
                || int(node, "ceil_mode", 0) != 0;
            let spread = (0..node.inputs.len()).any(|slot| {
                let is_weight = node.is("Conv") || node.is("ConvTranspose");
                let dims = constant_dims(self.model, self.types, node, slot);
                !is_weight
                    && dims.is_some_and(|dims| {
                        dims.len() > 1 && dims[dims.len().min(2)..].iter().any(|&size| size != 1)
                    })
            });
            LOCAL.iter().any(|op| node.is(op)) && !follows_size && !spread
        })
    }
}

/// The dimensions of a constant input.
fn constant_dims(model: &Model, types: &Types, node: &Node, slot: usize) -> Option<Vec<usize>> {
    let value = node.input(slot)?;
    let constants = Constants::new(model, types, true);
    if !constants.is_constant(value) {
        return None;
    }
    match types.dims(value) {
        Some(dims) if dims.iter().all(|dim| dim.known().is_some()) => {
            let sizes = dims.iter().filter_map(Dim::known).map(usize::try_from);
            sizes.collect::<Result<_, _>>().ok()
        }
        _ => Some(constants.tensor(value).ok()?.dims.to_vec()),
    }
}

fn int(node: &Node, name: &str, default: i64) -> i64 {
    match node.attribute(name).map(|attribute| &attribute.value) {
        Some(AttributeValue::Int(value)) => *value,
        _ => default,
    }
}

fn is_pool(node: &Node) -> bool {
    ["MaxPool", "AveragePool", "LpPool"]
        .iter()
        .any(|op| node.is(op))
}

/// Whether rank and channels of the output are those of the data.
fn keeps_layout(node: &Node) -> bool {
    const KEEPING: [&str; 12] = [
        "Add",
        "BatchNormalization",
        "Cast",
        "Div",
        "Dropout",
        "Identity",
        "LeakyRelu",
        "Mul",
        "PRelu",
        "Pad",
        "Relu",
        "Sub",
    ];
    KEEPING.iter().any(|op| node.is(op))
}

/// Whether axes become other axes.
fn rearranges(node: &Node) -> bool {
    const REARRANGING: [&str; 7] = [
        "DepthToSpace",
        "Flatten",
        "Reshape",
        "SpaceToDepth",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ];
    REARRANGING.iter().any(|op| node.is(op))
}

/// How far the window of a node reaches beyond one element, and its stride: the largest over all axes.
fn window(model: &Model, node: &Node) -> Option<(usize, usize)> {
    if !is_pool(node) && !node.is("Conv") && !node.is("ConvTranspose") {
        return None;
    }
    let largest = |name: &str| match node.attribute(name).map(|attribute| &attribute.value) {
        Some(AttributeValue::Ints(values)) => values.iter().copied().max().unwrap_or(1),
        _ => 1,
    };
    let weight = node
        .input(1)
        .and_then(|value| model.value(value).tensor.as_ref());
    let kernel = match weight {
        Some(weight) if !is_pool(node) => weight.dims.iter().skip(2).copied().max().unwrap_or(1),
        _ => usize::try_from(largest("kernel_shape")).unwrap_or(1),
    };
    let dilation = usize::try_from(largest("dilations")).unwrap_or(1);
    let stride = match node.is("ConvTranspose") {
        true => 1,
        false => usize::try_from(largest("strides")).unwrap_or(1).max(1),
    };
    Some((kernel.saturating_sub(1).saturating_mul(dilation), stride))
}
