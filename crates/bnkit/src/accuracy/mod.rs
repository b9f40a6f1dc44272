//! How often a classifier is right: top-1 and top-5 on labelled data.
//!
//! Numerical equivalence says that nothing changed; accuracy says whether what was changed on purpose (new running statistics) is any
//! better. The labels belong to the samples of the data, and are cut and shuffled with them.

mod labels;

use std::path::Path;

use bnkit_engine::Statistics as Normalise;
use bnkit_model::onnx::Model;
use bnkit_model::{Error as ModelError, Tensor};
use serde::Serialize;

use crate::calibrate::batches::Batches;
use crate::calibrate::modules::survey;
use crate::calibrate::network::Network;
use crate::calibrate::{DataOptions, Interrupt, Selection, Shard, open_batches};
use crate::pipeline::{Phase, Progress};
use crate::{Error, Result};

pub use labels::Labels;

/// How often a network is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accuracy {
    /// The output that was read: one score for each class.
    pub output: String,
    /// How many samples were judged.
    pub samples: u64,
    /// For how many the label has the highest score. Of equal scores the first class counts, as in NumPy's argmax; a sample with a
    /// NaN among its scores is wrong.
    pub top1: u64,
    /// For how many the label is among the five highest scores; `None` with fewer than six classes.
    pub top5: Option<u64>,
    /// How many classes there are.
    pub classes: usize,
}

impl Accuracy {
    /// The share of samples whose label has the highest score, from 0 to 1.
    pub fn top1_share(&self) -> f64 {
        self.top1 as f64 / self.samples as f64
    }

    /// The share of samples whose label is among the five highest scores, from 0 to 1.
    pub fn top5_share(&self) -> Option<f64> {
        self.top5.map(|top5| top5 as f64 / self.samples as f64)
    }
}

/// Accuracies of one network at several stages, and what was required of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccuracyReport {
    /// The stages, in order: "stored", "recalibrated", "folded".
    pub stages: Vec<AccuracyStage>,
    /// The largest drop of top-1 from the first stage to any later one that is accepted, as a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
}

/// The accuracy at one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccuracyStage {
    /// "stored", "recalibrated", "folded", or a mode of running: "train", "eval".
    pub stage: &'static str,
    /// What was measured.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

impl AccuracyReport {
    /// A report that starts with the network as it was read.
    pub(crate) fn new(first: Accuracy, max_drop: Option<f64>) -> Self {
        let mut report = Self {
            stages: Vec::new(),
            max_drop,
        };
        report.add("stored", first);
        report
    }

    pub(crate) fn add(&mut self, stage: &'static str, accuracy: Accuracy) {
        self.stages.push(AccuracyStage { stage, accuracy });
    }

    /// The largest drop of top-1 from the first stage to a later one, as a share; negative if all are better.
    pub fn drop(&self) -> Option<f64> {
        let (first, rest) = self.stages.split_first()?;
        let drops = rest
            .iter()
            .map(|later| first.accuracy.top1_share() - later.accuracy.top1_share());
        drops.reduce(f64::max)
    }

    /// Why the answer is "no", in one sentence.
    pub fn failure(&self) -> Option<String> {
        let (limit, drop) = (self.max_drop?, self.drop()?);
        // Shares of whole samples: what is equal in decimals must not fail by its last bit.
        (drop > limit + 1e-12).then(|| {
            format!(
                "accuracy (top-1) drops by {:.2} %, and at most {:.2} % is accepted",
                drop * 100.0,
                limit * 100.0
            )
        })
    }
}

/// Runs a model in eval mode on labelled data; `None` if the data has no labels. `path` is what errors call the model.
///
/// # Errors
/// If something cannot be read or run, the labels do not fit the samples, or no output has a score for each class;
/// [`Error::Interrupted`] if it was interrupted.
pub fn measure(
    model: &Model,
    path: &Path,
    data: &DataOptions,
    interrupt: &Interrupt,
    progress: &dyn Progress,
) -> Result<Option<Accuracy>> {
    if data.labels.is_none() {
        return Ok(None);
    }
    let modules = survey(model, &Selection::default()).map_err(|error| error.in_file(path))?;
    // Every sample counts, whatever the recalibration does with a rest.
    let data = DataOptions {
        drop_last: false,
        ..data.clone()
    };
    let batches = open_batches(model, path, &data, Shard::WHOLE)?;
    let in_model = |error| crate::calibrate::in_model(error, path);
    let network =
        Network::load(model, &modules, &batches.sample_dims(), None, 0).map_err(in_model)?;
    let given = network.given(&modules, &vec![None; modules.len()])?;
    let mut counter = Counter::default();
    let mut samples = 0;
    progress.begin(Phase::Running, Some(batches.samples() as u64));
    for (number, batch) in batches.range.clone().zip(batches.iter()) {
        if interrupt.requested() {
            return Err(Error::Interrupted);
        }
        let run = network
            .run(number, &batch?, &Normalise::Given(&given), true)
            .map_err(in_model)?;
        counter
            .add(&batches, number, &run.outputs)
            .map_err(in_model)?;
        samples += run.outputs.len() as u64;
        progress.advance(samples);
    }
    Ok(counter.found())
}

/// Counts what is right, batch by batch.
#[derive(Debug, Default)]
pub(crate) struct Counter(Option<Accuracy>);

impl Counter {
    /// Adds the outputs of the samples of a batch.
    ///
    /// # Errors
    /// If no output has a score for each class, or a label is no class.
    pub(crate) fn add(
        &mut self,
        batches: &Batches,
        number: usize,
        outputs: &[Vec<(String, Tensor)>],
    ) -> Result<()> {
        let Some(labels) = batches.labels(number) else {
            return Ok(());
        };
        for (label, outputs) in labels.zip(outputs) {
            if self.0.is_none() {
                self.0 = Some(scores(outputs)?);
            }
            if let Some(counted) = &mut self.0 {
                counted.judge(label?, outputs)?;
            }
        }
        Ok(())
    }

    pub(crate) fn found(&self) -> Option<Accuracy> {
        self.0.clone()
    }
}

/// The output with a score for each class.
fn scores(outputs: &[(String, Tensor)]) -> Result<Accuracy> {
    let classes = |tensor: &Tensor| match tensor.dims() {
        [1, classes, rest @ ..] if *classes > 1 && rest.iter().all(|&size| size == 1) => {
            tensor.dtype().is_float().then_some(*classes)
        }
        _ => None,
    };
    let mut found = outputs
        .iter()
        .filter_map(|(name, tensor)| Some((name, classes(tensor)?)));
    let message = match (found.next(), found.next()) {
        (Some((output, classes)), None) => {
            return Ok(Accuracy {
                output: output.clone(),
                samples: 0,
                top1: 0,
                top5: (classes > 5).then_some(0),
                classes,
            });
        }
        (Some((first, _)), Some((second, _))) => format!(
            "labels: the outputs \"{first}\" and \"{second}\" both have a score for each class, and which counts is not known"
        ),
        _ => "labels: no output has a score for each class (a shape of [samples, classes])"
            .to_owned(),
    };
    Err(Error::Request(message))
}

impl Accuracy {
    fn judge(&mut self, label: usize, outputs: &[(String, Tensor)]) -> Result<()> {
        let output = outputs.iter().find(|(name, _)| *name == self.output);
        let scores = match output {
            Some((_, tensor)) => tensor.to_f64()?,
            None => Vec::new(),
        };
        let Some(&own) = scores.get(label) else {
            let message = format!(
                "labels: {label} is no class: output \"{}\" has scores for 0 to {}",
                self.output,
                self.classes - 1
            );
            return Err(ModelError::invalid(message).into());
        };
        self.samples += 1;
        if scores.iter().any(|score| score.is_nan()) {
            return Ok(());
        }
        let better =
            |(class, &score): (usize, &f64)| score > own || (score == own && class < label);
        let rank = scores.iter().enumerate().filter(|&it| better(it)).count();
        self.top1 += u64::from(rank == 0);
        if let Some(top5) = &mut self.top5 {
            *top5 += u64::from(rank < 5);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(scores: &[f32]) -> Vec<(String, Tensor)> {
        let tensor = Tensor::from_f32(vec![1, scores.len()], scores).unwrap();
        let other = Tensor::from_f32(vec![1, 1], &[0.0]).unwrap();
        vec![("aux".to_owned(), other), ("logits".to_owned(), tensor)]
    }

    #[test]
    fn ranks_as_numpy_sorts() {
        let mut accuracy = scores(&outputs(&[0.0; 6])).unwrap();
        assert_eq!((accuracy.output.as_str(), accuracy.classes), ("logits", 6));
        // Equal scores: the first class is the argmax, the last one of six is not among five.
        for label in 0..6 {
            accuracy.judge(label, &outputs(&[0.0; 6])).unwrap();
        }
        assert_eq!((accuracy.top1, accuracy.top5), (1, Some(5)));
        let nan = outputs(&[0.0, 1.0, f32::NAN, 0.0, 0.0, 0.0]);
        accuracy.judge(1, &nan).unwrap();
        assert_eq!((accuracy.samples, accuracy.top1), (7, 1));
        assert!(accuracy.judge(6, &outputs(&[0.0; 6])).is_err());
    }

    #[test]
    fn which_output_must_be_clear() {
        let few = scores(&outputs(&[0.0, 1.0])).unwrap();
        assert_eq!((few.top5, few.classes), (None, 2));
        let two = [outputs(&[0.0, 1.0]), outputs(&[0.0, 1.0, 2.0])].concat();
        assert!(
            scores(&two)
                .unwrap_err()
                .to_string()
                .contains("which counts")
        );
        assert!(
            scores(&two[..1])
                .unwrap_err()
                .to_string()
                .contains("no output")
        );
    }

    #[test]
    fn a_drop_is_held_against_its_limit() {
        let of = |top1| Accuracy {
            output: "y".to_owned(),
            samples: 1000,
            top1,
            top5: None,
            classes: 2,
        };
        let mut report = AccuracyReport::new(of(900), Some(0.01));
        assert_eq!((report.drop(), report.failure()), (None, None));
        report.add("recalibrated", of(890));
        assert_eq!(report.failure(), None);
        report.add("folded", of(889));
        let failure = report.failure().unwrap();
        assert!(
            failure.contains("1.10 %") && failure.contains("1.00 %"),
            "{failure}"
        );
    }
}
