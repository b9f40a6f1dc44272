//! Tensors on their way between protobuf, tract and ours, and the external data of a model.
//!
//! External data never leaves the model's folder: no absolute path, no `..`, no symbolic link out of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};
use std::sync::Arc;

use bnkit_model::{DType, Tensor, tensor::element_count};
use prost::Message;
use tract_onnx::pb::{GraphProto, TensorProto, tensor_proto::DataLocation};
use tract_onnx::prelude::{DatumType, Tensor as TractTensor};

use crate::spec::{decode, graph};
use crate::{EngineError, Result};

/// Name and content of a serialized `TensorProto` (an `input_0.pb` of an ONNX test, say).
///
/// # Errors
/// If the bytes are no tensor, or it keeps its elements in another file.
pub fn tensor_from_pb(bytes: &[u8]) -> Result<(String, Tensor)> {
    let mut proto = TensorProto::decode(bytes)
        .map_err(|error| EngineError::model(format!("not an ONNX tensor: {error}")))?;
    make_raw(&mut proto, None)?;
    let name = std::mem::take(&mut proto.name);
    Ok((name, from_raw(proto)?))
}

/// The constants of the graph and of its bodies that `wanted` (asked with name and type) picks, in file order.
///
/// # Errors
/// If the model or a picked tensor cannot be read.
pub fn constants(
    model: &[u8],
    model_dir: Option<&Path>,
    wanted: &dyn Fn(&str, DType) -> bool,
) -> Result<Vec<(String, Tensor)>> {
    let model = decode(model)?;
    constants_of(graph(&model)?)
        .into_iter()
        .filter(|(name, tensor)| wanted(name, DType::from_onnx(tensor.data_type)))
        .map(|(name, tensor)| {
            let mut tensor = tensor.clone();
            make_raw(&mut tensor, model_dir)?;
            Ok((name.to_owned(), from_raw(tensor)?))
        })
        .collect()
}

/// The constants of a graph and of all bodies in it. Names are unique where the model is valid, but for bodies side by side.
pub(crate) fn constants_of(graph: &GraphProto) -> Vec<(&str, &TensorProto)> {
    let mut found: Vec<(&str, &TensorProto)> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect();
    for node in &graph.node {
        for attribute in &node.attribute {
            if let (true, Some(tensor), Some(name)) = (
                node.op_type == "Constant" && attribute.name == "value",
                &attribute.t,
                node.output.first(),
            ) {
                found.push((name, tensor));
            }
            for body in attribute.g.iter().chain(&attribute.graphs) {
                found.extend(constants_of(body));
            }
        }
    }
    found
}

fn from_raw(proto: TensorProto) -> Result<Tensor> {
    let dims = dims(&proto)?;
    Tensor::new(DType::from_onnx(proto.data_type), dims, proto.raw_data)
        .map_err(|error| EngineError::model(format!("tensor {:?}: {error}", proto.name)))
}

/// The dimensions of a tensor.
pub(crate) fn dims(tensor: &TensorProto) -> Result<Vec<usize>> {
    tensor
        .dims
        .iter()
        .map(|&dim| {
            usize::try_from(dim).map_err(|_| {
                EngineError::model(format!("tensor {:?}: dimension {dim}", tensor.name))
            })
        })
        .collect()
}

/// Brings the elements into `raw_data`, wherever they are: tract reads some typed fields wrongly (32- and 64-bit unsigned) and does
/// not check lengths. Strings stay where they are.
pub(crate) fn make_raw(tensor: &mut TensorProto, model_dir: Option<&Path>) -> Result<()> {
    let dtype = DType::from_onnx(tensor.data_type);
    if dtype == DType::String {
        return Ok(());
    }
    let expected = byte_len(tensor, dtype)?;
    if is_external(tensor) {
        tensor.raw_data = external(tensor, model_dir, expected)?;
        tensor.external_data.clear();
        tensor.data_location = None;
    } else if tensor.raw_data.is_empty() {
        tensor.raw_data = typed(tensor, dtype);
    }
    fits(tensor, dtype, expected, tensor.raw_data.len())?;
    tensor.float_data = vec![];
    tensor.double_data = vec![];
    tensor.int32_data = vec![];
    tensor.int64_data = vec![];
    tensor.uint64_data = vec![];
    Ok(())
}

/// Whether a tensor keeps its elements in another file.
pub(crate) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// How many bytes the elements of a tensor take in `dtype`, by its dimensions.
pub(crate) fn byte_len(tensor: &TensorProto, dtype: DType) -> Result<usize> {
    element_count(&dims(tensor)?)
        .and_then(|count| dtype.byte_len(count))
        .and_then(|length| usize::try_from(length).ok())
        .ok_or_else(|| {
            EngineError::model(format!(
                "tensor {:?}: no size for {dtype} {:?}",
                tensor.name, tensor.dims
            ))
        })
}

/// Refuses a tensor that has not the bytes that it should have.
pub(crate) fn fits(
    tensor: &TensorProto,
    dtype: DType,
    expected: usize,
    found: usize,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(EngineError::model(format!(
        "tensor {:?}: {dtype} {:?} takes {expected} bytes, found {found}",
        tensor.name, tensor.dims
    )))
}

fn typed(tensor: &TensorProto, dtype: DType) -> Vec<u8> {
    let narrow = |size: usize| -> Vec<u8> {
        tensor
            .int32_data
            .iter()
            .flat_map(|value| value.to_le_bytes().into_iter().take(size))
            .collect()
    };
    match dtype {
        DType::F32 => tensor
            .float_data
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect(),
        DType::F64 => tensor
            .double_data
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect(),
        DType::I64 => tensor
            .int64_data
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect(),
        DType::U64 => tensor
            .uint64_data
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect(),
        DType::U32 => tensor
            .uint64_data
            .iter()
            .flat_map(|x| x.to_le_bytes().into_iter().take(4))
            .collect(),
        other => narrow(other.size().unwrap_or(1)),
    }
}

/// Reads the elements of an external tensor, `expected` bytes, from inside the model's folder.
pub(crate) fn external(
    tensor: &TensorProto,
    model_dir: Option<&Path>,
    expected: usize,
) -> Result<Vec<u8>> {
    let folder = model_dir.ok_or_else(|| {
        EngineError::model(format!(
            "tensor {:?}: its elements are in another file, and the model's folder is not known",
            tensor.name
        ))
    })?;
    let field = |key: &str| {
        tensor
            .external_data
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.value.as_str())
    };
    let location = field("location").unwrap_or_default();
    let wrong = |what: String| {
        EngineError::model(format!(
            "tensor {:?}, external data {location:?}: {what}",
            tensor.name
        ))
    };
    let number = |key: &str| -> Result<Option<u64>> {
        field(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| wrong(format!("{key} {text:?} is no number")))
            })
            .transpose()
    };
    let relative = Path::new(location);
    if location.is_empty()
        || relative
            .components()
            .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(wrong("not a path inside the model's folder".into()));
    }
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let real = |path: &Path| {
        path.canonicalize()
            .map_err(|error| wrong(error.to_string()))
    };
    let folder = real(folder)?;
    let path = real(&folder.join(relative))?;
    if !path.starts_with(&folder) {
        return Err(wrong("a link that leaves the model's folder".into()));
    }
    if number("length")?.is_some_and(|length| length != expected as u64) {
        return Err(wrong(format!(
            "its length is not the {expected} bytes of the tensor"
        )));
    }
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&path)?;
        let offset = number("offset").ok().flatten().unwrap_or(0);
        let available = file.metadata()?.len().saturating_sub(offset);
        if available < expected as u64 {
            return Err(std::io::Error::other(format!(
                "{expected} bytes wanted at {offset}, {available} there"
            )));
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; expected];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    number("offset")?;
    read().map_err(|error| wrong(error.to_string()))
}

/// The tract type of ours.
pub(crate) fn datum_type(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::F16 => DatumType::F16,
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::I8 => DatumType::I8,
        DType::I16 => DatumType::I16,
        DType::I32 => DatumType::I32,
        DType::I64 => DatumType::I64,
        DType::U8 => DatumType::U8,
        DType::U16 => DatumType::U16,
        DType::U32 => DatumType::U32,
        DType::U64 => DatumType::U64,
        DType::Bool => DatumType::Bool,
        _ => return None,
    })
}

/// Ours, in tract's hands. Little-endian only, as tract itself reads `raw_data`.
pub(crate) fn to_tract(tensor: &Tensor) -> Result<TractTensor> {
    let wrong = |what: String| EngineError::run(what);
    let kind = datum_type(tensor.dtype())
        .ok_or_else(|| wrong(format!("tensors of {} cannot be run", tensor.dtype())))?;
    let mut out = TractTensor::zero_dt(kind, tensor.dims()).map_err(|e| wrong(e.to_string()))?;
    out.as_bytes_mut().copy_from_slice(tensor.data());
    Ok(out)
}

/// tract's, in ours. Its dimension type, which it uses for shape arithmetic, becomes i64.
pub(crate) fn from_tract(tensor: &Arc<TractTensor>) -> Result<Tensor> {
    let wrong = |what: String| EngineError::run(what);
    let tensor = if tensor.datum_type() == DatumType::TDim {
        &Arc::new(
            tensor
                .cast_to_dt(DatumType::I64)
                .map_err(|e| wrong(e.to_string()))?
                .into_owned(),
        )
    } else {
        tensor
    };
    let dtype = match tensor.datum_type() {
        DatumType::F16 => DType::F16,
        DatumType::F32 => DType::F32,
        DatumType::F64 => DType::F64,
        DatumType::I8 => DType::I8,
        DatumType::I16 => DType::I16,
        DatumType::I32 => DType::I32,
        DatumType::I64 => DType::I64,
        DatumType::U8 => DType::U8,
        DatumType::U16 => DType::U16,
        DatumType::U32 => DType::U32,
        DatumType::U64 => DType::U64,
        DatumType::Bool => DType::Bool,
        other => return Err(wrong(format!("an output of type {other:?}"))),
    };
    Tensor::new(dtype, tensor.shape().to_vec(), tensor.as_bytes().to_vec())
        .map_err(|error| wrong(error.to_string()))
}
