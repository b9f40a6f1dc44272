//! Writing checkpoints: all or nothing, without holding them in memory.
//!
//! The tensors come in the order in which they are given. A reader that views the bytes of a tensor in place needs it to
//! begin at a multiple of its element's size; where the given order does not allow for that, the tensors are sorted by the
//! size of their elements, largest first, as the `safetensors` crate does.
//!
//! All files are complete and on the disk under temporary names before the first gets its own; an index comes last.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use safetensors::Dtype;

use super::header::{Header, bits};
use super::index::Index;
use super::state_dict::{StateDict, dtype_of, of_dtype};
use crate::onnx::{Model, TensorDef};
use crate::output::{Output, behind_links, exists, sync_folder};
use crate::source::Source;
use crate::stored::{CHUNK, Stored};
use crate::tensor::{decode_f64, encode_f64};
use crate::{DType, Error, Result};

/// A file to write.
#[derive(Debug, Clone, Default)]
pub struct NewFile<'m> {
    /// `__metadata__`, in order.
    pub metadata: Option<Vec<(String, String)>>,
    /// The tensors, in order.
    pub tensors: Vec<NewTensor<'m>>,
}

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct NewTensor<'m> {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its elements.
    pub contents: Contents<'m>,
}

/// The elements of a tensor to write: little-endian, row-major.
#[derive(Debug, Clone)]
pub enum Contents<'m> {
    /// They lie somewhere, and are copied.
    Stored(Stored),
    /// They are at hand.
    Bytes(Bytes),
    /// They lie somewhere in this type (a float type, as the tensor's own), and are rounded once while they are written.
    Rounded(Stored, DType),
    /// A tensor of a model: computed in chunks while it is written, and rounded once.
    OfModel(&'m Model, TensorDef),
}

impl<'m> NewTensor<'m> {
    /// The tensor `tensor` of a checkpoint, as it is.
    pub fn copy(dict: &StateDict, tensor: &super::Tensor) -> Self {
        Self {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            contents: Contents::Stored(dict.stored(tensor)),
        }
    }

    /// The tensor `tensor` of a checkpoint, each element rounded once to `dtype`; both are float types.
    ///
    /// # Errors
    /// If one of the types is none of F16, BF16, F32, F64.
    pub fn rounded(dict: &StateDict, tensor: &super::Tensor, dtype: Dtype) -> Result<Self> {
        let float = |dtype| dtype_of(dtype).filter(|dtype| dtype.is_float());
        let (Some(from), Some(_)) = (float(tensor.dtype), float(dtype)) else {
            let message = format!("{} is not rounded to {dtype}", tensor.dtype);
            return Err(dict.in_tensor(tensor, Error::invalid(message)));
        };
        Ok(Self {
            dtype,
            contents: Contents::Rounded(dict.stored(tensor), from),
            ..Self::copy(dict, tensor)
        })
    }

    /// The tensor `tensor` of a model, under `name`.
    ///
    /// # Errors
    /// If safetensors has no such type.
    pub fn of_model(name: String, model: &'m Model, tensor: TensorDef) -> Result<Self> {
        let dtype = of_dtype(tensor.dtype).ok_or_else(|| no_such_type(&name, tensor.dtype))?;
        Ok(Self {
            name,
            dtype,
            shape: tensor.dims.clone(),
            contents: Contents::OfModel(model, tensor),
        })
    }

    /// A tensor of elements at hand, under `name`.
    ///
    /// # Errors
    /// If safetensors has no such type.
    pub fn of_values(name: String, tensor: &crate::Tensor) -> Result<Self> {
        let dtype = of_dtype(tensor.dtype()).ok_or_else(|| no_such_type(&name, tensor.dtype()))?;
        Ok(Self {
            name,
            dtype,
            shape: tensor.dims().to_vec(),
            contents: Contents::Bytes(tensor.data().clone()),
        })
    }

    /// How many bytes its elements take.
    ///
    /// # Errors
    /// If its shape overflows.
    pub fn bytes(&self) -> Result<u64> {
        let bits = bits(self.dtype, &self.shape).filter(|bits| bits.is_multiple_of(8));
        bits.map(|bits| bits / 8).ok_or_else(|| {
            let message = format!("{} of shape {:?} has no size", self.dtype, self.shape);
            Error::invalid(message).at(format!("tensor \"{}\"", self.name))
        })
    }
}

/// How to save.
#[derive(Default, Clone, Copy)]
pub struct SaveOptions<'p> {
    /// Replace what is there.
    pub force: bool,
    /// Checked, once the new files are complete, to be still what it was when it was opened; only its own files may be
    /// replaced then (with `force`).
    pub input: Option<&'p StateDict>,
    /// Told again and again how many bytes are written, and how many there will be.
    pub progress: Option<&'p (dyn Fn(u64, u64) + Sync)>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The bytes of all files.
    pub bytes: u64,
    /// The files, the index last.
    pub files: Vec<PathBuf>,
}

/// Writes one file.
///
/// # Errors
/// If something cannot be read or written, the file exists already (without `force`), or two tensors have one name. Then
/// nothing is written, and nothing that was there is changed.
pub fn save(path: &Path, file: NewFile<'_>, options: SaveOptions<'_>) -> Result<Saved> {
    write_all(vec![(path.to_owned(), file)], None, options)
}

/// Writes an index to `path` (which ends in `.index.json`) and the files beside it, by their names: what stands before
/// `.safetensors` in the name of the index, and their numbers, as in `model-00001-of-00002.safetensors`.
///
/// # Errors
/// As [`save`]; also if the name of the index is another.
pub fn save_sharded(
    path: &Path,
    files: Vec<NewFile<'_>>,
    metadata: &[(String, serde_json::Value)],
    options: SaveOptions<'_>,
) -> Result<Saved> {
    let name = path.file_name().and_then(|name| name.to_str());
    let stem = name.and_then(|name| name.strip_suffix(".safetensors.index.json"));
    let stem = stem.ok_or_else(|| {
        let message = "the index of a sharded checkpoint is called NAME.safetensors.index.json";
        Error::invalid(message).in_file(path)
    })?;
    let count = files.len();
    let mut weight_map = Vec::new();
    let mut total = 0;
    let mut named = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let name = format!("{stem}-{:05}-of-{count:05}.safetensors", number + 1);
        for tensor in &file.tensors {
            total += tensor.bytes()?;
            weight_map.push((tensor.name.clone(), name.clone()));
        }
        named.push(path.with_file_name(name));
    }
    weight_map.sort();
    if let Some(pair) = weight_map.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(twice(&pair[0].0).in_file(path));
    }
    let weight_map: Vec<(&str, &str)> = weight_map
        .iter()
        .map(|(tensor, file)| (tensor.as_str(), file.as_str()))
        .collect();
    let index = Index::write(metadata, &weight_map, total);
    let files = named.into_iter().zip(files).collect();
    write_all(files, Some((path, index)), options)
}

fn no_such_type(name: &str, dtype: DType) -> Error {
    Error::invalid(format!("safetensors has no {dtype}")).at(format!("tensor \"{name}\""))
}

fn twice(name: &str) -> Error {
    Error::invalid("two tensors would have this name").at(format!("tensor \"{name}\""))
}

fn write_all(
    files: Vec<(PathBuf, NewFile<'_>)>,
    index: Option<(&Path, Vec<u8>)>,
    options: SaveOptions<'_>,
) -> Result<Saved> {
    let mut ready = Vec::new();
    let mut total = index.as_ref().map_or(0, |(_, index)| index.len() as u64);
    for (path, mut file) in files {
        let header = prepare(&mut file).map_err(|error| error.in_file(&path))?;
        total += header.len() as u64;
        for tensor in &file.tensors {
            total += tensor.bytes()?;
        }
        check_output(&path, options)?;
        ready.push((path, file, header));
    }
    if let Some((path, _)) = &index {
        check_output(path, options)?;
    }
    let done = Cell::new(0);
    let progress = |bytes: u64| {
        done.set(done.get() + bytes);
        if let Some(report) = options.progress {
            report(done.get(), total);
        }
    };
    let mut outputs = Vec::new();
    for (path, file, header) in ready {
        let path = behind_links(&path)?;
        let mut output = Output::create(&path, &progress)?;
        output.write(&header)?;
        for tensor in &file.tensors {
            write_tensor(tensor, &mut output)
                .map_err(|error| error.at(format!("tensor \"{}\"", tensor.name)))?;
        }
        output.finish()?;
        let mut checked: Option<&Model> = None;
        for tensor in &file.tensors {
            if let Contents::OfModel(model, _) = tensor.contents
                && !checked.is_some_and(|other| std::ptr::eq(other, model))
            {
                model.check_unchanged()?;
                checked = Some(model);
            }
        }
        outputs.push((path, output));
    }
    if let Some((path, index)) = index {
        let path = behind_links(path)?;
        let mut output = Output::create(&path, &progress)?;
        output.write(&index)?;
        output.finish()?;
        outputs.push((path, output));
    }
    if done.get() != total {
        let message = format!(
            "{} bytes were written where {total} were planned",
            done.get()
        );
        return Err(Error::invalid(message));
    }
    if let Some(input) = options.input {
        input.check_unchanged()?;
    }
    put_in_place(outputs, options.force, total)
}

fn put_in_place(outputs: Vec<(PathBuf, Output<'_>)>, force: bool, bytes: u64) -> Result<Saved> {
    let mut files: Vec<PathBuf> = Vec::new();
    for (path, output) in outputs {
        if let Err(error) = output.persist(force) {
            // Without `force` these are ours alone; with it, what they replaced is gone either way.
            if !force {
                for file in &files {
                    let _ = std::fs::remove_file(file);
                }
            }
            return Err(error);
        }
        files.push(path);
    }
    if let Some(path) = files.last() {
        sync_folder(path)?;
    }
    Ok(Saved { bytes, files })
}

/// Brings the tensors into an order that readers can view in place, and makes the header.
fn prepare(file: &mut NewFile<'_>) -> Result<Vec<u8>> {
    let mut names: Vec<&str> = file
        .tensors
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(twice(pair[0]));
    }
    let mut at = 0u64;
    let mut aligned = true;
    for tensor in &file.tensors {
        let (size, bytes) = (tensor.dtype.bitsize() as u64 / 8, tensor.bytes()?);
        aligned &= size == 0 || bytes == 0 || at.is_multiple_of(size);
        at += bytes;
    }
    if !aligned {
        file.tensors
            .sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
    }
    let mut rows = Vec::new();
    for tensor in &file.tensors {
        let shape = tensor.shape.as_slice();
        rows.push((tensor.name.as_str(), tensor.dtype, shape, tensor.bytes()?));
    }
    Header::write(file.metadata.as_deref(), rows.into_iter())
}

fn write_tensor(tensor: &NewTensor<'_>, output: &mut Output<'_>) -> Result<()> {
    let expected = tensor.bytes()?;
    let check = |found: u64| match found == expected {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{} of shape {:?} takes {expected} bytes, found {found}",
            tensor.dtype, tensor.shape
        ))),
    };
    match &tensor.contents {
        Contents::Stored(stored) => {
            check(stored.len())?;
            output.copy(&stored.source, stored.range.clone())?;
            stored.source.check_unchanged()
        }
        Contents::Rounded(stored, from) => {
            let dtype = dtype_of(tensor.dtype)
                .ok_or_else(|| Error::invalid(format!("nothing is rounded to {}", tensor.dtype)))?;
            let mut found = 0;
            let mut out = Vec::new();
            stored.for_each_part(CHUNK * 8, |_, bytes| {
                out.clear();
                encode_f64(dtype, &decode_f64(*from, bytes)?, &mut out)?;
                found += out.len() as u64;
                output.write(&out)
            })?;
            check(found)?;
            stored.source.check_unchanged()
        }
        Contents::Bytes(bytes) => {
            check(bytes.len() as u64)?;
            output.write(bytes)
        }
        Contents::OfModel(model, def) => {
            let mut found = 0;
            model.write_elements(def, def.dtype, &mut |part| {
                found += part.len() as u64;
                output.write(part)
            })?;
            check(found)
        }
    }
}

/// Refuses an output that must not be replaced: without `force` any, and always a file that the checkpoint was opened
/// from, unless all of it is replaced.
fn check_output(path: &Path, options: SaveOptions<'_>) -> Result<()> {
    let there = path.metadata();
    if let Ok(there) = &there
        && !there.is_file()
    {
        let message = match there.is_dir() {
            true => "this is a folder",
            false => "this is no regular file (a device or pipe, say)",
        };
        return Err(Error::invalid(message).in_file(path));
    }
    if !options.force && path.symlink_metadata().is_ok() {
        return Err(exists(path));
    }
    let (Ok(there), Some(input)) = (there, options.input) else {
        return Ok(());
    };
    let is_there = |source: &Source| {
        let own = source.file().and_then(|file| file.metadata().ok());
        own.is_some_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
    };
    let owned = input.is_sharded() && input.shards().iter().any(|shard| is_there(&shard.source));
    if owned {
        let message = "this file belongs to the input, whose other files would no longer fit; choose another output";
        return Err(Error::invalid(message).in_file(path));
    }
    Ok(())
}
