//! BatchNorms of networks that no scheme knows: common names, accepted only with evidence in the shapes.
//!
//! `conv1` and `bn1` may as well stand in the other order (pre-activation), and a square kernel may be that of a ConvTranspose.
//! So a pair of names is believed if, among the modules whose paths differ in numbers only, one layer cannot take the
//! BatchNorm's channels as its input, and none contradicts; and no kernel of a pair may have two readings. Indices in a
//! Sequential tell the order by themselves.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::index::{Index, Kind};
use super::presets::Rule;
use super::scope::{Candidate, Decision, Rules, doubt, may_be_transposed};
use crate::state::groups::{BatchNormGroup, Naming};

const RULES: &[Rule] = &[
    Rule::next("{p}"),
    Rule::named("{p}.conv{n}", "{p}.bn{n}"),
    Rule::named("conv{n}", "bn{n}"),
    Rule::named("{p}.conv", "{p}.bn"),
    Rule::named("conv", "bn"),
];

const FLAX: &[Rule] = &[
    Rule::when(
        "{p}/Conv_{n}",
        "{p}/BatchNorm_{n}",
        &[],
        &["{p}/ConvTranspose_0", "{p}/Dense_0"],
    ),
    Rule::when("Conv_{n}", "BatchNorm_{n}", &[], &["ConvTranspose_0"]),
];

/// Decides about the BatchNorms that `decisions` says nothing about.
pub(crate) fn decide(
    groups: &[BatchNormGroup],
    index: &Index<'_>,
    decisions: &mut BTreeMap<usize, Decision>,
) {
    let slash = |naming| {
        let mine = |group: &&BatchNormGroup| group.naming == naming && group.module.contains('.');
        if groups.iter().any(|group| mine(&group)) {
            '.'
        } else {
            '/'
        }
    };
    let torch = Rules::new(RULES, &[], '.');
    let flax = Rules::new(FLAX, &[], slash(Naming::Flax));
    let mut taken: HashSet<String> = decisions
        .values()
        .filter_map(|decision| match decision {
            Decision::Pair { layer, .. } => Some(layer.module.clone()),
            Decision::Left(_) => None,
        })
        .collect();
    let mut candidates = BTreeMap::new();
    for (at, bn) in groups.iter().enumerate() {
        if decisions.contains_key(&at) {
            continue;
        }
        let found = match bn.naming {
            Naming::Torch => torch.candidates(bn, "", index),
            Naming::Flax => flax.candidates(bn, "", index),
            Naming::Keras => Vec::new(),
        };
        match <[Candidate; 1]>::try_from(found) {
            Ok([one]) => {
                candidates.insert(at, one);
            }
            Err(found) => {
                let reason = match found.len() {
                    0 => "no layer before it is known by name".to_owned(),
                    _ => format!("{} layers may feed it by their names", found.len()),
                };
                decisions.insert(at, Decision::Left(reason));
            }
        }
    }
    let evidence = Evidence::gather(&candidates, groups, index);
    for (at, candidate) in candidates {
        let bn = &groups[at];
        let decision = match evidence.judge(&candidate, bn, index) {
            Ok(layer) if !taken.insert(layer.module.clone()) => Decision::Left(format!(
                "layer {:?} already feeds another one",
                layer.module
            )),
            Ok(layer) => Decision::Pair {
                layer,
                epsilon: None,
            },
            Err(reason) => Decision::Left(reason),
        };
        decisions.insert(at, decision);
    }
}

/// What the shapes of all candidates say about the rules.
struct Evidence {
    /// Why a rule is wrong, by its number.
    broken: HashMap<usize, String>,
    /// Rule and path without numbers where a layer cannot come after its BatchNorm.
    certain: HashSet<(usize, String)>,
}

impl Evidence {
    fn gather(
        candidates: &BTreeMap<usize, Candidate>,
        groups: &[BatchNormGroup],
        index: &Index<'_>,
    ) -> Self {
        let mut evidence = Self {
            broken: HashMap::new(),
            certain: HashSet::new(),
        };
        for (at, candidate) in candidates {
            let bn = &groups[*at];
            match index.fit(&candidate.module, bn, Kind::Plain) {
                Ok(_) if !may_read(bn, index.shape(bn.naming, &candidate.module)) => {
                    let key = (candidate.rule, numberless(&bn.module));
                    evidence.certain.insert(key);
                }
                Ok(_) => {}
                // The order is certain, and the kernel has one other reading.
                Err(_) if is_ordered(candidate, bn) && transposed(candidate, bn, index) => {}
                Err(why) => {
                    evidence.broken.entry(candidate.rule).or_insert(why);
                }
            }
        }
        evidence
    }

    fn judge(
        &self,
        candidate: &Candidate,
        bn: &BatchNormGroup,
        index: &Index<'_>,
    ) -> Result<super::Layer, String> {
        let ordered = is_ordered(candidate, bn);
        let layer = match index.fit(&candidate.module, bn, Kind::Plain) {
            Err(_) if ordered && transposed(candidate, bn, index) => {
                return Err(format!(
                    "{:?} fits as a transposed convolution only: write the pair in a file, with \"transposed: true\"",
                    candidate.module
                ));
            }
            fit => fit?,
        };
        if let Some(why) = self.broken.get(&candidate.rule) {
            return Err(doubt(why));
        }
        let shape = index
            .shape(bn.naming, &candidate.module)
            .unwrap_or_default();
        let module = &candidate.module;
        let key = (candidate.rule, numberless(&bn.module));
        if !ordered && !self.certain.contains(&key) {
            return Err(format!(
                "{module:?} fits by name and shape, but may as well come after it: write the pair in a file if it does not"
            ));
        }
        if may_be_transposed(&layer, shape) {
            return Err(format!(
                "{module:?} fits by name and shape, but its kernel {shape:?} may be a transposed one: write the pair in a file"
            ));
        }
        Ok(layer)
    }
}

/// Whether the layer comes before the BatchNorm by its index.
fn is_ordered(candidate: &Candidate, bn: &BatchNormGroup) -> bool {
    candidate.rule == 0 && bn.naming == Naming::Torch
}

/// Whether the layer fits as a ConvTranspose.
fn transposed(candidate: &Candidate, bn: &BatchNormGroup, index: &Index<'_>) -> bool {
    index
        .fit(&candidate.module, bn, Kind::Transposed(1))
        .is_ok()
}

/// Whether a layer with this weight can read the BatchNorm's channels: then names do not tell which comes first.
fn may_read(bn: &BatchNormGroup, shape: Option<&[usize]>) -> bool {
    let inputs = match (bn.naming, shape) {
        (Naming::Torch, Some([_, inputs, ..])) | (_, Some([.., inputs, _])) => *inputs,
        _ => return true,
    };
    // With groups, a multiple of the weight's own axis.
    inputs == 0 || bn.channels.is_multiple_of(inputs)
}

/// A path with its numbers taken out.
fn numberless(module: &str) -> String {
    let mut text = String::with_capacity(module.len());
    for c in module.chars() {
        match c.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(c),
        }
    }
    text
}
