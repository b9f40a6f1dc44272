//! The neighbourhood of each fold as a pair of small models: for networks that the engine cannot run as a whole.
//!
//! A neighbourhood is what one route names: the affine, the nodes that it passed, the operators that absorbed it, with
//! their constants; or what one merge names: the operators that became one, and their sum. Routes and merges that share a node share a neighbourhood, since between them values are neither the original's
//! nor anybody else's. Outside of neighbourhoods nothing changed, so that a fold is right if, for each of them, equal
//! inputs give equal outputs.
//!
//! Both models of a pair are written in doubles, the folded constants without their rounding: what differs then is an
//! error, not noise. Pairs are made one at a time, since each holds its weights as doubles twice.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `cut` | which nodes a neighbourhood has, in both models |
//! | `size` | the dimensions of its inputs |
//! | `write` | the cut as a model of its own |

use std::collections::HashSet;
use std::sync::Arc;

use bnkit_model::onnx::{Model, NodeId, Types, ValueId};

use crate::calibrate::Interrupt;
use crate::route::{Merge, Route};

mod cut;
mod size;
#[cfg(test)]
mod tests;
mod write;

/// The largest difference, relative to the range of an output, that two runs in doubles may show.
pub const TOLERANCE: f64 = 1e-9;

/// Two models that belong together, with what is known of their values.
#[derive(Debug)]
struct Pair<'m> {
    original: &'m Model,
    folded: &'m Model,
    original_types: Types,
    folded_types: Types,
    /// All nodes that routes name.
    named: HashSet<NodeId>,
    /// All nodes of the original.
    standing: HashSet<NodeId>,
}

/// What one route, or several that share nodes, changed.
#[derive(Debug)]
pub struct Neighbourhood<'m> {
    /// The affine that was folded (the first, if there are several): the name of its node.
    pub label: String,
    /// The routes, by their indices; merges are numbered behind them.
    pub routes: Vec<usize>,
    pair: Arc<Pair<'m>>,
    nodes: Vec<NodeId>,
}

/// A neighbourhood as two models of the same inputs and outputs, all floats of which are doubles.
#[derive(Debug, Clone)]
pub struct Models {
    /// The names of the inputs and their dimensions, as both models declare them.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// As it was.
    pub original: Vec<u8>,
    /// As it is now.
    pub folded: Vec<u8>,
}

/// What came out of running all neighbourhoods.
#[derive(Debug, Clone, Default)]
pub struct LocalResult {
    /// How many were run.
    pub ran: usize,
    /// Those that were not, and why.
    pub skipped: Vec<(String, String)>,
    /// Those that differ, and by how much.
    pub failures: Vec<(String, f64)>,
}

/// The neighbourhoods of all routes, in the order of their first ones. `folded` is an edited clone of `original`.
pub fn neighbourhoods<'m>(
    original: &'m Model,
    folded: &'m Model,
    routes: &[Route],
) -> Vec<Neighbourhood<'m>> {
    neighbourhoods_merged(original, folded, routes, &[])
}

/// As [`neighbourhoods`], with those of merges: operators that became one belong together.
pub fn neighbourhoods_merged<'m>(
    original: &'m Model,
    folded: &'m Model,
    routes: &[Route],
    merges: &[Merge],
) -> Vec<Neighbourhood<'m>> {
    let groups = cut::groups(routes, merges);
    let pair = Arc::new(Pair {
        original,
        folded,
        original_types: Types::derive(original),
        folded_types: Types::derive(folded),
        named: groups
            .iter()
            .flat_map(|(_, nodes)| nodes)
            .copied()
            .collect(),
        standing: original.nodes().map(|(id, _)| id).collect(),
    });
    let neighbourhood = |(routes_here, nodes): (Vec<usize>, Vec<NodeId>)| {
        let site = routes_here
            .first()
            .and_then(|&index| match routes.get(index) {
                Some(route) => Some(route.site),
                None => merges.get(index - routes.len()).map(|merge| merge.into),
            });
        Neighbourhood {
            label: site.map_or("", |site| original.label(site)).to_owned(),
            routes: routes_here,
            pair: pair.clone(),
            nodes,
        }
    };
    groups.into_iter().map(neighbourhood).collect()
}

impl Neighbourhood<'_> {
    /// Makes its two models.
    ///
    /// # Errors
    /// The reason in words, if it cannot stand on its own.
    pub fn models(&self) -> Result<Models, String> {
        let cut = cut::Cut::new(&self.pair, &self.nodes)?;
        let sizes = size::dims(&self.pair, &cut)?;
        let names = cut
            .inputs
            .iter()
            .map(|&(value, _)| self.pair.original.value(value));
        let names = names
            .enumerate()
            .map(|(index, value)| format!("{}#{index}", value.name));
        let inputs: Vec<(String, Vec<usize>)> = names.zip(sizes).collect();
        let model = |model, types, nodes, side: fn(&(ValueId, ValueId)) -> ValueId| {
            let values: Vec<ValueId> = cut.inputs.iter().map(side).collect();
            let results: Vec<ValueId> = cut.outputs.iter().map(side).collect();
            write::model((model, types), nodes, (&values, &inputs), &results)
        };
        let Pair {
            original, folded, ..
        } = *self.pair;
        let before = model(original, &self.pair.original_types, &cut.original, |pair| {
            pair.0
        })?;
        let after = model(folded, &self.pair.folded_types, &cut.folded, |pair| pair.1)?;
        Ok(Models {
            inputs,
            original: before,
            folded: after,
        })
    }
}

/// Runs two models on the same inputs, in doubles, and says how far their outputs are apart, relative to their range; or
/// why it cannot run them.
pub type Compare<'a> = dyn Fn(&[u8], &[u8]) -> Result<f64, String> + 'a;

/// Compares the two models of each neighbourhood.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if it was interrupted, between two neighbourhoods.
pub fn check(
    neighbourhoods: &[Neighbourhood<'_>],
    compare: &Compare<'_>,
    interrupt: &Interrupt,
) -> crate::Result<LocalResult> {
    let mut result = LocalResult::default();
    for neighbourhood in neighbourhoods {
        interrupt.go_on()?;
        let label = neighbourhood.label.clone();
        let distance = neighbourhood
            .models()
            .and_then(|models| compare(&models.original, &models.folded));
        match distance {
            Err(why) => result.skipped.push((label, why)),
            Ok(distance) => {
                result.ran += 1;
                if distance.is_nan() || distance > TOLERANCE {
                    result.failures.push((label, distance));
                }
            }
        }
    }
    Ok(result)
}
