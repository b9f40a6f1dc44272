//! Pairing files: YAML written or reviewed by a person.
//!
//! A file is believed as to what belongs together, and checked in everything that can be checked: every module is there, no
//! layer and no BatchNorm is named twice, every shape fits, no pattern matches nothing. A mistake is an error that names
//! the file, the line and the tensor: going on with the rest would hide it.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::index::{Index, Kind};
use super::pattern::Pattern;
use super::{Layer, Left, Pair, Pairing};
use crate::state::groups::{self, BatchNormGroup, Entry};
use crate::{Error, Result, yaml};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    eps: Option<f64>,
    pairs: Vec<Line>,
}

/// One pair of the file, or many by a pattern.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    conv: Option<String>,
    linear: Option<String>,
    bn: String,
    eps: Option<f64>,
    #[serde(default)]
    transposed: bool,
    groups: Option<usize>,
}

/// A checked line: the pattern of its layer and how the layer is declared.
struct Wanted<'a> {
    layer: &'a str,
    linear: bool,
    kind: Kind,
    epsilon: Option<f64>,
}

/// The pairs that a pairing file at `path` (for messages) makes among `entries`. BatchNorms that it does not name are left.
///
/// # Errors
/// Everything that is wrong with the file, or does not fit the tensors.
pub fn from_file(text: &str, path: &Path, entries: &[Entry]) -> Result<Pairing> {
    let fail = |what: String| Error::Request(format!("{}: {what}", path.display()));
    yaml::check_depth(text).map_err(&fail)?;
    let file: File = serde_yaml::from_str(text).map_err(|error| fail(error.to_string()))?;
    check_epsilon(file.eps).map_err(&fail)?;
    let found = groups::find(entries);
    let index = Index::new(entries);
    let mut made: Vec<Option<(usize, Layer, Option<f64>)>> = vec![None; found.groups.len()];
    let mut layers: HashMap<String, usize> = HashMap::new();
    let lines = lines(text, file.pairs.len());
    let place = |number: usize| match &lines {
        Some(lines) => format!("pair {} (line {})", number + 1, lines[number]),
        None => format!("pair {}", number + 1),
    };
    for (number, line) in file.pairs.iter().enumerate() {
        let wrong = |what: String| fail(format!("{}: {what}", place(number)));
        let wanted = line.check(file.eps).map_err(&wrong)?;
        let mut count = 0;
        for (at, module) in wanted
            .find(&line.bn, &found.groups, &index)
            .map_err(&wrong)?
        {
            let bn = &found.groups[at];
            let layer = wanted.fit(&module, bn, &index).map_err(&wrong)?;
            if let Some((other, ..)) = &made[at] {
                let what = format!("batch norm {:?} is already in {}", bn.module, place(*other));
                return Err(wrong(what));
            }
            if let Some(other) = layers.insert(layer.weight.clone(), number) {
                let what = format!(
                    "layer {module:?} (tensor {:?}) is already in {}",
                    layer.weight,
                    place(other)
                );
                return Err(wrong(what));
            }
            made[at] = Some((number, layer, wanted.epsilon));
            count += 1;
        }
        if count == 0 {
            let what = format!("{:?} → {:?} matches nothing", wanted.layer, line.bn);
            return Err(wrong(what));
        }
    }
    let mut pairing = Pairing {
        notes: found.problems.into_iter().map(|p| p.message).collect(),
        ..Pairing::default()
    };
    for (batch_norm, made) in found.groups.into_iter().zip(made) {
        match made {
            Some((_, layer, epsilon)) => pairing.pairs.push(Pair {
                layer,
                batch_norm,
                epsilon,
                note: None,
            }),
            None => pairing.left.push(Left {
                batch_norm,
                reason: "the pairing file does not name it".to_owned(),
            }),
        }
    }
    Ok(pairing)
}

/// # Errors
/// If ε cannot be one.
fn check_epsilon(epsilon: Option<f64>) -> Result<(), String> {
    match epsilon {
        Some(epsilon) if !(epsilon.is_finite() && epsilon >= 0.0) => {
            Err(format!("eps: {epsilon} is no epsilon"))
        }
        _ => Ok(()),
    }
}

/// The line of each pair, for messages, if the lines can be told by the keys `conv:` and `linear:`.
fn lines(text: &str, pairs: usize) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        for word in code.split([' ', ',', '{', '-', '"', '\'']) {
            if matches!(word, "conv:" | "linear:") {
                found.push(number + 1);
            }
        }
    }
    (found.len() == pairs).then_some(found)
}

impl Line {
    /// # Errors
    /// If the keys do not go together.
    fn check(&self, default: Option<f64>) -> Result<Wanted<'_>, String> {
        let (layer, linear) = match (&self.conv, &self.linear) {
            (Some(layer), None) => (layer, false),
            (None, Some(layer)) => (layer, true),
            _ => return Err("expected one of \"conv\" and \"linear\"".to_owned()),
        };
        check_epsilon(self.eps)?;
        let kind = match (self.transposed, self.groups) {
            (true, _) if linear => return Err("a linear layer is not transposed".to_owned()),
            (_, Some(0)) => return Err("groups: 0 groups are none".to_owned()),
            (true, groups) => Kind::Transposed(groups.unwrap_or(1)),
            // The output channels of a Conv come first, however many groups it has.
            (false, _) => Kind::Plain,
        };
        Ok(Wanted {
            layer,
            linear,
            kind,
            epsilon: self.eps.or(default),
        })
    }
}

impl Wanted<'_> {
    /// The BatchNorms by position and the modules of their layers.
    ///
    /// # Errors
    /// If the patterns do not go together, a module that is named is not there, or a pattern has two meanings.
    fn find(
        &self,
        batch_norm: &str,
        groups: &[BatchNormGroup],
        index: &Index<'_>,
    ) -> Result<Vec<(usize, String)>, String> {
        let layer = Pattern::parse(self.layer)?;
        let bn = Pattern::parse(batch_norm)?;
        if layer.variables() != bn.variables() {
            return Err(format!(
                "{:?} and {batch_norm:?} must have the same variables and as many stars",
                self.layer
            ));
        }
        let mut found: Vec<(usize, String)> = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            let Some(ways) = bn.matches(&group.module) else {
                return Err(format!(
                    "{batch_norm:?} matches {:?} in too many ways: name more of it",
                    group.module
                ));
            };
            let mut modules: Vec<String> = ways.iter().map(|way| layer.fill(way)).collect();
            modules.retain(|module| index.is_layer(group.naming, module) || layer.is_literal());
            modules.sort();
            modules.dedup();
            match &modules[..] {
                [] => {}
                [one] => found.push((at, one.clone())),
                [one, two, ..] => {
                    return Err(format!(
                        "for the batch norm {:?} it names {one:?} and {two:?}: name more of it",
                        group.module
                    ));
                }
            }
        }
        if found.is_empty() && bn.is_literal() {
            return Err(format!("there is no batch norm {batch_norm:?}"));
        }
        Ok(found)
    }

    /// # Errors
    /// If the layer is not there, is of the other kind, or does not fit.
    fn fit(&self, module: &str, bn: &BatchNormGroup, index: &Index<'_>) -> Result<Layer, String> {
        let layer = index.fit(module, bn, self.kind)?;
        if (layer.shape.len() == 2) != self.linear {
            let (is, key) = match self.linear {
                true => ("is a kernel", "conv"),
                false => ("is that of a linear layer", "linear"),
            };
            return Err(format!(
                "tensor {:?} of shape {:?} {is}: write \"{key}\"",
                layer.weight, layer.shape
            ));
        }
        Ok(layer)
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
