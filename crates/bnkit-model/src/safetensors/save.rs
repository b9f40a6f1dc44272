//! Writing checkpoints: all or nothing, without holding them in memory.
//!
//! The tensors come in the order in which they are given. A reader that views the bytes of a tensor in place needs it to
//! begin at a multiple of its element's size; where the given order does not allow for that, the tensors are sorted by the
//! size of their elements, largest first, as the `safetensors` crate does; unless the input had such tensors, too, and so has
//! readers that copy.
//!
//! All files are complete and on the disk under temporary names before the first gets its own; an index comes last.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use safetensors::Dtype;

use super::destinations::destinations;
use super::header::{Header, METADATA, bits, shape_text};
use super::index::Index;
use super::state_dict::{StateDict, dtype_of, of_dtype};
use crate::error::{self, shown};
use crate::onnx::{Model, TensorDef};
use crate::output::Output;
use crate::place::put_in_place;
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
    /// The same, its two axes exchanged; it is held whole while it is written.
    Transposed(&'m Model, TensorDef),
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
            shape: tensor.dims.to_vec(),
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
            let shape = shape_text(&self.shape);
            let message = format!("{} of shape {shape} has no size", self.dtype);
            Error::invalid(message).at(error::tensor(&self.name))
        })
    }

    /// How many bytes it takes, if it can be written: its name is free, and what is known of its elements fits.
    fn check(&self) -> Result<u64> {
        if self.name == METADATA {
            let message = "a safetensors file has no tensor of this name";
            return Err(Error::invalid(message).at(error::tensor(&self.name)));
        }
        let expected = self.bytes()?;
        let found = match &self.contents {
            Contents::Stored(stored) => stored.len(),
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::OfModel(..) | Contents::Transposed(..) | Contents::Rounded(..) => expected,
        };
        self.check_length(found)
            .map_err(|error| error.at(error::tensor(&self.name)))
    }

    fn check_length(&self, found: u64) -> Result<u64> {
        let expected = self.bytes()?;
        if found == expected {
            return Ok(expected);
        }
        let (dtype, shape) = (self.dtype, shape_text(&self.shape));
        Err(Error::invalid(format!(
            "{dtype} of shape {shape} takes {expected} bytes, found {found}"
        )))
    }
}

/// How to save.
#[derive(Default, Clone, Copy)]
pub struct SaveOptions<'p> {
    /// Replace what is there.
    pub force: bool,
    /// Checked, once the new files are complete, to be still what it was when it was opened. If it is one file, that may
    /// be the output (with `force`); the files of a sharded one are never replaced.
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
/// If something cannot be read or written, or changed since it was opened; if the file exists already (without `force`) or
/// belongs to a sharded input; if two tensors have one name, or elements do not fit their shape. Then nothing is written,
/// and nothing that was there is changed.
pub fn save(path: &Path, file: NewFile<'_>, options: SaveOptions<'_>) -> Result<Saved> {
    write_all(vec![(path.to_owned(), file)], None, options)
}

/// Writes an index to `path` (which ends in `.index.json`) and the files beside it, by their names: what stands before
/// `.safetensors` in the name of the index, and their numbers, as in `model-00001-of-00002.safetensors`.
///
/// # Errors
/// As [`save`]; also if the name of the index is another, or there is no tensor at all.
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
    let invalid = |message: &str| Err(Error::invalid(message).in_file(path));
    if stem.contains('\\') {
        return invalid("the files of a sharded checkpoint have no backslash in their names");
    }
    if files.iter().all(|file| file.tensors.is_empty()) {
        return invalid("a sharded checkpoint has at least one tensor");
    }
    if let Some(key) = repeated(metadata.iter().map(|(key, _)| key.as_str())) {
        let message = format!("metadata: the name \"{}\" would occur twice", shown(key));
        return invalid(&message);
    }
    let count = files.len();
    let mut weight_map = Vec::new();
    let mut total = 0;
    let mut named = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let name = format!("{stem}-{:05}-of-{count:05}.safetensors", number + 1);
        for tensor in &file.tensors {
            total = sum(total, tensor.bytes()?, tensor).map_err(|error| error.in_file(path))?;
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
    Error::invalid(format!("safetensors has no {dtype}")).at(error::tensor(name))
}

fn twice(name: &str) -> Error {
    Error::invalid("two tensors would have this name").at(error::tensor(name))
}

fn write_all(
    files: Vec<(PathBuf, NewFile<'_>)>,
    index: Option<(&Path, Vec<u8>)>,
    options: SaveOptions<'_>,
) -> Result<Saved> {
    let (mut paths, mut files): (Vec<PathBuf>, Vec<NewFile<'_>>) = files.into_iter().unzip();
    let mut headers = Vec::new();
    let mut total = 0;
    let as_given = options.input.is_some_and(|input| !input.is_aligned());
    for (path, file) in paths.iter().zip(&mut files) {
        let (header, bytes) = prepare(file, as_given).map_err(|error| error.in_file(path))?;
        total += header.len() as u64 + bytes;
        headers.push(header);
    }
    let mut index_bytes = None;
    if let Some((path, index)) = index {
        total += index.len() as u64;
        paths.push(path.to_owned());
        index_bytes = Some(index);
    }
    let paths = destinations(&paths, options.force, options.input)?;
    let done = Cell::new(0);
    let progress = |bytes: u64| {
        done.set(done.get() + bytes);
        if let Some(report) = options.progress {
            report(done.get(), total);
        }
    };
    let mut outputs = Vec::new();
    for ((path, file), header) in paths.iter().zip(&files).zip(&headers) {
        let mut output = Output::create(path, &progress)?;
        output.write(header)?;
        for tensor in &file.tensors {
            write_tensor(tensor, &mut output)
                .map_err(|error| error.at(error::tensor(&tensor.name)).in_file(path))?;
        }
        output.finish()?;
        outputs.push((path.clone(), output));
    }
    if let (Some(path), Some(index)) = (paths.last(), index_bytes) {
        let mut output = Output::create(path, &progress)?;
        output.write(&index)?;
        output.finish()?;
        outputs.push((path.clone(), output));
    }
    if done.get() != total {
        let message = format!(
            "{} bytes were written where {total} were planned",
            done.get()
        );
        return Err(Error::invalid(message));
    }
    check_unchanged(&files, options.input)?;
    put_in_place(outputs, options.force)?;
    Ok(Saved {
        bytes: total,
        files: paths,
    })
}

/// Checks that all that was read for the new files is still what it was when it was opened.
fn check_unchanged(files: &[NewFile<'_>], input: Option<&StateDict>) -> Result<()> {
    if let Some(input) = input {
        input.check_unchanged()?;
    }
    let mut checked: Option<*const ()> = None;
    for tensor in files.iter().flat_map(|file| &file.tensors) {
        // Neighbours come from one place, as a rule.
        let place: *const () = match &tensor.contents {
            Contents::Stored(stored) | Contents::Rounded(stored, _) => {
                Arc::as_ptr(&stored.source).cast()
            }
            Contents::Bytes(_) => continue,
            Contents::OfModel(model, _) | Contents::Transposed(model, _) => {
                std::ptr::from_ref(*model).cast()
            }
        };
        if checked.replace(place) == Some(place) {
            continue;
        }
        match &tensor.contents {
            Contents::Stored(stored) | Contents::Rounded(stored, _) => {
                stored.source.check_unchanged()?;
            }
            Contents::Bytes(_) => {}
            Contents::OfModel(model, _) | Contents::Transposed(model, _) => {
                model.check_unchanged()?
            }
        }
    }
    Ok(())
}

/// Brings the tensors into an order that readers can view in place, and makes the header; also says how many bytes
/// the tensors take.
fn prepare(file: &mut NewFile<'_>, as_given: bool) -> Result<(Vec<u8>, u64)> {
    let names = file.tensors.iter().map(|tensor| tensor.name.as_str());
    if let Some(name) = repeated(names) {
        return Err(twice(name));
    }
    let keys = file.metadata.iter().flatten();
    if let Some(key) = repeated(keys.map(|(key, _)| key.as_str())) {
        let message = format!("the name \"{}\" would occur twice", shown(key));
        return Err(Error::invalid(message).at(METADATA));
    }
    let mut at = 0u64;
    let mut aligned = true;
    for tensor in &file.tensors {
        let (size, bytes) = (tensor.dtype.bitsize() as u64 / 8, tensor.check()?);
        aligned &= size == 0 || bytes == 0 || at.is_multiple_of(size);
        at = sum(at, bytes, tensor)?;
    }
    if !aligned && !as_given {
        file.tensors
            .sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
    }
    let mut rows = Vec::new();
    for tensor in &file.tensors {
        let shape = tensor.shape.as_slice();
        rows.push((tensor.name.as_str(), tensor.dtype, shape, tensor.bytes()?));
    }
    let header = Header::write(file.metadata.as_deref(), rows.into_iter())?;
    Ok((header, at))
}

/// A name that occurs twice.
fn repeated<'n>(names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let pair = names.windows(2).find(|pair| pair[0] == pair[1]);
    pair.map(|pair| pair[0])
}

/// `total` and the `bytes` of a tensor, within what a file can have.
fn sum(total: u64, bytes: u64, tensor: &NewTensor<'_>) -> Result<u64> {
    let sum = total + bytes;
    match i64::try_from(sum) {
        Ok(_) => Ok(sum),
        Err(_) => {
            let message = "the file would be larger than files can be";
            Err(Error::invalid(message).at(error::tensor(&tensor.name)))
        }
    }
}

fn write_tensor(tensor: &NewTensor<'_>, output: &mut Output<'_>) -> Result<()> {
    match &tensor.contents {
        Contents::Stored(stored) => output.copy(&stored.source, stored.range.clone()),
        Contents::Bytes(bytes) => output.write(bytes),
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
            tensor.check_length(found).map(|_| ())
        }
        Contents::Transposed(model, def) => {
            let turned = model.read_tensor(def)?.transposed();
            let turned = turned.ok_or_else(|| Error::invalid("only a matrix can be transposed"))?;
            tensor.check_length(turned.data().len() as u64)?;
            output.write(turned.data())
        }
        Contents::OfModel(model, def) => {
            let mut found = 0;
            model.write_elements(def, def.dtype, &mut |part| {
                found += part.len() as u64;
                output.write(part)
            })?;
            tensor.check_length(found).map(|_| ())
        }
    }
}
