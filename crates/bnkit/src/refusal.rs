//! Reasons for leaving something alone: values with a stable code, not errors.

use std::collections::BTreeMap;

use bnkit_model::Error as ModelError;
use bnkit_model::onnx::Name;

use crate::report::{Evidence, Refusal};

impl Refusal {
    /// A refusal with a code (one of [`CODES`](crate::explain)) and a sentence.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            evidence: BTreeMap::new(),
        }
    }

    /// The same with a piece of evidence.
    #[must_use]
    pub fn with(mut self, key: &'static str, evidence: impl Into<Evidence>) -> Self {
        self.evidence.insert(key, evidence.into());
        self
    }
}

impl From<String> for Evidence {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Evidence {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&Name> for Evidence {
    fn from(name: &Name) -> Self {
        Self::Text(name.to_string())
    }
}

impl From<f64> for Evidence {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Evidence {
    fn from(number: usize) -> Self {
        Self::Number(number as f64)
    }
}

impl From<Vec<String>> for Evidence {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

/// Why a rule stops: it refuses (the site is kept, the job goes on), or the model is broken (the job ends).
#[derive(Debug)]
pub(crate) enum Stop {
    /// The rule cannot prove that a fold is right.
    Refused(Box<Refusal>),
    /// The model cannot be right, or cannot be read.
    Broken(ModelError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<ModelError> for Stop {
    fn from(error: ModelError) -> Self {
        Self::Broken(error)
    }
}

/// The result of asking a rule.
pub(crate) type Answer<T> = Result<T, Stop>;

/// A refusal as the error of an [`Answer`].
pub(crate) fn refuse<T>(code: &'static str, message: impl Into<String>) -> Answer<T> {
    Err(Refusal::new(code, message).into())
}
