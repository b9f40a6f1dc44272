//! The golden graphs of `testdata/golden`: what the plan decides for each of their BatchNorms, what the folded graphs
//! compute (against outputs of an independent oracle), and that the proof accepts them.

use std::path::PathBuf;

use bnkit::explain::find;
use bnkit::fold::{Options, Plan, plan};
use bnkit::inspect::inspect;
use bnkit::report::Verdict;
use bnkit::unfold;
use bnkit::verify::{self, VerifyOptions};
use bnkit_engine::{LoadOptions, Session};
use bnkit_model::Tensor;
use bnkit_model::onnx::{Constants, Model, NodeId, Precision, SaveOptions, Types};
use serde_json::Value;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden")
}

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(golden().join("cases.json")).expect("testdata is there");
    serde_json::from_str(&text).expect("cases.json is JSON")
}

/// A field that holds one acceptable value or a list of them.
fn accepts(expected: &Value, found: &str) -> bool {
    match expected {
        Value::Null => true,
        Value::Array(list) => list.iter().any(|entry| entry == found),
        one => one == found,
    }
}

fn options(case: &Value) -> Option<Options> {
    let mut options = Options::default();
    let flags: Vec<&str> = case["flags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut flags = flags.into_iter();
    while let Some(flag) = flags.next() {
        match flag {
            "--through-branches" => options.through_branches = true,
            "--aggressive" => options.aggressive = true,
            "--lower" => options.lower = true,
            "--merge-branches" => options.merge_branches = true,
            "--per-channel-scales" => options.per_channel_scales = true,
            "--assume-constant" => options.assume_constant = true,
            "--allow-bad-statistics" => options.allow_bad_statistics = true,
            "--skip" => options.skip.push(flags.next()?.to_owned()),
            "--only" => options.only.push(flags.next()?.to_owned()),
            _ => return None,
        }
    }
    Some(options)
}

fn check(case: &Value) -> Result<(), String> {
    let Some(options) = options(case) else {
        return Ok(());
    };
    let name = case["name"].as_str().expect("a name");
    let path = golden().join(format!("{name}.onnx"));
    let planned = Model::open(&path)
        .map_err(|e| e.to_string())
        .and_then(|model| plan(&model, &options).map_err(|e| e.to_string()));
    if case["expect"] == "error" {
        return match (&planned, case["exit"].as_i64()) {
            // Some of these only show when the model is saved; the command's tests look at those.
            (Ok(plan), Some(1)) if plan.errors.is_empty() => Err("no error was found".to_owned()),
            _ => Ok(()),
        };
    }
    let plan = planned?;
    for expected in case["sites"].as_array().into_iter().flatten() {
        let node = expected["node"].as_str().unwrap_or("");
        let site = plan.sites.iter().find(|site| {
            if node.is_empty() {
                expected["output"] == site.output.as_str()
            } else {
                site.node == node
            }
        });
        let Some(site) = site else {
            return Err(format!("{node} is not in the plan"));
        };
        let decision = serde_json::to_value(site.decision).expect("a word");
        if !accepts(&expected["decision"], decision.as_str().unwrap_or("")) {
            let why = site.refusal.as_ref().map_or(String::new(), |refusal| {
                format!(" ({}: {})", refusal.code, refusal.message)
            });
            return Err(format!(
                "{node}: {decision}{why}, expected {}",
                expected["decision"]
            ));
        }
        if let Some(refusal) = &site.refusal
            && !accepts(&expected["code"], refusal.code)
        {
            return Err(format!(
                "{node}: {}: {}, expected {}",
                refusal.code, refusal.message, expected["code"]
            ));
        }
        if matches!(decision.as_str(), Some("folded" | "half-folded" | "merged")) {
            for into in expected["into"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                if !site.into.iter().any(|found| found == into) {
                    return Err(format!("{node}: into {:?}, expected {into}", site.into));
                }
            }
        }
    }
    if let Some(count) = case["affines_folded"].as_u64()
        && count != plan.summary.affines_folded as u64
    {
        return Err(format!(
            "{} affines folded, expected {count}",
            plan.summary.affines_folded
        ));
    }
    check_merges(case, &plan)?;
    chains(case, &plan)
}

/// How many merges there are, which were refused, and how many Convs are left.
fn check_merges(case: &Value, plan: &Plan) -> Result<(), String> {
    let Some(merges) = case["merges"].as_u64() else {
        return Ok(());
    };
    let (done, refused) = (&plan.merged, &plan.merges_refused);
    if merges != done.len() as u64 || done.len() != plan.merges.len() {
        return Err(format!("{} merges, expected {merges}", done.len()));
    }
    let mut codes: Vec<&str> = refused.iter().map(|merge| merge.refusal.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let expected = case["merge_codes"].as_array().into_iter().flatten();
    let expected: Vec<&str> = expected.filter_map(Value::as_str).collect();
    if codes != expected {
        return Err(format!("refused with {codes:?}, expected {expected:?}"));
    }
    let nodes = plan.apply().nodes();
    let convs = nodes.filter(|(_, node)| node.is("Conv")).count();
    match case["convs_left"].as_u64() == Some(convs as u64) {
        true => Ok(()),
        false => Err(format!("{convs} Convs are left")),
    }
}

/// Chains of constants that the report names: the kind, and a decision for each node.
fn chains(case: &Value, plan: &Plan) -> Result<(), String> {
    let Some(expected) = case["chains"].as_array() else {
        return Ok(());
    };
    let found: Vec<Value> = plan
        .chains
        .iter()
        .map(|chain| serde_json::to_value(chain).expect("plain data"))
        .collect();
    if found.len() != expected.len() {
        return Err(format!("chains {found:?}, expected {expected:?}"));
    }
    for (chain, expected) in found.iter().zip(expected) {
        let nodes = chain["nodes"].as_array().expect("a list");
        let wanted = expected["nodes"].as_object().expect("an object");
        let right = |node: &Value| {
            wanted.get(node["node"].as_str().unwrap_or("")) == Some(&node["decision"])
        };
        let all = wanted.is_empty() || (nodes.len() == wanted.len() && nodes.iter().all(right));
        if chain["kind"] != expected["kind"] || !all {
            return Err(format!("chain {chain}, expected {expected}"));
        }
        // What stays says why.
        if let Some(mute) = nodes
            .iter()
            .find(|node| (node["decision"] == "kept") != node["refusal"]["code"].is_string())
        {
            return Err(format!(
                "{mute}: a refusal goes with what is kept, and only with that"
            ));
        }
    }
    Ok(())
}

#[test]
fn normalisations_with_statistics_of_the_data_are_named() {
    let mut looked_at = 0;
    for case in cases() {
        let Some(expected) = case["data_norms"].as_object() else {
            continue;
        };
        let name = case["name"].as_str().expect("a name");
        let path = golden().join(format!("{name}.onnx"));
        let report = inspect(&path, &Options::default(), false).expect("a model");
        let found: serde_json::Map<String, Value> = report
            .data_norms
            .iter()
            .map(|norm| (norm.node.to_string(), norm.kind.into()))
            .collect();
        assert_eq!(found, *expected, "{name}");
        assert!(
            report
                .data_norms
                .iter()
                .all(|norm| find(norm.code).is_some())
        );
        looked_at += 1;
    }
    assert!(looked_at > 5, "{looked_at}");
}

#[test]
fn every_golden_graph_is_planned_as_expected() {
    let cases = cases();
    assert!(cases.len() > 200, "the golden graphs are there");
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            check(case)
                .err()
                .map(|why| format!("{}: {why}", case["name"]))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

/// The arrays of a case whose names begin with `prefix`, without it.
fn arrays(name: &str, prefix: &str) -> Vec<(String, Tensor)> {
    let data = bnkit::data::load(&golden().join(format!("{name}.npz"))).expect("an archive");
    let named = data.tensors.into_iter();
    named
        .filter_map(|named| Some((named.name.strip_prefix(prefix)?.to_owned(), named.tensor)))
        .collect()
}

/// The largest difference of a graph's outputs from the oracle's, or why the engine cannot run it.
fn distance(model: &Model, name: &str) -> Result<f64, String> {
    let inputs = arrays(name, "in__");
    let dims: Vec<_> = inputs
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
        .collect();
    let folder = golden().join(name);
    let options = LoadOptions {
        precision: bnkit_engine::Precision::F32,
        input_dims: &dims,
        model_dir: folder.parent(),
        extra_outputs: &[],
        perturbation: None,
    };
    let bytes = model
        .to_bytes(Precision::Stored)
        .map_err(|error| error.to_string())?;
    let session = Session::load(&bytes, &options).map_err(|error| error.to_string())?;
    let widened: Vec<(String, Tensor)> = inputs
        .into_iter()
        .map(|(name, tensor)| match session.input_dtype(&name) {
            Some(dtype) if dtype != tensor.dtype() => {
                let values = tensor.to_f64().expect("numbers");
                let tensor =
                    Tensor::from_f64(dtype, tensor.dims().to_vec(), &values).expect("numbers");
                (name, tensor)
            }
            _ => (name, tensor),
        })
        .collect();
    let found = session.run(&widened).map_err(|error| error.to_string())?;
    let mut worst = 0.0f64;
    for (name, expected) in arrays(name, "out__") {
        // Outputs of training mode are dropped.
        let Some((_, found)) = found.iter().find(|(other, _)| *other == name) else {
            continue;
        };
        assert_eq!(found.dims(), expected.dims(), "{name}");
        let pairs = found
            .to_f64()
            .expect("numbers")
            .into_iter()
            .zip(expected.to_f64().expect("numbers"));
        for (found, expected) in pairs {
            let difference = (found - expected).abs();
            // NaN is a difference.
            worst = if difference <= worst {
                worst
            } else {
                difference
            };
        }
    }
    Ok(worst)
}

#[test]
fn folded_graphs_compute_what_the_oracle_says() {
    let (mut compared, mut not_run, mut failures) = (0, Vec::new(), Vec::new());
    for case in cases() {
        let name = case["name"].as_str().expect("a name");
        let Some(options) = options(&case) else {
            continue;
        };
        if case["expect"] == "error"
            || case["run"] == false
            || !golden().join(format!("{name}.npz")).exists()
        {
            continue;
        }
        let model = Model::open(&golden().join(format!("{name}.onnx"))).expect("a model");
        let plan = plan(&model, &options).expect("a plan");
        match distance(plan.apply(), name) {
            Err(why) => not_run.push(format!("{name}: {why}")),
            Ok(distance) => {
                compared += 1;
                let accepted = case["atol"].as_f64().expect("a tolerance");
                if distance > accepted || distance.is_nan() {
                    failures.push(format!("{name}: {distance:e}, accepted {accepted:e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        compared > 250 && not_run.len() < 40,
        "{compared} compared, not run: {}",
        not_run.join("\n")
    );
}

#[test]
fn the_proof_accepts_every_golden_fold() {
    let mut failures = Vec::new();
    let mut end_to_end = 0;
    for case in cases() {
        let name = case["name"].as_str().expect("a name");
        let Some(options) = options(&case) else {
            continue;
        };
        if case["expect"] == "error" {
            continue;
        }
        let model = Model::open(&golden().join(format!("{name}.onnx"))).expect("a model");
        let plan = plan(&model, &options).expect("a plan");
        let proof = verify::prove(
            &model,
            &plan,
            &options,
            &VerifyOptions {
                samples: 2,
                ..VerifyOptions::default()
            },
        );
        match proof {
            Ok(proof) if proof.verdict == Verdict::Equivalent => end_to_end += 1,
            Ok(proof) if proof.verdict == Verdict::EquivalentLocal => {}
            Ok(proof) => failures.push(format!("{name}: {:?} {:?}", proof.culprit, proof.notes)),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(end_to_end > 280, "{end_to_end} end to end");
}

/// The constants that the node called `name` reads, by slot.
fn constants(model: &Model, types: &Types, node: NodeId) -> Vec<Option<Tensor>> {
    let constants = Constants::new(model, types, true);
    let inputs = model.node(node).inputs.iter();
    let read = |value| model.read_tensor(&*constants.tensor(value).ok()?).ok();
    inputs.map(|value| value.and_then(read)).collect()
}

/// Whether two tensors differ by no more than two units in the last place.
fn is_close(a: &Tensor, b: &Tensor) -> bool {
    let epsilon = match a.dtype() {
        bnkit_model::DType::F16 => 2f64.powi(-10),
        bnkit_model::DType::BF16 => 2f64.powi(-7),
        bnkit_model::DType::F32 => f64::from(f32::EPSILON),
        bnkit_model::DType::F64 => f64::EPSILON,
        _ => return a == b,
    };
    let (a, b) = (a.to_f64().expect("numbers"), b.to_f64().expect("numbers"));
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 2.0 * epsilon * a.abs()
    };
    a.len() == b.len() && a.into_iter().zip(b).all(|(a, b)| close(a, b))
}

/// Folds, writes, reads, unfolds, writes, reads.
fn round_trip(case: &Value, options: &Options, folder: &std::path::Path) -> Result<usize, String> {
    let name = case["name"].as_str().expect("a name");
    let original = Model::open(&golden().join(format!("{name}.onnx"))).expect("a model");
    let plan = plan(&original, options).expect("a plan");
    let (stats, path) = (folder.join("stats.safetensors"), folder.join("f.onnx"));
    let kept = plan
        .kept_stats(&original)
        .map_err(|error| error.to_string())?;
    if kept != plan.kept_stats(&original).expect("as before") {
        return Err("the statistics differ from run to run".to_owned());
    }
    std::fs::write(&stats, kept).expect("a file");
    let force = SaveOptions {
        force: true,
        progress: None,
    };
    plan.apply().save(&path, force).map_err(|e| e.to_string())?;
    let folded = Model::open(&path).map_err(|error| error.to_string())?;
    let (unfolded, norms) = unfold::restore(&folded, &stats).map_err(|error| error.to_string())?;
    let back = folder.join("u.onnx");
    unfolded.save(&back, force).map_err(|e| e.to_string())?;
    let unfolded = Model::open(&back).map_err(|error| error.to_string())?;
    let (old_types, new_types) = (Types::derive(&original), Types::derive(&unfolded));
    for (id, node) in original.nodes() {
        let absorbs = [
            "BatchNormalization",
            "Conv",
            "ConvTranspose",
            "Gemm",
            "MatMul",
        ];
        if !absorbs.iter().any(|op| node.is(op)) {
            continue;
        }
        let scope = original.scope_path(node.scope);
        let same = |(other, found): &(NodeId, &bnkit_model::onnx::Node)| {
            let names = found.name == node.name && found.op_type == node.op_type;
            names && unfolded.scope_path(unfolded.node(*other).scope) == scope
        };
        let found: Vec<_> = unfolded.nodes().filter(same).collect();
        let label = original.label(id);
        let count = |other: &&bnkit_model::onnx::Node| {
            other.name == node.name && other.op_type == node.op_type
        };
        if node.name.is_empty() || original.nodes().map(|(_, n)| n).filter(count).count() > 1 {
            continue;
        }
        let [(other, found)] = found[..] else {
            return Err(format!("{label}: {} nodes", found.len()));
        };
        let (a, b) = (
            constants(&original, &old_types, id),
            constants(&unfolded, &new_types, other),
        );
        let exact = node.is("BatchNormalization");
        let agree = a.iter().zip(&b).all(|pair| match pair {
            (Some(a), Some(b)) => {
                a.dims() == b.dims() && if exact { a == b } else { is_close(a, b) }
            }
            (None, None) => true,
            // Some constants of the original are computed from shapes that only the original declares.
            (a, b) => a.is_none() && b.is_some(),
        });
        if !agree || a.len() != b.len() {
            return Err(format!("{label}: {a:?} is {b:?}"));
        }
        let training = ["training_mode", "is_test", "momentum"];
        let known = node
            .attributes
            .iter()
            .filter(|a| !training.contains(&a.name.as_str()));
        for attribute in known {
            let other = found.attribute(&attribute.name).map(|other| &other.value);
            if format!("{:?}", Some(&attribute.value)) != format!("{other:?}") {
                let name = &attribute.name;
                return Err(format!(
                    "{label}: {name} {:?} is {other:?}",
                    attribute.value
                ));
            }
        }
    }
    if case["run"] != false && golden().join(format!("{name}.npz")).exists() {
        match distance(&unfolded, name) {
            Err(_) => {}
            Ok(distance) if distance <= case["atol"].as_f64().expect("a tolerance") => {}
            // What cancels in the original cancels again.
            Ok(found) if distance(&original, name).is_ok_and(|own| found <= 2.0 * own) => {}
            Ok(distance) => return Err(format!("differs by {distance:e}")),
        }
    }
    Ok(norms.len())
}

#[test]
fn folded_graphs_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut back, mut quantised, mut failures) = (0, 0, Vec::new());
    for case in cases() {
        let Some(options) = options(&case).filter(|_| case["expect"] != "error") else {
            continue;
        };
        match round_trip(&case, &options, folder.path()) {
            Ok(count) => back += count,
            Err(why) if why.contains("holds a quantised weight") => quantised += 1,
            Err(why) => failures.push(format!("{}: {why}", case["name"])),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(back > 250, "{back} BatchNorms came back");
    assert!(quantised > 20, "{quantised} were refused");
}
