//! The inputs of the fuzz targets, without a fuzzer: seeds, and what each crash that was found became (`testdata/fuzz`). A target
//! asserts what must hold; a crash, a hang or a failed allocation is a failed test.

use std::path::PathBuf;
use std::time::{Duration, Instant};

#[allow(unreachable_pub)]
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;
#[allow(unreachable_pub)]
#[path = "../../fuzz/src/targets.rs"]
mod targets;

fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/fuzz")
        .join(kind)
        .join(target);
    let Ok(entries) = folder.read_dir() else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_target_survives_its_corpus() {
    for (name, target) in targets::TARGETS {
        let (seeds, regressions) = (inputs("seeds", name), inputs("regressions", name));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for file in seeds.iter().chain(&regressions) {
            let bytes = std::fs::read(file).expect("it can be read");
            let done = std::panic::catch_unwind(|| target(&bytes));
            assert!(done.is_ok(), "{name}: {}", file.display());
        }
    }
}

/// The small golden graphs, and the corpus of `fold`: models to change.
fn models() -> Vec<Vec<u8>> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden");
    let entries = golden.read_dir().expect("it is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|file| file.extension().is_some_and(|end| end == "onnx"))
        .collect();
    files.sort();
    files.extend(inputs("seeds", "fold"));
    files.extend(inputs("regressions", "fold"));
    let bytes = files.iter().map(|file| std::fs::read(file).expect("read"));
    bytes.filter(|bytes| bytes.len() < 1 << 14).collect()
}

/// Blindly what the fuzzer does with an eye on coverage: a model, changed once or several times. `seed` says which, and how.
fn changed(models: &[Vec<u8>], seed: u32) -> Option<Vec<u8>> {
    let place = seed.wrapping_mul(2_654_435_761) as usize % models.len();
    let mut bytes = mutate::model(&models[place], 1 << 16, seed)?;
    for round in 0..seed % 4 {
        bytes = mutate::model(&bytes, 1 << 16, seed ^ (round + 1) << 28)?;
    }
    Some(bytes)
}

#[test]
fn models_that_were_changed_at_random_are_survived() {
    let models = models();
    assert!(models.len() > 100, "{}", models.len());
    for bytes in (0..400).filter_map(|seed| changed(&models, seed)) {
        targets::fold(&bytes);
    }
}

/// The same for longer: `BNKIT_FUZZ_SECONDS`, from the seed `BNKIT_FUZZ_SEED` on. What fails is left in the folder of temporary files.
#[test]
#[ignore = "takes as long as it is told"]
#[allow(clippy::print_stderr)]
fn models_that_were_changed_at_random_are_survived_for_long() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let seconds = number("BNKIT_FUZZ_SECONDS").unwrap_or(60);
    let first = number("BNKIT_FUZZ_SEED").unwrap_or(1 << 20);
    let (models, begin) = (models(), Instant::now());
    let (mut seed, mut ran, mut failed) = (first, 0, 0);
    while begin.elapsed() < Duration::from_secs(seconds.into()) {
        if let Some(bytes) = changed(&models, seed) {
            ran += 1;
            if std::panic::catch_unwind(|| targets::fold(&bytes)).is_err() {
                failed += 1;
                let kept = std::env::temp_dir().join(format!("bnkit-fold-{seed}.onnx"));
                std::fs::write(&kept, &bytes).expect("it can be written");
            }
        }
        seed = seed.wrapping_add(1);
    }
    eprintln!("{ran} inputs, seeds {first} to {seed}, {failed} failed");
    assert_eq!(failed, 0);
}
