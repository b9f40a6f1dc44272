//! A checkpoint's weights into a graph.
//!
//! Tensors that an exporter merged because they were equal need not be equal in another checkpoint. Where an Identity bears the
//! second name, it becomes a constant of its own; where the name is gone, a tensor that is left over and looks like the
//! second one is a reason to refuse.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{Edit, Model, NewTensor, SaveOptions, TensorDef, Use, ValueId};
use bnkit_model::safetensors::{StateDict, Tensor, dtype_of};
use bnkit_model::source::Source;
use bnkit_model::stored::Stored;

use super::graph::{self, Weight};
use super::item::{Elements, Item, recipe};
use super::matching::{self, Matches, Side};
use super::report::{ConvertReport, How, Matching, Pair, Unmatched, Written};
use super::{ConvertJob, begun, measure, names, of_dict, of_model, request};
use crate::pipeline::{Phase, Progress};
use crate::{Error, Result, hash};

/// Puts the weights of `path` into the model of the job.
pub(super) fn put(job: &ConvertJob, path: &Path, progress: &dyn Progress) -> Result<ConvertReport> {
    if job.stats_only || job.max_shard_size.is_some() || job.keep_statistics {
        return Err(Error::Request(
            "--stats-only, --keep-statistics and --max-shard-size are about state dicts to write; --weights writes a model"
                .to_owned(),
        ));
    }
    if super::format(path)? == bnkit_model::format::Format::Onnx {
        let advice = "this is no safetensors file; bnkit convert MODEL.onnx -o WEIGHTS.safetensors makes one of a model";
        return Err(request(path, advice));
    }
    let mut model = Model::open(&job.input)?;
    let dict = StateDict::open(path)?;
    check_shards(&dict, &job.output)?;
    let mut report = begun(of_model(job, &model)?);
    report.weights = Some(of_dict(job, path, &dict)?);
    let weights = graph::weights(&model).list;
    let dtype = job.dtype.map(super::FloatType::dtype);
    let matches = matched(job, path, &weights, &dict, dtype)?;
    check_merged(&model, &weights, &dict, &matches).map_err(|why| match why {
        Error::Request(why) => request(path, &why),
        other => other,
    })?;
    let items = items(&weights, &dict, &matches);
    measure(&items, &mut report, progress)?;
    report.tensors = items.len();
    let bytes = |item: &Item<'_>| match (&item.elements, item.to.or(item.dtype)) {
        (Elements::Dict(_, tensor), Some(dtype)) => dtype
            .byte_len(tensor.len() as u64)
            .unwrap_or_else(|| tensor.bytes()),
        _ => 0,
    };
    report.tensor_bytes = items.iter().map(bytes).sum();
    drop(items);
    report.matching = Some(describe(&weights, &dict, &matches));
    warn(&mut report);
    if report.failure.is_some() {
        return Ok(report);
    }
    let mut edits = edits(&weights, &dict, &matches)?;
    edits.push(Edit::SetMetadata {
        key: "bnkit.version".to_owned(),
        value: env!("CARGO_PKG_VERSION").to_owned(),
    });
    model.apply(&edits)?;
    progress.begin(Phase::Writing, Some(report.input.bytes));
    let told = |done: u64, _: u64| progress.advance(done);
    let options = SaveOptions {
        force: job.force,
        progress: Some(&told),
    };
    let saved = model.save(&job.output, options)?;
    let name = job.output.display().to_string();
    let data = saved.data_file.map(|path| path.display().to_string());
    report.output = Some(Written {
        path: name.clone(),
        sha256: job.hash.then(|| hash::of_file(&job.output)).transpose()?,
        bytes: saved.bytes,
        files: data.into_iter().chain([name]).collect(),
    });
    Ok(report)
}

fn matched(
    job: &ConvertJob,
    path: &Path,
    weights: &[Weight],
    dict: &StateDict,
    dtype: Option<DType>,
) -> Result<Matches> {
    let graph: Vec<Side> = weights
        .iter()
        .map(|weight| Side {
            name: weight.name.clone(),
            dtype: Some(weight.tensor.dtype),
            shape: weight.tensor.dims.to_vec(),
        })
        .collect();
    if let Some(dtype) = dtype
        && !graph.iter().any(|side| side.dtype == Some(dtype))
    {
        let why = format!(
            "no tensor of the graph is {dtype}; --dtype names the type that the graph has, which is not changed"
        );
        return Err(request(&job.input, &why));
    }
    let of_dict = |tensor: &Tensor| Side {
        name: tensor.name.clone(),
        dtype: dtype_of(tensor.dtype),
        shape: tensor.shape.clone(),
    };
    let tensors: Vec<Side> = dict.tensors().iter().map(of_dict).collect();
    matching::find(&graph, &tensors, dtype).map_err(|why| {
        Error::Request(format!(
            "{} into {}: {why}",
            path.display(),
            job.input.display()
        ))
    })
}

/// Refuses where one tensor of the graph may stand for two of the checkpoint that are not equal.
fn check_merged(
    model: &Model,
    weights: &[Weight],
    dict: &StateDict,
    matches: &Matches,
) -> Result<()> {
    let readers = |value: ValueId| {
        let uses = model.value(value).uses.iter();
        let real = |user: &&Use| match user {
            Use::Node(node, _) => !model.node(*node).is("Identity"),
            _ => false,
        };
        uses.filter(real).count()
    };
    let unused: Vec<&Tensor> = (matches.unused.iter())
        .map(|&place| &dict.tensors()[place])
        .collect();
    for pair in &matches.pairs {
        let tensor = &dict.tensors()[pair.weight];
        let alike = |other: &&&Tensor| {
            other.shape == tensor.shape
                && other.dtype == tensor.dtype
                && names::last(&other.name) == names::last(&tensor.name)
        };
        if readers(weights[pair.graph].value) < 2 {
            continue;
        }
        for other in unused.iter().filter(alike) {
            if !equal(&dict.stored(tensor), &dict.stored(other))? {
                return Err(Error::Request(format!(
                    "the graph reads \"{}\" in several places and has no \"{}\", which is of the same kind and not equal: the \
                     exporter may have merged two tensors that were equal then; export the graph from this checkpoint",
                    weights[pair.graph].name, other.name
                )));
            }
        }
    }
    Ok(())
}

/// What goes into the graph, as tensors that may be rounded.
fn items<'c>(weights: &[Weight], dict: &'c StateDict, matches: &Matches) -> Vec<Item<'c>> {
    let item = |pair: &matching::Match| {
        let (weight, tensor) = (&weights[pair.graph], &dict.tensors()[pair.weight]);
        let mut item = Item::of_dict(dict, tensor);
        let to = weight.tensor.dtype;
        item.to = (item.dtype != Some(to)).then_some(to);
        item.name.clone_from(&weight.name);
        item.statistic |= weight.statistic;
        item
    };
    matches.pairs.iter().map(item).collect()
}

/// The edits that give the graph its weights.
fn edits(weights: &[Weight], dict: &StateDict, matches: &Matches) -> Result<Vec<Edit>> {
    let given: HashMap<ValueId, usize> = (matches.pairs.iter())
        .map(|pair| (weights[pair.graph].value, pair.weight))
        .collect();
    // Names behind an Identity stay behind it if all of them still are what they were: equal to another.
    let mut still_equal = true;
    for pair in &matches.pairs {
        let Some(root) = weights[pair.graph].same_as else {
            continue;
        };
        let own = dict.stored(&dict.tensors()[pair.weight]);
        still_equal &= match given.get(&root) {
            Some(&other) => {
                let other = &dict.tensors()[other];
                other.dtype == dict.tensors()[pair.weight].dtype
                    && equal(&dict.stored(other), &own)?
            }
            None => false,
        };
    }
    let mut edits = Vec::new();
    for pair in &matches.pairs {
        let (weight, tensor) = (&weights[pair.graph], &dict.tensors()[pair.weight]);
        if weight.same_as.is_some() && still_equal {
            continue;
        }
        let mut elements = dict.stored(tensor);
        if pair.how == How::Transposed {
            elements = transposed(tensor, &elements)?;
        }
        let dims = weight.tensor.dims.clone();
        let from = dtype_of(tensor.dtype).unwrap_or(weight.tensor.dtype);
        let value = weight.value;
        edits.push(if from == weight.tensor.dtype {
            Edit::BorrowConstant {
                value,
                dtype: from,
                dims,
                elements,
            }
        } else {
            let recipe = recipe(TensorDef::borrowed(from, dims.clone(), elements));
            let dtype = weight.tensor.dtype;
            Edit::SetConstant {
                value,
                tensor: NewTensor {
                    dtype,
                    dims,
                    recipe,
                },
            }
        });
    }
    Ok(edits)
}

/// The elements of a matrix, column by column. They are held in memory until they are written.
fn transposed(tensor: &Tensor, stored: &Stored) -> Result<Stored> {
    let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
    let data = stored.source.read(stored.range.clone())?;
    let size = data.len() / (rows * columns).max(1);
    let mut out = Vec::with_capacity(data.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * size;
            out.extend_from_slice(&data[at..at + size]);
        }
    }
    let range = 0..out.len() as u64;
    Ok(Stored {
        source: Arc::new(Source::memory(out)),
        range,
    })
}

/// Whether two tensors have the same bytes.
fn equal(a: &Stored, b: &Stored) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let mut same = true;
    let mut other = Vec::new();
    a.for_each_part(1 << 16, |start, part| {
        if same {
            other.resize(part.len(), 0);
            b.source.read_at(b.range.start + start as u64, &mut other)?;
            same = *part == other[..];
        }
        Ok(())
    })?;
    Ok(same)
}

fn describe(weights: &[Weight], dict: &StateDict, matches: &Matches) -> Matching {
    let tensor = |place: &usize| &dict.tensors()[*place];
    let matched: HashSet<usize> = matches.pairs.iter().map(|pair| pair.graph).collect();
    Matching {
        pairs: (matches.pairs.iter())
            .map(|pair| {
                let (weight, tensor) = (&weights[pair.graph], tensor(&pair.weight));
                let same = dtype_of(tensor.dtype) == Some(weight.tensor.dtype);
                Pair {
                    graph: weight.name.clone(),
                    weight: tensor.name.clone(),
                    how: pair.how,
                    converted_from: (!same).then(|| tensor.dtype.to_string()),
                }
            })
            .collect(),
        // A name behind an Identity goes on being the other's.
        kept: (matches.kept.iter().filter(|place| !matched.contains(place)))
            .map(|&place| &weights[place])
            .filter(|weight| weight.same_as.is_none())
            .map(|weight| Unmatched {
                name: weight.name.clone(),
                dtype: weight.tensor.dtype.to_string(),
                shape: weight.tensor.dims.to_vec(),
            })
            .collect(),
        unused: (matches.unused.iter().map(tensor))
            .map(|tensor| Unmatched {
                name: tensor.name.clone(),
                dtype: tensor.dtype.to_string(),
                shape: tensor.shape.clone(),
            })
            .collect(),
        counters: (matches.counters.iter().map(tensor))
            .map(|tensor| tensor.name.clone())
            .collect(),
    }
}

fn warn(report: &mut ConvertReport) {
    let Some(matching) = &report.matching else {
        return;
    };
    let mut say = |count: usize, first: Option<&str>, what: &str| {
        if let Some(first) = first {
            let text = format!("{what}: {count} (\"{first}\" first)");
            report.warnings.push(text);
        }
    };
    let by_shape: Vec<&Pair> = (matching.pairs.iter())
        .filter(|pair| pair.how != How::Name)
        .collect();
    say(
        by_shape.len(),
        by_shape.first().map(|pair| pair.graph.as_str()),
        "tensors matched by their shape alone, so look at them",
    );
    say(
        matching.kept.len(),
        matching.kept.first().map(|one| one.name.as_str()),
        "tensors of the graph that the checkpoint has nothing for, and that stay as they were",
    );
    say(
        matching.unused.len(),
        matching.unused.first().map(|one| one.name.as_str()),
        "tensors of the checkpoint that have no place in the graph",
    );
}

/// Refuses an output that is one of the checkpoint's files.
fn check_shards(dict: &StateDict, output: &Path) -> Result<()> {
    let Ok(output_file) = output.canonicalize() else {
        return Ok(());
    };
    let is_output = |path: &Path| path.canonicalize().is_ok_and(|path| path == output_file);
    let mut files = dict.shards().iter().filter_map(|shard| shard.source.path());
    match files.any(is_output) || dict.path().is_some_and(is_output) {
        true => Err(request(
            output,
            "this file belongs to the checkpoint; choose another output",
        )),
        false => Ok(()),
    }
}
