//! The JSON at the start of a safetensors file: eight bytes with its length, then an object with an entry for each
//! tensor (`dtype`, `shape`, `data_offsets` from the end of the header on), and `__metadata__`, strings by strings.
//!
//! What a file claims is checked before it is believed: nothing is allocated that the file does not have, and the tensors
//! cover the rest of the file without holes and overlaps, each as long as its type and shape say.

use std::ops::Range;

use safetensors::Dtype;
use serde::{Deserialize, Deserializer};

use super::entries::{self, Entries, Member};
use super::state_dict::Tensor;
use crate::error;
use crate::source::Source;
use crate::{Error, Limits, Result};

/// No reader takes a longer header; the `safetensors` crate does not.
const MAX_HEADER: u64 = 100_000_000;
/// The bytes that hold the length of the header.
pub(super) const PREFIX: u64 = 8;
/// The entry that is no tensor.
pub(super) const METADATA: &str = "__metadata__";

/// What a header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Option<Vec<(String, String)>>,
    /// In the order of their data.
    pub(super) tensors: Vec<Tensor>,
}

enum Entry {
    Tensor(Strict),
    Metadata(Option<Vec<(String, String)>>),
}

impl Member for Entry {
    fn place(key: &str) -> String {
        match key {
            METADATA => METADATA.to_owned(),
            name => error::tensor(name),
        }
    }

    fn read<'de, D: Deserializer<'de>>(key: &str, deserializer: D) -> Result<Self, D::Error> {
        match key {
            METADATA => Option::<Entries<String>>::deserialize(deserializer)
                .map(|entries| Self::Metadata(entries.map(|entries| entries.0))),
            _ => Strict::deserialize(deserializer).map(Self::Tensor),
        }
    }
}

/// The record of a tensor, without room for more: a field that would be lost is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl Header {
    /// Reads the header of a file; the tensors are those of shard number `shard`.
    pub(super) fn read(source: &Source, shard: usize) -> Result<Self> {
        let invalid = |message: String| Err(Error::invalid(message));
        if source.len() < PREFIX {
            return invalid(format!(
                "{} bytes are too few for a safetensors file",
                source.len()
            ));
        }
        let mut length = [0; PREFIX as usize];
        source.read_at(0, &mut length)?;
        let length = u64::from_le_bytes(length);
        let rest = source.len() - PREFIX;
        let most = Limits::get().header_bytes;
        if length > most {
            return invalid(format!(
                "the header claims {length} bytes; more than {most} are not read"
            ));
        }
        if length > rest {
            return invalid(format!(
                "the header claims {length} bytes, {rest} are left in the file"
            ));
        }
        let json = source.read(PREFIX..PREFIX + length)?;
        if json.first() != Some(&b'{') {
            return invalid("the header does not begin with \"{\"".to_owned());
        }
        let data = PREFIX + length..source.len();
        let mut metadata = None;
        let mut tensors = Vec::new();
        let entries = entries::parse(&json).map_err(|error| error.at("the header"))?;
        for (name, entry) in entries {
            match entry {
                Entry::Metadata(entries) => metadata = entries,
                Entry::Tensor(info) => {
                    let in_tensor = |error: Error| error.at(error::tensor(&name));
                    let range = check(&info, &data).map_err(in_tensor)?;
                    tensors.push(Tensor {
                        name,
                        dtype: info.dtype,
                        shape: info.shape,
                        shard,
                        range,
                    });
                }
            }
        }
        // Empty tensors lie at the same place as what follows them, so by their ends, too.
        tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
        check_cover(&tensors, data)?;
        Ok(Self { metadata, tensors })
    }

    /// The header of a file: the eight bytes, the JSON, and blanks up to a multiple of eight.
    pub(super) fn write<'t>(
        metadata: Option<&[(String, String)]>,
        tensors: impl Iterator<Item = (&'t str, Dtype, &'t [usize], u64)>,
    ) -> Result<Vec<u8>> {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let mut json = String::from("{");
        let mut separator = "";
        if let Some(metadata) = metadata {
            let entry = |(key, value): &(String, String)| format!("{}:{}", text(key), text(value));
            let entries: Vec<String> = metadata.iter().map(entry).collect();
            json += &format!("\"{METADATA}\":{{{}}}", entries.join(","));
            separator = ",";
        }
        let mut start = 0;
        for (name, dtype, shape, bytes) in tensors {
            let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
            let stop = start + bytes;
            json += &format!(
                "{separator}{}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{start},{stop}]}}",
                text(name),
                dims.join(",")
            );
            separator = ",";
            start = stop;
        }
        json.push('}');
        while !json.len().is_multiple_of(PREFIX as usize) {
            json.push(' ');
        }
        if json.len() as u64 > MAX_HEADER {
            return Err(Error::invalid(format!(
                "the header would have {} bytes; no reader takes more than {MAX_HEADER}",
                json.len()
            )));
        }
        let mut out = (json.len() as u64).to_le_bytes().to_vec();
        out.extend_from_slice(json.as_bytes());
        Ok(out)
    }
}

/// Where the tensor lies in the file; `data` is where tensors may lie.
fn check(info: &Strict, data: &Range<u64>) -> Result<Range<u64>> {
    let (start, stop) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    let (dtype, shape) = (info.dtype, &info.shape);
    if stop < start {
        return Err(Error::invalid(format!(
            "its data ends at {stop}, before it begins at {start}"
        )));
    }
    let available = data.end - data.start;
    if stop > available {
        return Err(Error::invalid(format!(
            "its data ends at {stop}, beyond the {available} bytes that the file has"
        )));
    }
    let bits = bits(dtype, shape)
        .ok_or_else(|| Error::invalid(format!("its shape {} overflows", shape_text(shape))))?;
    if !bits.is_multiple_of(8) {
        return Err(Error::invalid(format!(
            "{dtype} of shape {} is no whole number of bytes",
            shape_text(shape)
        )));
    }
    if bits / 8 != stop - start {
        return Err(Error::invalid(format!(
            "{dtype} of shape {} takes {} bytes, found {}",
            shape_text(shape),
            bits / 8,
            stop - start
        )));
    }
    Ok(data.start + start..data.start + stop)
}

/// How many bits a tensor takes, `None` on overflow. Dimensions that overflow do so beside a 0, too: whoever multiplies
/// some of them would fall into that.
pub(super) fn bits(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let most = shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |bits, &dim| {
            bits.checked_mul(dim.max(1) as u64)
        })?;
    i64::try_from(most).ok()?;
    Some(if shape.contains(&0) { 0 } else { most })
}

/// A shape as a message shows it.
pub(super) fn shape_text(shape: &[usize]) -> String {
    error::shown(&format!("{shape:?}")).into_owned()
}

/// The tensors, by their place, cover the data without holes and overlaps.
fn check_cover(tensors: &[Tensor], data: Range<u64>) -> Result<()> {
    let mut at = data.start;
    let mut before: Option<&str> = None;
    for tensor in tensors {
        let start = tensor.range.start;
        if start != at {
            let other = before.map_or("the header".to_owned(), error::tensor);
            let how = if start < at {
                "overlaps"
            } else {
                "leaves a hole behind"
            };
            let message = format!(
                "its data begins at {} and {how} {other}, which ends at {}",
                start - data.start,
                at - data.start
            );
            return Err(Error::invalid(message).at(error::tensor(&tensor.name)));
        }
        (at, before) = (tensor.range.end, Some(tensor.name.as_str()));
    }
    if at != data.end {
        let message = format!("{} bytes at the end belong to no tensor", data.end - at);
        return Err(match before {
            Some(name) => Error::invalid(format!("{message}, the last is {}", error::tensor(name))),
            None => Error::invalid(message),
        });
    }
    Ok(())
}
