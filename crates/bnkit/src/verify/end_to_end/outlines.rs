//! What the models of a proof say of themselves, before anything is run: values, inputs, and constants that differ.

use std::collections::{HashMap, HashSet};

use bnkit_engine::{EngineError, Outline, Perturbation};
use bnkit_model::{DType, Tensor};

use super::{Error, Options, Subject, not_the_original};

/// The structures of the models, each read once.
pub(super) struct Outlines {
    pub(super) original: Outline,
    pub(super) shipped: Outline,
    pub(super) exact: Option<Outline>,
}

impl Outlines {
    pub(super) fn read(subject: &Subject) -> Result<Self, Error> {
        let other = |model| Outline::read(model).map_err(not_the_original);
        Ok(Self {
            original: Outline::read(subject.original).map_err(Error::Unsupported)?,
            shipped: other(subject.shipped)?,
            exact: subject.exact.map(other).transpose()?,
        })
    }

    /// Values that every model involved computes under the same name.
    pub(super) fn common_values(&self) -> HashSet<&str> {
        let mut common = self.original.value_names();
        for other in [Some(&self.shipped), self.exact.as_ref()]
            .into_iter()
            .flatten()
        {
            let names = other.value_names();
            common.retain(|name| names.contains(name));
        }
        common
    }

    pub(super) fn same_inputs(&self) -> Result<(), Error> {
        let describe = |outline: &Outline| -> Result<Vec<String>, EngineError> {
            let mut inputs: Vec<String> = outline
                .inputs()?
                .into_iter()
                .map(|input| format!("{:?} ({})", input.name, input.dtype))
                .collect();
            inputs.sort();
            Ok(inputs)
        };
        let original = describe(&self.original).map_err(Error::Unsupported)?;
        let shipped = describe(&self.shipped).map_err(not_the_original)?;
        if original == shipped {
            return Ok(());
        }
        Err(Error::Incomparable(format!(
            "the models have different inputs: {} and {}",
            original.join(", "),
            shipped.join(", ")
        )))
    }
}

/// What storing the changed constants did to them, or may have done; `None` if no constant changed.
pub(super) fn rounding(
    subject: &Subject,
    outlines: &Outlines,
    options: &Options,
) -> Result<Option<Perturbation>, Error> {
    if let Some(exact) = &outlines.exact {
        let types = |outline: &'_ Outline| -> HashMap<String, DType> {
            let types = outline.constant_types();
            types
                .map(|(name, dtype)| (name.to_owned(), dtype))
                .collect()
        };
        let (original, shipped) = (types(&outlines.original), types(&outlines.shipped));
        let stored: HashMap<String, DType> = types(exact)
            .into_iter()
            .filter(|(name, dtype)| *dtype == DType::F64 && original.get(name) != Some(&DType::F64))
            .map(|(name, _)| {
                let dtype = shipped.get(&name).copied().unwrap_or(DType::F32);
                (name, dtype)
            })
            .collect();
        let doubles = shipped.values().any(|dtype| *dtype == DType::F64);
        if !stored.is_empty() || !doubles {
            return Ok((!stored.is_empty()).then_some(Perturbation::Round(stored)));
        }
        // A model of doubles is its own exact model: what its arithmetic costs, only moved constants show.
    }
    let read = |model, dir| {
        let floats = |_: &str, dtype: DType| dtype.is_float();
        bnkit_engine::constants(model, dir, &floats)
    };
    let before: HashMap<String, Tensor> = read(subject.original, subject.model_dir)
        .map_err(Error::Unsupported)?
        .into_iter()
        .collect();
    let tensors: HashSet<String> = read(subject.shipped, subject.shipped_dir)
        .map_err(not_the_original)?
        .into_iter()
        .filter(|(name, tensor)| before.get(name) != Some(tensor))
        .map(|(name, _)| name)
        .collect();
    let seed = options.seed;
    Ok((!tensors.is_empty()).then_some(Perturbation::Jitter { tensors, seed }))
}
