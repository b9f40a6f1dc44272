//! The tensors of a checkpoint: by name, in the order of the file, their elements where they are.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;

use super::header::Header;
use super::index::{self, Index};
use crate::error;
use crate::format::Format;
use crate::onnx::{Model, TensorDef};
use crate::source::Source;
use crate::stored::{CHUNK, Stored};
use crate::tensor::decode_f64;
use crate::{DType, Error, Result};

/// A safetensors checkpoint: one file, or several with an index.
#[derive(Debug, Clone)]
pub struct StateDict {
    shards: Vec<Shard>,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    index: Option<Index>,
    path: Option<PathBuf>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Its name in the folder of the checkpoint; empty in memory.
    pub name: String,
    /// Its bytes.
    pub source: Arc<Source>,
    /// `__metadata__`, in order; `None` if there is none.
    pub metadata: Option<Vec<(String, String)>>,
}

/// A tensor, by its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The number of the file it is in.
    pub shard: usize,
    /// Where its elements are in that file, in bytes.
    pub range: Range<u64>,
}

impl Tensor {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the elements take.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether arithmetic is done in this type: F16, BF16, F32, F64.
    pub fn is_float(&self) -> bool {
        dtype_of(self.dtype).is_some_and(DType::is_float)
    }
}

impl StateDict {
    /// Opens a safetensors file or the index of a sharded checkpoint. Only headers are read.
    ///
    /// # Errors
    /// If a file cannot be read or breaks the rules of the format; with the file and the tensor.
    pub fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let format = Format::detect(&source).map_err(|error| error.in_file(path))?;
        if format == Format::SafetensorsIndex {
            let (index, files) = Index::open(&source, path)?;
            let mut shards = Vec::new();
            for (name, file) in files {
                let shard = Source::open(&file);
                let shard = shard.map_err(|error| index.in_tensor_of(&name, error))?;
                shards.push((name, shard));
            }
            return Self::new(shards, Some(index), Some(path));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let dict = Self::new(vec![(name.into_owned(), source)], None, Some(path));
        dict.map_err(|error| match format {
            Format::Onnx if Model::open(path).is_ok() => {
                Error::invalid("this is an ONNX model, not a state dict").in_file(path)
            }
            // What is nothing else says best as a safetensors file what is wrong with it.
            _ => error,
        })
    }

    /// A checkpoint of one file that is in memory (or was opened already).
    ///
    /// # Errors
    /// If it breaks the rules of the format.
    pub fn from_source(source: Source) -> Result<Self> {
        let path = source.path().map(Path::to_owned);
        Self::new(vec![(String::new(), source)], None, path.as_deref())
    }

    fn new(
        sources: Vec<(String, Source)>,
        index: Option<Index>,
        path: Option<&Path>,
    ) -> Result<Self> {
        let mut dict = Self {
            shards: Vec::new(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            index,
            path: path.map(Path::to_owned),
        };
        for (name, source) in sources {
            let in_file = |error: Error| match source.path() {
                Some(path) => error.in_file(path),
                None => error,
            };
            let header = Header::read(&source, dict.shards.len()).map_err(in_file)?;
            for tensor in header.tensors {
                let place = dict.tensors.len();
                if let Some(other) = dict.by_name.insert(tensor.name.clone(), place) {
                    let other = &dict.shards[dict.tensors[other].shard].name;
                    let error = Error::invalid(format!("the name is in {other}, too"));
                    return Err(in_file(error.at(error::tensor(&tensor.name))));
                }
                dict.tensors.push(tensor);
            }
            dict.shards.push(Shard {
                name,
                source: Arc::new(source),
                metadata: header.metadata,
            });
        }
        if let (Some(index), Some(path)) = (&dict.index, path) {
            index::check(index, &dict).map_err(|error| error.in_file(path))?;
        }
        Ok(dict)
    }

    /// The tensors: file by file, in the order of their data.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).map(|&place| &self.tensors[place])
    }

    /// The number of the tensor of this name among [`StateDict::tensors`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The files.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Whether the checkpoint has an index, of one file or several.
    pub fn is_sharded(&self) -> bool {
        self.index.is_some()
    }

    /// The members of `metadata` in the index, in order.
    pub fn index_metadata(&self) -> &[(String, serde_json::Value)] {
        self.index.as_ref().map_or(&[], |index| &index.metadata)
    }

    /// The file that was opened: the only one, or the index.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The bytes of all files, the index included.
    pub fn bytes(&self) -> u64 {
        let files = self.shards.iter().map(|shard| shard.source.len());
        files.sum::<u64>() + self.index.as_ref().map_or(0, |index| index.bytes)
    }

    /// Whether each tensor begins at a multiple of its element's size, counted from the end of its file's header.
    pub fn is_aligned(&self) -> bool {
        let mut data = vec![u64::MAX; self.shards.len()];
        for tensor in &self.tensors {
            let start = &mut data[tensor.shard];
            *start = (*start).min(tensor.range.start);
        }
        self.tensors.iter().all(|tensor| {
            let size = tensor.dtype.bitsize() as u64 / 8;
            let offset = tensor.range.start - data[tensor.shard];
            size == 0 || tensor.bytes() == 0 || offset.is_multiple_of(size)
        })
    }

    /// The elements of a tensor, where they are.
    pub fn stored(&self, tensor: &Tensor) -> Stored {
        Stored {
            source: self.shards[tensor.shard].source.clone(),
            range: tensor.range.clone(),
        }
    }

    /// The tensor as one of an ONNX model; `None` if ONNX has no such type.
    pub fn as_onnx(&self, tensor: &Tensor) -> Option<TensorDef> {
        let dtype = dtype_of(tensor.dtype)?;
        Some(TensorDef::borrowed(
            dtype,
            tensor.shape.as_slice().into(),
            self.stored(tensor),
        ))
    }

    /// The elements of a tensor.
    ///
    /// # Errors
    /// If they cannot be read, or ONNX has no such type.
    pub fn read(&self, tensor: &Tensor) -> Result<crate::Tensor> {
        let dtype = dtype_of(tensor.dtype).ok_or_else(|| self.opaque(tensor))?;
        let stored = self.stored(tensor);
        let data = stored.source.read(stored.range)?;
        crate::Tensor::new(dtype, tensor.shape.clone(), data)
            .map_err(|error| self.in_tensor(tensor, error))
    }

    /// Calls `visit` with the elements of a tensor in chunks, in order: the index of the first one and the elements,
    /// widened to f64.
    ///
    /// # Errors
    /// If they cannot be read or are no numbers, and whatever `visit` returns.
    pub fn for_each_chunk(
        &self,
        tensor: &Tensor,
        mut visit: impl FnMut(usize, &[f64]) -> Result<()>,
    ) -> Result<()> {
        let dtype = dtype_of(tensor.dtype).filter(|dtype| dtype.size().is_some());
        let (dtype, size) = dtype
            .and_then(|dtype| Some((dtype, dtype.size()?)))
            .ok_or_else(|| self.opaque(tensor))?;
        self.stored(tensor)
            .for_each_part(CHUNK * size, |start, bytes| {
                let values =
                    decode_f64(dtype, bytes).map_err(|error| self.in_tensor(tensor, error))?;
                visit(start / size, &values)
            })
    }

    /// Checks that the files are still those that were opened.
    ///
    /// # Errors
    /// If one changed meanwhile.
    pub fn check_unchanged(&self) -> Result<()> {
        self.shards
            .iter()
            .try_for_each(|shard| shard.source.check_unchanged())
    }

    /// `error`, with the tensor and the file it is about.
    pub fn in_tensor(&self, tensor: &Tensor, error: Error) -> Error {
        let error = error.at(error::tensor(&tensor.name));
        match self.shards[tensor.shard].source.path() {
            Some(path) => error.in_file(path),
            None => error,
        }
    }

    fn opaque(&self, tensor: &Tensor) -> Error {
        let message = format!("nothing is computed with {}", tensor.dtype);
        self.in_tensor(tensor, Error::invalid(message))
    }
}

/// Types of safetensors and of ONNX with the same elements in the same bytes.
const SAME: [(Dtype, DType); 20] = [
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::U8),
    (Dtype::I8, DType::I8),
    (Dtype::U16, DType::U16),
    (Dtype::I16, DType::I16),
    (Dtype::U32, DType::U32),
    (Dtype::I32, DType::I32),
    (Dtype::U64, DType::U64),
    (Dtype::I64, DType::I64),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
    (Dtype::C64, DType::Other(14)),
    (Dtype::F8_E4M3, DType::Other(17)),
    (Dtype::F8_E4M3FNUZ, DType::Other(18)),
    (Dtype::F8_E5M2, DType::Other(19)),
    (Dtype::F8_E5M2FNUZ, DType::Other(20)),
    (Dtype::F4, DType::Other(23)),
    (Dtype::F8_E8M0, DType::Other(24)),
];

/// The ONNX type with the same elements in the same bytes, if there is one.
pub fn dtype_of(dtype: Dtype) -> Option<DType> {
    let mut same = SAME.into_iter();
    same.find_map(|(ours, onnx)| (ours == dtype).then_some(onnx))
}

/// The safetensors type with the same elements in the same bytes, if there is one.
pub fn of_dtype(dtype: DType) -> Option<Dtype> {
    let mut same = SAME.into_iter();
    same.find_map(|(ours, onnx)| (onnx == dtype).then_some(ours))
}
