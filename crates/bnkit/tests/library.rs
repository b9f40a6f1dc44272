//! The library as another program uses it: the examples run, errors and jobs cross threads, jobs end when they are asked to.

#[path = "../examples/fold.rs"]
mod example_fold;
#[path = "../examples/gate.rs"]
mod example_gate;
#[path = "../examples/recalibrate.rs"]
mod example_recalibrate;

use std::path::{Path, PathBuf};

use bnkit::calibrate::{
    DataOptions, FoldAfter, Interrupt, MergeJob, RecalibrateJob, RunJob, Source, StatsJob,
    ValidateJob, recalibrate, stats, validate,
};
use bnkit::checkpoint::{Checkpoint, Content};
use bnkit::convert::ConvertJob;
use bnkit::model::Tensor;
use bnkit::model::onnx::Model;
use bnkit::pipeline::{FoldJob, Quiet, verify};
use bnkit::report::Verdict;
use bnkit::unfold::UnfoldJob;
use bnkit::verify::VerifyOptions;

fn testdata(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata")).join(name)
}

fn net() -> PathBuf {
    testdata("models/tiny_resnet.onnx")
}

#[test]
fn the_example_of_folding() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let report = example_fold::run(&net(), &out).unwrap();
    assert_eq!((report.failure, report.summary.folded), (None, 9));
    let folded = verify(&net(), &out, &VerifyOptions::default(), false, &Quiet).unwrap();
    assert_eq!(folded.verification.verdict, Verdict::Equivalent);
}

#[test]
fn the_example_of_recalibrating_from_memory_does_what_a_file_does() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.onnx"), folder.path().join("b.onnx"));
    let pictures = example_recalibrate::pictures().unwrap();
    let file = folder.path().join("x.npy");
    std::fs::write(&file, npy(&pictures)).unwrap();
    let memory = DataOptions::of_tensors([("", pictures.clone())]);
    let first = example_recalibrate::run(&net(), memory, &a).unwrap();
    example_recalibrate::run(&net(), DataOptions::new(&file), &b).unwrap();
    assert_eq!(first.summary.updated, 9);
    let used = first.data.expect("data was run");
    assert_eq!(
        (used.samples, used.batches, used.path.as_str()),
        (64, 8, "(memory)")
    );
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    // Other pictures give other statistics (that they are right is what the golden tests show).
    let half: Vec<f64> = pictures.to_f64().unwrap().iter().map(|x| x / 2.0).collect();
    let half = Tensor::from_f64(pictures.dtype(), pictures.dims().to_vec(), &half).unwrap();
    example_recalibrate::run(&net(), DataOptions::of_tensors([("input", half)]), &b).unwrap();
    assert_ne!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
}

#[test]
fn the_example_of_a_gate() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    assert_eq!(example_gate::run(&net(), &out).unwrap(), None);
    assert_eq!(Model::open(&out).unwrap().nodes().count(), 22);
    let kept = testdata("golden/bn_conv_padded_shift.onnx");
    let other = folder.path().join("other.onnx");
    assert_eq!(
        example_gate::run(&kept, &other).unwrap(),
        Some("bn has to stay".to_owned())
    );
    assert!(!other.exists());
    let dict = testdata("convert/net.safetensors");
    let error = example_gate::run(&dict, &other).unwrap_err().to_string();
    assert!(
        error.ends_with("convert/net.safetensors: a gate needs a graph"),
        "{error}"
    );
}

/// Float32 in version 1.0 of the format.
fn npy(tensor: &Tensor) -> Vec<u8> {
    let dims: String = tensor.dims().iter().map(|dim| format!("{dim}, ")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    header += &" ".repeat(63 - (10 + header.len()) % 64);
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend_from_slice(tensor.data());
    bytes
}

#[test]
fn checkpoints_are_opened_by_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let disguised = folder.path().join("model.safetensors");
    std::fs::copy(net(), &disguised).unwrap();
    let opened = Checkpoint::open(&disguised).unwrap();
    assert!(matches!(opened.content, Content::Onnx(_)));
    let opened = Checkpoint::open(&testdata("convert/net.safetensors")).unwrap();
    assert!(matches!(opened.content, Content::StateDict(_)));
    std::fs::write(&disguised, b"PK\x05\x06 and no more").unwrap();
    let error = Checkpoint::open(&disguised).unwrap_err().to_string();
    assert!(
        error.contains("model.safetensors") && error.contains("ZIP"),
        "{error}"
    );
}

#[test]
fn a_job_that_is_asked_to_end_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let mut job = RecalibrateJob::new(net(), testdata("models/calibration.npz"), &out);
    let interrupt = Interrupt::default();
    job.interrupt = interrupt.clone();
    interrupt.request();
    let ended = recalibrate(&job, &Quiet).unwrap_err();
    assert!(matches!(ended, bnkit::Error::Interrupted), "{ended}");
    assert!(!out.exists());
    let mut job = ValidateJob::new(net(), testdata("models/calibration.npz"));
    job.interrupt = interrupt;
    assert!(matches!(
        validate(&job, &Quiet).unwrap_err(),
        bnkit::Error::Interrupted
    ));
}

#[test]
fn what_is_wrong_with_data_in_memory_is_told_by_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = RecalibrateJob::new(net(), "", folder.path().join("out.onnx"));
    let flat = Tensor::from_f32(vec![4, 3], &[0.0; 12]).unwrap();
    job.source = Source::Data(DataOptions::of_tensors([("input", flat)]));
    let error = recalibrate(&job, &Quiet).unwrap_err().to_string();
    assert!(
        error.contains("(memory)") && error.contains("\"input\""),
        "{error}"
    );
}

#[test]
fn errors_jobs_and_reports_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<bnkit::Error>();
    crosses::<bnkit::model::Error>();
    crosses::<Model>();
    crosses::<Checkpoint>();
    crosses::<bnkit::fold::Plan>();
    crosses::<bnkit::report::FoldReport>();
    crosses::<bnkit::calibrate::RecalibrateReport>();
    crosses::<FoldJob>();
    crosses::<RecalibrateJob>();
    crosses::<ValidateJob>();
    crosses::<RunJob>();
    crosses::<MergeJob>();
    crosses::<ConvertJob>();
    crosses::<UnfoldJob>();
    crosses::<bnkit::state::StateFoldJob>();
    crosses::<FoldAfter>();
    fn an_error<T: std::error::Error>() {}
    an_error::<bnkit::Error>();
    // Jobs run beside each other.
    let jobs = [
        StatsJob::new(net()),
        StatsJob::new(testdata("convert/net.safetensors")),
    ];
    let threads = jobs.map(|job| std::thread::spawn(move || stats(&job)));
    let counts = threads.map(|thread| thread.join().unwrap().unwrap().layers.len());
    assert_eq!(counts, [9, 2]);
}
