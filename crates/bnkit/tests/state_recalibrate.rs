//! Recalibration of state dicts: the statistics of the graph, in the checkpoint.

// What was skipped is for the reader of the tests' output.
#![allow(clippy::print_stderr)]

use std::path::{Path, PathBuf};

use bnkit::calibrate::*;
use bnkit::pipeline::Quiet;
use bnkit_model::onnx::Model;
use bnkit_model::safetensors::StateDict;

fn digits() -> Option<PathBuf> {
    let models = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    let folder = models.join("digits");
    if !folder.is_dir() {
        eprintln!("skipped: no {}", folder.display());
        return None;
    }
    Some(folder)
}

/// (method, largest number of batches, PyTorch's result, model)
type Case = (Method, Option<u64>, &'static str, &'static str);

#[test]
fn digits_get_the_statistics_of_pytorch() {
    let Some(folder) = digits() else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    let cases: [Case; 4] = [
        (Method::Average, None, "cma_keeplast", "digits_reset"),
        (Method::Precise, None, "pooled_keeplast", "digits_reset"),
        (Method::Ema, Some(20), "ema01_20", "digits_reset"),
        (Method::Ema, Some(20), "ema01_20", "digits_perturbed"),
    ];
    for (method, at_most, truth, model) in cases {
        let input = folder.join(format!("{model}.safetensors"));
        let mut job = RecalibrateJob::new(&input, folder.join("train_images.npy"), &out);
        job.graph = Some(folder.join(format!("{model}.onnx")));
        job.force = true;
        job.method.method = method;
        job.method.convention = Convention::Torch;
        if method == Method::Ema {
            job.method.momentum = Some(0.1);
        }
        if let Source::Data(data) = &mut job.source {
            data.batch_size = 64;
            data.max_batches = at_most.map(|batches| batches as usize);
        }
        recalibrate(&job, &Quiet).unwrap();
        let (found, before) = (
            StateDict::open(&out).unwrap(),
            StateDict::open(&input).unwrap(),
        );
        let truth =
            StateDict::open(&folder.join(format!("truth_{model}_{truth}.safetensors"))).unwrap();
        for tensor in truth.tensors() {
            let values = |dict: &StateDict| {
                let tensor = dict.tensor(&tensor.name).unwrap();
                dict.read(tensor).unwrap().to_f64().unwrap()
            };
            let (a, b) = (values(&found), values(&truth));
            let scale = b
                .iter()
                .fold(f64::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
            for (a, b) in a.iter().zip(&b) {
                assert!(
                    (a - b).abs() <= 1e-5 * scale,
                    "{model} {} {a} {b}",
                    tensor.name
                );
            }
        }
        // Everything else is as it was, in the same place.
        for (a, b) in found.tensors().iter().zip(before.tensors()) {
            assert_eq!(a.name, b.name);
            if truth.tensor(&a.name).is_none() {
                assert!(
                    found.read(a).unwrap() == before.read(b).unwrap(),
                    "{}",
                    a.name
                );
            }
        }
    }
}

#[test]
fn the_checkpoint_gets_the_statistics_that_the_graph_gets() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/state/resnet");
    let dir = tempfile::tempdir().unwrap();
    let (data, graph) = (dir.path().join("x.npz"), dir.path().join("g.onnx"));
    std::fs::copy(case.join("io.npz"), &data).unwrap();
    let source = Model::open(&case.join("model.onnx")).unwrap();
    let input = source.value(source.scope(source.main()).inputs[0]);
    // The archive has inputs and outputs; as data it needs the inputs alone.
    let values = bnkit::data::load(&data).unwrap();
    let x = values
        .tensors
        .iter()
        .find(|named| named.name.ends_with(input.name.as_str()))
        .unwrap();
    let one: usize = x.tensor.dims()[1..].iter().product();
    let samples: Vec<f64> = (0..6 * one)
        .map(|at| ((at * 7919) % 1009) as f64 / 504.0)
        .collect();
    let dims = [&[6], &x.tensor.dims()[1..]].concat();
    let batch = bnkit_model::Tensor::from_f64(x.tensor.dtype(), dims, &samples).unwrap();
    let file = bnkit_model::safetensors::NewFile {
        metadata: None,
        tensors: vec![
            bnkit_model::safetensors::NewTensor::of_values(input.name.to_string(), &batch).unwrap(),
        ],
    };
    let data = dir.path().join("x.safetensors");
    bnkit_model::safetensors::save(&data, file, Default::default()).unwrap();

    let out = dir.path().join("out.safetensors");
    let mut job = RecalibrateJob::new(case.join("model.safetensors"), &data, &out);
    job.graph = Some(case.join("model.onnx"));
    if let Source::Data(data) = &mut job.source {
        data.batch_size = 2;
    }
    recalibrate(&job, &Quiet).unwrap();
    let mut of_graph = job.clone();
    (of_graph.input, of_graph.graph) = (case.join("model.onnx"), None);
    of_graph.output = Some(graph.clone());
    recalibrate(&of_graph, &Quiet).unwrap();
    let (dict, model) = (StateDict::open(&out).unwrap(), Model::open(&graph).unwrap());
    let mut compared = 0;
    for index in 0..model.value_count() {
        let value = model.value(model.value_id(index));
        let statistics = value.name.contains("running_");
        if let (true, Some(def), Some(tensor)) =
            (statistics, &value.tensor, dict.tensor(&value.name))
        {
            assert!(
                model.read_tensor(def).unwrap() == dict.read(tensor).unwrap(),
                "{}",
                value.name
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 24);
}
