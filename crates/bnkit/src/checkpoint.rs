//! A checkpoint as a list of named tensors, whatever its format: what `inspect` and `diff` look at.
//!
//! Elements are handed out as bytes where they are ([`Stored`]), so that two formats can be compared without either of them
//! being converted. The names of a graph's inner scopes have the path of the scope before them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bnkit_model::format::Format;
use bnkit_model::onnx::{Constants, Model, Origin, Payload, TensorDef, Types, ValueId};
use bnkit_model::safetensors::{StateDict, dtype_of};
use bnkit_model::source::Source;
use bnkit_model::stored::Stored;
use bnkit_model::{DType, Error as ModelError};

use crate::Result;
use crate::pipeline::describe_input;
use crate::report::InputFile;

/// An opened checkpoint, of any format.
///
/// ```
/// use bnkit::checkpoint::{Checkpoint, Content};
///
/// # fn main() -> bnkit::Result<()> {
/// let checkpoint = Checkpoint::open("../../testdata/models/tiny_resnet.onnx".as_ref())?;
/// match &checkpoint.content {
///     Content::Onnx(model) => assert_eq!(model.nodes().count(), 31),
///     Content::StateDict(dict) => println!("{} tensors", dict.tensors().len()),
///     _ => {}
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    /// The path as it was given.
    pub path: PathBuf,
    /// What is in it.
    pub content: Content,
}

/// What is in a checkpoint.
#[derive(Debug)]
#[non_exhaustive]
pub enum Content {
    /// A graph with its constants.
    Onnx(Box<Model>),
    /// Named tensors.
    StateDict(Box<StateDict>),
}

/// A tensor of a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub dtype: ElementType,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// How many bytes its elements take; 0 if that is not known (strings).
    pub bytes: u64,
    at: At,
}

#[derive(Debug, Clone)]
enum At {
    Graph(TensorDef),
    StateDict(bnkit_model::safetensors::Tensor),
}

/// The type of elements, in the words of the file's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ElementType {
    /// As the format calls it: "float32" in ONNX, "F32" in safetensors.
    pub name: String,
    /// The type with the same bytes in ONNX, if there is one.
    pub onnx: Option<DType>,
}

impl ElementType {
    /// The type to compute with; `None` for opaque ones (strings, 8-bit floats, packed types …).
    pub(crate) fn number(&self) -> Option<DType> {
        self.onnx
            .filter(|dtype| dtype.is_float() || dtype.is_integer() || *dtype == DType::Bool)
    }

    /// Whether two files mean the same type.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self.onnx, other.onnx) {
            (Some(a), Some(b)) => a == b,
            _ => self.name == other.name,
        }
    }
}

impl Entry {
    /// The number of elements.
    pub(crate) fn len(&self) -> u64 {
        self.dims.iter().map(|&dim| dim as u64).product()
    }

    /// "in FILE at byte 12", "in the model", "computed from constants".
    pub(crate) fn place(&self, checkpoint: &Checkpoint) -> String {
        match (&self.at, &checkpoint.content) {
            (At::StateDict(tensor), Content::StateDict(dict)) => {
                let name = &dict.shards()[tensor.shard].name;
                format!("in {name} at byte {}", tensor.range.start)
            }
            (At::Graph(def), _) => place(def),
            (At::StateDict(_), Content::Onnx(_)) => String::new(),
        }
    }
}

/// Where the elements of a graph's tensor are.
pub(crate) fn place(tensor: &TensorDef) -> String {
    match &tensor.payload {
        Payload::Raw(_) | Payload::Typed => "in the model".to_owned(),
        Payload::External(external) => {
            format!("in {} at byte {}", external.location, external.offset)
        }
        Payload::Elsewhere(elements) => {
            let path = elements.source.path();
            let name = path.and_then(|path| path.file_name());
            let name = name.map_or("memory".into(), |name| name.to_string_lossy());
            format!("in {name} at byte {}", elements.range.start)
        }
        Payload::Computed(_) => "computed from constants".to_owned(),
    }
}

impl Checkpoint {
    /// Opens a file of any known format, by its content. Only structure is read.
    ///
    /// # Errors
    /// If it cannot be read, or breaks the rules of its format.
    pub fn open(path: &Path) -> Result<Self> {
        let content = match format(path)? {
            Format::Onnx => Content::Onnx(Box::new(Model::open(path)?)),
            Format::Safetensors | Format::SafetensorsIndex => {
                Content::StateDict(Box::new(StateDict::open(path)?))
            }
        };
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// What a report says of it. No hash: that would read all of it.
    pub(crate) fn describe(&self) -> InputFile {
        match &self.content {
            Content::Onnx(model) => describe_input(model, &self.path),
            Content::StateDict(dict) => describe_state_dict(dict, &self.path),
        }
    }

    /// All its tensors, in the order of the file: of a graph, initializers and what Constant nodes hold, under each of their names.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        match &self.content {
            Content::Onnx(model) => of_graph(model),
            Content::StateDict(dict) => dict.tensors().iter().map(of_state_dict).collect(),
        }
    }

    /// The elements of a tensor: little-endian, row-major.
    ///
    /// # Errors
    /// If they cannot be read, or have no fixed size; with file and tensor.
    pub(crate) fn elements(&self, entry: &Entry) -> Result<Stored> {
        let stored = match (&self.content, &entry.at) {
            (Content::Onnx(model), At::Graph(def)) => model
                .elements(def)
                .map_err(|error| self.in_tensor(entry, error))?,
            (Content::StateDict(dict), At::StateDict(tensor)) => dict.stored(tensor),
            _ => {
                let error = ModelError::invalid("it belongs to another file");
                return Err(self.in_tensor(entry, error).into());
            }
        };
        Ok(stored)
    }

    /// Checks that the file is still the one that was opened, after all of it was read.
    ///
    /// # Errors
    /// If it changed meanwhile.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        match &self.content {
            Content::Onnx(model) => model.source().check_unchanged()?,
            Content::StateDict(dict) => dict.check_unchanged()?,
        }
        Ok(())
    }

    /// `error`, with the tensor and the file it is about.
    pub(crate) fn in_tensor(&self, entry: &Entry, error: ModelError) -> ModelError {
        match error {
            ModelError::Invalid(_) => error
                .at(format!("tensor \"{}\"", entry.name))
                .in_file(&self.path),
            other => other,
        }
    }
}

/// The format of a checkpoint, by its content. What is nothing else is taken for ONNX, whose reader then says what is wrong.
///
/// # Errors
/// If it cannot be read, or is of another well-known kind.
pub fn format(path: &Path) -> Result<Format> {
    let source = Source::open(path)?;
    Ok(Format::detect(&source).map_err(|error| error.in_file(path))?)
}

/// Whether a file is a state dict, by its content; else it is (or should be) an ONNX model.
///
/// # Errors
/// If it cannot be read, or is of another well-known kind.
pub fn is_state_dict(path: &Path) -> Result<bool> {
    Ok(format(path)? != Format::Onnx)
}

/// What a report says of a state dict that was read.
pub(crate) fn describe_state_dict(dict: &StateDict, path: &Path) -> InputFile {
    InputFile {
        path: path.display().to_string(),
        bytes: dict.bytes(),
        ..InputFile::default()
    }
}

/// A tensor of a state dict.
pub(crate) fn of_state_dict(tensor: &bnkit_model::safetensors::Tensor) -> Entry {
    Entry {
        name: tensor.name.clone(),
        dtype: ElementType {
            name: tensor.dtype.to_string(),
            onnx: dtype_of(tensor.dtype),
        },
        dims: tensor.shape.clone(),
        bytes: tensor.bytes(),
        at: At::StateDict(tensor.clone()),
    }
}

fn of_graph(model: &Model) -> Vec<Entry> {
    let types = Types::derive(model);
    let constants = Constants::new(model, &types, true);
    let mut entries = Vec::new();
    for id in (0..model.value_count()).map(|index| model.value_id(index)) {
        let value = model.value(id);
        let def = match (&value.tensor, value.origin) {
            (_, Origin::Removed) => None,
            (Some(def), _) => Some(TensorDef::clone(def)),
            (None, Origin::Node(..)) => constant(model, &constants, id),
            _ => None,
        };
        let Some(def) = def else { continue };
        entries.push(Entry {
            name: match model.scope_path(value.scope).as_str() {
                "" => value.name.to_string(),
                scope => format!("{scope}/{}", value.name),
            },
            dtype: ElementType {
                name: def.dtype.to_string(),
                onnx: Some(def.dtype),
            },
            dims: def.dims.to_vec(),
            bytes: def.dtype.byte_len(def.len() as u64).unwrap_or(0),
            at: At::Graph(def),
        });
    }
    entries
}

/// What a Constant node holds, also behind Identity nodes: exporters merge equal tensors and keep their names that way.
fn constant(model: &Model, constants: &Constants<'_>, mut value: ValueId) -> Option<TensorDef> {
    for _ in 0..16 {
        let (node, _) = model.producer(value)?;
        if model.node(node).is("Constant") {
            return constants.tensor(value).map(Arc::unwrap_or_clone).ok();
        }
        if !model.node(node).is("Identity") {
            return None;
        }
        value = model.node(node).input(0)?;
        if let Some(def) = &model.value(value).tensor {
            return Some(TensorDef::clone(def));
        }
    }
    None
}
