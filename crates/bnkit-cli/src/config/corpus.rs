//! The fuzz target `config` without a fuzzer: every file of its corpus must be read or refused, and no more.

use std::path::Path;

use clap::CommandFactory;

use super::apply;
use crate::args::Cli;

#[test]
fn the_corpus_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/fuzz");
    let mut files = 0;
    for kind in ["seeds", "regressions"] {
        let Ok(entries) = corpus.join(kind).join("config").read_dir() else {
            continue;
        };
        for entry in entries {
            files += 1;
            let path = entry.expect("an entry").path();
            for running in ["fold", "recalibrate"] {
                let _ = apply(Cli::command(), running, &path);
            }
        }
    }
    assert!(files > 0);
}
