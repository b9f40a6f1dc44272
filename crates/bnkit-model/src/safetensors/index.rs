//! The index of a sharded checkpoint (`model.safetensors.index.json`): `weight_map`, the file of each tensor, and
//! `metadata`, among it `total_size`, the bytes of all tensors.
//!
//! A checkpoint comes from anywhere, so the files that it names must lie in its own folder, as plain names. Links may lead
//! out of it in one case: into the `blobs` of the Hugging Face cache that the folder is a snapshot of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::entries::{self, Entries, Member};
use super::state_dict::StateDict;
use crate::error::{self, shown};
use crate::source::Source;
use crate::{Error, Limits, Result};

/// What an index says.
#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) metadata: Vec<(String, serde_json::Value)>,
    /// Tensor and file, in order.
    pub(super) weight_map: Vec<(String, String)>,
    /// The length of the index itself.
    pub(super) bytes: u64,
}

enum Entry {
    Metadata(Vec<(String, serde_json::Value)>),
    WeightMap(Vec<(String, String)>),
}

impl Member for Entry {
    fn place(key: &str) -> String {
        shown(key).into_owned()
    }

    fn read<'de, D: Deserializer<'de>>(key: &str, deserializer: D) -> Result<Self, D::Error> {
        match key {
            "metadata" => Entries::deserialize(deserializer).map(|map| Self::Metadata(map.0)),
            "weight_map" => Entries::deserialize(deserializer).map(|map| Self::WeightMap(map.0)),
            _ => Err(serde::de::Error::custom(
                "an index has metadata and weight_map, nothing else",
            )),
        }
    }
}

impl Index {
    /// Reads an index, and finds the files that it names: name and path, by name.
    pub(super) fn open(source: &Source, path: &Path) -> Result<(Self, Vec<(String, PathBuf)>)> {
        let index = Self::read(source).map_err(|error| error.in_file(path))?;
        let names: BTreeSet<&str> = index
            .weight_map
            .iter()
            .map(|(_, file)| file.as_str())
            .collect();
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let locate = |name: &str| {
            let file = contained(dir, name)
                .map_err(|error| index.in_tensor_of(name, error).in_file(path))?;
            Ok((name.to_owned(), file))
        };
        let files = names.into_iter().map(locate).collect::<Result<_>>()?;
        Ok((index, files))
    }

    /// `error`, with the first tensor that is said to be in `file`.
    pub(super) fn in_tensor_of(&self, file: &str, error: Error) -> Error {
        let tensor = self.weight_map.iter().find(|(_, other)| other == file);
        error.at(error::tensor(tensor.map_or("", |(tensor, _)| tensor)))
    }

    fn read(source: &Source) -> Result<Self> {
        let most = Limits::get().index_bytes;
        if source.len() > most {
            return Err(Error::invalid(format!(
                "the index has {} bytes; more than {most} are not read",
                source.len()
            )));
        }
        let json = source.read(0..source.len())?;
        let (mut metadata, mut weight_map) = (Vec::new(), None);
        for (_, entry) in entries::parse(&json)? {
            match entry {
                Entry::Metadata(entries) => metadata = entries,
                Entry::WeightMap(entries) => weight_map = Some(entries),
            }
        }
        let weight_map = weight_map
            .ok_or_else(|| Error::invalid("this JSON has no weight_map, so it is no index"))?;
        if weight_map.is_empty() {
            return Err(Error::invalid("the weight_map is empty"));
        }
        Ok(Self {
            metadata,
            weight_map,
            bytes: source.len(),
        })
    }

    /// An index of these tensors (name and file) as a file holds it.
    pub(super) fn write(
        metadata: &[(String, serde_json::Value)],
        weight_map: &[(&str, &str)],
        total: u64,
    ) -> Vec<u8> {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let mut members: Vec<String> = Vec::new();
        for (key, value) in metadata.iter().filter(|(key, _)| key != TOTAL) {
            members.push(format!("{}: {value}", text(key)));
        }
        let place = metadata.iter().position(|(key, _)| key == TOTAL);
        let place = place.unwrap_or(members.len());
        members.insert(place, format!("\"{TOTAL}\": {total}"));
        let weights: Vec<String> = weight_map
            .iter()
            .map(|(tensor, file)| format!("    {}: {}", text(tensor), text(file)))
            .collect();
        let json = format!(
            "{{\n  \"metadata\": {{\n    {}\n  }},\n  \"weight_map\": {{\n{}\n  }}\n}}\n",
            members.join(",\n    "),
            weights.join(",\n")
        );
        json.into_bytes()
    }
}

/// The member of `metadata` that says how large the tensors are.
const TOTAL: &str = "total_size";

/// The index and the files say the same: each tensor is where the index says, and there are no others.
pub(super) fn check(index: &Index, dict: &StateDict) -> Result<()> {
    for (name, file) in &index.weight_map {
        let place = dict.tensor(name).map(|tensor| &dict.shards()[tensor.shard]);
        match place {
            Some(shard) if shard.name == *file => {}
            Some(shard) => {
                let message = format!("the index says {}, it is in {}", shown(file), shard.name);
                return Err(Error::invalid(message).at(error::tensor(name)));
            }
            None => {
                let message = format!("the index says {}, but it is not there", shown(file));
                return Err(Error::invalid(message).at(error::tensor(name)));
            }
        }
    }
    if index.weight_map.len() == dict.tensors().len() {
        return Ok(());
    }
    let named: BTreeSet<&str> = index
        .weight_map
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let extra = dict
        .tensors()
        .iter()
        .find(|tensor| !named.contains(tensor.name.as_str()));
    let extra = extra.map_or("", |tensor| &tensor.name);
    let message = "a file holds it, but the index does not name it";
    Err(Error::invalid(message).at(error::tensor(extra)))
}

/// The path of the file `name` in `dir`, links resolved.
fn contained(dir: &Path, name: &str) -> Result<PathBuf> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!(
            "the file \"{}\" {why}",
            shown(name)
        )))
    };
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        return refuse("is no plain name of a file beside the index");
    }
    let path = dir.join(name);
    let resolve = |path: &Path| {
        let cannot = |error| {
            let path = path.to_string_lossy();
            Error::invalid(format!("cannot open {}: {error}", shown(&path)))
        };
        path.canonicalize().map_err(cannot)
    };
    let (resolved, dir) = (resolve(&path)?, resolve(dir)?);
    let is_inside = resolved.parent() == Some(&dir) || is_blob(&dir, &resolved);
    if is_inside {
        Ok(resolved)
    } else {
        refuse("is a link that leaves the checkpoint's folder")
    }
}

/// Whether `dir` is `…/snapshots/REVISION` of a Hugging Face cache, or a folder in it, and `file` lies in its `blobs`.
fn is_blob(dir: &Path, file: &Path) -> bool {
    let mut above = dir.ancestors().skip(1);
    let snapshots = above.find(|folder| folder.file_name() == Some("snapshots".as_ref()));
    let repository = snapshots.and_then(Path::parent);
    repository.is_some_and(|repository| file.parent() == Some(&repository.join("blobs")))
}
