//! Folding state dicts, against NumPy's numbers (`testdata/state`) and against folding the ONNX model.

// What was skipped is for the reader of the tests' output.
#![allow(clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};

use bnkit::calibrate::Interrupt;
use bnkit::fold::{Options, plan};
use bnkit::pipeline::Quiet;
use bnkit::report::{Decision, FoldReport, Verdict};
use bnkit::state::{PairingSource, StateFoldJob, fold};
use bnkit::verify::VerifyOptions;
use bnkit_model::onnx::{Model, Node};
use bnkit_model::safetensors::{StateDict, Tensor};

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(path)
}

fn job(input: PathBuf, output: &Path, source: PairingSource) -> StateFoldJob {
    StateFoldJob {
        input,
        output: Some(output.to_owned()),
        force: true,
        hash: false,
        provenance: false,
        source,
        epsilon: None,
        identity: false,
        fold: Options::default(),
        verify: Some(VerifyOptions::default()),
        require_end_to_end: false,
        require_all_folded: false,
        min_folded: None,
        interrupt: Interrupt::default(),
    }
}

fn run(job: &StateFoldJob) -> FoldReport {
    let report = fold(job, &Quiet).unwrap();
    assert_eq!(report.failure, None, "{}", job.input.display());
    report
}

/// How many units in the last place two stored floats are apart.
fn ulps(a: &[u8], b: &[u8]) -> u64 {
    let ordered = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        let sign = 1u64 << (8 * bytes.len() - 1);
        if bits & sign == 0 {
            bits + sign
        } else {
            2 * sign - bits
        }
    };
    ordered(a).abs_diff(ordered(b))
}

/// Names, order, types, shapes and metadata are the same, floats to the last place.
fn differences(found: &StateDict, expected: &StateDict) -> Vec<String> {
    let mut all = Vec::new();
    let names = |dict: &StateDict| -> Vec<String> {
        dict.tensors()
            .iter()
            .map(|tensor| tensor.name.clone())
            .collect()
    };
    if names(found) != names(expected) {
        return vec![format!("{:?} for {:?}", names(found), names(expected))];
    }
    if found.shards()[0].metadata != expected.shards()[0].metadata {
        all.push("metadata".to_owned());
    }
    for (a, b) in found.tensors().iter().zip(expected.tensors()) {
        let header = |tensor: &Tensor| (tensor.dtype, tensor.shape.clone());
        let (x, y) = (found.read(a).unwrap(), expected.read(b).unwrap());
        let size = x.dtype().size().unwrap();
        let parts = x.data().chunks_exact(size).zip(y.data().chunks_exact(size));
        let allowed = u64::from(a.is_float());
        let apart = parts.map(|(x, y)| ulps(x, y)).max().unwrap_or(0);
        if header(a) != header(b) || apart > allowed {
            all.push(format!("{}: {apart} ulp", a.name));
        }
    }
    all
}

/// Compares with `KIND.safetensors`, or with the second right answer where there is one.
fn judge(dir: &Path, found: &Path, kind: &str) -> Result<(), String> {
    let found = StateDict::open(found).unwrap();
    let mut why = Vec::new();
    for suffix in ["", "_may"] {
        let path = dir.join(format!("{kind}{suffix}.safetensors"));
        if !path.exists() {
            continue;
        }
        why = differences(&found, &StateDict::open(&path).unwrap());
        if why.is_empty() {
            return Ok(());
        }
    }
    Err(format!("{} {kind}: {why:?}", dir.display()))
}

fn cases() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(testdata("state"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    assert!(all.len() > 15);
    all
}

#[test]
fn the_graph_folds_the_checkpoint_as_numpy_does() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    let mut wrong = Vec::new();
    for case in cases() {
        for (identity, kind) in [(false, "folded"), (true, "identity")] {
            let graph = PairingSource::Graph(case.join("model.onnx"));
            let mut job = job(case.join("model.safetensors"), &out, graph);
            job.identity = identity;
            let report = run(&job);
            let verdict = report.verification.unwrap().verdict;
            assert_ne!(verdict, Verdict::NotEquivalent, "{}", case.display());
            wrong.extend(judge(&case, &out, kind).err());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pairs_fold_the_checkpoint_as_the_graph_does() {
    let dir = tempfile::tempdir().unwrap();
    let (out, pairs) = (
        dir.path().join("out.safetensors"),
        dir.path().join("pairs.yaml"),
    );
    let mut compared = 0;
    for case in cases() {
        let text = fs::read_to_string(case.join("expect.json")).unwrap();
        let expect: serde_json::Value = serde_json::from_str(&text).unwrap();
        let list = |key: &str| expect[key].as_array().unwrap().clone();
        // Where names cannot tell what the graph sees, only the graph can be compared with.
        let certain =
            list("unseen").is_empty() && list("named").is_empty() && list("may_fold").is_empty();
        let all = list("pairs");
        let once = |side: usize| {
            let mut names: Vec<&str> = all
                .iter()
                .map(|pair| pair[side].as_str().unwrap())
                .collect();
            names.sort_unstable();
            names.windows(2).all(|pair| pair[0] != pair[1])
        };
        if !certain
            || !once(0)
            || !once(1)
            || expect["kept"]
                .as_object()
                .is_some_and(|kept| !kept.is_empty())
        {
            continue;
        }
        let mut yaml = format!("eps: {}\npairs:\n", expect["eps"]);
        for pair in &all {
            let (layer, norm) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            let is = |key: &str| list(key).iter().any(|name| name == layer);
            let kind = if is("linear") { "linear" } else { "conv" };
            yaml += &format!("- {kind}: {layer}\n  bn: {norm}\n");
            if is("transposed") {
                yaml += "  transposed: true\n";
            }
            if let Some(groups) = expect["groups"].get(layer) {
                yaml += &format!("  groups: {groups}\n");
            }
        }
        fs::write(&pairs, yaml).unwrap();
        for (identity, kind) in [(false, "folded"), (true, "identity")] {
            let source = PairingSource::Pairs(pairs.clone());
            let mut job = job(case.join("model.safetensors"), &out, source);
            job.identity = identity;
            let report = run(&job);
            assert_eq!(
                report.verification.unwrap().verdict,
                Verdict::EquivalentLocal
            );
            judge(&case, &out, kind).unwrap();
            compared += 1;
        }
    }
    assert!(compared >= 14, "{compared}");
}

#[test]
fn a_sharded_checkpoint_folds_shard_by_shard() {
    let case = testdata("state/resnet");
    let dir = tempfile::tempdir().unwrap();
    let whole = StateDict::open(&case.join("model.safetensors")).unwrap();
    let half = whole.tensors().len() / 2;
    let files = [&whole.tensors()[..half], &whole.tensors()[half..]].map(|tensors| {
        bnkit_model::safetensors::NewFile {
            metadata: whole.shards()[0].metadata.clone(),
            tensors: tensors
                .iter()
                .map(|tensor| bnkit_model::safetensors::NewTensor::copy(&whole, tensor))
                .collect(),
        }
    });
    let index = dir.path().join("net.safetensors.index.json");
    bnkit_model::safetensors::save_sharded(&index, files.into(), &[], Default::default()).unwrap();
    let graph = || PairingSource::Graph(case.join("model.onnx"));
    let out = dir.path().join("out.safetensors.index.json");
    run(&job(index.clone(), &out, graph()));
    let folded = StateDict::open(&out).unwrap();
    assert_eq!(folded.shards().len(), 2);
    // The same tensors as of one file, and in one file the very same.
    let one = dir.path().join("one.safetensors");
    run(&job(index, &one, graph()));
    judge(&case, &one, "folded").unwrap();
    let single = StateDict::open(&one).unwrap();
    for tensor in folded.tensors() {
        let other = single.tensor(&tensor.name).unwrap();
        assert_eq!(folded.read(tensor).unwrap(), single.read(other).unwrap());
    }
}

#[test]
fn every_batch_norm_has_one_decision() {
    let case = testdata("state/conv_with_two_norms");
    let dir = tempfile::tempdir().unwrap();
    let graph = PairingSource::Graph(case.join("model.onnx"));
    let report = run(&job(
        case.join("model.safetensors"),
        &dir.path().join("o.safetensors"),
        graph,
    ));
    let decision = |module: &str| {
        let of = report
            .sites
            .iter()
            .filter(|site| site.module.as_deref() == Some(module));
        of.map(|site| {
            (
                site.decision,
                site.refusal.as_ref().map(|refusal| refusal.code),
            )
        })
        .collect::<Vec<_>>()
    };
    let modules: Vec<_> = report
        .sites
        .iter()
        .filter_map(|site| site.module.clone())
        .collect();
    assert_eq!(modules.len(), 3);
    let kept = modules
        .iter()
        .filter(|module| decision(module) == [(Decision::Kept, Some("module-called-twice"))]);
    assert_eq!(kept.count(), 2);
    assert_eq!((report.summary.folded, report.summary.kept), (1, 2));
}

/// Folding the state dict gives the numbers of folding the ONNX model, bit for bit, wherever both fold.
#[test]
fn the_checkpoint_gets_the_numbers_of_the_folded_model() {
    let root = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    let nets = root.join("nets");
    let Ok(entries) = fs::read_dir(&nets) else {
        eprintln!("skipped: {} is not there", nets.display());
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out.safetensors");
    let mut compared = 0;
    for entry in entries {
        let dir = entry.unwrap().path();
        let (graph, state) = (dir.join("model.onnx"), dir.join("model.safetensors"));
        if !graph.exists() || !state.exists() {
            continue;
        }
        let mut job = job(state, &out, PairingSource::Graph(graph.clone()));
        job.verify = None;
        let report = run(&job);
        let model = Model::open(&graph).unwrap();
        let mut options = Options::default();
        // What a state dict cannot say stays in both.
        let leave: Vec<String> = report
            .sites
            .iter()
            .filter(|site| site.decision == Decision::Kept)
            .map(|site| site.node.to_string())
            .collect();
        options.skip = leave;
        options.left_alone = model
            .nodes()
            .filter(|(_, node)| ["Mul", "Add", "Sub", "Div"].iter().any(|op| node.is(op)))
            .map(|(id, _)| id)
            .collect();
        let plan = plan(&model, &options).unwrap();
        let folded = plan.apply();
        let dict = StateDict::open(&out).unwrap();
        let original = StateDict::open(&job.input).unwrap();
        let layers = ["Conv", "ConvTranspose", "Gemm"];
        let is_layer = |node: &Node| layers.iter().any(|op| node.is(op));
        let inputs = model
            .nodes()
            .filter(|(_, node)| is_layer(node))
            .flat_map(|(id, node)| [(id, 1, node.input(1)), (id, 2, node.input(2))]);
        for (id, slot, value) in inputs {
            let name = value.map_or("", |value| &model.value(value).name);
            let now = folded.node(id).input(slot).map(|value| folded.value(value));
            let now = now.and_then(|now| now.tensor.as_ref());
            let (Some(def), Some(tensor)) = (now, dict.tensor(name)) else {
                continue;
            };
            let (a, b) = (folded.read_tensor(def).unwrap(), dict.read(tensor).unwrap());
            assert!(a == b, "{} {name}", dir.display());
            let before = original
                .tensor(name)
                .map(|tensor| original.read(tensor).unwrap());
            compared += usize::from(before.is_some_and(|before| before != b));
        }
    }
    assert!(compared > 80, "{compared}");
}
