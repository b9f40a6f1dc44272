//! Neighbourhoods of real plans, run by the engine.

use std::path::{Path, PathBuf};

use bnkit_engine::{LoadOptions, Precision, Session};
use bnkit_model::onnx::{AttributeValue, Edit, NewTensor, Payload, Recipe};
use bnkit_model::{DType, Tensor};

use super::*;
use crate::fold::{Options, plan};
use crate::route::{Absorbed, Part, Rest, Side, UNTOUCHED};
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
            let values: Vec<f64> = (0..count)
                .map(|i| ((i * i) as f64 * 0.7 + 1.0).sin())
                .collect();
            inputs.push((
                spec.name,
                Tensor::from_f64(DType::F64, dims, &values).unwrap(),
            ));
        }
        let options = LoadOptions {
            precision: Precision::F64,
            input_dims: &[],
            model_dir: None,
            extra_outputs: &[],
            perturbation: None,
        };
        Session::load(model, &options)
            .map_err(say)?
            .run(&inputs)
            .map_err(say)
    };
    let (a, b) = (run(original)?, run(folded)?);
    assert_eq!(a.len(), b.len());
    let mut worst = 0f64;
    for ((_, a), (_, b)) in a.iter().zip(&b) {
        assert_eq!(a.dims(), b.dims());
        let (a, b) = (a.to_f64().unwrap(), b.to_f64().unwrap());
        let range = a
            .iter()
            .fold(f64::MIN_POSITIVE, |range, x| range.max(x.abs()));
        for (x, y) in a.iter().zip(&b) {
            let distance = (x - y).abs() / range;
            worst = if distance > worst || distance.is_nan() {
                distance
            } else {
                worst
            };
        }
    }
    Ok(worst)
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(name)
}

/// What is said of the models in a folder: routes, algebra, and neighbourhoods.
fn survey(paths: impl Iterator<Item = PathBuf>) -> (usize, usize, Vec<String>, Vec<String>) {
    let (mut routes, mut ran) = (0, 0);
    let (mut wrong, mut skipped) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let Ok(original) = Model::open(&path) else {
            continue;
        };
        let Ok(plan) = plan(&original, &Options::default()) else {
            continue;
        };
        let folded = plan.apply();
        routes += plan.routes.len();
        let algebra = algebra::check(&original, folded, &plan.routes).unwrap();
        for failure in &algebra.failures {
            let node = original.describe(failure.node);
            wrong.push(format!("{name}: {node}: {}", failure.describe()));
        }
        let all = neighbourhoods(&original, folded, &plan.routes);
        let result = check(&all, &compare, &Interrupt::default()).unwrap();
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
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "onnx")
        })
        .collect();
    paths.sort();
    paths.into_iter()
}

#[test]
fn golden_folds_hold() {
    let (routes, ran, wrong, skipped) = survey(models(&folder("golden")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        routes > 100 && ran * 10 > routes * 7,
        "{routes}, {ran}: {}",
        skipped.join("\n")
    );
}

/// Models that are `folded` but for one constant, each of them for another.
fn with_one_constant_off(folded: &Model) -> Vec<(String, Model)> {
    let read = folded
        .nodes()
        .flat_map(|(_, node)| node.inputs.iter().flatten().copied());
    let mut values: Vec<ValueId> = read.collect();
    values.sort_unstable();
    values.dedup();
    let mut all = Vec::new();
    for value in values {
        let Some(tensor) = &folded.value(value).tensor else {
            continue;
        };
        if !matches!(tensor.payload, Payload::Computed(_)) || tensor.is_empty() {
            continue;
        }
        let mut numbers = folded.read_f64(tensor).unwrap();
        let last = numbers.len() - 1;
        numbers[last] += match tensor.dtype.is_integer() {
            false => 0.02 * numbers[last].abs() + 1e-3,
            // Two units, towards 0: the proof grants one to a bias.
            true if numbers[last] > 0.0 => -2.0,
            true => 2.0,
        };
        let mut off = folded.clone();
        let tensor = NewTensor {
            dtype: tensor.dtype,
            dims: tensor.dims.clone(),
            recipe: Arc::new(Recipe::values(numbers)),
        };
        off.apply(&[Edit::SetConstant { value, tensor }]).unwrap();
        all.push((folded.value(value).name.to_string(), off));
    }
    all
}

#[test]
fn golden_folds_with_one_constant_off_are_caught() {
    let (mut tried, mut missed) = (0, Vec::new());
    for path in models(&folder("golden")) {
        let Ok(original) = Model::open(&path) else {
            continue;
        };
        let Ok(plan) = plan(&original, &Options::default()) else {
            continue;
        };
        for (name, off) in with_one_constant_off(plan.apply()) {
            tried += 1;
            let algebra = algebra::check(&original, &off, &plan.routes).unwrap();
            let local = check(
                &neighbourhoods(&original, &off, &plan.routes),
                &compare,
                &Interrupt::default(),
            )
            .unwrap();
            let by_both = (!algebra.failures.is_empty(), !local.failures.is_empty());
            let is_dead = local
                .skipped
                .iter()
                .any(|(_, why)| why.contains("nobody reads"));
            // What a Slice cuts away nobody sees; only the algebra looks there.
            let is_cut_away = plan.routes.iter().any(|route| {
                let slice = |&id: &NodeId| original.node(id).is("Slice");
                let untouched = |a: &Absorbed| a.channels.last() == Some(&UNTOUCHED);
                route.via.iter().any(slice) && route.absorbed.iter().any(untouched)
            });
            if by_both != (true, true) && !(by_both.0 && (is_dead || is_cut_away)) {
                missed.push(format!(
                    "{}: {name}: {by_both:?} {:?}",
                    path.display(),
                    local.skipped
                ));
            }
        }
    }
    assert!(missed.is_empty(), "{tried}: {}", missed.join("\n"));
    assert!(tried > 100);
}

/// A BatchNorm of two channels from `x` to `n`, with s = (0.5, 2) and t = (0.5, −1.75).
fn norm(net: Net, x: &str, n: &str) -> Net {
    net.constant("g", &[2], &[1.0, 4.0])
        .constant("be", &[2], &[0.5, 0.25])
        .constant("m", &[2], &[0.0, 1.0])
        .constant("v", &[2], &[3.0, 3.0])
        .node("BatchNormalization", &[x, "g", "be", "m", "v"], n)
        .with(attribute("epsilon", AttributeValue::Float(1.0)))
}

/// The route from node `site` into node `node`.
fn route(model: &Model, site: &str, node: &str, side: Side) -> Route {
    let id = |name: &str| {
        model
            .nodes()
            .find(|(id, _)| model.label(*id) == name)
            .unwrap()
            .0
    };
    let absorbed = Absorbed {
        node: id(node),
        side,
        part: Part::Whole,
        data_slot: 0,
        channels: vec![0, 1],
        share: 1.0,
    };
    Route {
        site: id(site),
        constant_slot: None,
        absorbed: vec![absorbed],
        via: Vec::new(),
        rest: Rest::Nothing,
    }
}

#[test]
fn a_shift_in_front_of_padding_is_caught() {
    let net = norm(Net::new("x", &[1, 2, 6, 6]), "x", "n")
        .constant("w", &[1, 2, 3, 3], &[1.0; 18])
        .node("Conv", &["n", "w"], "y")
        .output("y");
    let mut original = net.model();
    let plan = plan(&original, &Options::default()).unwrap();
    let mut folded = plan.apply().clone();
    let run = |original: &Model, folded: &Model| {
        check(
            &neighbourhoods(original, folded, &plan.routes),
            &compare,
            &Interrupt::default(),
        )
        .unwrap()
    };
    let right = run(&original, &folded);
    assert_eq!((right.ran, right.failures.len()), (1, 0));
    // The same fold of the same Conv with padding is wrong.
    let edit = Edit::SetAttribute {
        node: plan.routes[0].absorbed[0].node,
        name: "pads".to_owned(),
        value: AttributeValue::Ints(vec![1; 4]),
    };
    original.apply(std::slice::from_ref(&edit)).unwrap();
    folded.apply(&[edit]).unwrap();
    let wrong = run(&original, &folded);
    assert_eq!(wrong.failures.len(), 1);
    assert_eq!(wrong.failures[0].0, "n");
    assert!(wrong.failures[0].1 > 0.01);
}

#[test]
fn weights_say_what_inputs_look_like() {
    // A Conv with two groups and a stride, on something of unknown rank.
    let net = Net::new("unused", &[1])
        .input("x", None)
        .constant("w", &[2, 3, 5, 3], &[0.5; 90])
        .node("Conv", &["x", "w"], "c")
        .with(attribute("group", AttributeValue::Int(2)))
        .with(attribute("strides", AttributeValue::Ints(vec![2, 2])));
    let model = norm(net, "c", "y").output("y").model();
    let routes = [route(&model, "y", "c", Side::Output)];
    let all = neighbourhoods(&model, &model, &routes);
    let models = all[0].models().unwrap();
    assert_eq!(models.inputs[0].1, [2, 6, 14, 14]);
    assert_eq!(compare(&models.original, &models.folded).unwrap(), 0.0);
}

#[test]
fn a_contracted_weight_says_how_many_positions_there_are() {
    let net = norm(Net::new("x", &[-1, 2, -1, -1]), "x", "n")
        .node("Flatten", &["n"], "f")
        .constant("w", &[12, 3], &[0.5; 36])
        .node("Gemm", &["f", "w"], "y")
        .output("y");
    let model = net.model();
    let mut routes = [route(&model, "n", "y", Side::Input)];
    routes[0].via = vec![model.nodes().nth(1).unwrap().0];
    let all = neighbourhoods(&model, &model, &routes);
    let models = all[0].models().unwrap();
    assert_eq!(models.inputs[0].1, [2, 2, 6, 1]);
    assert_eq!(compare(&models.original, &models.folded).unwrap(), 0.0);
}

#[test]
fn what_cannot_stand_alone_is_skipped_with_a_reason() {
    let net = norm(Net::new("unused", &[1]).input("x", None), "x", "n")
        .constant("w", &[2, 3], &[0.5; 6])
        .node("MatMul", &["n", "w"], "y")
        .output("y");
    let model = net.model();
    let routes = [route(&model, "n", "y", Side::Input)];
    let result = check(
        &neighbourhoods(&model, &model, &routes),
        &compare,
        &Interrupt::default(),
    )
    .unwrap();
    assert_eq!(result.ran, 0);
    let (label, why) = &result.skipped[0];
    assert_eq!(label, "n");
    assert!(
        why.contains("nothing says how many axes \"x\" has"),
        "{why}"
    );
}

#[test]
fn routes_that_share_a_node_share_a_neighbourhood() {
    let net = Net::new("x", &[1, 2, 4, 4])
        .constant("w", &[2, 2, 1, 1], &[2.0, 3.0, 4.0, 5.0])
        .node("Conv", &["x", "w"], "a")
        .node("Conv", &["x", "w"], "b");
    let net = norm(norm(net, "a", "first"), "b", "other");
    // Constants of the same names: the second set is left out.
    let net = net
        .without_repeated_constants()
        .node("Conv", &["first", "w"], "c")
        .output("c");
    let model = net.output("other").model();
    let routes = [
        route(&model, "first", "a", Side::Output),
        route(&model, "other", "b", Side::Output),
        route(&model, "a", "c", Side::Output),
    ];
    let groups: Vec<Vec<usize>> = neighbourhoods(&model, &model, &routes)
        .into_iter()
        .map(|one| one.routes)
        .collect();
    assert_eq!(groups, [vec![0, 2], vec![1]]);
}
