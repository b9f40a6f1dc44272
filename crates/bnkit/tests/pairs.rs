//! The presets against the graphs of real networks: `testdata/pairs`, made by `testdata/generate_pairs.py`.
//!
//! A wrong pair is a wrong model, so none is allowed anywhere, nor an ε that the network does not have. `BNKIT_PAIRS` may name another
//! folder of such files (`generate_pairs.py --survey` makes hundreds); those are held to the same, and nothing has to be found.

// What a survey finds is for the reader of the test's output.
#![allow(clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[path = "pairs/golden.rs"]
mod golden;

use bnkit::state::groups::{Entry, find};
use bnkit::state::pairing::{Layout, Pairing, PresetChoice, from_file, propose, to_yaml};
use proptest::prelude::*;

use golden::{Golden, files, goldens};

fn made(pairing: &Pairing) -> BTreeSet<(String, String)> {
    let pair = |pair: &bnkit::state::pairing::Pair| {
        (pair.layer.module.clone(), pair.batch_norm.module.clone())
    };
    pairing.pairs.iter().map(pair).collect()
}

/// No wrong pair, no wrong layout, no wrong ε, every BatchNorm once.
fn check_sound(path: &Path, golden: &Golden, entries: &[Entry], pairing: &Pairing) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = path.file_stem().unwrap().to_string_lossy();
    for pair in made(pairing).difference(&golden.truth()) {
        wrong.push(format!(
            "{name}: wrong pair {pair:?} ({:?})",
            pairing.preset
        ));
    }
    for pair in &pairing.pairs {
        let layer = &pair.layer;
        if (layer.layout == Layout::Transposed) != golden.transposed.contains(&layer.module) {
            wrong.push(format!(
                "{name}: {} is not {:?}",
                layer.module, layer.layout
            ));
        }
        let truth = golden.epsilon(&pair.batch_norm.module);
        if pair.epsilon.is_some_and(|epsilon| epsilon != truth) {
            wrong.push(format!(
                "{name}: {} has epsilon {truth}, not {:?} ({:?})",
                pair.batch_norm.module, pair.epsilon, pairing.notes
            ));
            break;
        }
    }
    let mut said: Vec<_> = pairing.pairs.iter().map(|pair| &pair.batch_norm).collect();
    said.extend(pairing.left.iter().map(|left| &left.batch_norm));
    said.sort_by_key(|bn| &bn.mean);
    let groups = find(entries);
    let mut all: Vec<_> = groups.groups.iter().collect();
    all.sort_by_key(|bn| &bn.mean);
    if said != all || !groups.problems.is_empty() {
        wrong.push(format!("{name}: not every batch norm once"));
    }
    wrong
}

#[test]
fn presets_find_every_pair_and_no_wrong_one() {
    let mut wrong = Vec::new();
    for path in goldens() {
        let golden = Golden::read(&path);
        let entries = golden.entries();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut choices = vec![PresetChoice::Auto];
        choices.extend(golden.preset.as_deref().map(PresetChoice::Named));
        for choice in choices {
            let pairing = propose(&entries, choice).unwrap();
            wrong.extend(check_sound(&path, &golden, &entries, &pairing));
            if golden.find == "all" {
                let made = made(&pairing);
                let missed: Vec<_> = golden.truth().difference(&made).cloned().collect();
                if let Some(first) = missed.first() {
                    let count = missed.len();
                    wrong.push(format!(
                        "{name} {choice:?}: missed {count}, {first:?}: {:?}",
                        pairing.notes
                    ));
                }
            }
            // What is written for review makes the same pairs.
            let yaml = to_yaml(&pairing);
            let again = from_file(&yaml, Path::new("pairs.yaml"), &entries).unwrap();
            if made(&again) != made(&pairing) {
                wrong.push(format!("{name}: the file makes other pairs"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} faults:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn other_presets_make_no_wrong_pair_either() {
    let mut wrong = Vec::new();
    for path in goldens() {
        let golden = Golden::read(&path);
        let entries = golden.entries();
        for name in [
            "torchvision",
            "timm",
            "ultralytics",
            "mmdet",
            "keras",
            "flax",
        ] {
            let pairing = propose(&entries, PresetChoice::Named(name)).unwrap();
            wrong.extend(check_sound(&path, &golden, &entries, &pairing));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} faults:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_survey_shows_no_wrong_pair() {
    let Some(folder) = std::env::var_os("BNKIT_PAIRS") else {
        eprintln!("skipped: BNKIT_PAIRS names no folder");
        return;
    };
    let (mut wrong, mut counts) = (Vec::new(), BTreeMap::new());
    let (mut all, mut found) = (0, 0);
    for path in files(Path::new(&folder)) {
        let golden = Golden::read(&path);
        let entries = golden.entries();
        let pairing = propose(&entries, PresetChoice::Auto).unwrap();
        wrong.extend(check_sound(&path, &golden, &entries, &pairing));
        let missed = golden.pairs.len() - made(&pairing).intersection(&golden.truth()).count();
        all += golden.pairs.len();
        found += pairing.pairs.len();
        let said = pairing
            .pairs
            .iter()
            .filter(|pair| pair.epsilon.is_some())
            .count();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        counts.insert(name, (golden.pairs.len(), missed, said, pairing.preset));
    }
    for (name, (pairs, missed, said, preset)) in &counts {
        eprintln!("{name}: {pairs} pairs, {missed} missed, {said} with epsilon, {preset:?}");
    }
    eprintln!("{} networks: {found} of {all} pairs", counts.len());
    assert!(
        wrong.is_empty(),
        "{} faults:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn epsilon_is_told_where_the_architecture_determines_it() {
    let cases = [
        ("torchvision_resnet18", Some(1e-5)),
        ("torchvision_densenet121", Some(1e-5)),
        ("torchvision_efficientnet_b0", Some(1e-5)),
        ("torchvision_efficientnet_b5", Some(1e-3)),
        ("torchvision_efficientnet_v2_s", Some(1e-3)),
        ("torchvision_mobilenet_v3_large", Some(1e-3)),
        ("torchvision_googlenet", Some(1e-3)),
        ("torchvision_inception_v3", Some(1e-3)),
        ("torchvision_vgg16_bn", Some(1e-5)),
        ("timm_repvgg_a0", Some(1e-5)),
        ("timm_mobileone_s0", Some(1e-5)),
        ("timm_efficientnet_b0", None),
        ("timm_tf_efficientnet_b0", None),
        ("timm_mobilenetv3_small_100", None),
        ("own_ultralytics", Some(1e-3)),
        ("own_mmdet_retina", None),
        ("keras_ResNet50", Some(1.001e-5)),
        ("keras_MobileNetV2", Some(1e-3)),
        ("flax_resnet", Some(1e-5)),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pairs");
    for (name, epsilon) in cases {
        let entries = Golden::read(&folder.join(format!("{name}.json"))).entries();
        let pairing = propose(&entries, PresetChoice::Auto).unwrap();
        assert!(!pairing.pairs.is_empty(), "{name}");
        for pair in &pairing.pairs {
            assert_eq!(pair.epsilon, epsilon, "{name} {:?}", pairing.notes);
        }
        assert!(
            pairing.notes.iter().any(|note| note.contains("epsilon")),
            "{name}"
        );
    }
}

#[test]
fn a_frozen_batch_norm_has_no_known_epsilon() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pairs");
    let mut entries = Golden::read(&folder.join("torchvision_resnet18.json")).entries();
    entries.retain(|entry| !entry.name.ends_with("num_batches_tracked"));
    let pairing = propose(&entries, PresetChoice::Auto).unwrap();
    assert_eq!(pairing.pairs.len(), 20);
    assert!(pairing.pairs.iter().all(|pair| pair.epsilon.is_none()));
    assert!(
        pairing
            .notes
            .iter()
            .any(|note| note.contains("FrozenBatchNorm2d"))
    );
}

#[test]
fn an_architecture_is_recognised_below_a_prefix() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pairs");
    for (name, pairs) in [
        ("torchvision_resnet18", 20),
        ("keras_MobileNetV2", 52),
        ("flax_resnet", 10),
    ] {
        let mut entries = Golden::read(&folder.join(format!("{name}.json"))).entries();
        for entry in &mut entries {
            entry.name = match entry.name.split_once('/') {
                Some((tree @ ("params" | "batch_stats"), rest)) => format!("{tree}/a/b/{rest}"),
                Some(_) => format!("a/b/{}", entry.name),
                None => format!("module.backbone.{}", entry.name),
            };
        }
        let pairing = propose(&entries, PresetChoice::Auto).unwrap();
        assert_eq!(pairing.pairs.len(), pairs, "{name} {:?}", pairing.notes);
        assert!(
            pairing.pairs.iter().all(|pair| pair.epsilon.is_some()),
            "{name}"
        );
    }
}

#[test]
fn an_unknown_preset_is_an_error_that_lists_all() {
    let error = propose(&[], PresetChoice::Named("torch"))
        .unwrap_err()
        .to_string();
    for name in [
        "torchvision",
        "timm",
        "ultralytics",
        "mmdet",
        "keras",
        "flax",
        "auto",
    ] {
        assert!(error.contains(name), "{error}");
    }
}

/// Names that look like real ones in every way.
fn names() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "conv",
        "bn",
        "conv1",
        "bn1",
        "0",
        "1",
        "2",
        "model",
        "layer1",
        "downsample",
        "features",
        "params",
        "batch_stats",
        "Conv_0",
        "BatchNorm_0",
        "{p}",
        "*",
        "é",
        "",
        "18446744073709551616",
        ":0",
    ]);
    let leaf = prop::sample::select(vec![
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "kernel",
        "gamma",
        "moving_mean",
        "moving_variance",
        "mean",
        "var",
        "scale",
        "depthwise_kernel:0",
        "pointwise_kernel",
        "beta:0",
    ]);
    (prop::collection::vec(part, 0..4), leaf, prop::bool::ANY).prop_map(|(mut parts, leaf, dot)| {
        parts.push(leaf);
        parts.join(if dot { "." } else { "/" })
    })
}

fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let size = prop::sample::select(vec![0usize, 1, 3, 4, 8, usize::MAX]);
    let entry = (names(), prop::collection::vec(size, 0..5), any::<bool>());
    prop::collection::vec(entry, 0..40).prop_map(|list| {
        list.into_iter()
            .map(|(name, shape, is_float)| Entry {
                name,
                shape,
                is_float,
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn any_names_and_shapes_are_answered(entries in any_entries(), text in ".{0,80}") {
        let pairing = propose(&entries, PresetChoice::Auto).unwrap();
        let count = find(&entries).groups.len();
        prop_assert_eq!(pairing.pairs.len() + pairing.left.len(), count);
        from_file(&to_yaml(&pairing), Path::new("a.yaml"), &entries).unwrap();
        let file = format!("pairs: [{{conv: {text:?}, bn: {text:?}}}, {{conv: '{{p}}.conv', bn: '{{p}}.bn'}}]");
        let _ = from_file(&file, Path::new("a.yaml"), &entries);
        let _ = from_file(&text, Path::new("a.yaml"), &entries);
    }

    #[test]
    fn the_order_of_the_tensors_changes_no_pair(seed in any::<u64>(), which in 0usize..60) {
        let files = goldens();
        let mut entries = Golden::read(&files[which % files.len()]).entries();
        let before = propose(&entries, PresetChoice::Auto).unwrap();
        let mut state = seed;
        for at in (1..entries.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            entries.swap(at, (state >> 33) as usize % (at + 1));
        }
        let after = propose(&entries, PresetChoice::Auto).unwrap();
        prop_assert_eq!(made(&before), made(&after));
        prop_assert_eq!(before.preset, after.preset);
        prop_assert_eq!(before.pairs.len() + before.left.len(), after.pairs.len() + after.left.len());
    }
}

#[test]
fn the_example_in_the_docs_is_what_is_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let entries = Golden::read(&root.join("testdata/pairs/own_unet.json")).entries();
    let yaml = to_yaml(&propose(&entries, PresetChoice::Auto).unwrap());
    let page = std::fs::read_to_string(root.join("docs/pairing.md")).unwrap();
    assert!(page.contains(&yaml), "docs/pairing.md should show:\n{yaml}");
}
