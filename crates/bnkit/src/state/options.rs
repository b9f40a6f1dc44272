//! `fold` of whatever a file is: what a caller says of a state dict, who does not know yet whether it is one.
//!
//! The command and the Python package share it, and the names in the messages are those of the command's options.

use std::path::{Path, PathBuf};

use bnkit_model::format::Format;

use super::fold::{PairingSource, StateFoldJob, fold};
use crate::pipeline::{self, FoldJob, Progress};
use crate::report::FoldReport;
use crate::{Error, Result, checkpoint};

/// What is said of a state dict: which layer feeds which BatchNorm, and what becomes of the BatchNorms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairingOptions {
    /// The ONNX export of the same network.
    pub graph: Option<PathBuf>,
    /// A pairing file.
    pub pairs: Option<PathBuf>,
    /// A naming scheme; "auto" takes the one that is recognised.
    pub preset: Option<String>,
    /// Whether somebody looked at the pairs of the preset.
    pub confirmed: bool,
    /// ε, where nobody else says it.
    pub epsilon: Option<f64>,
    /// Keep the BatchNorms as identities.
    pub identity: bool,
}

impl PairingOptions {
    /// What they come to for the state dict at `model`.
    ///
    /// # Errors
    /// If nothing says which layer feeds which BatchNorm, or several things do.
    pub fn source(&self, model: &Path) -> Result<PairingSource> {
        Ok(match (&self.graph, &self.pairs, self.preset.as_deref()) {
            (Some(graph), None, None) => PairingSource::Graph(graph.clone()),
            (None, Some(pairs), None) => PairingSource::Pairs(pairs.clone()),
            (None, None, Some(name)) => PairingSource::Preset {
                name: (name != "auto").then(|| name.to_owned()),
                confirmed: self.confirmed,
            },
            (None, None, None) => {
                return Err(Error::Request(format!(
                    "{}: a state dict does not say which layer feeds which BatchNorm; say it with --graph MODEL.onnx, --pairs FILE, or --preset auto",
                    model.display()
                )));
            }
            _ => {
                return Err(Error::Request(
                    "--graph, --pairs and --preset say the same thing in three ways: give one"
                        .to_owned(),
                ));
            }
        })
    }

    /// The first of them that was given, for saying that a graph has no use for it.
    fn given(&self) -> Option<&'static str> {
        let all = [
            ("--graph", self.graph.is_some()),
            ("--pairs", self.pairs.is_some()),
            ("--preset", self.preset.is_some()),
            ("--eps", self.epsilon.is_some()),
            ("--yes", self.confirmed),
            ("--identity-bn", self.identity),
        ];
        all.iter().find(|(_, given)| *given).map(|(name, _)| *name)
    }
}

/// Folds a checkpoint of any format: [`pipeline::fold`] for a graph, [`state::fold`](super::fold()) for a state dict.
///
/// # Errors
/// As these two, and if something was asked for that is for the other format.
pub fn fold_checkpoint(
    job: &FoldJob,
    pairing: &PairingOptions,
    progress: &dyn Progress,
) -> Result<FoldReport> {
    match checkpoint::format(&job.input)? {
        Format::Onnx => match pairing.given() {
            None => pipeline::fold(job, progress),
            Some(option) => Err(Error::Request(format!(
                "{option}: {} is an ONNX model, this is for state dicts",
                job.input.display()
            ))),
        },
        _ => fold(&of_state_dict(job, pairing)?, progress),
    }
}

fn of_state_dict(job: &FoldJob, pairing: &PairingOptions) -> Result<StateFoldJob> {
    if job.keep_stats.is_some() {
        return Err(Error::Request(
            "--keep-stats: a state dict is not unfolded; keep the original file".to_owned(),
        ));
    }
    Ok(StateFoldJob {
        input: job.input.clone(),
        output: job.output.clone(),
        force: job.force,
        hash: job.hash,
        provenance: job.provenance,
        source: pairing.source(&job.input)?,
        epsilon: pairing.epsilon,
        identity: pairing.identity,
        fold: job.fold.clone(),
        verify: job.verify.clone(),
        require_end_to_end: job.require_end_to_end,
        require_all_folded: job.require_all_folded,
        min_folded: job.min_folded,
        interrupt: job.interrupt.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Quiet;

    fn refused(input: &str, pairing: PairingOptions, keep_stats: Option<PathBuf>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let job = FoldJob {
            keep_stats,
            ..FoldJob::new(input, folder.path().join("out"))
        };
        let error = fold_checkpoint(&job, &pairing, &Quiet).unwrap_err();
        error.to_string()
    }

    #[test]
    fn what_is_for_the_other_format_is_refused() {
        let graph = "../../testdata/state/resnet/model.onnx";
        let dict = "../../testdata/state/resnet/model.safetensors";
        let of_graph = || PairingOptions {
            graph: Some(graph.into()),
            ..PairingOptions::default()
        };
        let identity = PairingOptions {
            identity: true,
            ..PairingOptions::default()
        };
        let said = refused(graph, identity, None);
        assert!(
            said.starts_with("--identity-bn") && said.contains("ONNX"),
            "{said}"
        );
        let said = refused(dict, of_graph(), Some("kept.safetensors".into()));
        assert!(said.starts_with("--keep-stats"), "{said}");
        let said = refused(dict, PairingOptions::default(), None);
        assert!(said.contains("--graph MODEL.onnx"), "{said}");
        let twice = PairingOptions {
            pairs: Some("pairs.yaml".into()),
            ..of_graph()
        };
        assert!(refused(dict, twice, None).contains("give one"));
    }

    #[test]
    fn an_interrupted_fold_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let of_graph = PairingOptions {
            graph: Some("../../testdata/state/resnet/model.onnx".into()),
            ..PairingOptions::default()
        };
        let of_names = PairingOptions {
            preset: Some("auto".to_owned()),
            confirmed: true,
            ..PairingOptions::default()
        };
        let dict = "../../testdata/state/resnet/model.safetensors";
        let model = "../../testdata/models/tiny_resnet.onnx";
        for (input, pairing) in [
            (dict, of_graph),
            (dict, of_names),
            (model, PairingOptions::default()),
        ] {
            let output = folder.path().join("out");
            let job = FoldJob::new(input, &output);
            job.interrupt.request();
            let ended = fold_checkpoint(&job, &pairing, &Quiet);
            assert!(matches!(ended, Err(Error::Interrupted)), "{ended:?}");
            assert!(!output.exists());
            let job = FoldJob::new(input, &output);
            assert_eq!(
                fold_checkpoint(&job, &pairing, &Quiet).unwrap().failure,
                None
            );
            std::fs::remove_file(output).unwrap();
        }
    }
}
