//! `convert`: the weights of an ONNX model as a state dict, a state dict's weights into an ONNX graph, state dicts in other
//! float types and other files. docs/converting.md says what it promises.
//!
//! Elements go from file to file in chunks. Nothing is written if an element would overflow.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `graph` | the weights of a graph, by name |
//! | `names` | what a name in a state dict says |
//! | `matching` | which tensor of a checkpoint belongs to which of a graph |
//! | `into_graph` | a checkpoint's weights into a graph |
//! | `into_state` | a model or a state dict to a state dict |
//! | `item`, `rounding` | a tensor on its way; what rounding does to it |
//! | `shards` | how tensors are spread over files |
//! | `report` | what is said about the work |

use std::path::{Path, PathBuf};

use bnkit_model::DType;
use bnkit_model::format::Format;
use bnkit_model::onnx::Model;
use bnkit_model::safetensors::StateDict;
use rayon::prelude::*;

use crate::checkpoint::format;
use crate::pipeline::{Phase, Progress, describe_input};
use crate::report::Tool;
use crate::{Error, Result, hash};

mod graph;
mod into_graph;
mod into_state;
mod item;
mod matching;
mod names;
mod report;
mod rounding;
mod shards;

pub use report::{
    Checkpoint, ConvertReport, How, LeftOut, Matching, Pair, Rounding, Unmatched, Written,
};
pub use shards::parse_size;

use item::Item;

/// A conversion to do.
#[derive(Debug, Clone)]
pub struct ConvertJob {
    /// The checkpoint to read; with `weights`, the ONNX model that gets them.
    pub input: PathBuf,
    /// The state dict whose weights go into the graph of `input`.
    pub weights: Option<PathBuf>,
    /// What to write; the name says in which format.
    pub output: PathBuf,
    /// Whether an existing output may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// The type that floats are rounded to.
    pub dtype: Option<FloatType>,
    /// Whether running means and variances keep their type.
    pub keep_statistics: bool,
    /// Whether only running means and variances are written.
    pub stats_only: bool,
    /// The most bytes of tensors that a file may have, before there are several.
    pub max_shard_size: Option<u64>,
}

impl ConvertJob {
    /// Converts `input` to what the name of `output` says, with its types as they are and in one file.
    pub fn new(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            weights: None,
            output: output.into(),
            force: false,
            hash: false,
            dtype: None,
            keep_statistics: false,
            stats_only: false,
            max_shard_size: None,
        }
    }
}

/// A float type that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE 754 binary32.
    F32,
}

impl FloatType {
    fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
            Self::F32 => DType::F32,
        }
    }
}

/// What an output is to be, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Onnx,
    File,
    Index,
}

impl Kind {
    fn of(output: &Path) -> Result<Self> {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".safetensors") {
            Ok(Self::File)
        } else if name.ends_with(".safetensors.index.json") {
            Ok(Self::Index)
        } else if name.to_ascii_lowercase().ends_with(".onnx") {
            Ok(Self::Onnx)
        } else {
            Err(request(
                output,
                "expected a name that ends in .safetensors, .safetensors.index.json or (with --weights) .onnx",
            ))
        }
    }
}

/// Does a conversion. The report's `failure` tells whether the answer is "no": then nothing was written.
///
/// # Errors
/// If a file cannot be read or written, the output's name does not fit what is asked for, or the weights do not fit the
/// graph.
pub fn convert(job: &ConvertJob, progress: &dyn Progress) -> Result<ConvertReport> {
    let kind = Kind::of(&job.output)?;
    progress.begin(Phase::Reading, None);
    let format = format(&job.input)?;
    match (format, &job.weights, kind) {
        (Format::Onnx, Some(weights), Kind::Onnx) => into_graph::put(job, weights, progress),
        (Format::Onnx, Some(_), _) => Err(request(
            &job.output,
            "with --weights a model is written, whose name ends in .onnx",
        )),
        (_, Some(_), _) => Err(request(
            &job.input,
            "--weights needs a graph to put them into: an ONNX model",
        )),
        (Format::Onnx, None, Kind::Onnx) => Err(request(
            &job.input,
            "ONNX to ONNX is no conversion; --weights FILE puts a checkpoint's weights into the graph",
        )),
        (_, None, Kind::Onnx) => Err(request(
            &job.input,
            "a state dict has no graph; bnkit convert --weights CHECKPOINT MODEL.onnx -o OUT.onnx puts it into one",
        )),
        (Format::Onnx, None, _) => into_state::from_onnx(job, kind, progress),
        (_, None, _) => into_state::from_state(job, kind, progress),
    }
}

fn request(path: &Path, why: &str) -> Error {
    Error::Request(format!("{}: {why}", path.display()))
}

/// A report of which only the input is known.
fn begun(input: Checkpoint) -> ConvertReport {
    ConvertReport {
        schema: "bnkit.convert/1",
        tool: Tool::default(),
        input,
        weights: None,
        tensors: 0,
        tensor_bytes: 0,
        converted: 0,
        left_out: Vec::new(),
        matching: None,
        rounding: Vec::new(),
        warnings: Vec::new(),
        output: None,
        failure: None,
    }
}

fn of_model(job: &ConvertJob, model: &Model) -> Result<Checkpoint> {
    Ok(Checkpoint {
        path: job.input.display().to_string(),
        format: "onnx",
        bytes: describe_input(model, &job.input).bytes,
        sha256: job.hash.then(|| hash::of_file(&job.input)).transpose()?,
    })
}

fn of_dict(job: &ConvertJob, path: &Path, dict: &StateDict) -> Result<Checkpoint> {
    Ok(Checkpoint {
        path: path.display().to_string(),
        format: match dict.is_sharded() {
            true => "safetensors-index",
            false => "safetensors",
        },
        bytes: dict.bytes(),
        sha256: job.hash.then(|| hash::of_file(path)).transpose()?,
    })
}

/// Finds out what rounding will change, before anything is written, and says so in the report.
fn measure(items: &[Item<'_>], report: &mut ConvertReport, progress: &dyn Progress) -> Result<()> {
    progress.begin(Phase::Planning, None);
    let found: Vec<Option<Rounding>> = items
        .par_iter()
        .map(Item::rounding)
        .collect::<Result<_>>()?;
    report.converted = items.iter().filter(|item| item.to.is_some()).count();
    let mut rounding: Vec<Rounding> = found.into_iter().flatten().collect();
    rounding.sort_by(|a, b| {
        let (a, b) = (a.severity(), b.severity());
        let order = b.0.cmp(&a.0).then(b.1.total_cmp(&a.1));
        order.then(b.2.total_cmp(&a.2))
    });
    let hurt = |one: &&Rounding| one.statistic && one.zeroed + one.subnormal > 0;
    let statistics = rounding.iter().filter(hurt).count();
    if let Some(worst) = rounding.iter().find(hurt) {
        report.warnings.push(format!(
            "{statistics} running means or variances have elements that become 0 or subnormal in {} (\"{}\" is the worst); \
             --keep-statistics keeps their type",
            worst.to, worst.name
        ));
    }
    let bad: Vec<&Rounding> = rounding.iter().filter(|one| one.overflowed > 0).collect();
    if let Some(worst) = bad.first() {
        let elements: u64 = bad.iter().map(|one| one.overflowed).sum();
        report.failure = Some(format!(
            "{elements} elements of {} tensors are beyond the range of {} (\"{}\" has {}); nothing is written",
            bad.len(),
            worst.to,
            worst.name,
            worst.overflowed
        ));
    }
    report.rounding = rounding;
    Ok(())
}
