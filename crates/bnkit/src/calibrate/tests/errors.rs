//! What cannot be done, and in which words.

use super::*;

fn net() -> Vec<u8> {
    let momentum =
        crate::verify::nets::attribute("momentum", bnkit_model::onnx::AttributeValue::Float(1.0));
    fresh(Net::new("x", &[-1, 2]), "g", "b", "m", "v")
        .node("BatchNormalization", &["x", "g", "b", "m", "v"], "y")
        .with(momentum)
        .output("y")
        .bytes()
}

fn text(job: &RecalibrateJob) -> String {
    recalibrate(job, &Quiet).unwrap_err().to_string()
}

#[test]
fn a_momentum_of_pytorch_that_is_none_is_asked_for() {
    let case = Case::new(&net(), &[8, 2], &data(16));
    let mut job = case.job(Method::Ema);
    let found = text(&job);
    assert!(
        found.contains("\"y\"") && found.contains("--momentum"),
        "{found}"
    );
    job.method.momentum = Some(0.9);
    assert_eq!(
        recalibrate(&job, &Quiet)
            .unwrap()
            .method
            .unwrap()
            .history_weight,
        Some(0.9)
    );
    job.method.method = Method::Precise;
    assert!(text(&job).contains("no momentum"));
}

#[test]
fn a_batch_of_one_element_per_channel_has_no_variance() {
    let case = Case::new(&net(), &[5, 2], &data(10));
    let mut job = case.job(Method::Average);
    let found = text(&job);
    assert!(
        found.contains("\"y\"") && found.contains("1 element"),
        "{found}"
    );
    assert!(!case.path("out.onnx").exists());
    if let Source::Data(data) = &mut job.source {
        data.drop_last = true;
    }
    assert_eq!(recalibrate(&job, &Quiet).unwrap().data.unwrap().samples, 4);
}

#[test]
fn what_does_not_go_together_is_said_before_anything_runs() {
    let case = Case::new(&net(), &[8, 2], &data(16));
    let job = |change: &dyn Fn(&mut RecalibrateJob)| {
        let mut job = case.job(Method::Precise);
        change(&mut job);
        text(&job)
    };
    let shard = Shard { index: 1, count: 2 };
    assert!(job(&|job| job.shard = shard).contains("--partial"));
    let partial = case.path("p.json");
    let sequential = job(&|job| {
        job.partial = Some(partial.clone());
        job.method.method = Method::Sequential;
    });
    assert!(sequential.contains("sequential"), "{sequential}");
    assert!(
        job(&|job| {
            job.partial = Some(partial.clone());
            job.until_stable = true;
        })
        .contains("stable")
    );
    assert!(
        job(&|job| {
            job.method.method = Method::Ema;
            job.until_stable = true;
        })
        .contains("settles")
    );
    std::fs::write(case.path("out.onnx"), "mine").unwrap();
    assert!(job(&|job| job.force = false).contains("exists already"));
    assert_eq!(std::fs::read(case.path("out.onnx")).unwrap(), b"mine");
}

#[test]
fn damaged_partial_files_are_named() {
    let case = Case::new(&net(), &[8, 2], &data(16));
    let mut job = case.job(Method::Precise);
    job.partial = Some(case.path("p.json"));
    recalibrate(&job, &Quiet).unwrap();
    let merging = MergeJob {
        partials: vec![case.path("p.json")],
        input: case.path("net.onnx"),
        output: Some(case.path("out.onnx")),
        force: true,
        hash: false,
        stability: Stability::default(),
        fold: None,
        interrupt: Interrupt::default(),
    };
    assert_eq!(merge(&merging, &Quiet).unwrap().samples, 8);
    std::fs::remove_file(case.path("out.onnx")).unwrap();
    let good = std::fs::read_to_string(case.path("p.json")).unwrap();
    let refused = |text: String| {
        std::fs::write(case.path("p.json"), text).unwrap();
        let found = merge(&merging, &Quiet).unwrap_err().to_string();
        assert!(!case.path("out.onnx").exists(), "{found}");
        let path = format!("{}: ", case.path("p.json").display());
        found.strip_prefix(&path).expect(&found).to_owned()
    };
    let unfit = "a damaged partial file: its parts do not fit together";
    let most = u64::MAX.to_string();
    for (from, to, expected) in [
        (
            "bnkit.partial/1",
            "bnkit.partial/2",
            "expected schema bnkit.partial/1, found \"bnkit.partial/2\"",
        ),
        ("\"m2\":[", "\"m2\":[1.0,", unfit),
        ("\"m2\":[", "\"m2\":[-", unfit),
        (
            "\"count\":8,\"mean\"",
            &format!("\"count\":{most},\"mean\""),
            unfit,
        ),
        ("\"elements\":8", &format!("\"elements\":{most}"), unfit),
        ("\"samples\":8", &format!("\"samples\":{most}"), unfit),
        (
            "\"batches\":2,\"channels\"",
            &format!("\"batches\":{most},\"channels\""),
            unfit,
        ),
        ("\"method\":\"precise\"", "\"method\":\"average\"", unfit),
        ("\"history\":null", "\"history\":1.0", unfit),
        ("\"index\":1", "\"index\":2", unfit),
        ("\"states\":[", "\"states\":[null,", unfit),
        (
            "\"complete\":true,",
            "",
            "a damaged partial file: missing field `complete`",
        ),
        (
            "{",
            "",
            "not a partial file: invalid type: string \"schema\"",
        ),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let found = refused(good.replacen(from, to, 1));
        assert!(found.starts_with(expected), "{found}");
    }
    // A file claims how many shards there are; nothing is done as often.
    std::fs::write(
        case.path("p.json"),
        good.replacen("\"count\":1", &format!("\"count\":{most}"), 1),
    )
    .unwrap();
    let found = merge(&merging, &Quiet).unwrap_err().to_string();
    assert!(
        found.starts_with(&format!("missing shards: 2/{most}, 3/{most}, "))
            && found.ends_with(&format!(", 17/{most} and {} more", u64::MAX - 17)),
        "{found}"
    );
}

#[test]
fn partial_files_that_are_not_of_one_job_are_not_put_together() {
    let case = Case::new(&net(), &[8, 2], &data(16));
    let paths = [case.path("1.json"), case.path("2.json")];
    for (index, path) in (1..).zip(&paths) {
        let mut job = case.job(Method::Precise);
        job.partial = Some(path.clone());
        job.shard = Shard { index, count: 2 };
        recalibrate(&job, &Quiet).unwrap();
    }
    let mut merging = MergeJob {
        partials: paths.to_vec(),
        input: case.path("net.onnx"),
        output: Some(case.path("out.onnx")),
        force: false,
        hash: false,
        stability: Stability::default(),
        fold: None,
        interrupt: Interrupt::default(),
    };
    let refused = |merging: &MergeJob| {
        let found = merge(merging, &Quiet).unwrap_err().to_string();
        assert!(!case.path("out.onnx").exists(), "{found}");
        found
    };
    let good = std::fs::read_to_string(&paths[1]).unwrap();
    let [one, two] = paths.each_ref().map(|path| path.display());
    for (from, to, what) in [
        ("\"model\":\"", "\"model\":\"0", "the model"),
        ("[\"y\",", "[\"z\",", "the layers"),
        (
            "\"convention\":\"onnx\"",
            "\"convention\":\"torch\"",
            "the convention or the momentum",
        ),
        (
            "\"batch_size\":4",
            "\"batch_size\":5",
            "the batch size or the number of batches",
        ),
        ("\"shuffle\":null", "\"shuffle\":7", "a seed"),
        (
            "\"assume_constant\":false",
            "\"assume_constant\":true",
            "an option",
        ),
        ("\"count\":2}", "\"count\":3}", "the number of shards"),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        std::fs::write(&paths[1], good.replacen(from, to, 1)).unwrap();
        assert_eq!(
            refused(&merging),
            format!("{two}: it is of another job than {one}: {what} differs")
        );
    }
    std::fs::write(&paths[1], &good).unwrap();
    merging.partials = vec![paths[1].clone()];
    assert_eq!(refused(&merging), "missing shards: 1/2");
    merging.partials = vec![paths[0].clone(), paths[1].clone(), paths[0].clone()];
    assert_eq!(
        refused(&merging),
        format!("shard 1/2 is there twice: {one} and {one}")
    );
    merging.partials = Vec::new();
    assert_eq!(refused(&merging), "no partial files to merge");
    // One that kept a layer, beside one that did not.
    let state = good.find("\"states\":[").unwrap();
    std::fs::write(&paths[1], format!("{}\"states\":[null]}}", &good[..state])).unwrap();
    merging.partials = paths.to_vec();
    assert_eq!(refused(&merging), format!("{two}: it is of other layers"));
    // And one of another model.
    std::fs::write(&paths[1], &good).unwrap();
    let other = fresh(Net::new("x", &[-1, 2]), "g", "b", "m", "v")
        .node("BatchNormalization", &["x", "g", "b", "m", "v"], "y")
        .output("y");
    std::fs::write(case.path("net.onnx"), other.bytes()).unwrap();
    let found = refused(&merging);
    let start = format!(
        "{}: it is not the model that the shards were made with",
        case.path("net.onnx").display()
    );
    assert!(found.starts_with(&start), "{found}");
}

#[test]
fn a_model_without_running_statistics_is_refused() {
    let net = Net::new("x", &[-1, 2])
        .constant("g", &[2], &[1.0; 2])
        .input("m", Some(&[2]))
        .node("BatchNormalization", &["x", "g", "g", "m", "g"], "y")
        .output("y");
    let case = Case::new(&net.bytes(), &[8, 2], &data(16));
    let found = text(&case.job(Method::Precise));
    assert!(
        found.contains("\"y\"") && found.contains("\"m\""),
        "{found}"
    );
}

#[test]
fn validation_counts_only_what_is_larger_than_its_error() {
    // Stored statistics that are exactly those of the data, and then with the first mean moved by half a deviation.
    let case = Case::new(&net(), &[64, 2], &data(128));
    recalibrate(&case.job(Method::Precise), &Quiet).unwrap();
    let mut job = ValidateJob::new(case.path("out.onnx"), case.path("x.npz"));
    job.data.batch_size = 4;
    let report = validate(&job, &Quiet).unwrap();
    assert!(report.valid && report.channels == 2);
    assert!(report.worst[0].kl < 1e-9);
    let original = validate(
        &ValidateJob {
            input: case.path("net.onnx"),
            ..job.clone()
        },
        &Quiet,
    )
    .unwrap();
    assert!(!original.valid && original.drifted_layers == 1);
    let worst = &original.worst[0];
    let (ours, theirs) = (worst.stored_variance + 1e-5, worst.observed_variance + 1e-5);
    let delta = worst.observed_mean - worst.stored_mean;
    let kl = 0.5 * ((ours + delta * delta) / theirs + (theirs + delta * delta) / ours) - 1.0;
    close(
        &[worst.kl, worst.mean_drift],
        &[kl, delta.abs() / ours.sqrt()],
        1e-6,
    );
    // With one batch nothing is known of the error, and nothing can be said.
    job.data.batch_size = 64;
    let found = validate(&job, &Quiet).unwrap_err().to_string();
    assert!(found.contains("--batch-size"), "{found}");
}
