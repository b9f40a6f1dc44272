//! Errors of this crate.

use std::path::Path;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the tool could not work (exit code 2 of the command); a "no" to a question is a value, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint could not be read, edited or written.
    #[error(transparent)]
    Model(#[from] bnkit_model::Error),
    /// Something was asked for that does not fit together.
    #[error("{0}")]
    Request(String),
    /// A stage of a release could not work.
    #[error("stage {stage}: {source}")]
    Stage {
        /// The stage, as in "fold".
        stage: &'static str,
        /// Why.
        source: Box<Error>,
    },
    /// The user ended the job; nothing was written.
    #[error("interrupted: nothing was written")]
    Interrupted,
}

impl Error {
    /// The same error as one about `path`, if it names no file yet.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Model(error) => Self::Model(error.in_file(path)),
            other => other,
        }
    }
}
