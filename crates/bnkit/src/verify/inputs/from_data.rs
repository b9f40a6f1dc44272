//! Samples from a data set: which tensor is which input, and where one sample ends.

use bnkit_engine::{Dim, InputSpec};
use bnkit_model::{DType, Error, Result, Tensor};

use super::Sample;
use super::shapes::{NamedShape, declared_shape};
use crate::data::{DataSet, NamedTensor};

/// The first `limit` samples of a data set.
///
/// Tensors belong to the input of their name, or of their name without `in__`; a model with one input takes tensors without a name,
/// or of the one name there is. A sample is one step along the leading axis, or as many as the model's fixed batch (or a shape given
/// by the user) says. An input with a single sample keeps it throughout.
///
/// # Errors
/// If an input has no tensor, or one whose type, rank or sizes do not fit; the message names file, input, expected and found.
pub fn from_data(
    specs: &[InputSpec],
    data: &DataSet,
    given: &[NamedShape],
    limit: usize,
) -> Result<Vec<Sample>> {
    let columns = specs
        .iter()
        .map(|spec| {
            let batch = given
                .iter()
                .find(|(name, _)| *name == spec.name)
                .and_then(|(_, dims)| dims.first().copied());
            let mut samples: Vec<Tensor> = vec![];
            for named in tensors_of(spec, specs.len() == 1, data)? {
                let left = limit - samples.len();
                let more = split(spec, batch, named, left);
                samples.extend(more.map_err(|error| error.in_file(&named.source))?);
                if samples.len() == limit {
                    break;
                }
            }
            same_shape(spec, &samples)?;
            Ok(samples)
        })
        .collect::<Result<Vec<_>>>()?;
    let count = columns.iter().map(Vec::len).max().unwrap_or(0);
    for (spec, column) in specs.iter().zip(&columns) {
        if column.len() != count && column.len() != 1 {
            return Err(Error::invalid(format!(
                "input {:?}: {} samples, but another input has {count}",
                spec.name,
                column.len()
            )));
        }
    }
    Ok((0..count)
        .map(|number| {
            let value = |column: &Vec<Tensor>| column[number.min(column.len() - 1)].clone();
            specs
                .iter()
                .zip(&columns)
                .map(|(spec, column)| (spec.name.clone(), value(column)))
                .collect()
        })
        .collect())
}

/// The tensors that are samples of an input.
pub(crate) fn tensors_of<'a>(
    spec: &InputSpec,
    only_input: bool,
    data: &'a DataSet,
) -> Result<Vec<&'a NamedTensor>> {
    let named = |fits: &dyn Fn(&str) -> bool| -> Vec<&NamedTensor> {
        data.tensors
            .iter()
            .filter(|named| fits(&named.name))
            .collect()
    };
    let mut found = named(&|name| name == spec.name);
    if found.is_empty() {
        found = named(&|name| name.strip_prefix("in__") == Some(&spec.name));
    }
    if found.is_empty() && only_input {
        found = named(&str::is_empty);
        let first = data.tensors.first().map_or("", |named| &named.name);
        if found.is_empty() && data.tensors.iter().all(|named| named.name == first) {
            found = data.tensors.iter().collect();
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let mut names: Vec<&str> = data
        .tensors
        .iter()
        .map(|named| named.name.as_str())
        .collect();
    names.dedup();
    let error = Error::invalid(format!(
        "no tensor for input {:?}; there are {names:?}",
        spec.name
    ));
    Err(match data.tensors.first() {
        Some(first) => error.in_file(&first.source),
        None => error,
    })
}

/// Up to `limit` samples of one tensor, in the input's type.
fn split(
    spec: &InputSpec,
    batch: Option<usize>,
    named: &NamedTensor,
    limit: usize,
) -> Result<Vec<Tensor>> {
    let tensor = &named.tensor;
    let place = format!("input {:?}", spec.name);
    let (from, to) = (tensor.dtype(), spec.dtype);
    if from != to && !(from.is_float() && to.is_float()) {
        return Err(Error::invalid(format!(
            "{place}: expected {to}, found {from}"
        )));
    }
    if let Some(declared) = &spec.dims {
        let fits = declared.len() == tensor.dims().len()
            && declared
                .iter()
                .zip(tensor.dims())
                .skip(1)
                .all(|(dim, size)| match dim {
                    Dim::Fixed(fixed) => fixed == size,
                    _ => true,
                });
        if !fits {
            return Err(Error::invalid(format!(
                "{place}: expected shape {}, found {:?}",
                declared_shape(declared),
                tensor.dims()
            )));
        }
    }
    let Some((&steps, inner)) = tensor.dims().split_first() else {
        return Ok(vec![cast(tensor.clone(), to)?]);
    };
    let declared = spec.dims.as_ref().and_then(|dims| match dims.first() {
        Some(Dim::Fixed(size)) => Some(*size),
        _ => None,
    });
    let batch = declared.or(batch).unwrap_or(1).max(1);
    if steps < batch {
        return Err(Error::invalid(format!(
            "{place}: expected at least {batch} along the leading axis, found {steps}"
        )));
    }
    let bytes = tensor.data().len() / steps * batch;
    let mut dims = vec![batch];
    dims.extend(inner);
    (0..(steps / batch).min(limit))
        .map(|number| {
            let data = tensor.data().slice(number * bytes..(number + 1) * bytes);
            cast(Tensor::new(from, dims.clone(), data)?, to)
        })
        .collect()
}

fn cast(tensor: Tensor, to: DType) -> Result<Tensor> {
    if tensor.dtype() == to {
        return Ok(tensor);
    }
    Tensor::from_f64(to, tensor.dims().to_vec(), &tensor.to_f64()?)
}

fn same_shape(spec: &InputSpec, samples: &[Tensor]) -> Result<()> {
    let first = samples.first().map(Tensor::dims);
    match samples.iter().find(|sample| Some(sample.dims()) != first) {
        Some(other) => Err(Error::invalid(format!(
            "input {:?}: samples of different shapes, {:?} and {:?}",
            spec.name,
            first.unwrap_or_default(),
            other.dims()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: DType, dims: Vec<Dim>) -> InputSpec {
        InputSpec {
            name: name.into(),
            dtype,
            dims: Some(dims),
        }
    }

    fn data(tensors: Vec<(&str, Tensor)>) -> DataSet {
        DataSet {
            tensors: tensors
                .into_iter()
                .map(|(name, tensor)| NamedTensor {
                    name: name.into(),
                    tensor,
                    source: "calibration.npz".into(),
                })
                .collect(),
        }
    }

    fn floats(dims: Vec<usize>) -> Tensor {
        let count: usize = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|value| value as f32).collect();
        Tensor::from_f32(dims, &values).unwrap()
    }

    fn batch() -> Dim {
        Dim::Symbol("N".into())
    }

    #[test]
    fn the_leading_axis_runs_over_samples() {
        let specs = [spec("x", DType::F32, vec![batch(), Dim::Fixed(2)])];
        for name in ["x", "in__x", "", "arr_0"] {
            let samples =
                from_data(&specs, &data(vec![(name, floats(vec![5, 2]))]), &[], 3).unwrap();
            assert_eq!(samples.len(), 3);
            assert_eq!(samples[2][0].0, "x");
            assert_eq!(samples[2][0].1.to_f64().unwrap(), [4.0, 5.0]);
        }
        let given = [("x".to_owned(), vec![2, 2])];
        let samples = from_data(&specs, &data(vec![("x", floats(vec![5, 2]))]), &given, 9).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[1][0].1.dims(), [2, 2]);
    }

    #[test]
    fn several_files_follow_each_other() {
        let specs = [spec("x", DType::F16, vec![batch(), Dim::Fixed(2)])];
        let set = data(vec![("", floats(vec![2, 2])), ("", floats(vec![2, 2]))]);
        let samples = from_data(&specs, &set, &[], 3).unwrap();
        assert_eq!(samples.len(), 3);
        assert_eq!(samples[2][0].1.to_f64().unwrap(), [0.0, 1.0]);
        assert_eq!(samples[2][0].1.dtype(), DType::F16);
    }

    #[test]
    fn an_input_with_one_sample_keeps_it() {
        let specs = [
            spec("x", DType::F32, vec![batch(), Dim::Fixed(2)]),
            spec("scale", DType::F32, vec![Dim::Fixed(3)]),
        ];
        let set = data(vec![("x", floats(vec![4, 2])), ("scale", floats(vec![3]))]);
        let samples = from_data(&specs, &set, &[], 9).unwrap();
        assert_eq!(samples.len(), 4);
        assert_eq!(samples[3][1].1.dims(), [3]);
    }

    #[test]
    fn errors_name_file_input_expected_and_found() {
        let specs = [spec("x", DType::F32, vec![batch(), Dim::Fixed(2)])];
        let error = |set: DataSet| from_data(&specs, &set, &[], 9).unwrap_err().to_string();
        let text = error(data(vec![("x", floats(vec![5, 3]))]));
        assert!(
            text.contains("calibration.npz") && text.contains("\"x\""),
            "{text}"
        );
        assert!(
            text.contains("expected shape [N, 2], found [5, 3]"),
            "{text}"
        );
        let text = error(data(vec![(
            "x",
            Tensor::from_i64(vec![1, 2], &[1, 2]).unwrap(),
        )]));
        assert!(text.contains("expected float32, found int64"), "{text}");
        let text = error(data(vec![
            ("a", floats(vec![1, 2])),
            ("b", floats(vec![1, 2])),
        ]));
        assert!(text.contains("[\"a\", \"b\"]"), "{text}");
        let two = [
            specs[0].clone(),
            spec("y", DType::F32, vec![batch(), Dim::Fixed(2)]),
        ];
        let set = data(vec![("x", floats(vec![5, 2])), ("y", floats(vec![4, 2]))]);
        let text = from_data(&two, &set, &[], 9).unwrap_err().to_string();
        assert!(text.contains("4 samples") && text.contains('5'), "{text}");
    }
}
