//! Recalibration of a state dict: the network runs as a graph with the checkpoint's weights, and the new statistics go into
//! the checkpoint.

use std::path::Path;

use bnkit_model::format::Format;
use bnkit_model::onnx::Model;
use bnkit_model::safetensors::{Dtype, StateDict, dtype_of};
use bnkit_model::source::Source;
use bnkit_model::{Error as ModelError, Tensor};

use super::bind::Bound;
use super::carry::{Changes, New, group_of};
use super::groups::{self, BatchNormGroup};
use super::write::{self, Target};
use super::{describe_input, entries};
use crate::calibrate::apply::Statistics;
use crate::calibrate::modules::Module;
use crate::pipeline;
use crate::report::{InputFile, OutputFile};
use crate::{Error, Result, hash};

/// A model to run, and the checkpoint that its weights are from, if that is a state dict.
pub(crate) struct Opened {
    /// The graph, with the weights that it runs with.
    pub(crate) model: Model,
    checkpoint: Option<Checkpoint>,
}

struct Checkpoint {
    dict: StateDict,
    bound: Bound,
    groups: Vec<BatchNormGroup>,
}

/// What the statistics were made of, for `num_batches_tracked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// The convention has no such count.
    No,
    /// So many batches were averaged.
    Set(u64),
    /// So many batches came on top of those before.
    More(u64),
}

impl Opened {
    /// Opens an ONNX model, or a state dict with the graph of its network.
    ///
    /// # Errors
    /// If a file cannot be read, the graph is missing or not wanted, or does not fit the checkpoint.
    pub(crate) fn open(input: &Path, graph: Option<&Path>) -> Result<Self> {
        let source = Source::open(input)?;
        let format = Format::detect(&source).map_err(|error| error.in_file(input))?;
        let request =
            |message: &str| Err(Error::Request(format!("{}: {message}", input.display())));
        match (format, graph) {
            (Format::Onnx, None) => Ok(Self {
                model: Model::open(input)?,
                checkpoint: None,
            }),
            (Format::Onnx, Some(_)) => request(
                "this is an ONNX model and needs no --graph (bnkit convert --weights puts a checkpoint's weights into a graph)",
            ),
            (_, None) => request(
                "a state dict cannot be run: give the ONNX export of its network with --graph",
            ),
            (_, Some(graph)) => {
                let dict = StateDict::open(input)?;
                let bound = Bound::new(&Model::open(graph)?, &dict)?;
                let groups = groups::find(&entries(&dict)).groups;
                Ok(Self {
                    model: bound.model.clone(),
                    checkpoint: Some(Checkpoint {
                        dict,
                        bound,
                        groups,
                    }),
                })
            }
        }
    }

    /// Whether the statistics go into a state dict.
    pub(crate) fn is_state_dict(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// What a report says of the input.
    pub(crate) fn describe(&self, input: &Path) -> InputFile {
        match &self.checkpoint {
            Some(checkpoint) => describe_input(&checkpoint.dict, input),
            None => pipeline::describe_input(&self.model, input),
        }
    }

    /// Writes the state dict with new statistics.
    ///
    /// # Errors
    /// If a BatchNorm of the graph is not known in the checkpoint, a number does not fit its type, or the output cannot be
    /// written.
    pub(crate) fn write(
        &self,
        modules: &[Module],
        new: &[Option<Statistics>],
        counted: Counted,
        destination: &Destination<'_>,
    ) -> Result<OutputFile> {
        let checkpoint = self.checkpoint.as_ref().ok_or_else(|| {
            Error::Request("internal error: there is no state dict to write".to_owned())
        })?;
        let changes = checkpoint.changes(modules, new, counted)?;
        let target = Target {
            path: destination.path,
            force: destination.force,
            metadata: &[],
            progress: destination.progress,
        };
        let saved = write::write(&checkpoint.dict, &changes, &self.model, &target)?;
        Ok(OutputFile {
            path: destination.path.display().to_string(),
            sha256: destination
                .hash
                .then(|| hash::of_file(destination.path))
                .transpose()?,
            bytes: saved.bytes,
            data: None,
        })
    }
}

/// Where a checkpoint goes.
pub(crate) struct Destination<'d> {
    pub(crate) path: &'d Path,
    pub(crate) force: bool,
    pub(crate) hash: bool,
    pub(crate) progress: &'d (dyn Fn(u64, u64) + Sync),
}

impl Checkpoint {
    fn changes(
        &self,
        modules: &[Module],
        new: &[Option<Statistics>],
        counted: Counted,
    ) -> Result<Changes> {
        let mut changes = Changes::default();
        for (module, new) in modules.iter().zip(new) {
            let (Some(_), Some((mean, variance))) = (module.target(), new) else {
                continue;
            };
            let group = group_of(&self.bound, &self.dict, &self.groups, module.nodes[0]);
            let group = group.map(|group| &self.groups[group]).ok_or_else(|| {
                let path = self.dict.path().map_or(String::new(), |path| path.display().to_string());
                Error::Request(format!(
                    "{path}: which of its BatchNorms node \"{}\" of the graph is cannot be told: not all of its parameters are there, or several have the same content",
                    module.name.node
                ))
            })?;
            for (name, values) in [(&group.mean, mean), (&group.variance, variance)] {
                let (place, tensor) = self.tensor(name, values)?;
                changes.replaced.insert(place, New::Values(tensor));
            }
            if let Some((place, count)) = self.count(group, counted, module.nodes.len())? {
                changes.replaced.insert(place, New::Values(count));
            }
        }
        Ok(changes)
    }

    fn tensor(&self, name: &str, values: &[f64]) -> Result<(usize, Tensor)> {
        let place = self
            .dict
            .position(name)
            .expect("a group's tensors are there");
        let tensor = &self.dict.tensors()[place];
        let refuse = |message: String| {
            Error::from(self.dict.in_tensor(tensor, ModelError::invalid(message)))
        };
        let dtype = dtype_of(tensor.dtype).filter(|dtype| dtype.is_float());
        let dtype = dtype.ok_or_else(|| refuse(format!("{} holds no statistics", tensor.dtype)))?;
        let bad = values
            .iter()
            .position(|&value| !dtype.round(value).is_finite());
        if let Some(channel) = bad {
            return Err(refuse(format!(
                "the new value of channel {channel} is {}, which {dtype} cannot hold",
                values[channel]
            )));
        }
        Ok((
            place,
            Tensor::from_f64(dtype, tensor.shape.clone(), values)?,
        ))
    }

    /// The new `num_batches_tracked`: PyTorch counts each call of a module.
    fn count(
        &self,
        group: &BatchNormGroup,
        counted: Counted,
        calls: usize,
    ) -> Result<Option<(usize, Tensor)>> {
        let place = group
            .batches
            .as_ref()
            .and_then(|name| self.dict.position(name));
        let Some(place) = place else { return Ok(None) };
        let tensor = &self.dict.tensors()[place];
        if tensor.dtype != Dtype::I64 || tensor.len() != 1 {
            return Ok(None);
        }
        let before = self.dict.read(tensor)?.to_i64()?[0];
        let calls = |batches: u64| i64::try_from(batches * calls as u64).unwrap_or(i64::MAX);
        let count = match counted {
            Counted::No => return Ok(None),
            Counted::Set(batches) => calls(batches),
            Counted::More(batches) => before.saturating_add(calls(batches)),
        };
        let new = Tensor::new(
            bnkit_model::DType::I64,
            tensor.shape.clone(),
            count.to_le_bytes().to_vec(),
        )?;
        Ok(Some((place, new)))
    }
}
