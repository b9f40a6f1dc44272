//! Labels from a file: `.npy` with integers, or text with one label a line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bnkit_model::source::read_text;
use bnkit_model::{DType, Error as ModelError, Limits, Tensor};

use crate::{Result, data};

/// The class of each sample, counted from 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// What errors call them.
    pub path: PathBuf,
    /// The classes.
    pub classes: Classes,
}

/// How labels find their samples.
#[derive(Debug, Clone, PartialEq)]
pub enum Classes {
    /// In the order of the samples.
    InOrder(Vec<usize>),
    /// By the name of the sample's file (without folders).
    ByFile(HashMap<String, usize>),
}

impl Labels {
    /// Labels that a program has in memory, in the order of the samples.
    pub fn new(classes: Vec<usize>) -> Self {
        Self {
            path: "(memory)".into(),
            classes: Classes::InOrder(classes),
        }
    }

    /// Labels that a program has as an array: integers, `[n]` or `[n, 1]`, in the order of the samples.
    ///
    /// # Errors
    /// If something in it is no label; the message names the index.
    pub fn of_tensor(tensor: &Tensor) -> Result<Self> {
        let path = PathBuf::from("(memory)");
        let classes =
            of_array(tensor).map_err(|message| ModelError::invalid(message).in_file(&path))?;
        Ok(Self {
            path,
            classes: Classes::InOrder(classes),
        })
    }

    /// Reads `.npy` (integers, `[n]` or `[n, 1]`), or text: a label a line, or `FILE,LABEL` for images; a first line that is no label is
    /// a header.
    ///
    /// # Errors
    /// If the file cannot be read, or something in it is no label; the message names the line or the index.
    pub fn read(path: &Path) -> Result<Self> {
        let is_npy = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("npy"));
        let classes = match is_npy {
            true => Classes::InOrder(of_file(path)?),
            false => {
                let text = read_text(path, Limits::get().labels_bytes)?;
                of_text(&text).map_err(|message| ModelError::invalid(message).in_file(path))?
            }
        };
        Ok(Self {
            path: path.to_owned(),
            classes,
        })
    }

    /// Refuses labels that are not as many as the samples.
    pub(crate) fn check(&self, samples: usize) -> Result<()> {
        match &self.classes {
            Classes::InOrder(classes) if classes.len() != samples => {
                let message = format!("{} labels for {samples} samples", classes.len());
                Err(ModelError::invalid(message).in_file(&self.path).into())
            }
            _ => Ok(()),
        }
    }

    /// The label of a sample: its index, and its file if it has one of its own.
    pub(crate) fn of(&self, index: usize, file: Option<&Path>) -> Result<usize> {
        let missing = |what: String| {
            let error = ModelError::invalid(format!("no label for {what}"));
            error.in_file(&self.path).into()
        };
        match &self.classes {
            Classes::InOrder(classes) => {
                let label = classes.get(index).copied();
                label.ok_or_else(|| missing(format!("sample {index}")))
            }
            Classes::ByFile(files) => {
                let name = file.and_then(Path::file_name);
                let name = name.map(|name| name.to_string_lossy().into_owned());
                let name = name.ok_or_else(|| {
                    missing(
                        "samples that are no files: give a label a line, without names".to_owned(),
                    )
                })?;
                let label = files.get(&name).copied();
                label.ok_or_else(|| missing(format!("\"{name}\"")))
            }
        }
    }
}

fn of_file(path: &Path) -> Result<Vec<usize>> {
    let set = data::load(path)?;
    let found = match set.tensors.first() {
        Some(named) => of_array(&named.tensor),
        None => Err("there is no array".to_owned()),
    };
    found.map_err(|message| ModelError::invalid(message).in_file(path).into())
}

fn of_array(array: &Tensor) -> Result<Vec<usize>, String> {
    let dtype = array.dtype();
    if dtype.is_float() || dtype == DType::Bool {
        return Err(format!("labels are integers, found {dtype}"));
    }
    if !matches!(array.dims(), [_] | [_, 1]) {
        let dims = array.dims();
        return Err(format!(
            "labels are one integer for each sample, found shape {dims:?}"
        ));
    }
    let values = array.to_f64().map_err(|error| error.to_string())?;
    let labels = values
        .into_iter()
        .enumerate()
        .map(|(index, value)| match value {
            value if value < 0.0 => Err(format!("index {index}: {value} is no label")),
            value => Ok(value as usize),
        });
    labels.collect()
}

fn of_text(text: &str) -> std::result::Result<Classes, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim).enumerate();
    let mut rows = lines.filter(|(_, line)| !line.is_empty()).peekable();
    let label = |text: &str| text.trim().trim_matches('"').parse::<usize>().ok();
    let last = |line: &str| label(line.rsplit(',').next().unwrap_or(line));
    // A header says what stands below it.
    rows.next_if(|(_, line)| last(line).is_none() && line.chars().any(char::is_alphabetic));
    let named = rows.peek().is_some_and(|(_, line)| line.contains(','));
    let (mut in_order, mut by_file) = (Vec::new(), HashMap::new());
    for (number, line) in rows {
        let wrong = |what: &str| format!("line {}: {line:?}: {what}", number + 1);
        match line.rsplit_once(',') {
            None if !named => {
                in_order.push(label(line).ok_or_else(|| wrong("a label is an integer from 0 on"))?)
            }
            Some((file, class)) if named => {
                let class = label(class).ok_or_else(|| wrong("a label is an integer from 0 on"))?;
                let file = file.trim().trim_matches('"');
                let name = Path::new(file).file_name().unwrap_or_default();
                let name = name.to_string_lossy().into_owned();
                if by_file
                    .insert(name, class)
                    .is_some_and(|before| before != class)
                {
                    return Err(wrong("this file has another label already"));
                }
            }
            _ => return Err(wrong("expected what the lines before have")),
        }
    }
    if in_order.is_empty() && by_file.is_empty() {
        return Err("there are no labels".to_owned());
    }
    Ok(match named {
        true => Classes::ByFile(by_file),
        false => Classes::InOrder(in_order),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_a_line_with_and_without_a_header() {
        for text in ["3\n0\n7\n", "label\n3\n0\n7", "\u{feff}3\r\n\r\n0\r\n7\r\n"] {
            assert_eq!(
                of_text(text),
                Ok(Classes::InOrder(vec![3, 0, 7])),
                "{text:?}"
            );
        }
    }

    #[test]
    fn files_with_labels() {
        let found = of_text("file,label\na/b.png,3\n\"c.png\", 0\n").unwrap();
        let expected = [("b.png".to_owned(), 3), ("c.png".to_owned(), 0)];
        assert_eq!(found, Classes::ByFile(expected.into()));
        let labels = Labels {
            path: "l.csv".into(),
            classes: found,
        };
        assert_eq!(labels.of(9, Some(Path::new("x/c.png"))).unwrap(), 0);
        for file in [None, Some(Path::new("d.png"))] {
            let error = labels.of(0, file).unwrap_err().to_string();
            assert!(error.starts_with("l.csv: no label for"), "{error}");
        }
    }

    #[test]
    fn an_array_holds_one_integer_for_each_sample() {
        let of = |dtype, dims: Vec<usize>, bytes: Vec<u8>| {
            let labels = Labels::of_tensor(&Tensor::new(dtype, dims, bytes).unwrap());
            labels
                .map(|labels| labels.classes)
                .map_err(|error| error.to_string())
        };
        let expected = || Ok(Classes::InOrder(vec![3, 1]));
        assert_eq!(of(DType::U8, vec![2], vec![3, 1]), expected());
        assert_eq!(of(DType::I16, vec![2, 1], vec![3, 0, 1, 0]), expected());
        for (dtype, dims, bytes, said) in [
            (DType::I8, vec![2], vec![3, 0xff], "index 1: -1"),
            (DType::F32, vec![1], vec![0; 4], "integers"),
            (DType::U8, vec![1, 2], vec![3, 1], "shape [1, 2]"),
        ] {
            let error = of(dtype, dims, bytes).unwrap_err();
            assert!(
                error.starts_with("(memory)") && error.contains(said),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_label_is_named_with_its_line() {
        for (text, place) in [
            ("1\n-2\n", "line 2"),
            ("1\n2.5\n", "line 2"),
            ("1\nx\n", "line 2"),
            ("1\na.png,2\n", "line 2"),
            ("a.png,1\nb/a.png,2\n", "line 2"),
            ("", "no labels"),
            ("label\n", "no labels"),
        ] {
            let error = of_text(text).unwrap_err();
            assert!(error.contains(place), "{text:?}: {error}");
        }
    }
}
