//! External data on the way in: which files a model may name, opened once each, and the ranges that tensors take.
//!
//! A model comes from anywhere, so what it names must lie in its own folder: no absolute path, no `..`, no backslash
//! (a separator elsewhere), no symbolic link that leads out, and nothing but a regular file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::model::{AttributeValue, External, Model, Payload, TensorDef};
use crate::source::Source;
use crate::tensor::element_count;
use crate::{Error, Result};

/// The external files that were opened so far, by their location as the model says it.
#[derive(Debug, Default)]
pub(crate) struct ExternalFiles {
    open: Mutex<BTreeMap<String, Arc<Source>>>,
    /// All locations that the model named when it was loaded, read or not.
    named: BTreeSet<String>,
}

impl ExternalFiles {
    /// All files that were opened.
    pub(crate) fn opened(&self) -> Vec<Arc<Source>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().cloned().collect()
    }
}

impl Model {
    /// Keeps the locations that the tensors of the model name; edits may drop the tensors.
    pub(crate) fn keep_locations(&mut self) {
        let initializers = self
            .values
            .iter()
            .filter_map(|value| value.tensor.as_deref());
        let attributes = self.nodes.iter().flat_map(|node| &node.attributes);
        let constants = attributes.filter_map(|attribute| match &attribute.value {
            AttributeValue::Tensor(tensor) => Some(&**tensor),
            _ => None,
        });
        let named = initializers
            .chain(constants)
            .filter_map(|tensor| match &tensor.payload {
                Payload::External(external) => Some(external.location.clone()),
                _ => None,
            })
            .collect();
        self.externals = Arc::new(ExternalFiles {
            open: Mutex::default(),
            named,
        });
    }

    /// The files that hold, or may hold, data of the model as it was loaded.
    pub(crate) fn named_externals(&self) -> impl Iterator<Item = PathBuf> {
        let named = self.externals.named.iter();
        named.filter_map(|location| contained(self.dir()?, location).ok())
    }

    /// External tensors whose data cannot be had from the model's own folder: the tensor's name (for an attribute, the node's) and why.
    pub fn external_faults(&self) -> Vec<(String, Error)> {
        let initializers = self.values.iter().filter_map(|value| {
            let tensor = value.tensor.as_deref()?;
            Some((value.name.as_str(), tensor))
        });
        let attributes = self.nodes().flat_map(|(id, node)| {
            let label = self.label(id).as_str();
            node.attributes
                .iter()
                .filter_map(move |attribute| match &attribute.value {
                    AttributeValue::Tensor(tensor) => Some((label, &**tensor)),
                    _ => None,
                })
        });
        let fault = |(name, tensor): (&str, &TensorDef)| match &tensor.payload {
            Payload::External(external) => {
                let bytes =
                    element_count(&tensor.dims).and_then(|count| tensor.dtype.byte_len(count));
                let error = self.external(external, bytes).err()?;
                Some((name.to_owned(), error))
            }
            _ => None,
        };
        initializers.chain(attributes).filter_map(fault).collect()
    }

    /// The file that `external` names, and the range in it of a tensor of `bytes` bytes (`None`: unknown).
    pub(crate) fn external(
        &self,
        external: &External,
        bytes: Option<u64>,
    ) -> Result<(Arc<Source>, Range<u64>)> {
        let source = self.external_file(&external.location)?;
        let length = external.length.or(bytes);
        let stop = match length {
            Some(length) => external.offset.checked_add(length),
            None => Some(source.len().max(external.offset)),
        };
        match stop.filter(|&stop| stop <= source.len()) {
            Some(stop) => Ok((source, external.offset..stop)),
            None => {
                let message = format!(
                    "{} bytes from {} on were expected in \"{}\", which has {}",
                    length.unwrap_or(0),
                    external.offset,
                    external.location,
                    source.len()
                );
                Err(Error::invalid(message))
            }
        }
    }

    fn external_file(&self, location: &str) -> Result<Arc<Source>> {
        let mut open = self
            .externals
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = open.get(location) {
            return Ok(source.clone());
        }
        let dir = self.dir().ok_or_else(|| {
            Error::invalid(format!(
                "its data is in \"{location}\", but a model in memory has no folder"
            ))
        })?;
        let path = contained(dir, location)?;
        if path.is_dir() {
            let message = format!("external data \"{location}\" is a folder");
            return Err(Error::invalid(message));
        }
        let source = Arc::new(Source::open(&path)?);
        open.insert(location.to_owned(), source.clone());
        Ok(source)
    }
}

/// The path of `location` in `dir`, links resolved.
fn contained(dir: &Path, location: &str) -> Result<PathBuf> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!(
            "external data \"{location}\" {why}"
        )))
    };
    if location.contains(['\\', '\0']) {
        return refuse("is not a plain relative path");
    }
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(location).components().all(inside) {
        return refuse("lies outside the model's folder");
    }
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let path = dir.join(location);
    let resolve = |path: &Path| {
        // About the tensor and the model that name the file, so not an error of the file itself.
        path.canonicalize().map_err(|error| {
            let path = path.display();
            Error::invalid(format!("cannot open external data {path}: {error}"))
        })
    };
    let resolved = resolve(&path)?;
    if !resolved.starts_with(resolve(dir)?) {
        return refuse("is a link that leaves the model's folder");
    }
    Ok(resolved)
}
