//! New statistics in every kind of model: the golden graphs, types, and what is refused.

use bnkit_model::DType;

use super::super::apply;
use super::super::modules::{Module, survey};
use super::*;

/// Models that the project has, and those beside it.
fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let mut found: Vec<PathBuf> = ["golden", "models"]
        .iter()
        .flat_map(|folder| root.join(folder).read_dir().unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "onnx")
        })
        .collect();
    found.sort();
    found
}

fn new_values(at: usize, channels: usize) -> apply::Statistics {
    let value = |channel: usize| (at * 31 + channel) as f64 / 64.0;
    (
        (0..channels).map(value).collect(),
        (0..channels).map(|c| value(c) + 0.5).collect(),
    )
}

#[test]
fn every_golden_model_takes_new_statistics_and_nothing_else_changes() {
    let mut changed_layers = 0;
    for path in models() {
        let Ok(model) = Model::open(&path) else {
            continue;
        };
        let Ok(modules) = survey(&model, &Selection::default()) else {
            continue;
        };
        let new: Vec<_> = modules
            .iter()
            .enumerate()
            .map(|(at, module)| {
                let stored = module.target()?;
                changed_layers += 1;
                Some(new_values(at, stored.mean.len()))
            })
            .collect();
        let changed = reload(&apply::apply(&model, &modules, &new).unwrap());
        let again = survey(&changed, &Selection::default()).unwrap();
        assert_eq!(again.len(), modules.len(), "{}", path.display());
        for ((before, after), new) in modules.iter().zip(&again).zip(&new) {
            assert_eq!(before.name, after.name, "{}", path.display());
            let (Some(stored), Ok(found)) = (&new, &after.stored) else {
                assert_eq!(before.stored.is_ok(), after.stored.is_ok());
                continue;
            };
            let place = format!("{}: {}", path.display(), before.name.node);
            assert_eq!(
                (&found.mean, &found.variance),
                (&stored.0, &stored.1),
                "{place}"
            );
            assert_eq!(found.dtypes, before.target().unwrap().dtypes, "{place}");
            assert_eq!(found.epsilon, before.target().unwrap().epsilon);
            assert_eq!(gamma(&model, before), gamma(&changed, after), "{place}");
        }
    }
    assert!(changed_layers > 50, "{changed_layers}");
}

/// γ and β of a module, by their bits: some are NaN.
fn gamma(model: &Model, module: &Module) -> Vec<Vec<u64>> {
    let types = bnkit_model::onnx::Types::derive(model);
    let constants = bnkit_model::onnx::Constants::new(model, &types, false);
    [1, 2]
        .map(|slot| {
            let value = model.node(module.nodes[0]).input(slot).unwrap();
            let values = constants.f64(value).unwrap().values;
            values.into_iter().map(f64::to_bits).collect()
        })
        .to_vec()
}

#[test]
fn every_batch_norm_has_a_name_in_the_engine() {
    for path in models() {
        let Ok(model) = Model::open(&path) else {
            continue;
        };
        let Ok(modules) = survey(&model, &Selection::default()) else {
            continue;
        };
        for module in modules.iter().filter(|module| module.name.scope.is_empty()) {
            assert_eq!(
                module.outputs.len(),
                module.nodes.len(),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn values_that_no_type_holds_are_refused() {
    let net = fresh(Net::new("x", &[-1, 2]), "g", "b", "m32", "v32")
        .typed("m", DType::F16, &[2], &[0.0; 2])
        .typed("v", DType::F16, &[2], &[1.0; 2])
        .node("BatchNormalization", &["x", "g", "b", "m", "v"], "y")
        .output("y");
    let model = net.model();
    let modules = survey(&model, &Selection::default()).unwrap();
    assert_eq!(modules[0].target().unwrap().dtypes, [DType::F16; 2]);
    let put = |mean: f64, variance: f64| {
        let new = Some((vec![mean, 0.0], vec![1.0, variance]));
        apply::apply(&model, &modules, &[new])
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(put(1.0, 2.0), Ok(()));
    assert_eq!(put(1.0, 0.0), Ok(()));
    assert!(put(1.0, 70000.0).unwrap_err().contains("\"v\""));
    for (mean, variance) in [
        (f64::NAN, 1.0),
        (1.0, -1e-9),
        (f64::INFINITY, 1.0),
        (1.0, f64::NAN),
    ] {
        assert!(put(mean, variance).is_err());
    }
}
