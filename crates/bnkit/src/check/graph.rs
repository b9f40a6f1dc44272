//! What rules look at in a model: its structure, whether its external data can be read, and what folding makes of it.

use bnkit_model::onnx::{Model, Types};

use super::range::{self, Change};
use super::subject::Norm;
use crate::Result;
use crate::fold::{self, Context, Options, Plan};
use crate::inspect::{batch_norms, origin_name};
use crate::refusal::Stop;
use crate::site::{Parameters, ROLES};

/// A model.
pub(super) struct Graph {
    pub(super) model: Model,
    pub(super) types: Types,
    /// External tensors that cannot be read, and why. If there are any, nothing else that needs values is looked at.
    pub(super) unreadable: Vec<(String, String)>,
    /// What folding makes of it; `None` if tensors cannot be read.
    pub(super) folded: Option<Folded>,
}

/// What folding makes of a model.
pub(super) struct Folded {
    pub(super) plan: Plan,
    /// The weights and constants that change, in the order of the folds.
    pub(super) changes: Vec<Change>,
}

impl Graph {
    /// # Errors
    /// If the model is broken.
    pub(super) fn new(model: Model, options: &Options) -> Result<Self> {
        let unreadable: Vec<(String, String)> = model
            .external_faults()
            .into_iter()
            .map(|(tensor, error)| (tensor, error.to_string()))
            .collect();
        let types = Types::derive(&model);
        let folded = if unreadable.is_empty() {
            let plan = fold::plan(&model, options)?;
            let changes = range::changes(&model, &plan)?;
            Some(Folded { plan, changes })
        } else {
            None
        };
        Ok(Self {
            model,
            types,
            unreadable,
            folded,
        })
    }

    /// What rules may ask about the graph. A default that a caller may override is looked at as well.
    pub(super) fn context(&self) -> Context<'_> {
        Context::new(&self.model, &self.types, true)
    }

    /// The BatchNorms, in the order of the plan's sites.
    ///
    /// # Errors
    /// If the parameters of one do not fit together.
    pub(super) fn norms(&self) -> Result<Vec<Norm>> {
        let context = self.context();
        let mut norms = Vec::new();
        for node in batch_norms(&self.model)? {
            let name = |slot| self.model.node(node).input(slot);
            let tensors = ROLES.map(|(slot, _)| {
                name(slot).map_or_else(String::new, |value| origin_name(&self.model, value))
            });
            let parameters = match self.unreadable.is_empty() {
                true => match Parameters::read(&context, node) {
                    Ok(parameters) => Some(parameters),
                    Err(Stop::Refused(_)) => None,
                    Err(Stop::Broken(error)) => return Err(error.into()),
                },
                false => None,
            };
            norms.push(Norm {
                name: self.model.label(node).to_string(),
                node: Some(node),
                tensors,
                parameters,
                batches: None,
            });
        }
        Ok(norms)
    }
}
