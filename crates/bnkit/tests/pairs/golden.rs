//! Golden files of `testdata/pairs`, read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bnkit::state::groups::Entry;
use serde::Deserialize;

/// What a golden file says.
#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) preset: Option<String>,
    pub(crate) find: String,
    pub(crate) eps: Epsilon,
    pub(crate) pairs: Vec<String>,
    pub(crate) tensors: Vec<String>,
    /// The layers of pairs that are a ConvTranspose.
    #[serde(default)]
    pub(crate) transposed: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Epsilon {
    All(f64),
    Each(BTreeMap<String, f64>),
}

impl Golden {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut push = |name: String, shape: Vec<usize>, is_float| {
            entries.push(Entry {
                name,
                shape,
                is_float,
            });
        };
        for line in &self.tensors {
            let (name, shape) = line.rsplit_once(' ').unwrap();
            if let Some(channels) = shape.strip_prefix('@') {
                let channels: usize = channels.parse().unwrap();
                for leaf in ["weight", "bias", "running_mean", "running_var"] {
                    push(format!("{name}.{leaf}"), vec![channels], true);
                }
                push(format!("{name}.num_batches_tracked"), vec![], false);
            } else {
                let dims = shape.split('x').filter(|dim| *dim != "()");
                let shape = dims.map(|dim| dim.parse().unwrap()).collect();
                push(
                    name.to_owned(),
                    shape,
                    !name.ends_with("num_batches_tracked"),
                );
            }
        }
        entries
    }

    pub(crate) fn truth(&self) -> BTreeSet<(String, String)> {
        let pair = |line: &String| {
            let (layer, bn) = line.split_once(' ').unwrap();
            (layer.to_owned(), bn.to_owned())
        };
        self.pairs.iter().map(pair).collect()
    }

    pub(crate) fn epsilon(&self, bn: &str) -> f64 {
        match &self.eps {
            Epsilon::All(epsilon) => *epsilon,
            Epsilon::Each(each) => each[bn],
        }
    }
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let found = folder.read_dir().into_iter().flatten();
    let mut found: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    found.sort();
    found
}

pub(crate) fn goldens() -> Vec<PathBuf> {
    let found = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pairs"));
    assert!(found.len() > 50, "the goldens are part of the project");
    found
}
