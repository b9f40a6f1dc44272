//! Recalibration batch by batch: the same bits as one run over the data, whoever saw which batch, and however often.

use std::path::{Path, PathBuf};

use bnkit::calibrate::{
    DataOptions, Interrupt, Method, MethodOptions, Moments, RecalibrateJob, Recalibrator, Source,
    ValidateJob, recalibrate, recalibrate_batches, validate, validate_batches,
};
use bnkit::data::{DataSet, NamedTensor};
use bnkit::model::Tensor;
use bnkit::pipeline::Quiet;

const BATCH: usize = 6;
const SAMPLES: usize = 40;

fn net() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata"))
        .join("models/tiny_resnet.onnx")
}

/// Samples `from..to` of a series without an end.
fn pictures(from: usize, to: usize) -> Tensor {
    let row = 3 * 32 * 32;
    let values: Vec<f32> = (from * row..to * row)
        .map(|at| {
            let sample = (at / row) as f32;
            ((at as f32 * 0.37).sin() + 0.2 * (sample * 1.3).cos()) * (1.0 + sample * 0.05)
        })
        .collect();
    Tensor::from_f32(vec![to - from, 3, 32, 32], &values).unwrap()
}

fn set(tensor: Tensor) -> DataSet {
    DataSet {
        tensors: vec![NamedTensor {
            name: String::new(),
            tensor,
            source: "(memory)".into(),
        }],
    }
}

/// The batches as one run cuts them: the last one is short.
fn batches() -> Vec<DataSet> {
    (0..SAMPLES)
        .step_by(BATCH)
        .map(|from| set(pictures(from, SAMPLES.min(from + BATCH))))
        .collect()
}

fn method(method: Method) -> MethodOptions {
    MethodOptions {
        method,
        ..MethodOptions::default()
    }
}

fn recalibrator(how: Method) -> Recalibrator {
    let job = RecalibrateJob {
        method: method(how),
        ..RecalibrateJob::of_batches(net())
    };
    Recalibrator::new(job).unwrap()
}

/// What [`recalibrate`] writes, with the same data in one piece.
fn in_one_run(how: Method, output: &Path) -> Vec<u8> {
    let mut data = DataOptions::of_tensors([("", pictures(0, SAMPLES))]);
    data.batch_size = BATCH;
    let job = RecalibrateJob {
        source: Source::Data(data),
        method: method(how),
        ..RecalibrateJob::new(net(), "", output)
    };
    recalibrate(&job, &Quiet).unwrap();
    std::fs::read(output).unwrap()
}

fn written(recalibrator: &Recalibrator, output: &Path) -> Vec<u8> {
    recalibrator.write(output, true, &Quiet).unwrap();
    std::fs::read(output).unwrap()
}

const METHODS: [Method; 3] = [Method::Precise, Method::Average, Method::Ema];

#[test]
fn one_by_one_is_one_run_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for how in METHODS {
        let expected = in_one_run(how, &folder.path().join(format!("{}.onnx", how.name())));
        let mut stepwise = recalibrator(how);
        for batch in batches() {
            stepwise.observe(&batch, None).unwrap();
        }
        let out = folder.path().join("steps.onnx");
        assert_eq!(written(&stepwise, &out), expected, "{}", how.name());
        let job = RecalibrateJob {
            method: method(how),
            output: Some(folder.path().join(format!("{}.stream.onnx", how.name()))),
            ..RecalibrateJob::of_batches(net())
        };
        let report = recalibrate_batches(&job, &mut batches().into_iter().map(Ok), &Quiet).unwrap();
        assert_eq!(std::fs::read(job.output.unwrap()).unwrap(), expected);
        let data = report.data.unwrap();
        let counts = (data.samples, data.batches, data.batch_size);
        assert_eq!(counts, (40, 7, BATCH));
    }
    let other = std::fs::read(folder.path().join("ema.onnx")).unwrap();
    assert_ne!(
        std::fs::read(folder.path().join("precise.onnx")).unwrap(),
        other
    );
}

#[test]
fn who_saw_which_batch_changes_no_bit_of_the_moments() {
    let folder = tempfile::tempdir().unwrap();
    for how in METHODS {
        let mut whole = recalibrator(how);
        let mut parts: Vec<Moments> = Vec::new();
        for (index, batch) in batches().iter().enumerate() {
            whole.observe(batch, None).unwrap();
            // Worker 1 sees the batches 2, 5; worker 0 the others, and 5 again: a task that was repeated.
            let worker = usize::from(index % 3 == 2);
            for (place, sees) in [(0, worker == 0 || index == 5), (1, worker == 1)] {
                if sees {
                    let mut part = recalibrator(how);
                    part.observe(batch, Some(index as u64)).unwrap();
                    let bytes = part.moments().unwrap().to_bytes().unwrap();
                    parts.insert(place * parts.len(), Moments::from_bytes(&bytes).unwrap());
                }
            }
        }
        assert_eq!(parts.len(), 8);
        let whole = whole.moments().unwrap();
        let mut reversed = parts.clone();
        reversed.reverse();
        for order in [parts, reversed] {
            let mut all = recalibrator(how);
            for part in &order {
                all.absorb(part).unwrap();
            }
            assert_eq!(all.moments().unwrap(), whole);
            assert_eq!((all.batches(), all.samples()), (7, 40));
            let out = folder.path().join("parts.onnx");
            let expected = in_one_run(how, &folder.path().join(format!("{}.onnx", how.name())));
            std::fs::remove_file(folder.path().join(format!("{}.onnx", how.name()))).unwrap();
            assert_eq!(written(&all, &out), expected);
        }
    }
}

#[test]
fn a_lost_batch_leaves_a_gap_that_is_told_and_can_be_closed() {
    let mut some = recalibrator(Method::Ema);
    let all = batches();
    for index in [0, 1, 3, 6] {
        some.observe(&all[index], Some(index as u64)).unwrap();
    }
    let moments = some.moments().unwrap();
    assert_eq!(moments.missing(), [2..3, 4..6]);
    let mut without = recalibrator(Method::Ema);
    for index in [0, 1, 3, 6] {
        without.observe(&all[index], None).unwrap();
    }
    let layers = |of: &Recalibrator| of.report().unwrap().layers;
    assert_eq!(layers(&some), layers(&without));
    for index in [5, 2, 4] {
        some.observe(&all[index], Some(index as u64)).unwrap();
    }
    assert!(some.moments().unwrap().missing().is_empty());
    assert_eq!(some.batches(), 7);
}

#[test]
fn two_batches_of_one_number_are_refused_and_change_nothing() {
    let all = batches();
    let (mut first, mut second) = (recalibrator(Method::Precise), recalibrator(Method::Precise));
    first.observe(&all[0], None).unwrap();
    second.observe(&all[1], None).unwrap();
    let before = first.moments().unwrap();
    let mut sum = before.clone();
    let error = sum
        .merge(&second.moments().unwrap())
        .unwrap_err()
        .to_string();
    assert!(error.contains("batch 0 is there twice"), "{error}");
    assert_eq!(sum, before);
    assert!(first.observe(&all[1], Some(0)).is_err());
    first.observe(&all[3], Some(4)).unwrap();
    assert!(first.observe(&all[2], Some(4)).is_err());
    first.observe(&all[3], Some(4)).unwrap();
    assert_eq!(first.batches(), 2);
    // The next one without a number comes behind all others.
    assert_eq!(first.observe(&all[4], None).unwrap(), 5);
}

#[test]
fn what_was_taken_is_forgotten_and_numbers_go_on() {
    let all = batches();
    let (mut worker, mut whole) = (recalibrator(Method::Average), recalibrator(Method::Average));
    let mut sum: Option<Moments> = None;
    for batch in &all {
        whole.observe(batch, None).unwrap();
        worker.observe(batch, None).unwrap();
        let part = worker.take().unwrap();
        assert_eq!((part.batches(), worker.batches()), (1, 0));
        match &mut sum {
            Some(sum) => sum.merge(&part).unwrap(),
            none => *none = Some(part),
        }
    }
    assert_eq!(sum.unwrap(), whole.moments().unwrap());
}

#[test]
fn moments_of_another_job_are_refused() {
    let observed = |job: RecalibrateJob| {
        let mut recalibrator = Recalibrator::new(job).unwrap();
        recalibrator.observe(&batches()[0], None).unwrap();
        recalibrator.moments().unwrap()
    };
    let job = || RecalibrateJob::of_batches(net());
    let base = observed(job());
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.onnx");
    let mut changed = recalibrator(Method::Precise);
    changed.observe(&batches()[1], None).unwrap();
    written(&changed, &other);
    let mut skips = job();
    skips.selection.skip = vec!["*1*".to_owned()];
    let mut dropout = job();
    dropout.dropout = Some(3);
    for (other, said) in [
        (RecalibrateJob::of_batches(&other), "the model (SHA-256"),
        (
            RecalibrateJob {
                method: method(Method::Average),
                ..job()
            },
            "the method (precise here, average there)",
        ),
        (skips, "the chosen layers"),
        (dropout, "the seed of Dropout"),
    ] {
        let error = base
            .clone()
            .merge(&observed(other))
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{error}");
    }
    let bytes = String::from_utf8(base.to_bytes().unwrap()).unwrap();
    for (from, to) in [
        ("bnkit.moments/1", "bnkit.moments/9"),
        (
            "\"method\":\"precise\",\"convention\"",
            "\"method\":\"ema\",\"convention\"",
        ),
        ("\"digests\":[", "\"digests\":[],\"x\":["),
        ("{\"schema\"", "{"),
    ] {
        let damaged = bytes.replacen(from, to, 1);
        assert_ne!(damaged, bytes, "{from}");
        assert!(Moments::from_bytes(damaged.as_bytes()).is_err(), "{from}");
    }
}

#[test]
fn validating_batches_gives_the_numbers_of_validating_data() {
    let mut data = DataOptions::of_tensors([("", pictures(0, SAMPLES))]);
    data.batch_size = BATCH;
    let job = ValidateJob {
        data,
        ..ValidateJob::new(net(), "")
    };
    let whole = serde_json::to_value(validate(&job, &Quiet).unwrap()).unwrap();
    let mut all = batches().into_iter().map(Ok);
    let steps = validate_batches(&job, &mut all, &Quiet).unwrap();
    assert_eq!(serde_json::to_value(steps).unwrap(), whole);
    let mut one = batches().into_iter().take(1).map(Ok);
    let error = validate_batches(&job, &mut one, &Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("one batch of 6 samples"), "{error}");
    let mut none = std::iter::empty();
    assert!(validate_batches(&job, &mut none, &Quiet).is_err());
}

#[test]
fn errors_of_a_batch_say_which_and_nothing_of_it_counts() {
    let mut recalibrator = recalibrator(Method::Precise);
    recalibrator.observe(&batches()[0], None).unwrap();
    let mut bad = pictures(0, 2).to_f64().unwrap();
    bad[5] = f64::NAN;
    let bad: Vec<f32> = bad.into_iter().map(|value| value as f32).collect();
    let nan = set(Tensor::from_f32(vec![2, 3, 32, 32], &bad).unwrap());
    let error = recalibrator.observe(&nan, None).unwrap_err().to_string();
    assert!(error.contains("NaN"), "{error}");
    let flat = set(Tensor::from_f32(vec![2, 3], &[0.0; 6]).unwrap());
    assert!(recalibrator.observe(&flat, None).is_err());
    assert_eq!(recalibrator.batches(), 1);
    assert!(self::recalibrator(Method::Ema).report().is_err());
}

#[test]
fn a_job_of_batches_refuses_what_needs_all_data_and_ends_when_asked_to() {
    let job = || RecalibrateJob::of_batches(net());
    let sequential = RecalibrateJob {
        method: method(Method::Sequential),
        ..job()
    };
    assert!(Recalibrator::new(sequential).is_err());
    assert!(Recalibrator::new(RecalibrateJob::new(net(), "x.npy", "y.onnx")).is_err());
    assert!(recalibrate(&job(), &Quiet).is_err());
    let interrupt = Interrupt::default();
    let stopping = RecalibrateJob {
        interrupt: interrupt.clone(),
        ..job()
    };
    let mut seen = 0;
    let mut all = batches().into_iter().map(|batch| {
        seen += 1;
        if seen == 3 {
            interrupt.request();
        }
        Ok(batch)
    });
    let error = recalibrate_batches(&stopping, &mut all, &Quiet).unwrap_err();
    assert!(matches!(error, bnkit::Error::Interrupted), "{error}");
    assert_eq!(seen, 3);
}
