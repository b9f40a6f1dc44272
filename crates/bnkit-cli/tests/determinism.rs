//! The same inputs give the same bytes, whatever the number of threads, and run after run.

mod common;

use common::{BATCHED, bnkit, calibration_folder, read};

#[test]
fn outputs_do_not_depend_on_threads_or_runs() {
    let folder = calibration_folder();
    let folder = folder.path();
    let commands: [(&[&str], &str); 5] = [
        (
            &["fold", "net.onnx", "--provenance", "-o", "out.onnx"],
            "out.onnx",
        ),
        (&["recalibrate", "net.onnx", "-o", "out.onnx"], "out.onnx"),
        (
            &["recalibrate", "net.onnx", "--fold", "-o", "out.onnx"],
            "out.onnx",
        ),
        (&["run", "net.onnx", "-o", "out.npz"], "out.npz"),
        (
            &["stats", "net.onnx", "-o", "out.safetensors"],
            "out.safetensors",
        ),
    ];
    for (words, out) in commands {
        let data: &[&str] = match words[0] {
            "recalibrate" | "run" => &BATCHED,
            _ => &[],
        };
        let mut first = None;
        for threads in ["1", "2", "3", "1"] {
            let shared = ["--threads", threads, "--force", "--format", "json"];
            let run = bnkit(folder, &[words, data, &shared].concat());
            run.is_done();
            let found = (read(folder, out), run.stdout);
            match &first {
                None => first = Some(found),
                Some(first) => {
                    assert!(
                        first.0 == found.0,
                        "{words:?}: {out} with {threads} threads"
                    );
                    assert_eq!(first.1, found.1, "{words:?}: report with {threads} threads");
                }
            }
        }
    }
}
