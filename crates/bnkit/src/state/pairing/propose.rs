//! Pairs by the names of a known scheme.

use std::collections::BTreeMap;

use super::index::Index;
use super::presets::{Architecture, Epsilon, SCHEMES, Scheme};
use super::scope::{self, Decision, Scope};
use super::{Layer, Left, Pair, Pairing, unknown};
use crate::state::groups::{self, BatchNormGroup, Entry, Naming};
use crate::{Error, Result};

/// How many other layers a note names.
const NAMED: usize = 2;

/// Which naming scheme is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresetChoice<'a> {
    /// The one that recognises most BatchNorms.
    Auto,
    /// The one of this name.
    Named(&'a str),
}

/// The pairs that the names of a scheme tell, with shapes checked, and every other BatchNorm with the reason why it stays.
///
/// An architecture is recognised only where every BatchNorm below its prefix is accounted for. ε is told only if names and shapes
/// determine it. What no architecture claims is paired by common names if shapes leave no other reading.
///
/// # Errors
/// If there is no preset of the given name.
pub fn propose(entries: &[Entry], choice: PresetChoice<'_>) -> Result<Pairing> {
    let schemes: Vec<&'static Scheme> = match choice {
        PresetChoice::Auto => SCHEMES.to_vec(),
        PresetChoice::Named(name) => SCHEMES.into_iter().filter(|s| s.name == name).collect(),
    };
    if let (PresetChoice::Named(name), []) = (choice, &schemes[..]) {
        let known: Vec<_> = SCHEMES.iter().map(|scheme| scheme.name).collect();
        return Err(Error::Request(format!(
            "unknown preset {name:?}: there are auto, {}",
            known.join(", ")
        )));
    }
    let found = groups::find(entries);
    let index = Index::new(entries);
    let mut best: Option<Recognised> = None;
    for scheme in schemes {
        let recognised = Recognised::by(scheme, &found.groups, &index);
        if best
            .as_ref()
            .is_none_or(|best| recognised.rank() > best.rank())
        {
            best = Some(recognised);
        }
    }
    let mut pairing = Pairing::default();
    for problem in &found.problems {
        pairing.notes.push(problem.message.clone());
    }
    let mut decisions = BTreeMap::new();
    if let Some(best) = best {
        if let PresetChoice::Named(_) = choice {
            pairing.preset = Some(best.scheme.name);
        }
        if !best.decisions.is_empty() {
            pairing.preset = Some(best.scheme.name);
        }
        if best.decisions.is_empty() && !found.groups.is_empty() {
            let what = match choice {
                PresetChoice::Auto => "no preset knows this network".to_owned(),
                PresetChoice::Named(name) => {
                    format!("the preset {name} does not know this network")
                }
            };
            pairing.notes.push(format!(
                "{what}: only pairs that shapes leave no doubt about are made"
            ));
        }
        pairing.notes.extend(best.notes);
        decisions = best.decisions;
    }
    unknown::decide(&found.groups, &index, &mut decisions);
    fill(&mut pairing, found.groups, decisions, &index);
    Ok(pairing)
}

/// What one scheme says.
struct Recognised {
    scheme: &'static Scheme,
    decisions: BTreeMap<usize, Decision>,
    /// BatchNorms in closed architectures: those say more than open ones.
    closed: usize,
    notes: Vec<String>,
}

impl Recognised {
    fn by(scheme: &'static Scheme, groups: &[BatchNormGroup], index: &Index<'_>) -> Self {
        let mut recognised = Self {
            scheme,
            decisions: BTreeMap::new(),
            closed: 0,
            notes: Vec::new(),
        };
        let mut almost = Vec::new();
        for architecture in scheme.architectures {
            let (scopes, failed) = scope::recognise(architecture, scheme.naming, groups, index);
            almost.extend(failed);
            for scope in scopes {
                let mut taken = scope.decisions.keys();
                if taken.any(|at| recognised.decisions.contains_key(at)) {
                    continue;
                }
                recognised.take(architecture, scope, groups);
            }
        }
        if recognised.decisions.is_empty() {
            recognised.notes = almost;
        }
        recognised
    }

    /// How much is recognised: the more BatchNorms, the better; among equals, the stricter.
    fn rank(&self) -> (usize, usize) {
        (self.decisions.len(), self.closed)
    }

    fn take(&mut self, architecture: &Architecture, scope: Scope, groups: &[BatchNormGroup]) {
        let counted = scope.decisions.len();
        if counted == 0 {
            return;
        }
        if !architecture.open {
            self.closed += counted;
        }
        let place = match scope.prefix.trim_end_matches(['.', '/']) {
            "" => String::new(),
            prefix => format!(" below {prefix:?}"),
        };
        let markers: Vec<_> = architecture
            .markers
            .iter()
            .map(|m| format!("{m:?}"))
            .collect();
        self.notes.push(format!(
            "recognised {}{place} ({counted} batch norms) by {}",
            architecture.name,
            markers.join(", ")
        ));
        let tracked =
            |at: &usize| groups[*at].naming != Naming::Torch || groups[*at].batches.is_some();
        let frozen = scope.decisions.keys().filter(|at| !tracked(at)).count();
        self.notes.push(match (&architecture.epsilon, scope.epsilon) {
            (Epsilon::Unknown(why), _) => {
                format!("names do not tell epsilon: {why}; say it with --eps or in a pairing file")
            }
            (_, None) => "names and shapes do not tell epsilon: say it with --eps or in a pairing file".to_owned(),
            (_, Some(epsilon)) => format!(
                "epsilon {epsilon:e}, as {} builds it; a network of the same names that was built with another one needs --eps",
                self.scheme.name
            ),
        });
        if frozen > 0 && scope.epsilon.is_some() {
            self.notes.push(format!(
                "{frozen} batch norms have no num_batches_tracked: an old file, or FrozenBatchNorm2d, whose epsilon is 1e-5 or 0; say it with --eps"
            ));
        }
        for (at, decision) in scope.decisions {
            let decision = match decision {
                Decision::Pair { layer, .. } => Decision::Pair {
                    layer,
                    epsilon: scope.epsilon.filter(|_| tracked(&at)),
                },
                left @ Decision::Left(_) => left,
            };
            self.decisions.insert(at, decision);
        }
    }
}

/// The pairing that the decisions make, in the order of the groups.
fn fill(
    pairing: &mut Pairing,
    groups: Vec<BatchNormGroup>,
    mut decisions: BTreeMap<usize, Decision>,
    index: &Index<'_>,
) {
    for (at, batch_norm) in groups.into_iter().enumerate() {
        match decisions.remove(&at) {
            Some(Decision::Pair { layer, epsilon }) => pairing.pairs.push(Pair {
                note: note(&layer, &batch_norm, index),
                layer,
                batch_norm,
                epsilon,
            }),
            Some(Decision::Left(reason)) => pairing.left.push(Left { batch_norm, reason }),
            None => pairing.left.push(Left {
                batch_norm,
                reason: "no layer before it is known by name".to_owned(),
            }),
        }
    }
}

/// What a person should know about a pair.
pub(super) fn note(layer: &Layer, bn: &BatchNormGroup, index: &Index<'_>) -> Option<String> {
    let mut notes = Vec::new();
    let others: Vec<_> = index
        .siblings(bn.naming, &layer.module)
        .iter()
        .filter(|module| **module != layer.module && index.may_feed(module, bn))
        .map(|module| format!("{module:?}"))
        .collect();
    if !others.is_empty() {
        let more = match others.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = others[..others.len().min(NAMED)].join(", ");
        notes.push(format!(
            "the name decides: {named}{more} would fit by shape, too"
        ));
    }
    if bn.naming == Naming::Torch
        && index.shape(bn.naming, &layer.module).map(<[_]>::len) == Some(2)
    {
        notes.push("a linear layer: right if the batch norm reads (N, C)".to_owned());
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}
