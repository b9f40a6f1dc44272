//! A checkpoint with the graph that says which layer feeds which BatchNorm: the plan on that graph, carried back to the
//! checkpoint, and its proof.

use std::collections::{BTreeMap, HashMap, HashSet};

use bnkit_model::onnx::{Model, NodeId};
use bnkit_model::safetensors::StateDict;

use super::bind::Bound;
use super::carry::{Carrier, Changes};
use super::fold::{PairingSource, StateFoldJob};
use super::groups::BatchNormGroup;
use super::pairing::{self, Pairing, PresetChoice};
use super::{entries, identity, paired, proof};
use crate::fold::{self, Options, Plan};
use crate::report::{Refusal, Verdict, Verification};
use crate::verify::{self, VerifyOptions};
use crate::{Error, Result, yaml};

/// A checkpoint, and the graph that says what may be folded.
pub(super) struct Folding<'d> {
    pub(super) dict: &'d StateDict,
    pub(super) groups: &'d [BatchNormGroup],
    pub(super) bound: Bound,
    /// Names of biases to be, by weight.
    pub(super) biases: HashMap<usize, String>,
    /// The pairing, if there is no graph.
    pub(super) pairing: Option<Pairing>,
}

/// A plan, and what it does to the checkpoint.
pub(super) struct Carried {
    pub(super) plan: Plan,
    pub(super) changes: Changes,
    /// Why BatchNorms are left alone that the graph alone would let go.
    pub(super) refusals: BTreeMap<NodeId, Refusal>,
}

impl<'d> Folding<'d> {
    pub(super) fn prepare(
        job: &StateFoldJob,
        dict: &'d StateDict,
        groups: &'d [BatchNormGroup],
    ) -> Result<Self> {
        let pairing = match &job.source {
            PairingSource::Graph(path) => {
                let graph = Model::open(path)?;
                return Ok(Self {
                    bound: Bound::new(&graph, dict)?,
                    biases: HashMap::new(),
                    pairing: None,
                    dict,
                    groups,
                });
            }
            PairingSource::Pairs(path) => {
                pairing::from_file(&yaml::read(path)?, path, &entries(dict))?
            }
            PairingSource::Preset { name, .. } => {
                let choice = name
                    .as_deref()
                    .map_or(PresetChoice::Auto, PresetChoice::Named);
                pairing::propose(&entries(dict), choice)?
            }
        };
        let pairing = match job.source {
            // What somebody says of this network is worth more than what is usual.
            PairingSource::Preset { .. } => overruled(pairing, job.epsilon),
            _ => with_epsilon(pairing, job.epsilon),
        };
        let paired = paired::graph(&pairing.pairs, dict)?;
        Ok(Self {
            bound: paired.bound,
            biases: paired.biases,
            pairing: Some(pairing),
            dict,
            groups,
        })
    }

    /// Plans until everything that is folded can be said in a state dict.
    pub(super) fn plan(&self, options: &Options, identity: bool) -> Result<Carried> {
        let mut options = options.clone();
        // Operators that are no BatchNorm stay: to take one away would change the model's code.
        options.left_alone = constant_operators(&self.bound.model);
        let mut refusals = BTreeMap::new();
        loop {
            let plan = fold::plan(&self.bound.model, &options)?;
            let carrier = || Carrier::new(&self.bound, self.dict, self.groups, &plan, &self.biases);
            let outcome = match carrier().carry()? {
                Ok(mut changes) if identity => match identity::keep(&carrier(), &mut changes)? {
                    Ok(()) => Ok(changes),
                    Err(conflicts) => Err(conflicts),
                },
                outcome => outcome,
            };
            match outcome {
                Ok(changes) => {
                    return Ok(Carried {
                        plan,
                        changes,
                        refusals,
                    });
                }
                Err(conflicts) => {
                    let before = options.left_alone.len();
                    options.left_alone.extend(conflicts.keys().copied());
                    refusals.extend(conflicts);
                    if options.left_alone.len() == before {
                        return Err(Error::Request(
                            "internal error: a fold that cannot be carried back comes again"
                                .to_owned(),
                        ));
                    }
                }
            }
        }
    }

    pub(super) fn prove(&self, carried: &Carried, options: &VerifyOptions) -> Result<Verification> {
        let plan = &carried.plan;
        let Some(pairing) = &self.pairing else {
            let mut fold_options = Options::default();
            fold_options
                .left_alone
                .extend(carried.refusals.keys().copied());
            fold_options
                .left_alone
                .extend(constant_operators(&self.bound.model));
            let mut verification = verify::prove(&self.bound.model, plan, &fold_options, options)?;
            if let (Some(place), Verdict::Equivalent) = (self.bound.widened, verification.verdict) {
                // What ran had the digits that the checkpoint has no room for.
                let stored = &self.dict.tensors()[place];
                verification.verdict = Verdict::EquivalentLocal;
                verification.notes.push(format!(
                    "the checkpoint holds {} where the graph computes in more bits (\"{}\"): the folded tensors ran before they were rounded to it",
                    stored.dtype, stored.name
                ));
            }
            return Ok(verification);
        };
        let layers = proof::Layers {
            dict: self.dict,
            changes: &carried.changes,
            folded: plan.apply(),
        };
        options.interrupt.go_on()?;
        let proof = layers.prove(&pairing.pairs, options.seed, || {
            verify::by_algebra(&self.bound.model, plan)
        });
        options.interrupt.go_on()?;
        proof
    }
}

/// The pairing with `epsilon` for all pairs, if there is one.
pub(super) fn overruled(mut pairing: Pairing, epsilon: Option<f64>) -> Pairing {
    for pair in &mut pairing.pairs {
        pair.epsilon = epsilon.or(pair.epsilon);
    }
    pairing
}

/// The pairing with `epsilon` where it says none.
fn with_epsilon(mut pairing: Pairing, epsilon: Option<f64>) -> Pairing {
    for pair in &mut pairing.pairs {
        pair.epsilon = pair.epsilon.or(epsilon);
    }
    pairing
}

fn constant_operators(model: &Model) -> HashSet<NodeId> {
    let operators = ["Mul", "Add", "Sub", "Div"];
    model
        .nodes()
        .filter(|(_, node)| operators.iter().any(|operator| node.is(operator)))
        .map(|(id, _)| id)
        .collect()
}
