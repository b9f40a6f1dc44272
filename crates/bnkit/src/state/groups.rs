//! The BatchNorms of a state dict: tensors that belong together by their names, and whose shapes agree.
//!
//! Three conventions are known, each by the name of its running mean. A running mean whose companions are missing or have
//! another shape is a [`GroupProblem`], never silently left out. An InstanceNorm with running statistics has the same names
//! and shapes as a BatchNorm in PyTorch: nothing in the file tells them apart.

use std::collections::HashMap;

/// A tensor of a state dict: all that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the file.
    pub name: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Whether its elements are floating point numbers that can be computed with.
    pub is_float: bool,
}

/// How a framework names the tensors of a BatchNorm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Naming {
    /// `M.weight`, `M.bias`, `M.running_mean`, `M.running_var`, `M.num_batches_tracked`.
    Torch,
    /// `M/gamma`, `M/beta`, `M/moving_mean`, `M/moving_variance`; `.` may stand for `/`, and `:0` at the end.
    Keras,
    /// `params/M/scale`, `params/M/bias`, `batch_stats/M/mean`, `batch_stats/M/var`; `.` may stand for `/`.
    Flax,
}

/// The tensors of one BatchNorm, by their names in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchNormGroup {
    /// The path of the module; for flax without `params` or `batch_stats`.
    pub module: String,
    /// The convention its tensors are named by.
    pub naming: Naming,
    /// The length of every vector.
    pub channels: usize,
    /// The running mean.
    pub mean: String,
    /// The running variance.
    pub variance: String,
    /// γ; without it, 1.
    pub gamma: Option<String>,
    /// β; without it, 0.
    pub beta: Option<String>,
    /// PyTorch's `num_batches_tracked`. A FrozenBatchNorm2d and files from before PyTorch 0.4.1 have none.
    pub batches: Option<String>,
}

/// Tensors that look like a BatchNorm's and do not fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupProblem {
    /// The path of the module.
    pub module: String,
    /// What is wrong, with the tensor's name.
    pub message: String,
}

/// What [`find`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// The BatchNorms, in the order of their running means in the file.
    pub groups: Vec<BatchNormGroup>,
    /// What looks like a BatchNorm and is none, in file order.
    pub problems: Vec<GroupProblem>,
}

/// The BatchNorms among `entries`.
pub fn find(entries: &[Entry]) -> Groups {
    let by_name: HashMap<&str, &Entry> = entries.iter().map(|e| (e.name.as_str(), e)).collect();
    let mut found = Groups::default();
    for entry in entries {
        let Some(names) = Names::of(&entry.name) else {
            continue;
        };
        if entry.name == names.mean {
            match names.group(&by_name) {
                Ok(group) => found.groups.push(group),
                Err(message) => found.problems.push(names.problem(message)),
            }
        } else if !by_name.contains_key(names.mean.as_str()) {
            let message = format!(
                "tensor {:?}: its running mean {:?} is not there",
                entry.name, names.mean
            );
            found.problems.push(names.problem(message));
        }
    }
    found
}

/// The names that a module's tensors have.
struct Names {
    module: String,
    naming: Naming,
    mean: String,
    variance: String,
    gamma: String,
    beta: String,
    batches: Option<String>,
}

impl Names {
    /// The names beside `name`, if it is that of a running mean or a running variance.
    fn of(name: &str) -> Option<Self> {
        let (plain, suffix) = match name.strip_suffix(":0") {
            Some(plain) => (plain, ":0"),
            None => (name, ""),
        };
        let (module, separator, leaf) = match plain.rfind(['.', '/']) {
            Some(at) => (&plain[..at], &plain[at..=at], &plain[at + 1..]),
            None => ("", "", plain),
        };
        let beside = |leaf: &str| format!("{module}{separator}{leaf}{suffix}");
        match leaf {
            "running_mean" | "running_var" if suffix.is_empty() && separator != "/" => Some(Self {
                module: module.to_owned(),
                naming: Naming::Torch,
                mean: beside("running_mean"),
                variance: beside("running_var"),
                gamma: beside("weight"),
                beta: beside("bias"),
                batches: Some(beside("num_batches_tracked")),
            }),
            "moving_mean" | "moving_variance" => Some(Self {
                module: module.to_owned(),
                naming: Naming::Keras,
                mean: beside("moving_mean"),
                variance: beside("moving_variance"),
                gamma: beside("gamma"),
                beta: beside("beta"),
                batches: None,
            }),
            "mean" | "var" if suffix.is_empty() => {
                let path = module
                    .strip_prefix("batch_stats")?
                    .strip_prefix(separator)?;
                let param = |leaf: &str| format!("params{separator}{path}{separator}{leaf}");
                Some(Self {
                    module: path.to_owned(),
                    naming: Naming::Flax,
                    mean: beside("mean"),
                    variance: beside("var"),
                    gamma: param("scale"),
                    beta: param("bias"),
                    batches: None,
                })
            }
            _ => None,
        }
    }

    /// The group, if all its tensors are there and agree.
    fn group(&self, entries: &HashMap<&str, &Entry>) -> Result<BatchNormGroup, String> {
        let channels = match entries[self.mean.as_str()].shape[..] {
            [0] => return Err(format!("tensor {:?} is empty", self.mean)),
            [channels] => channels,
            ref shape => {
                return Err(format!(
                    "tensor {:?} has the shape {shape:?}, a running mean has one axis",
                    self.mean
                ));
            }
        };
        if !entries.contains_key(self.variance.as_str()) {
            return Err(format!(
                "tensor {:?}: its running variance {:?} is not there",
                self.mean, self.variance
            ));
        }
        let vector = |name: &str| -> Result<Option<String>, String> {
            let Some(entry) = entries.get(name) else {
                return Ok(None);
            };
            if entry.shape != [channels] {
                return Err(format!(
                    "tensor {name:?} has the shape {:?}, the running mean {:?} has [{channels}]",
                    entry.shape, self.mean
                ));
            }
            if !entry.is_float {
                return Err(format!("tensor {name:?} holds no floating point numbers"));
            }
            Ok(Some(name.to_owned()))
        };
        vector(&self.mean)?;
        vector(&self.variance)?;
        let batches = self.batches.as_ref().and_then(|name| {
            let entry = entries.get(name.as_str())?;
            Some((name.clone(), entry.shape.iter().product::<usize>()))
        });
        if let Some((name, count)) = &batches
            && *count != 1
        {
            return Err(format!("tensor {name:?} is not a single number"));
        }
        Ok(BatchNormGroup {
            module: self.module.clone(),
            naming: self.naming,
            channels,
            mean: self.mean.clone(),
            variance: self.variance.clone(),
            gamma: vector(&self.gamma)?,
            beta: vector(&self.beta)?,
            batches: batches.map(|(name, _)| name),
        })
    }

    fn problem(&self, message: String) -> GroupProblem {
        GroupProblem {
            module: self.module.clone(),
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name and a shape.
    type Shape<'a> = (&'a str, &'a [usize]);

    fn entries(list: &[Shape]) -> Vec<Entry> {
        list.iter()
            .map(|(name, shape)| Entry {
                name: (*name).to_owned(),
                shape: shape.to_vec(),
                is_float: !name.ends_with("num_batches_tracked"),
            })
            .collect()
    }

    #[test]
    fn the_three_conventions_are_found_in_file_order() {
        let found = find(&entries(&[
            ("b/bn/moving_mean:0", &[4]),
            ("b/bn/moving_variance:0", &[4]),
            ("b/bn/beta:0", &[4]),
            ("a.bn.running_mean", &[8]),
            ("a.bn.running_var", &[8]),
            ("a.bn.weight", &[8]),
            ("a.bn.bias", &[8]),
            ("a.bn.num_batches_tracked", &[]),
            ("batch_stats/Block_0/BatchNorm_0/mean", &[3]),
            ("batch_stats/Block_0/BatchNorm_0/var", &[3]),
            ("params/Block_0/BatchNorm_0/scale", &[3]),
            ("ln.weight", &[3]),
            ("stats.mean", &[3]),
        ]));
        assert_eq!(found.problems, []);
        let modules: Vec<_> = found.groups.iter().map(|g| g.module.as_str()).collect();
        assert_eq!(modules, ["b/bn", "a.bn", "Block_0/BatchNorm_0"]);
        let [keras, torch, flax] = &found.groups[..] else {
            panic!("three groups")
        };
        assert_eq!((keras.naming, keras.channels), (Naming::Keras, 4));
        assert_eq!(keras.beta.as_deref(), Some("b/bn/beta:0"));
        assert_eq!(keras.gamma, None);
        assert_eq!(
            torch.batches.as_deref(),
            Some("a.bn.num_batches_tracked"),
            "{torch:?}"
        );
        assert_eq!(
            flax.gamma.as_deref(),
            Some("params/Block_0/BatchNorm_0/scale")
        );
    }

    #[test]
    fn what_does_not_agree_is_a_problem_that_names_the_tensor() {
        let cases: [(&[Shape], &str); 6] = [
            (&[("bn.running_mean", &[2])], "bn.running_var"),
            (&[("bn.running_var", &[2])], "bn.running_mean"),
            (
                &[("bn.running_mean", &[2]), ("bn.running_var", &[3])],
                "bn.running_var",
            ),
            (
                &[("bn.running_mean", &[2, 1]), ("bn.running_var", &[2])],
                "bn.running_mean",
            ),
            (
                &[
                    ("bn.running_mean", &[2]),
                    ("bn.running_var", &[2]),
                    ("bn.weight", &[2, 2]),
                ],
                "bn.weight",
            ),
            (
                &[
                    ("bn.running_mean", &[2]),
                    ("bn.running_var", &[2]),
                    ("bn.num_batches_tracked", &[2]),
                ],
                "bn.num_batches_tracked",
            ),
        ];
        for (list, tensor) in cases {
            let found = find(&entries(list));
            assert_eq!(found.groups, [], "{tensor}");
            assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
            assert!(found.problems[0].message.contains(tensor), "{tensor}");
        }
    }
}
