//! Which of the formats a file is in, by its content: names lie.
//!
//! Files of other kinds that people have are called by their name, with what to do about them; none of them is opened.

use crate::source::Source;
use crate::{Error, Result};

/// A format of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An ONNX model.
    Onnx,
    /// A safetensors file.
    Safetensors,
    /// The JSON index of a sharded safetensors checkpoint.
    SafetensorsIndex,
}

/// How much of a file is looked at.
const START: u64 = 4096;

/// What to do with a file of PyTorch's.
const TORCH: &str =
    "save the state dict with safetensors.torch.save_file, or export the model to ONNX";

/// Where other files have a mark, the mark, and what they are.
const OTHERS: [(usize, &[u8], &str); 16] = [
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as Keras writes: export the model to ONNX, or save its weights as safetensors",
    ),
    (0, b"GGUF", "a GGUF file, which holds no BatchNorm"),
    (
        0,
        b"\x93NUMPY",
        "a NumPy array, no checkpoint (data goes to --data)",
    ),
    (
        4,
        b"TFL3",
        "a TensorFlow Lite model, whose BatchNorms are folded already",
    ),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file it stands for: get that with git lfs pull",
    ),
    (0, b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it first"),
    (0, b"BZh", "bzip2-compressed: unpack it first"),
    (0, b"\xfd7zXZ\0", "xz-compressed: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (0, b"<!DOCTYPE", WEB_PAGE),
    (0, b"<!doctype", WEB_PAGE),
    (0, b"<html", WEB_PAGE),
    (
        0,
        b"<?xml",
        "an XML file (of OpenVINO, say): give the ONNX model that it was made from",
    ),
    (
        0,
        b"ftrt",
        "a TensorRT engine, whose BatchNorms are folded already",
    ),
    (
        0,
        b"\x7fELF",
        "a program or library, with no model that can be read",
    ),
];

const WEB_PAGE: &str = "a web page: the download went wrong";

impl Format {
    /// Recognises the format of `source`. What is nothing else is taken for ONNX, whose reader then says what is wrong.
    ///
    /// # Errors
    /// If it cannot be read, or is a file of another, well-known kind.
    pub fn detect(source: &Source) -> Result<Self> {
        let start = source.read(0..source.len().min(START))?;
        let header = start
            .first_chunk::<8>()
            .map(|bytes| u64::from_le_bytes(*bytes));
        // A protobuf message that begins like this would have a field of number 0, or is far shorter than the number says.
        // This comes first, because a length may begin like anything: 640 as a pickle does.
        if start.get(8) == Some(&b'{') && header.is_some_and(|length| length < 1 << 40) {
            return Ok(Self::Safetensors);
        }
        if let Some(what) = other(&start) {
            return Err(Error::invalid(format!("this is {what}")));
        }
        let text = start.iter().find(|byte| !byte.is_ascii_whitespace());
        match text {
            Some(b'{') => Ok(Self::SafetensorsIndex),
            _ => Ok(Self::Onnx),
        }
    }

    /// What to say about a file that could not be read as ONNX because of `error`: what it is instead, or else just that.
    pub(crate) fn instead_of_onnx(source: &Source, error: Error) -> Error {
        let what = match Self::detect(source) {
            Err(other) => other.to_string(),
            Ok(Self::Safetensors) => {
                "this is a safetensors file: weights, without a graph".to_owned()
            }
            Ok(Self::SafetensorsIndex) => {
                "this is JSON, as the index of a sharded checkpoint is".to_owned()
            }
            Ok(Self::Onnx) => return error,
        };
        Error::invalid(format!("not a readable ONNX model: {what}"))
    }
}

/// What a file is that begins like this, and what to do about it; `None` if it is nothing that is known.
fn other(start: &[u8]) -> Option<String> {
    let marked = |(at, magic, _): &&(usize, &[u8], &str)| {
        start.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    if let Some((_, _, what)) = OTHERS.iter().find(marked) {
        return Some((*what).to_owned());
    }
    match start {
        [b'P', b'K', 3, 4, ..] => Some(archive(start)),
        [b'P', b'K', 5, 6, ..] => Some("an empty ZIP archive".to_owned()),
        [0x80, 2..=5, ..] => Some(format!(
            "a Python pickle, as torch.save wrote it (protocol {}), which is not opened, since that runs code: load it where you trust it, then {TORCH}",
            start[1]
        )),
        _ if is_msgpack(start) => Some(
            "MessagePack, as Flax writes: save the parameters with safetensors.flax.save_file"
                .to_owned(),
        ),
        _ if is_saved_model(start) => Some(
            "a TensorFlow SavedModel: convert it with tf2onnx, without its constant folding"
                .to_owned(),
        ),
        _ => None,
    }
}

/// What a ZIP archive is, by the name of its first member.
fn archive(start: &[u8]) -> String {
    let length = start.get(26..28).map_or(0, |bytes| {
        usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
    });
    let name = start.get(30..30 + length).unwrap_or_default();
    if name.ends_with(b".npy") {
        "an archive of NumPy arrays (.npz), no checkpoint (data goes to --data)".to_owned()
    } else if name.ends_with(b"/data.pkl") || name.ends_with(b"/.format_version") {
        format!("a ZIP archive with a pickle, as torch.save writes: {TORCH}")
    } else if [&b"metadata.json"[..], b"config.json", b"model.weights.h5"].contains(&name) {
        "a ZIP archive, as Keras writes: export the model to ONNX".to_owned()
    } else {
        format!(
            "a ZIP archive, as torch.save and Keras write: {TORCH}; or unpack it, if it holds the model"
        )
    }
}

/// Whether this is a map whose first key is a short name, as in Flax' checkpoints.
fn is_msgpack(start: &[u8]) -> bool {
    let key = match start {
        [0x81..=0x8f, key @ ..] | [0xde, _, _, key @ ..] | [0xdf, _, _, _, _, key @ ..] => key,
        _ => return false,
    };
    let Some((&kind @ 0xa1..=0xbf, name)) = key.split_first() else {
        return false;
    };
    name.get(..usize::from(kind - 0xa0))
        .is_some_and(|name| name.iter().all(u8::is_ascii_graphic))
}

/// Whether this is a schema version of 1 and then a message, where ONNX has the producer's name.
fn is_saved_model(start: &[u8]) -> bool {
    let Some(graph) = start.strip_prefix(b"\x08\x01\x12") else {
        return false;
    };
    let length = graph.iter().position(|byte| byte & 0x80 == 0);
    length.is_some_and(|length| length < 10 && graph.get(length + 1) == Some(&0x0a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(bytes: &[u8]) -> Result<Format> {
        Format::detect(&Source::memory(bytes.to_vec()))
    }

    #[test]
    fn each_format_is_known_by_its_beginning() {
        assert_eq!(detect(b"\x08\x08\x12\x07pytorch").unwrap(), Format::Onnx);
        assert_eq!(detect(b"\x08\x01\x12\x07pytorch").unwrap(), Format::Onnx);
        assert_eq!(detect(b"").unwrap(), Format::Onnx);
        assert_eq!(
            detect(b"\x02\0\0\0\0\0\0\0{}").unwrap(),
            Format::Safetensors
        );
        assert_eq!(
            detect(b" \n{\"weight_map\": {}}").unwrap(),
            Format::SafetensorsIndex
        );
    }

    #[test]
    fn a_length_that_looks_like_another_format_is_a_length() {
        // Each is a header length that begins like a pickle, a map of MessagePack, gzip.
        for length in [0x0280u64, 0x0380, 0x0480, 0x0580, 0x6183_a181, 0x8b1f] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend(b"{\"w\":{");
            assert_eq!(detect(&bytes).unwrap(), Format::Safetensors, "{length:#x}");
        }
    }

    #[test]
    fn other_files_are_called_by_their_name() {
        let zip = |name: &str| {
            let mut bytes = b"PK\x03\x04".to_vec();
            bytes.resize(26, 0);
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend([0, 0]);
            bytes.extend(name.as_bytes());
            bytes
        };
        let mut tar = vec![b'a'; 257];
        tar.extend(b"ustar\0");
        let cases: [(Vec<u8>, &str); 21] = [
            (b"PK\x03\x04rest".to_vec(), "torch.save and Keras"),
            (b"PK\x03\x04".to_vec(), "a ZIP archive"),
            (b"PK\x05\x06\0\0".to_vec(), "an empty ZIP archive"),
            (
                zip("archive/data.pkl"),
                "with a pickle, as torch.save writes",
            ),
            (zip("metadata.json"), "as Keras writes"),
            (zip("x.npy"), "(.npz), no checkpoint"),
            (b"\x80\x02\x8a\x0al\xfc\x9cF".to_vec(), "a Python pickle"),
            (b"\x80\x05\x95\x01\0\0\0\0\0\0\0".to_vec(), "(protocol 5)"),
            (b"\x89HDF\r\n\x1a\n\0\0".to_vec(), "an HDF5 file"),
            (b"GGUF\x03\0\0\0".to_vec(), "a GGUF file"),
            (b"\x93NUMPY\x01\0".to_vec(), "a NumPy array"),
            (b"\x1c\0\0\0TFL3\x14\0".to_vec(), "a TensorFlow Lite model"),
            (
                b"\x08\x01\x12\xd4\x80\x01\x0a\x5f\x12\x05serve".to_vec(),
                "a TensorFlow SavedModel",
            ),
            (b"\x81\xa6params\x82".to_vec(), "MessagePack, as Flax"),
            (b"\xde\0\x10\xa4head\x82".to_vec(), "MessagePack, as Flax"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:1".to_vec(),
                "git lfs pull",
            ),
            (b"\x1f\x8b\x08\0".to_vec(), "gzip-compressed"),
            (tar, "a tar archive"),
            (b"<!DOCTYPE html>".to_vec(), "a web page"),
            (b"<?xml version=\"1.0\"?>".to_vec(), "OpenVINO"),
            (b"\x7fELF\x02".to_vec(), "a program or library"),
        ];
        for (bytes, expected) in cases {
            let error = detect(&bytes).unwrap_err().to_string();
            assert!(error.starts_with("this is "), "{error}");
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
