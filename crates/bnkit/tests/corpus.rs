//! The inputs of the fuzz targets, without a fuzzer: seeds, and what each crash that was found became (`testdata/fuzz`). A target
//! asserts what must hold; a crash, a hang or a failed allocation is a failed test.

use std::path::PathBuf;

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
