//! A model as Python has it: a path, bytes, or a protobuf message. The library reads files (hashes, external data and outputs beside the
//! input all follow from a path), so the latter become one for a while. Such a file is written once, from the bytes as they lie in
//! Python's memory, and nobody waits until it is on the disk.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use tempfile::TempDir;

use crate::errors::input_error;

/// What messages and reports call an output that goes back to Python.
const MEMORY: &str = "<memory>";

/// A model to read.
pub(crate) struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// What messages and reports call it, if it came as bytes.
    name: &'static str,
    /// The folder that it is in, if it is a file for a while.
    folder: Option<TempDir>,
}

impl Input {
    /// A path, bytes, or anything with `SerializeToString`.
    ///
    /// # Errors
    /// If it is nothing of these, or cannot be written to a temporary file.
    pub(crate) fn new(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::called("<bytes>", value)
    }

    /// As [`Input::new`], for the graph of a state dict.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn graph(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::called("<graph>", value)
    }

    fn called(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = value.py();
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Self::of_bytes(py, name, bytes.clone().into());
        }
        if value.hasattr("SerializeToString")? {
            let bytes = value.call_method0("SerializeToString")?;
            return Self::of_bytes(py, name, bytes.cast_into::<PyBytes>()?.into());
        }
        match value.extract::<PathBuf>() {
            Ok(path) => Ok(Self {
                path,
                name,
                folder: None,
            }),
            Err(_) => Err(pyo3::exceptions::PyTypeError::new_err(format!(
                "a model is a path, bytes or an onnx.ModelProto, not {}",
                value.get_type().name()?
            ))),
        }
    }

    fn of_bytes(py: Python<'_>, name: &'static str, bytes: PyBackedBytes) -> PyResult<Self> {
        let written = py.detach(move || {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("model");
            std::fs::write(&path, &bytes).map(|()| (path, folder))
        });
        let (path, folder) = written
            .map_err(|error| input_error(py, format!("{name}: no temporary file: {error}")))?;
        Ok(Self {
            path,
            name,
            folder: Some(folder),
        })
    }

    /// `text` with the name that a user knows the model by.
    pub(crate) fn named(&self, text: String) -> String {
        match &self.folder {
            Some(_) => rename(&text, &self.path, self.name),
            None => text,
        }
    }
}

/// Where a model goes: to a file of the user's, or back to Python.
pub(crate) struct Output {
    /// The file to write.
    pub path: PathBuf,
    folder: Option<TempDir>,
}

impl Output {
    /// `None` for one that goes back to Python.
    ///
    /// # Errors
    /// If there is no temporary folder.
    pub(crate) fn new(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        match path {
            Some(path) => Ok(Self { path, folder: None }),
            None => {
                let folder = tempfile::tempdir().map_err(|error| {
                    input_error(py, format!("{MEMORY}: no temporary file: {error}"))
                })?;
                Ok(Self {
                    path: folder.path().join("output"),
                    folder: Some(folder),
                })
            }
        }
    }

    /// `text` with the name that a user knows the output by.
    pub(crate) fn named(&self, text: String) -> String {
        match &self.folder {
            Some(_) => rename(&text, &self.path, MEMORY),
            None => text,
        }
    }

    /// What was written, if it goes back to Python: read straight into Python's memory.
    ///
    /// # Errors
    /// If it has a data file beside it, which bytes cannot have.
    pub(crate) fn bytes<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if self.folder.is_none() || !self.path.exists() {
            return Ok(None);
        }
        if self.path.with_added_extension("data").exists() {
            return Err(input_error(
                py,
                format!("{MEMORY}: the model has external data: name a file to write it to"),
            ));
        }
        let failed =
            |error: std::io::Error| input_error(py, format!("{MEMORY}: cannot be read: {error}"));
        let mut file = File::open(&self.path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let length = usize::try_from(length)
            .map_err(|_| input_error(py, format!("{MEMORY}: it does not fit into memory")))?;
        PyBytes::new_with(py, length, |bytes| file.read_exact(bytes).map_err(failed)).map(Some)
    }
}

/// Paths of temporary folders are like nothing else, so they can be replaced wherever they are.
fn rename(text: &str, path: &Path, name: &str) -> String {
    text.replace(&path.display().to_string(), name)
}
