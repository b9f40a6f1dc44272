//! Train mode on tiny models whose statistics are computed by hand, in f64 and in another way.

mod nets;

use std::collections::HashMap;

use bnkit_engine::{
    BatchRun, EngineError, Moments, Sample, Statistics, TrainOptions, Trainer, inputs,
};
use bnkit_model::{DType, Tensor};
use nets::{f32s, input, int, model, node};
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType,
};

const GAMMA: [f64; 2] = [1.5, -0.5];
const BETA: [f64; 2] = [0.25, 2.0];

fn norm(x: &str, y: &str) -> NodeProto {
    NodeProto {
        name: format!("norm {y}"),
        ..node("BatchNormalization", &[x, "g", "b", "m", "v"], &[y])
    }
}

fn parameters() -> Vec<TensorProto> {
    vec![
        f32s("g", &[2], &GAMMA),
        f32s("b", &[2], &BETA),
        f32s("m", &[2], &[100.0, -100.0]),
        f32s("v", &[2], &[7.0, 9.0]),
    ]
}

/// Numbers without a pattern, a different mean and spread in each channel of (1, 2, ...) samples.
fn samples(count: usize, dims: &[usize]) -> Vec<Sample> {
    let mut state = 7u64;
    let inner: usize = dims[2..].iter().product();
    (0..count)
        .map(|_| {
            let values: Vec<f32> = (0..2 * inner)
                .map(|index| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let uniform = (state >> 40) as f32 / (1 << 24) as f32;
                    if index < inner {
                        uniform
                    } else {
                        5.0 - 3.0 * uniform
                    }
                })
                .collect();
            let tensor = Tensor::from_f32(dims.to_vec(), &values).unwrap();
            vec![("x".to_owned(), tensor)]
        })
        .collect()
}

/// Count, mean and population variance of a channel over all samples.
fn by_hand(batch: &[Sample], channel: usize) -> (f64, f64, f64) {
    let values: Vec<f64> = batch
        .iter()
        .flat_map(|sample| {
            let values = sample[0].1.to_f64().unwrap();
            let half = values.len() / 2;
            values[channel * half..][..half].to_vec()
        })
        .collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (count, mean, variance)
}

fn trainer(model: &ModelProto) -> Trainer {
    Trainer::load(&model.encode_to_vec(), &TrainOptions::default()).unwrap()
}

fn run(model: &ModelProto, batch: &[Sample]) -> BatchRun {
    trainer(model).run(batch, &Statistics::Batch, true).unwrap()
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{found} is not {expected}"
    );
}

fn check(batch: &[Sample], run: &BatchRun) {
    let seen = run.observed[0].as_ref().unwrap();
    for channel in 0..2 {
        let (count, mean, variance) = by_hand(batch, channel);
        assert_eq!(seen.count as f64, count);
        close(seen.mean[channel], mean, 1e-14);
        close(seen.variance()[channel], variance, 1e-14);
        for (sample, outputs) in batch.iter().zip(&run.outputs) {
            let x = sample[0].1.to_f64().unwrap();
            let y = outputs[0].1.to_f64().unwrap();
            let half = x.len() / 2;
            for index in channel * half..(channel + 1) * half {
                let scale = GAMMA[channel] / (variance + f64::from(1e-5f32)).sqrt();
                close(y[index], (x[index] - mean) * scale + BETA[channel], 3e-6);
            }
        }
    }
}

#[test]
fn every_opset_in_either_mode_and_every_rank_normalises_with_its_batch() {
    let shapes: [&[usize]; 4] = [&[1, 2], &[1, 2, 37], &[1, 2, 5, 9], &[1, 2, 3, 2, 4]];
    for opset in [1, 6, 7, 9, 14, 15] {
        for training in [false, true] {
            for dims in shapes {
                let mut bn = norm("x", "y");
                let outputs = match (opset, training) {
                    (_, false) => 1,
                    (14.., true) => 3,
                    (_, true) => 5,
                };
                bn.output
                    .extend((1..outputs).map(|n| format!("unread {n}")));
                bn = match opset {
                    1 | 6 => int(bn, "is_test", i64::from(!training)),
                    14.. => int(bn, "training_mode", i64::from(training)),
                    _ => bn,
                };
                let mut declared: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
                declared[0] = -1;
                let x = input("x", DType::F32, &declared);
                let model = model(opset, vec![x], vec![bn], parameters());
                let batch = samples(5, dims);
                let run = run(&model, &batch);
                check(&batch, &run);
            }
        }
    }
}

#[test]
fn half_precision_and_mixed_types_are_widened() {
    for (kind, scale) in [
        (DType::F16, DType::F16),
        (DType::BF16, DType::F32),
        (DType::F16, DType::F32),
    ] {
        let mut parameters = parameters();
        for (parameter, values) in parameters.iter_mut().zip([GAMMA, BETA]) {
            let name = parameter.name.clone();
            *parameter = nets::constant(&name, scale, &[2], &values);
        }
        let x = input("x", kind, &[-1, 2, 3, 3]);
        let model = model(15, vec![x], vec![norm("x", "y")], parameters);
        let batch = samples(3, &[1, 2, 3, 3]);
        check(&batch, &run(&model, &batch));
    }
}

/// Two BatchNorms in a row with something between them, and a branch.
fn deep() -> ModelProto {
    let weights: Vec<f64> = (0..36).map(|n| f64::from(n * 7 % 11) / 5.0 - 1.0).collect();
    let mut constants = parameters();
    constants.push(f32s("w", &[2, 2, 3, 3], &weights));
    model(
        15,
        vec![input("x", DType::F32, &[-1, 2, 6, 7])],
        vec![
            norm("x", "n1"),
            node("Relu", &["n1"], &["r"]),
            node("Conv", &["r", "w"], &["c"]),
            norm("c", "n2"),
            norm("r", "n3"),
            node("GlobalAveragePool", &["n3"], &["p"]),
            node("Add", &["n2", "p"], &["y"]),
        ],
        constants,
    )
}

fn bits(run: &BatchRun) -> Vec<u64> {
    let moments = run.observed.iter().flatten();
    let values = moments.flat_map(|seen| seen.mean.iter().chain(&seen.m2));
    let outputs = run.outputs.iter().flatten();
    let outputs = outputs.flat_map(|(_, tensor)| tensor.to_f64().unwrap());
    values.copied().chain(outputs).map(f64::to_bits).collect()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let batch = samples(7, &[1, 2, 6, 7]);
    let trainer = trainer(&deep());
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let work = || trainer.run(&batch, &Statistics::Batch, true).unwrap();
        bits(&pool.unwrap().install(work))
    };
    assert!(!on(1).is_empty());
    for threads in [2, 3, 8] {
        assert_eq!(on(1), on(threads));
    }
}

#[test]
fn without_outputs_the_moments_are_the_same() {
    let batch = samples(4, &[1, 2, 6, 7]);
    let trainer = trainer(&deep());
    let with = trainer.run(&batch, &Statistics::Batch, true).unwrap();
    let without = trainer.run(&batch, &Statistics::Batch, false).unwrap();
    assert_eq!(with.observed, without.observed);
    assert!(without.outputs.is_empty());
}

#[test]
fn with_given_statistics_any_split_of_the_data_sees_the_same() {
    let data = samples(6, &[1, 2, 6, 7]);
    let trainer = trainer(&deep());
    let given: HashMap<String, (Vec<f64>, Vec<f64>)> = trainer
        .norms()
        .iter()
        .map(|norm| (norm.output.clone(), (vec![0.5, 2.0], vec![1.5, 0.3])))
        .collect();
    let statistics = Statistics::Given(&given);
    let all = trainer.run(&data, &statistics, false).unwrap();
    for size in [1, 2, 4] {
        let mut merged = vec![Moments::default(); 3];
        for batch in data.chunks(size) {
            let run = trainer.run(batch, &statistics, false).unwrap();
            for (merged, seen) in merged.iter_mut().zip(run.observed) {
                merged.merge(&seen.unwrap()).unwrap();
            }
        }
        for (merged, all) in merged.iter().zip(all.observed.iter().flatten()) {
            assert_eq!(merged.count, all.count);
            for channel in 0..2 {
                close(merged.mean[channel], all.mean[channel], 1e-13);
                close(merged.m2[channel], all.m2[channel], 1e-13);
            }
        }
    }
}

#[test]
fn a_module_that_is_called_twice_is_seen_twice() {
    let model = model(
        15,
        vec![input("x", DType::F32, &[-1, 2, 3, 3])],
        vec![norm("x", "first"), norm("first", "second")],
        parameters(),
    );
    let batch = samples(4, &[1, 2, 3, 3]);
    let trainer = trainer(&model);
    let names: Vec<&str> = trainer.norms().iter().map(|norm| &*norm.output).collect();
    assert_eq!(names, ["first", "second"]);
    let run = trainer.run(&batch, &Statistics::Batch, false).unwrap();
    let second = run.observed[1].as_ref().unwrap();
    // What the first gives has its bias as mean, and the square of its scale as variance, but for epsilon.
    for channel in 0..2 {
        let (_, _, variance) = by_hand(&batch, channel);
        let spread = GAMMA[channel].powi(2) * variance / (variance + f64::from(1e-5f32));
        close(second.mean[channel], BETA[channel], 1e-6);
        close(second.variance()[channel], spread, 1e-6);
    }
}

#[test]
fn equal_siblings_are_seen_one_by_one() {
    let model = model(
        15,
        vec![input("x", DType::F32, &[-1, 2, 3, 3])],
        vec![
            norm("x", "left"),
            norm("x", "right"),
            node("Add", &["left", "right"], &["y"]),
        ],
        parameters(),
    );
    let batch = samples(2, &[1, 2, 3, 3]);
    let run = run(&model, &batch);
    assert_eq!(run.observed[0], run.observed[1]);
    assert!(run.observed[0].is_some());
}

fn dropping(seed: Option<u64>) -> Trainer {
    let model = model(
        15,
        vec![input("x", DType::F32, &[-1, 2, 9, 9])],
        vec![
            node("Dropout", &["x", "ratio"], &["dropped"]),
            norm("dropped", "y"),
        ],
        [parameters(), vec![f32s("ratio", &[], &[0.25])]].concat(),
    );
    let options = TrainOptions {
        dropout: seed,
        extra_outputs: &["dropped".to_owned()],
        ..TrainOptions::default()
    };
    Trainer::load(&model.encode_to_vec(), &options).unwrap()
}

#[test]
fn dropout_depends_on_seed_batch_and_sample_only() {
    let x = samples(1, &[1, 2, 9, 9]).remove(0);
    let batch = vec![x.clone(), x.clone()];
    let masks = |trainer: &Trainer, number: u64| -> Vec<Vec<f64>> {
        let run = trainer.run_numbered(number, &batch, &Statistics::Batch, true);
        let dropped = |outputs: &Vec<(String, Tensor)>| {
            assert_eq!(outputs[1].0, "dropped");
            outputs[1].1.to_f64().unwrap()
        };
        run.unwrap().outputs.iter().map(dropped).collect()
    };
    let off = masks(&dropping(None), 0);
    let x = x[0].1.to_f64().unwrap();
    assert_eq!(off, [x.clone(), x.clone()]);
    let trainer = dropping(Some(5));
    let on = masks(&trainer, 0);
    assert_eq!(on, masks(&dropping(Some(5)), 0));
    assert_ne!(on[0], on[1]);
    assert_ne!(on, masks(&trainer, 1));
    assert_ne!(on, masks(&dropping(Some(6)), 0));
    let zeros = on.iter().flatten().filter(|&&value| value == 0.0).count();
    assert!((50..115).contains(&zeros), "{zeros} of 324");
    for (kept, x) in on[0].iter().zip(&x) {
        assert!(*kept == 0.0 || (kept - x / 0.75).abs() < 1e-6);
    }
}

fn body(nodes: Vec<NodeProto>, output: &str) -> GraphProto {
    GraphProto {
        name: output.into(),
        node: nodes,
        output: vec![ValueInfoProto {
            name: output.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// An If with a BatchNorm in either branch; the condition is `condition`.
fn branching(condition: NodeProto, constants: Vec<TensorProto>) -> ModelProto {
    let mut branch = node("If", &["condition"], &["y"]);
    for (name, graph) in [
        ("then_branch", body(vec![norm("x", "taken")], "taken")),
        ("else_branch", body(vec![norm("x", "other")], "other")),
    ] {
        branch.attribute.push(AttributeProto {
            name: name.into(),
            r#type: AttributeType::Graph as i32,
            g: Some(graph),
            ..Default::default()
        });
    }
    model(
        15,
        vec![input("x", DType::F32, &[-1, 2, 3, 3])],
        vec![condition, branch],
        [parameters(), constants].concat(),
    )
}

#[test]
fn a_branch_that_is_never_taken_is_reported_as_not_seen() {
    let yes = TensorProto {
        name: "yes".into(),
        data_type: 9,
        raw_data: vec![1],
        ..Default::default()
    };
    let model = branching(node("Identity", &["yes"], &["condition"]), vec![yes]);
    let batch = samples(4, &[1, 2, 3, 3]);
    let trainer = trainer(&model);
    assert_eq!(trainer.norms().len(), 2);
    assert_eq!(trainer.norms()[1].channels, 2);
    let run = trainer.run(&batch, &Statistics::Batch, true).unwrap();
    check(&batch, &run);
    assert!(run.observed[1].is_none());
}

#[test]
fn a_branch_is_taken_by_all_samples_or_refused() {
    // The largest element of a sample decides: the second channel reaches from 2 to 5.
    let decide = |limit: f64| {
        let mut model = branching(
            node("Greater", &["largest", "limit"], &["condition"]),
            vec![f32s("limit", &[], &[limit])],
        );
        let largest = int(node("ReduceMax", &["x"], &["largest"]), "keepdims", 0);
        model.graph.as_mut().unwrap().node.insert(0, largest);
        model
    };
    let batch = samples(4, &[1, 2, 3, 3]);
    let all = run(&decide(1.0), &batch);
    check(&batch, &all);
    assert!(all.observed[1].is_none());
    let none = run(&decide(9.0), &batch);
    assert!(none.observed[0].is_none() && none.observed[1].is_some());
    let mut largest: Vec<f64> = batch
        .iter()
        .map(|sample| {
            sample[0]
                .1
                .to_f64()
                .unwrap()
                .into_iter()
                .fold(0.0, f64::max)
        })
        .collect();
    largest.sort_by(f64::total_cmp);
    let torn = trainer(&decide(f64::midpoint(largest[1], largest[2])));
    let error = torn.run(&batch, &Statistics::Batch, false).unwrap_err();
    assert!(matches!(error, EngineError::Unsupported { .. }), "{error}");
}

#[test]
fn one_element_per_channel_is_an_error() {
    let x = input("x", DType::F32, &[-1, 2]);
    let model = model(15, vec![x], vec![norm("x", "y")], parameters());
    let trainer = trainer(&model);
    let batch = samples(2, &[1, 2]);
    let error = trainer.run(&batch[..1], &Statistics::Batch, true);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("at least 2") && error.contains("norm y"),
        "{error}"
    );
    check(
        &batch,
        &trainer.run(&batch, &Statistics::Batch, true).unwrap(),
    );
}

#[test]
fn a_failing_sample_fails_the_batch() {
    let trainer = trainer(&deep());
    let mut batch = samples(3, &[1, 2, 6, 7]);
    batch[1] = samples(1, &[1, 2, 6, 8]).remove(0);
    let error = trainer.run(&batch, &Statistics::Batch, true).unwrap_err();
    assert!(matches!(error, EngineError::Run { .. }), "{error}");
    batch[1] = vec![("z".into(), batch[0][0].1.clone())];
    assert!(trainer.run(&batch, &Statistics::Batch, true).is_err());
    assert!(trainer.run(&[], &Statistics::Batch, true).is_err());
}

/// x minus the mean over the batch, normalised: the samples mix before the BatchNorm.
fn mixing(dims: &[i64]) -> ModelProto {
    let mut mean = int(node("ReduceMean", &["x"], &["mean"]), "keepdims", 1);
    mean.attribute.push(AttributeProto {
        name: "axes".into(),
        r#type: AttributeType::Ints as i32,
        ints: vec![0],
        ..Default::default()
    });
    model(
        13,
        vec![input("x", DType::F32, dims)],
        vec![
            mean,
            node("Sub", &["x", "mean"], &["centred"]),
            norm("centred", "y"),
        ],
        parameters(),
    )
}

#[test]
fn samples_that_mix_run_as_one_batch() {
    let batch = samples(4, &[1, 2, 3, 3]);
    let values: Vec<Vec<f64>> = batch
        .iter()
        .map(|sample| sample[0].1.to_f64().unwrap())
        .collect();
    for dims in [[-1, 2, 3, 3], [4, 2, 3, 3]] {
        let run = run(&mixing(&dims), &batch);
        let seen = run.observed[0].as_ref().unwrap();
        assert_eq!((seen.count, run.outputs.len()), (36, 4));
        assert_eq!(run.outputs[0][0].1.dims(), [1, 2, 3, 3]);
        for channel in 0..2 {
            let mut squares = 0.0;
            for index in channel * 9..channel * 9 + 9 {
                let mean = values.iter().map(|x| x[index]).sum::<f64>() / 4.0;
                squares += values
                    .iter()
                    .map(|x| (x[index] - mean).powi(2))
                    .sum::<f64>();
            }
            close(seen.mean[channel], 0.0, 1e-6);
            close(seen.m2[channel], squares, 1e-5);
        }
    }
    let fixed = trainer(&mixing(&[4, 2, 3, 3]));
    let error = fixed.run(&batch[..3], &Statistics::Batch, false);
    assert!(error.unwrap_err().to_string().contains("exactly 4"));
}

#[test]
fn a_shared_batch_gives_what_the_samples_give_side_by_side() {
    // The same network, and one that mixes but does not use what it mixed.
    let apart = deep();
    let mut whole = deep();
    let graph = whole.graph.as_mut().unwrap();
    let mut mean = int(node("ReduceMean", &["x"], &["mean"]), "keepdims", 1);
    mean.attribute.push(AttributeProto {
        name: "axes".into(),
        r#type: AttributeType::Ints as i32,
        ints: vec![0],
        ..Default::default()
    });
    graph.node.insert(0, mean);
    graph.output.push(ValueInfoProto {
        name: "mean".into(),
        ..Default::default()
    });
    let graph = apart.encode_to_vec();
    assert_eq!(inputs(&graph).unwrap().len(), 1);
    whole.opset_import[0].version = 15;
    let batch = samples(5, &[1, 2, 6, 7]);
    let (apart, whole) = (run(&apart, &batch), run(&whole, &batch));
    for (apart, whole) in apart.observed.iter().zip(&whole.observed) {
        let (apart, whole) = (apart.as_ref().unwrap(), whole.as_ref().unwrap());
        assert_eq!(apart.count, whole.count);
        for channel in 0..2 {
            close(apart.mean[channel], whole.mean[channel], 1e-6);
            close(apart.m2[channel], whole.m2[channel], 1e-5);
        }
    }
}
