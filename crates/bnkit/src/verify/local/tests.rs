//! Neighbourhoods of real plans, run by the engine.

use std::path::{Path, PathBuf};

use bnkit_engine::{LoadOptions, Precision, Session};
use bnkit_model::onnx::{AttributeValue, Edit, NewTensor, Recipe};
use bnkit_model::{DType, Tensor};

use super::*;
use crate::fold::{Options, plan};
use crate::verify::algebra;
use crate::verify::nets::{Net, attribute};

/// Runs both models in doubles on the same numbers.
fn compare(original: &[u8], folded: &[u8]) -> Result<f64, String> {
    let run = |model: &[u8]| -> Result<Vec<(String, Tensor)>, String> {
        let say = |error: bnkit_engine::EngineError| error.to_string();
        let mut inputs = Vec::new();
        for spec in bnkit_engine::inputs(model).map_err(say)? {
            let dims = spec.dims.unwrap();
            let dims = dims.iter().map(|dim| match dim {
                bnkit_engine::Dim::Fixed(size) => *size,
                other => panic!("{other:?}"),
            });
            let dims: Vec<usize> = dims.collect();
            let count = dims.iter().product::<usize>();
            // Something like noise, on both sides of 0.
            let values: Vec<f64> = (0..count).map(|i| ((i * i) as f64 * 0.7 + 1.0).sin()).collect();
            inputs.push((spec.name, Tensor::from_f64(DType::F64, dims, &values).unwrap()));
        }
        let options = LoadOptions {
            precision: Precision::F64,
            input_dims: &[],
            model_dir: None,
            extra_outputs: &[],
            perturbation: None,
        };
        Session::load(model, &options).map_err(say)?.run(&inputs).map_err(say)
    };
    let (a, b) = (run(original)?, run(folded)?);
    assert_eq!(a.len(), b.len());
    let mut worst = 0f64;
    for ((_, a), (_, b)) in a.iter().zip(&b) {
        assert_eq!(a.dims(), b.dims());
        let (a, b) = (a.to_f64().unwrap(), b.to_f64().unwrap());
        let range = a.iter().fold(f64::MIN_POSITIVE, |range, x| range.max(x.abs()));
        for (x, y) in a.iter().zip(&b) {
            let distance = (x - y).abs() / range;
            worst = if distance > worst || distance.is_nan() { distance } else { worst };
        }
    }
    Ok(worst)
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// What is said of the models in a folder: routes, algebra, and neighbourhoods.
fn survey(paths: impl Iterator<Item = PathBuf>) -> (usize, usize, Vec<String>, Vec<String>) {
    let (mut routes, mut ran) = (0, 0);
    let (mut wrong, mut skipped) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let Ok(original) = Model::open(&path) else { continue };
        let Ok(plan) = plan(&original, &Options::default()) else { continue };
        let folded = plan.apply();
        routes += plan.routes.len();
        let algebra = algebra::check(&original, folded, &plan.routes).unwrap();
        for failure in &algebra.failures {
            let node = original.describe(failure.node);
            wrong.push(format!("{name}: {node}: {}", failure.describe()));
        }
        let all = neighbourhoods(&original, folded, &plan.routes);
        let result = check(&all, &compare);
        ran += result.ran;
        for (label, distance) in result.failures {
            wrong.push(format!("{name}: around {label}: {distance:e}"));
        }
        for (label, why) in result.skipped {
            skipped.push(format!("{name}: around {label}: {why}"));
        }
    }
    (routes, ran, wrong, skipped)
}

fn models(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .collect();
    paths.sort();
    paths.into_iter()
}

#[test]
fn golden_folds_hold() {
    let (routes, ran, wrong, skipped) = survey(models(&folder("golden")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(routes > 100 && ran * 10 > routes * 7, "{routes}, {ran}: {}", skipped.join("\n"));
}

#[test]
#[ignore = "adhoc"]
fn adhoc() {
    for f in std::env::var("FOLDERS").unwrap().split(':') {
        for path in models(Path::new(f)) {
        let name = path.display().to_string();
        let start = std::time::Instant::now();
        let (routes, ran, wrong, skipped) = survey(std::iter::once(path));
        eprintln!("{name}: routes {routes} ran {ran} wrong {} skipped {} in {:?}", wrong.len(), skipped.len(), start.elapsed());
        for w in wrong.iter().take(4) { eprintln!("   WRONG {w}"); }
        for w in skipped.iter().take(4) { eprintln!("   skip {w}"); }
        }
    }
}

#[test]
#[ignore = "adhoc"]
fn adhoc2() {
    let original = Model::open(Path::new(&std::env::var("M").unwrap())).unwrap();
    let plan = plan(&original, &Options::default()).unwrap();
    let folded = plan.apply();
    let all = neighbourhoods(&original, folded, &plan.routes);
    for n in &all {
        if n.label != std::env::var("L").unwrap() { continue; }
        let show = |m: &Model, id: NodeId| {
            let node = m.node(id);
            let v = |v: &Option<ValueId>| v.map_or("-".to_owned(), |v| format!("{}{:?}{}", m.value(v).name, m.value(v).tensor.as_ref().map(|t| t.dims.clone()), v.index()));
            eprintln!("  {:?} {} alive {} {:?} -> {:?} {:?}", id, m.describe(id), node.alive, node.inputs.iter().map(v).collect::<Vec<_>>(), node.outputs.iter().map(v).collect::<Vec<_>>(), node.attributes.iter().map(|a| (&a.name, &a.value)).collect::<Vec<_>>());
        };
        for r in &n.routes { eprintln!("{:?}", plan.routes[*r]); }
        for id in &n.nodes { show(&original, *id); }
        match cut::Cut::new(&n.pair, &n.nodes) {
            Err(e) => eprintln!("{e}"),
            Ok(cut) => {
        let mut f: Vec<_> = cut.folded.iter().collect(); f.sort();
        eprintln!("original cut {:?}", cut.original);
        for id in f { show(folded, *id); }
        eprintln!("{:?} {:?} {:?}", cut.inputs, cut.outputs, size::dims(&n.pair, &cut));
        let m = n.models().unwrap();
        std::fs::write("/tmp/alg-o.onnx", &m.original).unwrap();
        std::fs::write("/tmp/alg-f.onnx", &m.folded).unwrap();
            }
        }
    }
}
