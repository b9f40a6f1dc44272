//! Writing state dicts: from the constants of a model, or from another state dict.
//!
//! A file from a model says `{"format": "pt"}` in its metadata: transformers and accelerate refuse files that do not say whose
//! layout the tensors have, and those of ONNX have PyTorch's. What a state dict says of itself is kept.

use std::path::{Path, PathBuf};

use bnkit_model::DType;
use bnkit_model::onnx::{Model, Payload};
use bnkit_model::safetensors::{
    NewFile, NewTensor, SaveOptions, Saved, StateDict, of_dtype, save, save_sharded,
};

use super::item::Item;
use super::report::{ConvertReport, LeftOut, Written};
use super::{ConvertJob, Kind, begun, graph, measure, of_dict, of_model, request, shards};
use crate::pipeline::{Phase, Progress};
use crate::{Result, hash};

/// `__metadata__` of a file.
type Metadata = Vec<(String, String)>;
/// `metadata` of an index.
type IndexMetadata = Vec<(String, serde_json::Value)>;

const NO_TYPE: &str = "safetensors has no such type";
const NO_STATISTIC: &str = "no running statistic";
/// Members of an index that count tensors or elements: they follow from what is written.
const COUNTS: [&str; 2] = ["total_size", "total_parameters"];

/// The constants of a model as a state dict.
pub(super) fn from_onnx(
    job: &ConvertJob,
    kind: Kind,
    progress: &dyn Progress,
) -> Result<ConvertReport> {
    let model = Model::open(&job.input)?;
    check_data_files(&model, &job.output)?;
    let mut report = begun(of_model(job, &model)?);
    let mut items = Vec::new();
    if job.stats_only {
        let named = graph::statistics_by_name(&model).map_err(|error| error.in_file(&job.input))?;
        let item = |(name, tensor)| Item::of_model(&model, name, tensor, true);
        items.extend(named.into_iter().map(item));
    } else {
        let weights = graph::weights(&model);
        report.left_out = weights.left_out;
        for weight in weights.list {
            if of_dtype(weight.tensor.dtype).is_none() {
                report.left_out.push(LeftOut {
                    name: weight.name,
                    dtype: weight.tensor.dtype.to_string(),
                    shape: weight.tensor.dims.to_vec(),
                    why: NO_TYPE,
                    matters: true,
                });
                continue;
            }
            let (name, tensor) = (weight.name, weight.tensor);
            items.push(Item::of_model(&model, name, tensor, weight.statistic));
        }
    }
    let metadata = Some(vec![("format".to_owned(), "pt".to_owned())]);
    let options = SaveOptions::default();
    finish(
        job,
        kind,
        report,
        items,
        (metadata, Vec::new()),
        options,
        progress,
    )
}

/// A state dict as another.
pub(super) fn from_state(
    job: &ConvertJob,
    kind: Kind,
    progress: &dyn Progress,
) -> Result<ConvertReport> {
    let dict = StateDict::open(&job.input)?;
    let mut report = begun(of_dict(job, &job.input, &dict)?);
    let mut items = Vec::new();
    for tensor in dict.tensors() {
        let item = Item::of_dict(&dict, tensor);
        if job.stats_only && !item.statistic {
            report.left_out.push(LeftOut {
                name: item.name,
                dtype: tensor.dtype.to_string(),
                shape: tensor.shape.clone(),
                why: NO_STATISTIC,
                matters: false,
            });
            continue;
        }
        items.push(item);
    }
    let metadata = metadata(&dict, &mut report.warnings);
    let counts = |key: &str| COUNTS.contains(&key);
    let mut of_index: IndexMetadata = dict.index_metadata().to_vec();
    if kind == Kind::File && job.max_shard_size.is_none() {
        for (key, _) in of_index.iter().filter(|(key, _)| !counts(key)) {
            report.warnings.push(format!(
                "the index says \"{key}\" in its metadata; a single file has no place for it"
            ));
        }
    }
    if job.stats_only {
        of_index.retain(|(key, _)| !counts(key));
    }
    let options = SaveOptions {
        input: Some(&dict),
        ..SaveOptions::default()
    };
    finish(
        job,
        kind,
        report,
        items,
        (metadata, of_index),
        options,
        progress,
    )
}

/// What all files of a checkpoint say of themselves, in order; of two values for one key the first.
fn metadata(dict: &StateDict, warnings: &mut Vec<String>) -> Option<Metadata> {
    let mut all: Option<Metadata> = None;
    for shard in dict.shards() {
        for (key, value) in shard.metadata.iter().flatten() {
            let all = all.get_or_insert_default();
            match all.iter().find(|(other, _)| other == key) {
                None => all.push((key.clone(), value.clone())),
                Some((_, other)) if other == value => {}
                Some((_, other)) => warnings.push(format!(
                    "{} says \"{value}\" for \"{key}\" in its metadata, a file before it \"{other}\"; the first is kept",
                    shard.name
                )),
            }
        }
        if shard.metadata.is_some() {
            all.get_or_insert_default();
        }
    }
    all
}

/// Rounds, spreads over files, and writes.
fn finish(
    job: &ConvertJob,
    kind: Kind,
    mut report: ConvertReport,
    mut items: Vec<Item<'_>>,
    (metadata, of_index): (Option<Metadata>, IndexMetadata),
    options: SaveOptions<'_>,
    progress: &dyn Progress,
) -> Result<ConvertReport> {
    if items.is_empty() {
        let what = match job.stats_only {
            true => "there are no running statistics in it",
            false => "there are no weights in it",
        };
        return Err(request(&job.input, what));
    }
    if let Some(dtype) = job.dtype.map(super::FloatType::dtype) {
        round(&mut items, dtype, job.keep_statistics, &mut report);
        measure(&items, &mut report, progress)?;
    }
    let tensors: Vec<NewTensor<'_>> = items
        .into_iter()
        .map(Item::into_new)
        .collect::<Result<_>>()?;
    let sizes: Vec<u64> = tensors
        .iter()
        .map(NewTensor::bytes)
        .collect::<bnkit_model::Result<_>>()?;
    (report.tensors, report.tensor_bytes) = (tensors.len(), sizes.iter().sum());
    warn_of_missing(&mut report);
    let cuts = shards::split(&sizes, job.max_shard_size.unwrap_or(u64::MAX));
    let index = index(job, kind, cuts.len(), &mut report)?;
    if report.failure.is_some() {
        return Ok(report);
    }
    progress.begin(Phase::Writing, Some(report.tensor_bytes));
    let told = |done: u64, _: u64| progress.advance(done);
    let options = SaveOptions {
        force: job.force,
        progress: Some(&told),
        ..options
    };
    let mut tensors = tensors.into_iter();
    let mut files: Vec<NewFile<'_>> = Vec::new();
    for cut in cuts {
        files.push(NewFile {
            metadata: metadata.clone(),
            tensors: tensors.by_ref().take(cut.len()).collect(),
        });
    }
    let (path, saved) = match index {
        Some(index) => {
            let saved = save_sharded(&index, files, &of_index, options)?;
            (index, saved)
        }
        None => {
            let file = files.pop().unwrap_or_default();
            (job.output.clone(), save(&job.output, file, options)?)
        }
    };
    report.output = Some(written(job, &path, saved)?);
    Ok(report)
}

/// Says what every float becomes.
fn round(items: &mut [Item<'_>], dtype: DType, keep_statistics: bool, report: &mut ConvertReport) {
    for item in items.iter_mut() {
        let stays = item.dtype == Some(dtype) || (item.statistic && keep_statistics);
        item.to = (item.is_float() && !stays).then_some(dtype);
    }
    let is_short = |item: &&Item<'_>| match item.dtype {
        Some(DType::Other(number)) => matches!(number, 17..=20 | 23 | 24),
        Some(_) => false,
        None => true,
    };
    let short = items.iter().filter(is_short).count();
    if short > 0 {
        report.warnings.push(format!(
            "{short} tensors of 8 bits and less are copied as they are: nothing is computed with them"
        ));
    }
}

fn warn_of_missing(report: &mut ConvertReport) {
    let missing: Vec<&LeftOut> = report.left_out.iter().filter(|one| one.matters).collect();
    if let Some(first) = missing.first() {
        let text = format!(
            "{} constants are left out, among them \"{}\" ({}): {}",
            missing.len(),
            first.name,
            first.dtype,
            first.why
        );
        report.warnings.push(text);
    }
}

/// The index to write, if the output is to have one. `-o NAME.safetensors` is one file if the tensors fit into one, and
/// `NAME.safetensors.index.json` with its files if not.
fn index(
    job: &ConvertJob,
    kind: Kind,
    files: usize,
    report: &mut ConvertReport,
) -> Result<Option<PathBuf>> {
    match (kind, job.max_shard_size) {
        (Kind::Index, None) => Err(request(
            &job.output,
            "several files need --max-shard-size, as in --max-shard-size 5GB; one file is called .safetensors",
        )),
        (Kind::Index, Some(_)) => {
            let name = job.output.to_string_lossy();
            let single = name.strip_suffix(".index.json").unwrap_or(&name);
            if Path::new(single).exists() {
                report.warnings.push(format!(
                    "{single} lies beside the index; many programs load it instead"
                ));
            }
            Ok(Some(job.output.clone()))
        }
        (_, Some(_)) if files > 1 => {
            if job.output.symlink_metadata().is_ok() {
                return Err(request(
                    &job.output,
                    "the tensors need several files, and this one would be loaded instead of them; name another output",
                ));
            }
            let mut name = job.output.clone().into_os_string();
            name.push(".index.json");
            Ok(Some(name.into()))
        }
        _ => Ok(None),
    }
}

fn written(job: &ConvertJob, path: &Path, saved: Saved) -> Result<Written> {
    let text = |path: &PathBuf| path.display().to_string();
    Ok(Written {
        path: path.display().to_string(),
        sha256: job.hash.then(|| hash::of_file(path)).transpose()?,
        bytes: saved.bytes,
        files: saved.files.iter().map(text).collect(),
    })
}

/// Refuses an output that is the model itself, or that holds its tensors.
fn check_data_files(model: &Model, output: &Path) -> Result<()> {
    let Ok(output_file) = output.canonicalize() else {
        return Ok(());
    };
    let is_output = |path: PathBuf| path.canonicalize().is_ok_and(|path| path == output_file);
    let data = model
        .constants()
        .filter_map(|tensor| match &tensor.payload {
            Payload::External(external) => Some(model.dir()?.join(&external.location)),
            _ => None,
        });
    let own = model.source().path().map(Path::to_path_buf);
    match own.into_iter().chain(data).any(is_output) {
        true => Err(request(
            output,
            "this file belongs to the input; choose another output",
        )),
        false => Ok(()),
    }
}
