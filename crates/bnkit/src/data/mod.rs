//! Named tensors from files: what a model is calibrated, validated and compared on.
//!
//! The leading axis of a tensor runs over samples. Files are told apart by extension; a folder is all its files in the order of their
//! names, and tensors of one name are more samples of it. Which tensor belongs to which input is not decided here
//! ([`crate::verify::inputs`] does): an array without a name, as `.npy` has it, keeps the empty one.
//!
//! Folders of images are read by [`images`], one after the other while the network runs.

pub mod images;
mod npy;
mod npy_header;
pub mod preprocess;
mod resample;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use bnkit_model::source::Source;
use bnkit_model::{DType, Error, Result, Tensor};

/// The tensors of a file or folder, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataSet {
    /// The tensors; several of one name are consecutive samples.
    pub tensors: Vec<NamedTensor>,
}

/// One tensor, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTensor {
    /// Its name in the file; empty if the file gives none.
    pub name: String,
    /// Its content.
    pub tensor: Tensor,
    /// Its file.
    pub source: PathBuf,
}

/// Reads `.npy`, `.npz`, `.safetensors`, ONNX `.pb` tensors, or a folder of these.
///
/// In a folder, `output_*.pb` (the expected outputs of an ONNX test) and files of other kinds are passed over.
///
/// # Errors
/// If something cannot be read; the message names the file.
pub fn load(path: &Path) -> Result<DataSet> {
    let mut tensors = vec![];
    if path.is_dir() {
        for file in files(path)? {
            tensors.extend(load_file(&file)?);
        }
        if tensors.is_empty() {
            return Err(Error::invalid(
                "no .npy, .npz, .safetensors or input_*.pb files in this folder",
            )
            .in_file(path));
        }
    } else {
        tensors = load_file(path)?;
    }
    Ok(DataSet { tensors })
}

/// The files of a folder that hold tensors; numbers in names sort as numbers, so that `input_10.pb` follows `input_9.pb`.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder
        .read_dir()
        .map_err(|error| Error::io(folder, "cannot list", error))?;
    let mut files = vec![];
    for entry in entries {
        let path = entry
            .map_err(|error| Error::io(folder, "cannot list", error))?
            .path();
        let expected_output = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("output_"));
        if path.is_file()
            && Kind::of(&path).is_some_and(|kind| !(kind == Kind::Pb && expected_output))
        {
            files.push(path);
        }
    }
    files.sort_by_key(|path| natural(&path.to_string_lossy()));
    Ok(files)
}

/// A sort key in which runs of digits compare by value.
pub(crate) fn natural(name: &str) -> Vec<(u64, char)> {
    let mut key = vec![];
    let mut digits = String::new();
    for letter in name.chars().chain(['\0']) {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        if !digits.is_empty() {
            key.push((digits.parse().unwrap_or(u64::MAX), '0'));
            digits.clear();
        }
        key.push((0, letter));
    }
    key
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Npy,
    Npz,
    Safetensors,
    Pb,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "npy" => Self::Npy,
            "npz" => Self::Npz,
            "safetensors" => Self::Safetensors,
            "pb" => Self::Pb,
            _ => return None,
        })
    }
}

fn load_file(path: &Path) -> Result<Vec<NamedTensor>> {
    let Some(kind) = Kind::of(path) else {
        return Err(Error::invalid(
            "not a data file: expected .npy, .npz, .safetensors, .pb or a folder of these",
        )
        .in_file(path));
    };
    let named = match kind {
        Kind::Npy => npy::read(open(path)?).map(|tensor| vec![(String::new(), tensor)]),
        Kind::Npz => npy::read_archive(open(path)?),
        Kind::Safetensors => safetensors(&read(path)?),
        Kind::Pb => bnkit_engine::tensor_from_pb(&read(path)?)
            .map(|named| vec![named])
            .map_err(|error| Error::invalid(error.to_string())),
    };
    Ok(named
        .map_err(|error| error.in_file(path))?
        .into_iter()
        .map(|(name, tensor)| NamedTensor {
            name,
            tensor,
            source: path.to_owned(),
        })
        .collect())
}

/// The bytes of an `.npz` archive of these arrays. Types that NumPy lacks (bfloat16) become float32, float16 too.
///
/// # Errors
/// If a tensor is of no type that NumPy has, or two have one name.
pub(crate) fn npz(named: &[(String, Tensor)]) -> Result<Vec<u8>> {
    npy::write_archive(named)
}

fn open(path: &Path) -> Result<BufReader<File>> {
    // A named pipe would wait for its writer.
    Source::open(path)?;
    let file = File::open(path).map_err(|error| Error::io(path, "cannot open", error))?;
    Ok(BufReader::new(file))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let source = Source::open(path)?;
    Ok(source.read(0..source.len())?.to_vec())
}

fn safetensors(bytes: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let file = safetensors::SafeTensors::deserialize(bytes)
        .map_err(|error| Error::invalid(format!("not a safetensors file: {error}")))?;
    let mut named = file
        .iter()
        .map(|(name, view)| {
            use safetensors::Dtype;
            let dtype = match view.dtype() {
                Dtype::BOOL => DType::Bool,
                Dtype::U8 => DType::U8,
                Dtype::I8 => DType::I8,
                Dtype::U16 => DType::U16,
                Dtype::I16 => DType::I16,
                Dtype::F16 => DType::F16,
                Dtype::BF16 => DType::BF16,
                Dtype::U32 => DType::U32,
                Dtype::I32 => DType::I32,
                Dtype::F32 => DType::F32,
                Dtype::U64 => DType::U64,
                Dtype::I64 => DType::I64,
                Dtype::F64 => DType::F64,
                other => {
                    return Err(Error::invalid(format!(
                        "tensor {name:?}: type {other:?} is no data"
                    )));
                }
            };
            let tensor = Tensor::new(dtype, view.shape().to_vec(), view.data().to_vec())
                .map_err(|error| error.at(format!("tensor {name:?}")))?;
            Ok((name.to_owned(), tensor))
        })
        .collect::<Result<Vec<_>>>()?;
    named.sort_by_key(|(name, _)| natural(name));
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn a_folder_is_its_files_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }\n";
        for number in [10u8, 9, 1] {
            let path = folder.path().join(format!("batch_{number}.npy"));
            std::fs::write(path, npy(header, &[number])).unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        std::fs::write(folder.path().join("output_0.pb"), "x").unwrap();
        let set = load(folder.path()).unwrap();
        let values: Vec<f64> = set
            .tensors
            .iter()
            .flat_map(|named| named.tensor.to_f64().unwrap())
            .collect();
        assert_eq!(values, [1.0, 9.0, 10.0]);
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let message = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let text = load(&path).unwrap_err().to_string();
            assert!(text.contains(name), "{text}");
            text
        };
        message("x.npy", b"no array");
        message("x.npz", b"no archive");
        message("x.safetensors", b"nothing");
        message("x.pb", b"\xff\xff");
        message("x.csv", b"1,2");
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
        let text = message("short.npy", &npy(header, &[0; 20]));
        assert!(text.contains("24 bytes") && text.contains("20"), "{text}");
        let header = "{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }\n";
        assert!(message("complex.npy", &npy(header, &[0; 8])).contains("c8"));
    }

    #[test]
    fn safetensors_keep_name_and_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let header = r#"{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0x80, 0x3f, 0x00, 0xc0]);
        std::fs::write(&path, bytes).unwrap();
        let set = load(&path).unwrap();
        assert_eq!(set.tensors[0].name, "x");
        assert_eq!(set.tensors[0].tensor.dtype(), DType::BF16);
        assert_eq!(set.tensors[0].tensor.to_f64().unwrap(), [1.0, -2.0]);
    }
}
