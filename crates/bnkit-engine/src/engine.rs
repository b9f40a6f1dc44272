//! What runs models: tract, and for models that tract cannot run, ONNX Runtime, if this build knows it and its library is found.
//!
//! The second engine is the weaker witness: it has no operators of ours, so nothing of it is checked here but what it is given (see
//! `normalise`), and most of its operators know no doubles. It is there so that a model which tract refuses is run at all.

use bnkit_model::Tensor;

use crate::{EngineError, LoadOptions, Result, Session};

/// Values by name: the inputs of a sample, or the outputs of a run.
pub type Values = Vec<(String, Tensor)>;

/// Something that runs models.
pub trait Engine: Sync {
    /// Its name, with its version where that is not ours.
    fn name(&self) -> &str;

    /// Loads a serialized ONNX model and runs it, in eval mode, on each of the samples, for as long as `go_on` says so: it is asked
    /// before the model is loaded, and as often as the engine can afterwards. All samples must have the same shapes.
    ///
    /// # Errors
    /// As [`Session::load`] and [`Session::run_while`].
    fn run(
        &self,
        model: &[u8],
        options: &LoadOptions,
        samples: &[Values],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Values>>;
}

/// The engine of every build.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tract;

impl Engine for Tract {
    fn name(&self) -> &str {
        "tract"
    }

    fn run(
        &self,
        model: &[u8],
        options: &LoadOptions,
        samples: &[Values],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Values>> {
        begin(go_on)?;
        let session = Session::load(model, options)?;
        samples
            .iter()
            .map(|sample| session.run_while(sample, go_on))
            .collect()
    }
}

/// Whether there is still a reason to begin.
pub(crate) fn begin(go_on: &dyn Fn() -> bool) -> Result<()> {
    match go_on() {
        true => Ok(()),
        false => Err(EngineError::run("it was not begun")),
    }
}

/// What there is for models that tract cannot run.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Second {
    /// Nothing: this build has no second engine.
    NotBuilt,
    /// This build has one, but its library was not named; the text says how to name it.
    NotFound(&'static str),
    /// This engine. It runs in single precision only.
    Found(&'static dyn Engine),
}

/// The second engine. Its library is loaded at the first call.
///
/// # Errors
/// If a library was named, and it is none, or one that is too old.
pub fn second() -> Result<Second> {
    #[cfg(feature = "ort")]
    return crate::ort::find();
    #[cfg(not(feature = "ort"))]
    Ok(Second::NotBuilt)
}
