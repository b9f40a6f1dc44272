//! The library's errors as the exceptions of `bnkit._errors`, with the messages of the command.

use bnkit::Error;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

static INPUT_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// What could not be done (exit code 2 of the command).
pub(crate) fn input_error(py: Python<'_>, message: String) -> PyErr {
    match INPUT_ERROR.import(py, "bnkit._errors", "InputError") {
        Ok(class) => PyErr::from_type(class.clone(), message),
        Err(error) => error,
    }
}

/// An error of the library.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Interrupted => PyKeyboardInterrupt::new_err(error.to_string()),
        other => input_error(py, other.to_string()),
    }
}
