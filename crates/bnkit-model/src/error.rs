//! Errors of this crate: what is wrong, and where. Messages are lower case and name the file, node and tensor.
//!
//! Names are shown as they are, control characters included: who prints a message escapes it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be read, edited or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as in "cannot open".
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the node and tensor where there is one.
        message: String,
    },
    /// Something is wrong with a model or tensor that has no file of its own (yet).
    #[error("{0}")]
    Invalid(String),
    /// A computed element is NaN or infinite, or too large for its type, and
    /// [must not be](crate::onnx::Recipe::must_be_finite).
    #[error("an element that was computed is not finite")]
    NotFinite,
}

impl Error {
    /// An error about content, without a file.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// An error of the operating system.
    pub fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            action,
            source,
        }
    }

    /// The same error as one about `path`, if it names no file yet.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Invalid(message) => Self::File {
                path: path.to_owned(),
                message,
            },
            other => other,
        }
    }

    /// The same error with `place` ("node …", "tensor …") in front of its message.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Invalid(message) => Self::Invalid(format!("{place}: {message}")),
            Self::File { path, message } => Self::File {
                path,
                message: format!("{place}: {message}"),
            },
            other => other,
        }
    }
}

/// The longest text of a file that a message repeats in full, in characters.
const MAX_SHOWN: usize = 200;

/// `text` as a message shows it: a file may hold names as long as itself, and only the two ends of those are shown.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    const END: usize = 40;
    let count = text.chars().count();
    if count <= MAX_SHOWN {
        return text.into();
    }
    let start: String = text.chars().take(MAX_SHOWN - END).collect();
    let end: String = text.chars().skip(count - END).collect();
    format!("{start}…{end}").into()
}

/// The place "tensor NAME" for a message.
pub(crate) fn tensor(name: &str) -> String {
    format!("tensor \"{}\"", shown(name))
}
