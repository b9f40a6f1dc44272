//! Which of the formats a file is in, by its content: names lie.

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

/// Beginnings of files that people have and that are none of these, and what to do about them.
const OTHERS: [(&[u8], &str); 5] = [
    (
        b"PK\x03\x04",
        "a ZIP archive, as torch.save and Keras write: save the state dict with safetensors.torch.save_file, or export to ONNX",
    ),
    (
        b"\x80\x02",
        "a Python pickle: load it where you trust it, and save the state dict with safetensors.torch.save_file",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file: save the weights as safetensors, or export to ONNX",
    ),
    (b"GGUF", "a GGUF file, which holds no BatchNorm"),
    (
        b"\x93NUMPY",
        "a NumPy array, no checkpoint (data goes to --data)",
    ),
];

impl Format {
    /// Recognises the format of `source`. What is nothing else is taken for ONNX, whose reader then says what is wrong.
    ///
    /// # Errors
    /// If it cannot be read, or is a file of another, well-known kind.
    pub fn detect(source: &Source) -> Result<Self> {
        let start = source.read(0..source.len().min(4096))?;
        if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Err(Error::invalid(format!("this is {what}")));
        }
        let header = start
            .first_chunk::<8>()
            .map(|bytes| u64::from_le_bytes(*bytes));
        // A protobuf message that begins like this would have a field of number 0, or is far shorter than the number says.
        if start.get(8) == Some(&b'{') && header.is_some_and(|length| length < 1 << 40) {
            return Ok(Self::Safetensors);
        }
        let text = start.iter().find(|byte| !byte.is_ascii_whitespace());
        match text {
            Some(b'{') => Ok(Self::SafetensorsIndex),
            _ => Ok(Self::Onnx),
        }
    }
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
    fn other_files_are_called_by_their_name() {
        let error = detect(b"PK\x03\x04rest").unwrap_err().to_string();
        assert!(error.contains("torch.save"), "{error}");
    }
}
