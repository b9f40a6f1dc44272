//! A model with new statistics into a file, folded or not.

use std::path::Path;

use bnkit_model::onnx::{Edit, Model, SaveOptions};
use bnkit_model::temporary::Folder;

use super::FoldAfter;
use crate::calibrate::files;
use crate::calibrate::options::Interrupt;
use crate::pipeline::{self, FoldJob, Phase, Progress};
use crate::report::{FoldReport, OutputFile};
use crate::{Error, Result, hash};

/// Where a model goes.
pub(super) struct Delivery<'a> {
    /// The model that was read.
    pub input: &'a Path,
    /// The model to write; `None` writes nothing.
    pub output: Option<&'a Path>,
    /// Whether existing files may be replaced.
    pub force: bool,
    /// Whether hashes are wanted.
    pub hash: bool,
    /// Fold it first.
    pub fold: Option<&'a FoldAfter>,
    /// How the statistics were made, for the file's `metadata_props`.
    pub note: String,
    /// Ends the fold.
    pub interrupt: Interrupt,
}

/// What became of it.
#[derive(Default)]
pub(super) struct Delivered {
    pub output: Option<OutputFile>,
    pub fold: Option<Box<FoldReport>>,
    pub failure: Option<String>,
}

impl Delivery<'_> {
    /// Refuses outputs that are in the way, before any work is done.
    ///
    /// # Errors
    /// If there is one.
    pub(super) fn check(&self) -> Result<()> {
        match (self.output, self.fold) {
            (Some(output), _) => files::check_free(output, self.force),
            (None, Some(_)) => Err(Error::Request(
                "a fold needs an output to write to".to_owned(),
            )),
            (None, None) => Ok(()),
        }
    }

    /// Writes the model.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(&self, model: &mut Model, progress: &dyn Progress) -> Result<Delivered> {
        let Some(output) = self.output else {
            return Ok(Delivered::default());
        };
        for (key, value) in [
            ("bnkit.version", env!("CARGO_PKG_VERSION")),
            ("bnkit.recalibrated", &self.note),
        ] {
            model.apply(&[Edit::SetMetadata {
                key: key.to_owned(),
                value: value.to_owned(),
            }])?;
        }
        match self.fold {
            None => {
                let output = self.save(model, output, progress)?;
                Ok(Delivered {
                    output: Some(output),
                    ..Delivered::default()
                })
            }
            Some(fold) => self.fold(model, output, fold, progress),
        }
    }

    fn save(&self, model: &Model, output: &Path, progress: &dyn Progress) -> Result<OutputFile> {
        progress.begin(Phase::Writing, Some(model.source().len()));
        let told = |done: u64, _: u64| progress.advance(done);
        let saved = model.save(
            output,
            SaveOptions {
                force: self.force,
                progress: Some(&told),
            },
        )?;
        Ok(OutputFile {
            path: output.display().to_string(),
            sha256: self.hash.then(|| hash::of_file(output)).transpose()?,
            bytes: saved.bytes,
            data: saved.data_file.map(|path| path.display().to_string()),
        })
    }

    /// The proof compares with a file, so there is one in between, beside the output.
    fn fold(
        &self,
        model: &Model,
        output: &Path,
        fold: &FoldAfter,
        progress: &dyn Progress,
    ) -> Result<Delivered> {
        let between = Folder::beside(output)?;
        let path = between.path().join("recalibrated.onnx");
        self.save(model, &path, progress)?;
        let job = FoldJob {
            force: self.force,
            hash: self.hash,
            fold: fold.fold.clone(),
            verify: fold.verify.clone(),
            require_end_to_end: fold.require_end_to_end,
            require_all_folded: fold.require_all_folded,
            interrupt: self.interrupt.clone(),
            ..FoldJob::new(&path, output)
        };
        let mut report = pipeline::fold(&job, progress)?;
        report.input.path = self.input.display().to_string();
        Ok(Delivered {
            output: report.output.clone(),
            failure: report.failure.clone(),
            fold: Some(Box::new(report)),
        })
    }
}
