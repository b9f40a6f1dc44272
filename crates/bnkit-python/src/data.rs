//! Arrays of Python as tensors: NumPy's own, and what NumPy can take over (`__dlpack__`, `__array__`).
//!
//! What lies in a `bytes` object is shared: nobody can change that. Everything else is copied, once. The library works without Python's
//! lock, on several threads, and while it reads, any thread of Python may write into an array: that would be a data race, which Rust
//! does not define. NumPy has nothing that rules it out: a view that is not writeable leaves the array itself, and other views of it,
//! as they are, and so does what the crate `numpy` calls a read-only borrow, which only others who ask it respect.

use std::path::PathBuf;

use bnkit::accuracy::Labels;
use bnkit::data::preprocess::Preprocess;
use bnkit::data::{DataSet, NamedTensor};
use bnkit::model::{DType, Tensor};
use bytes::Bytes;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};

use crate::errors::{input_error, raise};

/// Samples or batches.
pub(crate) enum Data {
    /// A file or a folder.
    Path(PathBuf),
    /// All samples in one array for each input.
    Samples(DataSet),
    /// Batches, as they come.
    Batches(Py<PyIterator>),
}

impl Data {
    /// A path; an array or a dict of arrays, whose leading axis runs over samples; or an iterable of batches.
    ///
    /// # Errors
    /// If it is nothing of these, or an array has no type that a model can take.
    pub(crate) fn new(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if is_path(value)? {
            return Ok(Self::Path(value.extract()?));
        }
        if is_array(value)? || value.cast::<PyMapping>().is_ok() {
            return Ok(Self::Samples(batch(value)?));
        }
        match value.try_iter() {
            Ok(batches) => Ok(Self::Batches(batches.unbind())),
            Err(_) => Err(PyTypeError::new_err(format!(
                "data is a path, an array, a dict of arrays or an iterable of batches, not {}",
                value.get_type().name()?
            ))),
        }
    }
}

/// One batch: an array, a mapping from names to arrays, or a tuple or list that begins with one of these (the rest, as labels, is not
/// looked at). A named tuple is a mapping.
///
/// # Errors
/// If it is something else, or an array has no type that a model can take.
pub(crate) fn batch(value: &Bound<'_, PyAny>) -> PyResult<DataSet> {
    if is_array(value)? {
        let tensor = named(String::new(), value)?.ok_or_else(|| {
            let message = "an array of this type is no data: expected floats, integers or bools";
            input_error(value.py(), message.to_owned())
        })?;
        return Ok(DataSet {
            tensors: vec![tensor],
        });
    }
    if value.is_instance_of::<PyTuple>() && value.hasattr("_asdict")? {
        return batch(&value.call_method0("_asdict")?);
    }
    if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyList>() {
        let first = value.get_item(0).map_err(|_| {
            input_error(
                value.py(),
                "an empty batch: expected an array first".to_owned(),
            )
        })?;
        return batch(&first);
    }
    let Ok(mapping) = value.cast::<PyMapping>() else {
        return Err(PyTypeError::new_err(format!(
            "a batch is an array, a dict of arrays or a tuple that begins with one, not {}",
            value.get_type().name()?
        )));
    };
    let mut tensors = Vec::new();
    for item in mapping.items()?.iter() {
        let (name, array): (String, Bound<'_, PyAny>) = item.extract()?;
        // What has no numbers (names of files, say) is no input; an input that is missing is told by name.
        if is_array(&array)?
            && let Some(tensor) = named(name, &array)?
        {
            tensors.push(tensor);
        }
    }
    Ok(DataSet { tensors })
}

fn is_array(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.hasattr("__array__")? || value.hasattr("__dlpack__")?)
}

/// `None` if its elements are no numbers.
fn named(name: String, value: &Bound<'_, PyAny>) -> PyResult<Option<NamedTensor>> {
    Ok(tensor(value)?.map(|tensor| NamedTensor {
        name,
        tensor,
        source: PathBuf::from("(memory)"),
    }))
}

fn tensor(value: &Bound<'_, PyAny>) -> PyResult<Option<Tensor>> {
    let py = value.py();
    let array = as_numpy(value)?;
    let described: String = array.getattr("dtype")?.getattr("name")?.extract()?;
    let dtype = match described.as_str() {
        "bool" => DType::Bool,
        "uint8" => DType::U8,
        "int8" => DType::I8,
        "uint16" => DType::U16,
        "int16" => DType::I16,
        "float16" => DType::F16,
        "uint32" => DType::U32,
        "int32" => DType::I32,
        "float32" => DType::F32,
        "uint64" => DType::U64,
        "int64" => DType::I64,
        "float64" => DType::F64,
        _ => return Ok(None),
    };
    let dims: Vec<usize> = array.getattr("shape")?.extract()?;
    let little = PyDict::new(py);
    little.set_item("copy", false)?;
    let order = array
        .getattr("dtype")?
        .call_method1("newbyteorder", ("<",))?;
    let array = array.call_method("astype", (order,), Some(&little))?;
    let bytes = match of_bytes(&array)? {
        Some(shared) => shared,
        None => {
            let copied: PyBackedBytes = array.call_method0("tobytes")?.extract()?;
            Bytes::from_owner(copied)
        }
    };
    Tensor::new(dtype, dims, bytes)
        .map(Some)
        .map_err(|error| input_error(py, error.to_string()))
}

/// The elements of an array whose memory is that of a `bytes` object (`numpy.frombuffer`, and views of it), where they lie.
fn of_bytes(array: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
    let ndarray = array.py().import("numpy")?.getattr("ndarray")?;
    let contiguous = array.getattr("flags")?.getattr("c_contiguous")?;
    let mut owner = array.getattr("base")?;
    while owner.is_instance(&ndarray)? {
        owner = owner.getattr("base")?;
    }
    let (true, Ok(owner)) = (contiguous.is_truthy()?, owner.cast_into::<PyBytes>()) else {
        return Ok(None);
    };
    let place = array.getattr("__array_interface__")?.get_item("data")?;
    let (address, _): (usize, bool) = place.extract()?;
    let size: usize = array.getattr("nbytes")?.extract()?;
    let owner = PyBackedBytes::from(owner);
    let first = address.checked_sub(owner.as_ptr() as usize);
    let last = first.and_then(|first| first.checked_add(size));
    Ok(match (first, last) {
        (Some(first), Some(last)) if last <= owner.len() => {
            Some(Bytes::from_owner(owner).slice(first..last))
        }
        _ => None,
    })
}

/// The classes of samples: a path, or an array (or a list) of integers.
///
/// # Errors
/// If the file cannot be read, or something is no label.
pub(crate) fn labels(value: &Bound<'_, PyAny>) -> PyResult<Labels> {
    let py = value.py();
    let found = if is_path(value)? {
        Labels::read(&value.extract::<PathBuf>()?)
    } else {
        let no_label = || input_error(py, "labels are integers".to_owned());
        Labels::of_tensor(&tensor(value)?.ok_or_else(no_label)?)
    };
    found.map_err(|error| raise(py, &error))
}

/// What is done to images: a preset's name, the path of a YAML file, or a mapping with what such a file says.
///
/// # Errors
/// If it is nothing of these, or does not make sense.
pub(crate) fn preprocess(value: &Bound<'_, PyAny>) -> PyResult<Preprocess> {
    let py = value.py();
    let found = if is_path(value)? {
        let text: PathBuf = value.extract()?;
        text.to_string_lossy().parse()
    } else {
        // A mapping of any kind, as JSON has only one.
        let plain = py.import("builtins")?.call_method1("dict", (value,))?;
        let text: String = py
            .import("json")?
            .call_method1("dumps", (plain,))?
            .extract()?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    };
    found.map_err(|message: String| input_error(py, format!("preprocess: {message}")))
}

fn is_path(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.is_instance_of::<PyString>() || value.hasattr("__fspath__")?)
}

/// The value as a NumPy array, sharing memory where that is possible.
fn as_numpy<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let numpy = py.import("numpy")?;
    if value.is_instance(&numpy.getattr("ndarray")?)? {
        return Ok(value.clone());
    }
    let mut value = value.clone();
    // What a framework keeps for gradients or elsewhere than in main memory has to be asked for.
    for step in ["detach", "cpu"] {
        if value.hasattr(step)? {
            value = value.call_method0(step)?;
        }
    }
    if value.hasattr("__dlpack__")?
        && numpy.hasattr("from_dlpack")?
        && let Ok(array) = numpy.call_method1("from_dlpack", (&value,))
    {
        return Ok(array);
    }
    numpy
        .call_method1("asarray", (value,))
        .map_err(|error| input_error(py, format!("NumPy cannot take over the data: {error}")))
}
