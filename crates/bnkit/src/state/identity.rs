//! `--identity-bn`: BatchNorms stay in the checkpoint as an identity with a shift, so that unmodified model code loads it.
//!
//! The scale is in the weight. The BatchNorm keeps the shift: γ = √(1+ε), μ = 0, σ² = 1, and β is the bias that the layer
//! would have got; a bias that the layer has becomes 0, and none is created. Where γ is missing, σ² = 1 − ε does the same;
//! where β is missing, μ is minus the shift. If the shift went elsewhere (into the layer behind the BatchNorm, or into
//! several layers with biases of their own), it stays there and the BatchNorm has none.

use std::collections::{BTreeMap, BTreeSet};

use bnkit_model::Tensor;
use bnkit_model::onnx::{AttributeValue, NodeId};
use bnkit_model::safetensors::dtype_of;

use super::bind::Tie;
use super::carry::{Carrier, Changes, Conflicts, New, group_of, tensors_of};
use super::groups::BatchNormGroup;
use super::names;
use crate::Result;
use crate::report::Refusal;
use crate::route::{Absorbed, Route, Side};

/// Turns the BatchNorms that would go into identities.
///
/// # Errors
/// If a tensor cannot be read.
pub(crate) fn keep(
    carrier: &Carrier<'_>,
    changes: &mut Changes,
) -> Result<std::result::Result<(), Conflicts>> {
    let mut by_group: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
    for route in carrier.routes {
        let group = group_of(carrier.bound, carrier.dict, carrier.groups, route.site);
        if let Some(group) = group {
            by_group.entry(group).or_default().push(route.site);
        }
    }
    let mut conflicts = Conflicts::new();
    for (group, sites) in by_group {
        let keeper = Keeper {
            carrier,
            group: &carrier.groups[group],
            sites: &sites,
        };
        if let Err(refusal) = keeper.keep(changes)? {
            conflicts.extend(sites.iter().map(|&site| (site, refusal.clone())));
        }
    }
    Ok(match conflicts.is_empty() {
        true => Ok(()),
        false => Err(conflicts),
    })
}

struct Keeper<'k> {
    carrier: &'k Carrier<'k>,
    group: &'k BatchNormGroup,
    sites: &'k [NodeId],
}

/// Where a layer has the shift that it absorbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// In a bias that is to be added, behind this weight.
    Added(usize),
    /// In a bias that it has.
    Bias(usize),
    /// Nowhere: it is 0.
    Nowhere,
}

impl Keeper<'_> {
    fn keep(&self, changes: &mut Changes) -> Result<std::result::Result<(), Refusal>> {
        let absorbed = self.absorbed();
        let places: BTreeSet<Place> = absorbed
            .iter()
            .map(|absorbed| self.place(absorbed.node, changes))
            .collect();
        let creates = places.iter().any(|place| matches!(place, Place::Added(_)));
        let shift = match self.shift(changes)? {
            Some(shift) => shift,
            None if creates => return Ok(Err(self.refusal())),
            None => vec![0.0; self.group.channels],
        };
        let tensors = match self.identity(&shift)? {
            Some(tensors) => tensors,
            None => return Ok(Err(self.refusal())),
        };
        if shift.iter().any(|&value| value != 0.0) {
            for place in places {
                match place {
                    Place::Added(weight) => {
                        changes.added.remove(&weight);
                    }
                    Place::Bias(bias) => {
                        let zeros = self.zeros(bias)?;
                        changes.replaced.insert(bias, New::Values(zeros));
                    }
                    Place::Nowhere => {}
                }
            }
        } else {
            // A shift of nothing is no reason for a bias.
            for place in places {
                if let Place::Added(weight) = place {
                    changes.added.remove(&weight);
                }
            }
        }
        for name in tensors_of(self.group) {
            if let Some(place) = self.carrier.dict.position(name) {
                changes.dropped.remove(&place);
            }
        }
        changes.replaced.extend(tensors);
        Ok(Ok(()))
    }

    fn refusal(&self) -> Refusal {
        Refusal::new(
            "identity-needs-bias",
            format!(
                "as an identity, \"{}\" cannot hold the shift, and a layer that could has no bias; none is created",
                self.group.module
            ),
        )
    }

    fn absorbed(&self) -> Vec<&Absorbed> {
        let own = |site: &NodeId| self.sites.contains(site);
        let routes = self.carrier.routes.iter().filter(|route| own(&route.site));
        routes.flat_map(|route| &route.absorbed).collect()
    }

    /// The shift that the BatchNorm can keep: that of layers right before it, which absorbed nothing else and agree.
    fn shift(&self, changes: &Changes) -> Result<Option<Vec<f64>>> {
        let own = |route: &&Route| self.sites.contains(&route.site);
        let mut all: Option<Vec<f64>> = None;
        for route in self.carrier.routes.iter().filter(own) {
            if !self.is_direct(route) {
                return Ok(None);
            }
            let places = route
                .absorbed
                .iter()
                .map(|absorbed| self.place(absorbed.node, changes))
                .filter(|place| *place != Place::Nowhere);
            let places: Vec<Place> = places.collect();
            let new = match places[..] {
                [Place::Added(weight)] => changes.added.get(&weight).map(|(_, new)| new),
                [Place::Bias(bias)] => changes.replaced.get(&bias),
                [] => None,
                _ => return Ok(None),
            };
            let shift = match new {
                Some(New::Folded { tensor, .. }) => self.carrier.folded.read_f64(tensor)?,
                Some(New::Values(values)) => values.to_f64()?,
                None => vec![0.0; self.group.channels],
            };
            if all.as_ref().is_some_and(|all| *all != shift) {
                return Ok(None);
            }
            all = Some(shift);
        }
        Ok(all)
    }

    /// Whether an affine went into one layer in front of it (a Linear may be two operators), channel by channel, and
    /// nothing else did.
    fn is_direct(&self, route: &Route) -> bool {
        let mut modules = BTreeSet::new();
        for absorbed in &route.absorbed {
            let direct = absorbed.side == Side::Output
                && absorbed.share == 1.0
                && self.carrier.stands(absorbed.node)
                && absorbed
                    .channels
                    .iter()
                    .copied()
                    .eq(0..self.group.channels as u32)
                && self
                    .carrier
                    .sites_into(absorbed.node)
                    .iter()
                    .all(|site| self.sites.contains(site));
            if !direct {
                return false;
            }
            let tensors = self.ties(absorbed.node).map(|(_, tie)| tie.tensor);
            modules.extend(
                tensors.map(|tensor| names::module(&self.carrier.dict.tensors()[tensor].name)),
            );
        }
        modules.len() == 1
    }

    fn ties(&self, node: NodeId) -> impl Iterator<Item = (usize, Tie)> {
        let bound = self.carrier.bound;
        (0..bound.model.node(node).inputs.len())
            .filter_map(move |slot| Some((slot, bound.tie(node, slot)?)))
    }

    fn place(&self, node: NodeId, changes: &Changes) -> Place {
        let is_add = self.carrier.bound.model.node(node).is("Add");
        let mut place = Place::Nowhere;
        for (slot, Tie { tensor, .. }) in self.ties(node) {
            if changes.added.contains_key(&tensor) {
                return Place::Added(tensor);
            }
            if (slot == 2 || is_add) && changes.replaced.contains_key(&tensor) {
                place = Place::Bias(tensor);
            }
        }
        place
    }

    fn zeros(&self, place: usize) -> Result<Tensor> {
        let tensor = &self.carrier.dict.tensors()[place];
        let data = vec![0; tensor.bytes() as usize];
        let dtype = dtype_of(tensor.dtype).expect("a bias that was computed");
        Ok(Tensor::new(dtype, tensor.shape.clone(), data)?)
    }

    /// The parameters that make y = x + shift; `None` if a shift does not fit its type.
    fn identity(&self, shift: &[f64]) -> Result<Option<Vec<(usize, New)>>> {
        let epsilon = self.epsilon();
        let count = self.group.channels;
        let (gamma, variance) = match self.group.gamma {
            Some(_) => ((1.0 + epsilon).sqrt(), 1.0),
            None => (1.0, 1.0 - epsilon),
        };
        let (beta, mean) = match self.group.beta {
            Some(_) => (shift.to_vec(), vec![0.0; count]),
            None => (Vec::new(), shift.iter().map(|shift| -shift).collect()),
        };
        let parts = [
            (self.group.gamma.as_ref(), vec![gamma; count]),
            (self.group.beta.as_ref(), beta),
            (Some(&self.group.mean), mean),
            (Some(&self.group.variance), vec![variance; count]),
        ];
        let mut tensors = Vec::new();
        for (name, values) in parts {
            let place = name.and_then(|name| self.carrier.dict.position(name));
            let Some(place) = place else { continue };
            let tensor = &self.carrier.dict.tensors()[place];
            let Some(dtype) = dtype_of(tensor.dtype) else {
                return Ok(None);
            };
            if values.iter().any(|&value| !dtype.round(value).is_finite()) {
                return Ok(None);
            }
            let new = Tensor::from_f64(dtype, tensor.shape.clone(), &values)?;
            tensors.push((place, New::Values(new)));
        }
        Ok(Some(tensors))
    }

    fn epsilon(&self) -> f64 {
        let node = self.carrier.bound.model.node(self.sites[0]);
        match node.attribute("epsilon").map(|it| &it.value) {
            Some(AttributeValue::Float(value)) => f64::from(*value),
            _ => f64::from(1e-5f32),
        }
    }
}
