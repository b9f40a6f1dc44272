//! A look at every element of a checkpoint: ends, NaN and Inf of each tensor, and tensors that hold the same bytes.
//!
//! Each tensor is read once, in chunks, several of them at the same time. Only tensors that another one could be equal to
//! (same type, same number of bytes) are hashed on the way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use bnkit_model::stored::{CHUNK, Stored};
use bnkit_model::tensor::decode_f64;
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::values::Ends;
use crate::Result;
use crate::checkpoint::{Checkpoint, Entry};
use crate::report::{InputFile, Tool};

/// Equal tensors below this size are not reported: fresh BatchNorms are full of equal vectors.
const WORTH_TELLING: u64 = 1024;

/// The outcome of `inspect --scan`: schema `bnkit.scan/1`.
#[derive(Debug, Clone, Serialize)]
pub struct ScanReport {
    /// "bnkit.scan/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// Every tensor, in the order of the file.
    pub tensors: Vec<ScannedTensor>,
    /// How many of them have a NaN or an infinity.
    pub not_finite: usize,
    /// Tensors with the same bytes, of 1 KiB and more; the largest first.
    pub equal: Vec<EqualTensors>,
}

/// A tensor and its elements.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScannedTensor {
    /// Its name.
    pub name: String,
    /// Its element type, as the file's format calls it.
    pub dtype: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// How many bytes the elements take; 0 if that is not known (strings).
    pub bytes: u64,
    /// What was found; `None` where there are no elements, or they are no numbers.
    pub ends: Option<Ends>,
}

/// Tensors of one type that hold the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EqualTensors {
    /// Their names, in the order of the file.
    pub names: Vec<String>,
    /// The bytes of each.
    pub bytes: u64,
    /// In how many places these bytes are stored: fewer than there are names if some of them share storage.
    pub copies: usize,
    /// The SHA-256 of the bytes, in hexadecimal.
    pub sha256: String,
}

/// Reads every tensor of a checkpoint.
///
/// # Errors
/// If it cannot be read.
pub fn scan(path: &Path) -> Result<ScanReport> {
    let checkpoint = Checkpoint::open(path)?;
    let entries = checkpoint.entries();
    let stored: Vec<Option<Stored>> = entries
        .iter()
        .map(|entry| match entry.bytes {
            0 => Ok(None),
            _ => checkpoint.elements(entry).map(Some),
        })
        .collect::<Result<_>>()?;
    let twins = could_be_equal(&entries);
    let read: Vec<(Option<Ends>, Option<String>)> = (entries.par_iter().zip(&stored).enumerate())
        .map(|(at, (entry, stored))| match stored {
            None => Ok((None, None)),
            Some(stored) => look(&checkpoint, entry, stored, twins.contains(&at)),
        })
        .collect::<Result<_>>()?;
    checkpoint.check_unchanged()?;
    let equal = equal(&entries, &stored, &read);
    let tensors: Vec<ScannedTensor> = entries
        .into_iter()
        .zip(read)
        .map(|(entry, (ends, _))| ScannedTensor {
            name: entry.name,
            dtype: entry.dtype.name,
            dims: entry.dims,
            bytes: entry.bytes,
            ends,
        })
        .collect();
    let broken = |tensor: &&ScannedTensor| {
        let ends = tensor.ends.as_ref();
        ends.is_some_and(|ends| ends.nan + ends.infinite > 0)
    };
    Ok(ScanReport {
        schema: "bnkit.scan/1",
        tool: Tool::default(),
        input: checkpoint.describe(),
        not_finite: tensors.iter().filter(broken).count(),
        tensors,
        equal,
    })
}

/// The places of tensors that have another one of the same type and size.
fn could_be_equal(entries: &[Entry]) -> HashSet<usize> {
    let mut sizes: HashMap<(&str, u64), Vec<usize>> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if entry.bytes >= WORTH_TELLING {
            let key = (entry.dtype.name.as_str(), entry.bytes);
            sizes.entry(key).or_default().push(at);
        }
    }
    let several = sizes.into_values().filter(|places| places.len() > 1);
    several.flatten().collect()
}

/// Reads one tensor: its ends if it has numbers, its hash if that is wanted.
fn look(
    checkpoint: &Checkpoint,
    entry: &Entry,
    stored: &Stored,
    hash: bool,
) -> Result<(Option<Ends>, Option<String>)> {
    let number = entry.dtype.number();
    let mut ends = Ends::default();
    let mut digest = hash.then(Sha256::new);
    let size = number.and_then(|dtype| dtype.size()).unwrap_or(4);
    stored
        .for_each_part(CHUNK * size, |_, bytes| {
            if let Some(digest) = &mut digest {
                digest.update(&*bytes);
            }
            if let Some(dtype) = number {
                ends.add(&decode_f64(dtype, bytes)?);
            }
            Ok(())
        })
        .map_err(|error| checkpoint.in_tensor(entry, error))?;
    let hex = |digest: Sha256| {
        let bytes = digest.finalize();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    Ok((number.map(|_| ends), digest.map(hex)))
}

/// The groups of equal tensors.
fn equal(
    entries: &[Entry],
    stored: &[Option<Stored>],
    read: &[(Option<Ends>, Option<String>)],
) -> Vec<EqualTensors> {
    let mut groups: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (at, (_, hash)) in read.iter().enumerate() {
        if let Some(hash) = hash {
            let key = (entries[at].dtype.name.as_str(), hash.as_str());
            groups.entry(key).or_default().push(at);
        }
    }
    let mut found: Vec<(usize, EqualTensors)> = groups
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|((_, hash), places)| {
            let mut kept: Vec<&Stored> = Vec::new();
            for one in places.iter().filter_map(|&at| stored[at].as_ref()) {
                if !kept.iter().any(|other| other.is_same(one)) {
                    kept.push(one);
                }
            }
            let group = EqualTensors {
                names: places.iter().map(|&at| entries[at].name.clone()).collect(),
                bytes: entries[places[0]].bytes,
                copies: kept.len(),
                sha256: hash.to_owned(),
            };
            (places[0], group)
        })
        .collect();
    found.sort_by_key(|(first, group)| (std::cmp::Reverse(group.bytes), *first));
    found.into_iter().map(|(_, group)| group).collect()
}
