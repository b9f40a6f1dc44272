//! Looking at state dicts: `inspect`, `stats` and `diff`, as a user runs them. Files are made here, byte by byte, so that every
//! expected number can be derived by hand.

mod common;

use std::fs;
use std::path::Path;

use common::{bnkit, folder_with};
use serde_json::{Value, json};

/// Tensors of a safetensors file: name, type, shape, bytes.
type Tensors<'a> = [(&'a str, &'a str, &'a [usize], Vec<u8>)];

/// A safetensors file as its specification says: the length of the header, the header, the data without holes.
fn write(path: &Path, metadata: Option<&Value>, tensors: &Tensors<'_>) {
    let mut header = serde_json::Map::new();
    if let Some(metadata) = metadata {
        header.insert("__metadata__".to_owned(), metadata.clone());
    }
    let mut data: Vec<u8> = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    fs::write(path, file).unwrap();
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn batches(count: i64) -> Vec<u8> {
    count.to_le_bytes().to_vec()
}

/// Two BatchNorms, the second one broken, and a half one; an opaque tensor; a layer.
fn checkpoint(folder: &Path) {
    write(
        &folder.join("net.safetensors"),
        Some(&json!({"format": "pt"})),
        &[
            (
                "conv.weight",
                "F32",
                &[2, 1, 1, 2],
                f32s(&[1.0, -2.0, 0.0, 3.0]),
            ),
            ("bn.running_mean", "F32", &[2], f32s(&[0.5, 1.5])),
            ("bn.running_var", "F32", &[2], f32s(&[4.0, 9.0])),
            ("bn.weight", "F32", &[2], f32s(&[1.0, 2.0])),
            ("bn.bias", "F32", &[2], f32s(&[-1.0, 1.0])),
            ("bn.num_batches_tracked", "I64", &[], batches(660)),
            ("bad.running_mean", "F32", &[2], f32s(&[f32::NAN, 1.0])),
            ("bad.running_var", "F32", &[2], f32s(&[1.0, -1.0])),
            ("half.running_mean", "F32", &[1], f32s(&[0.0])),
            ("scales", "F8_E4M3", &[3], vec![1, 2, 3]),
        ],
    );
}

fn in_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(folder.path());
    folder
}

#[test]
fn a_state_dict_is_known_by_its_content() {
    let folder = in_folder();
    fs::rename(
        folder.path().join("net.safetensors"),
        folder.path().join("net.onnx"),
    )
    .unwrap();
    let run = bnkit(folder.path(), &["inspect", "net.onnx", "--format", "json"]);
    let report = run.is_done().json();
    assert_eq!(report["schema"], "bnkit.inspect-state/1");
    assert_eq!(report["format"], "safetensors");
    assert_eq!(
        (&report["tensors"], &report["parameters"]),
        (&json!(10), &json!(21))
    );
    // 17 floats of 4 bytes, one integer of 8, three bytes.
    assert_eq!(report["parameter_bytes"], 17 * 4 + 8 + 3);
    assert_eq!(report["files"][0]["metadata"], json!([["format", "pt"]]));
    let bn = &report["batch_norms"][0];
    assert_eq!((&bn["module"], &bn["batches"]), (&json!("bn"), &json!(660)));
    let variance = &bn["tensors"][1];
    assert_eq!(
        (
            &variance["role"],
            &variance["min"],
            &variance["max"],
            &variance["mean"]
        ),
        (&json!("variance"), &json!(4.0), &json!(9.0), &json!(6.5))
    );
    let problems: Vec<(&str, &str)> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                it["code"].as_str().unwrap(),
                it["message"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].0 == "incomplete-group" && problems[0].1.contains("half.running_var"));
    assert!(
        problems[1]
            .1
            .contains("\"bad.running_mean\": mean is NaN in channel 0")
    );
    assert!(
        problems[2]
            .1
            .contains("\"bad.running_var\": variance is -1 in channel 1")
    );
}

#[test]
fn the_page_of_a_state_dict() {
    let folder = in_folder();
    let text = bnkit(folder.path(), &["inspect", "net.safetensors"]);
    for part in [
        "10 tensors, 21 parameters (79 B)\n  format: pt\n",
        "F8_E4M3        1           3  3 B\n",
        "2 BatchNorms, 4 channels\n",
        "  bn                2  0.5 … 1.5  4 … 9     1 … 2  -1 … 1  660\n",
        "\nProblems\n",
    ] {
        assert!(
            text.is_done().stdout.contains(part),
            "{part}: {}",
            text.stdout
        );
    }
    let args = ["inspect", "net.safetensors", "--batch-norms"];
    let text = bnkit(folder.path(), &args);
    assert!(
        text.is_done()
            .stdout
            .starts_with("2 BatchNorms, 4 channels\n")
    );
    let args = ["inspect", "net.safetensors", "--report", "r.md"];
    bnkit(folder.path(), &args).is_done();
    let page = fs::read_to_string(folder.path().join("r.md")).unwrap();
    for heading in [
        "# net.safetensors\n",
        "## Types\n",
        "## BatchNorms\n",
        "## Problems\n",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
}

#[test]
fn modules_are_a_tree_of_names() {
    let folder = in_folder();
    let args = ["inspect", "net.safetensors", "--tree"];
    let text = &bnkit(folder.path(), &args).is_done().stdout.clone();
    assert!(
        text.starts_with("net.safetensors  10 tensors, 21 parameters, 79 B\n"),
        "{text}"
    );
    assert!(text.contains("\n  conv  weight  F32 [2×1×1×2]\n"), "{text}");
    assert!(
        text.contains("\n  bn  5 tensors, 9 parameters, 40 B\n"),
        "{text}"
    );
}

#[test]
fn one_tensor_and_its_histogram() {
    let folder = in_folder();
    let tensor = |name: &str| {
        let args = [
            "inspect",
            "net.safetensors",
            "--tensor",
            name,
            "--format",
            "json",
        ];
        bnkit(folder.path(), &args)
    };
    let report = tensor("conv.weight").is_done().json();
    let values = &report["values"];
    // 1, −2, 0, 3: the mean is 1/2, the variance (1/4 + 25/4 + 1/4 + 25/4)/4 = 13/4.
    assert_eq!(
        (&values["mean"], &values["zeros"]),
        (&json!(0.5), &json!(1))
    );
    assert!((values["std"].as_f64().unwrap() - 3.25f64.sqrt()).abs() < 1e-15);
    // 16 bins of 5/16 from −2 on: 0 is at 6.4, 1 at 9.6.
    let mut counts = [0; 16];
    (counts[0], counts[6], counts[9], counts[15]) = (1, 1, 1, 1);
    assert_eq!(values["histogram"]["counts"], json!(counts));
    assert_eq!(report.get("readers"), None);
    let place = report["place"].as_str().unwrap();
    assert!(place.starts_with("in net.safetensors at byte "), "{place}");
    assert_eq!(tensor("scales").is_done().json()["values"], Value::Null);
    tensor("conv.wieght").is_error(&["net.safetensors", "\"conv.wieght\"", "\"conv.weight\""]);
}

#[test]
fn a_scan_reads_everything() {
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<f32> = (0..400).map(|at| at as f32).collect();
    let mut other = large.clone();
    other[399] = f32::INFINITY;
    write(
        &folder.path().join("net.safetensors"),
        None,
        &[
            ("a", "F32", &[400], f32s(&large)),
            ("b", "F32", &[20, 20], f32s(&large)),
            ("c", "F32", &[400], f32s(&other)),
            ("small", "F32", &[1], f32s(&[0.0])),
            ("small too", "F32", &[1], f32s(&[0.0])),
            ("none", "F32", &[0], Vec::new()),
            ("opaque", "F8_E5M2", &[2], vec![0, 1]),
        ],
    );
    let args = ["inspect", "net.safetensors", "--scan"];
    let report = bnkit(folder.path(), &[&args[..], &["--format", "json"]].concat());
    let report = report.is_done().json();
    assert_eq!(report["schema"], "bnkit.scan/1");
    assert_eq!(report["not_finite"], 1);
    assert_eq!(report["tensors"][2]["ends"]["infinite"], 1);
    assert_eq!(report["tensors"][0]["ends"]["max"], 399.0);
    assert_eq!(report["tensors"][6]["ends"], Value::Null);
    let equal = report["equal"].as_array().unwrap();
    assert_eq!(equal.len(), 1);
    assert_eq!(equal[0]["names"], json!(["a", "b"]));
    assert_eq!(
        (&equal[0]["bytes"], &equal[0]["copies"]),
        (&json!(1600), &json!(2))
    );
    let text = bnkit(folder.path(), &args).stdout;
    assert!(
        text.contains("\n1 of 7 tensors with NaN or Inf\n"),
        "{text}"
    );
    assert!(
        text.contains("1 group of equal tensors: 1.6 kB are stored more than once\n"),
        "{text}"
    );
}

#[test]
fn a_scan_of_a_graph() {
    let folder = folder_with("tiny_resnet.onnx");
    let args = ["inspect", "net.onnx", "--scan", "--format", "json"];
    let report = bnkit(folder.path(), &args).is_done().json();
    assert_eq!(report["not_finite"], 0);
    let tensors = report["tensors"].as_array().unwrap();
    let conv = tensors
        .iter()
        .find(|it| it["name"] == "conv1.weight")
        .unwrap();
    assert_eq!(
        (&conv["bytes"], &conv["dims"]),
        (&json!(864), &json!([8, 3, 3, 3]))
    );
}

#[test]
fn statistics_of_a_state_dict() {
    let folder = in_folder();
    for output in ["s.csv", "s.npz", "s.safetensors"] {
        let args = ["stats", "net.safetensors", "--only", "bn", "-o", output];
        bnkit(folder.path(), &args).is_done();
    }
    assert_eq!(
        fs::read_to_string(folder.path().join("s.csv")).unwrap(),
        "node,scope,channel,mean,variance,epsilon\n\"bn\",\"\",0,0.5,4,\n\"bn\",\"\",1,1.5,9,\n"
    );
    // What was written is a state dict, too.
    let args = [
        "diff",
        "net.safetensors",
        "s.safetensors",
        "--format",
        "json",
    ];
    let summary = &bnkit(folder.path(), &args).is_done().json()["summary"];
    assert_eq!(
        (&summary["unchanged"], &summary["removed"]),
        (&json!(2), &json!(8))
    );
    let args = ["stats", "net.safetensors", "--format", "json"];
    let report = bnkit(folder.path(), &args).is_done().json();
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    assert_eq!(layers[0]["mean"], json!([0.5, 1.5]));
    assert_eq!(
        (&layers[0]["epsilon"], &layers[0]["momentum"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(layers[2]["refusal"]["code"], "incomplete-group");
    let text = bnkit(folder.path(), &["stats", "net.safetensors"]).stdout;
    assert!(
        text.contains("epsilon and momentum are not in the file"),
        "{text}"
    );
}

#[test]
fn what_changed_between_two_state_dicts() {
    let folder = in_folder();
    write(
        &folder.path().join("new.safetensors"),
        None,
        &[
            (
                "conv.weight",
                "F32",
                &[2, 1, 1, 2],
                f32s(&[1.0, -2.0, -0.0, 3.0]),
            ),
            ("bn.running_mean", "F32", &[2], f32s(&[3.5, 1.5])),
            ("bn.running_var", "F32", &[2], f32s(&[9.0, 9.0])),
            ("bn.weight", "F32", &[2], f32s(&[1.0, 2.0])),
            (
                "bn.bias",
                "F64",
                &[2],
                [-1.0f64, 2.0]
                    .iter()
                    .flat_map(|it| it.to_le_bytes())
                    .collect(),
            ),
            ("bn.num_batches_tracked", "I64", &[1], batches(660)),
            ("bad.running_mean", "F32", &[2], f32s(&[f32::NAN, 1.0])),
            ("bad.running_var", "F32", &[2], f32s(&[1.0, -1.0])),
            ("half.running_mean", "F32", &[2], f32s(&[0.0, 0.0])),
            ("scales", "F8_E4M3", &[3], vec![1, 2, 4]),
            ("new", "F32", &[1], f32s(&[0.0])),
        ],
    );
    let args = ["diff", "net.safetensors", "new.safetensors", "--eps", "0"];
    let report = bnkit(folder.path(), &[&args[..], &["--format", "json"]].concat());
    let report = report.is_done().json();
    assert_eq!(report["schema"], "bnkit.diff/1");
    let summary = &report["summary"];
    assert_eq!(
        [
            &summary["added"],
            &summary["removed"],
            &summary["changed"],
            &summary["unchanged"]
        ],
        [1, 0, 7, 3]
    );
    let of = |name: &str| {
        let changed = report["changed"].as_array().unwrap();
        changed
            .iter()
            .find(|it| it["name"] == name)
            .unwrap()
            .clone()
    };
    // A zero with another sign: one element, by nothing.
    let weight = of("conv.weight");
    assert_eq!(
        (
            &weight["elements"]["changed"],
            &weight["elements"]["max_abs"]
        ),
        (&json!(1), &json!(0.0))
    );
    // (0.5, 1.5) → (3.5, 1.5): 3, 3/1.5, 3/√(0.25 + 2.25).
    let mean = &of("bn.running_mean")["elements"];
    assert_eq!(
        (&mean["max_abs"], &mean["max_rel"]),
        (&json!(3.0), &json!(2.0))
    );
    assert!((mean["l2_rel"].as_f64().unwrap() - 3.0 / 2.5f64.sqrt()).abs() < 1e-15);
    let shape = of("half.running_mean");
    assert_eq!(
        (&shape["shape_changed"], &shape["elements"]),
        (&json!(true), &Value::Null)
    );
    let dtype = of("bn.bias");
    assert_eq!(
        (&dtype["dtype_changed"], &dtype["elements"]["changed"]),
        (&json!(true), &json!(1))
    );
    let batches = of("bn.num_batches_tracked");
    assert_eq!(
        (&batches["shape_changed"], &batches["elements"]["changed"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(of("scales")["elements"], Value::Null);
    // bn: Δ = 3, 4 → 9: 3/2, ln(9/4), ½[(4 + 9)/9 + (9 + 9)/4] − 1; the other channel and the other BatchNorms stay.
    let layers = report["batch_norms"].as_array().unwrap();
    assert_eq!(
        (layers.len(), &layers[0]["changed_channels"]),
        (1, &json!(1))
    );
    assert_eq!(layers[0]["epsilon_from"], "given");
    assert_eq!(layers[0]["mean_shift"]["max"], 1.5);
    let close = |value: &Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-12;
    assert!(close(&layers[0]["log_variance_ratio"]["max"], 2.25f64.ln()));
    assert!(close(
        &layers[0]["kl"]["max"],
        0.5 * (13.0 / 9.0 + 4.5) - 1.0
    ));
    let text = bnkit(folder.path(), &args);
    for part in [
        "7 of 10 common tensors changed, 1 added\n",
        "\nOther type or shape\n",
        "\nOnly in the second\n",
        "Statistics of 1 of 2 BatchNorms changed\n",
        "ε: 0, as given\n",
    ] {
        assert!(
            text.is_done().stdout.contains(part),
            "{part}: {}",
            text.stdout
        );
    }
    bnkit(
        folder.path(),
        &[&args[..], &["--report", "d.md", "--report", "d.yaml"]].concat(),
    )
    .is_done();
    let page = fs::read_to_string(folder.path().join("d.md")).unwrap();
    assert!(
        page.contains("## Changed tensors\n") && page.contains("## BatchNorms\n"),
        "{page}"
    );
}

#[test]
fn a_folded_model_has_lost_its_batch_norms() {
    let folder = folder_with("tiny_resnet.onnx");
    bnkit(
        folder.path(),
        &["fold", "net.onnx", "-o", "folded.onnx", "--no-verify"],
    )
    .is_done();
    let args = ["diff", "net.onnx", "folded.onnx", "--format", "json"];
    let report = bnkit(folder.path(), &args).is_done().json();
    let before = bnkit(folder.path(), &["inspect", "net.onnx", "--format", "json"]).json();
    let norms = before["batch_norms"].as_array().unwrap().len();
    assert!(norms > 0);
    assert_eq!(report["summary"]["batch_norms_removed"], norms);
    assert_eq!(
        report["batch_norms_removed"].as_array().unwrap().len(),
        norms
    );
    let same = bnkit(
        folder.path(),
        &["diff", "net.onnx", "net.onnx", "--format", "json"],
    )
    .json();
    assert_eq!(
        (&same["summary"]["changed"], &same["summary"]["added"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(same["summary"]["batch_norms_unchanged"], norms);
}

#[test]
fn names_have_no_power_over_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "\u{1b}[2Jevil.running_mean",
        "\u{1b}[2Jevil.running_var",
        "line\nbreak.weight",
        "\u{9b}31mred",
    ];
    let tensors: Vec<(&str, &str, &[usize], Vec<u8>)> = names
        .iter()
        .map(|name| (*name, "F32", &[1][..], f32s(&[1.0])))
        .collect();
    let path = folder.path().join("net.safetensors");
    write(&path, Some(&json!({"\u{1b}]0;key": "\u{7}"})), &tensors);
    write(&folder.path().join("b.safetensors"), None, &[]);
    let name = names[0];
    for args in [
        &["inspect", "net.safetensors"][..],
        &["inspect", "net.safetensors", "--tree"],
        &["inspect", "net.safetensors", "--scan", "--verbose"],
        &["inspect", "net.safetensors", "--tensor", name],
        &["inspect", "net.safetensors", "--tensor", "evil"],
        &["inspect", "net.safetensors", "--format", "json"],
        &["inspect", "net.safetensors", "--format", "yaml"],
        &["stats", "net.safetensors"],
        &["diff", "net.safetensors", "b.safetensors"],
        &[
            "diff",
            "net.safetensors",
            "b.safetensors",
            "--format",
            "json",
        ],
    ] {
        for color in ["never", "always"] {
            let run = bnkit(folder.path(), &[args, &["--color", color]].concat());
            let shown = run.stdout + &run.stderr;
            let ours = shown.replace("\u{1b}[0m", "").replace("\u{1b}[1m", "");
            let ours = ours.replace("\u{1b}[2m", "").replace("\u{1b}[31m", "");
            let ours = ours.replace("\u{1b}[32m", "");
            let power = |letter: char| letter.is_control() && letter != '\n';
            assert!(!ours.contains(power), "{args:?}: {ours:?}");
            assert!(!ours.contains("line\nbreak"), "{args:?}: {ours:?}");
        }
    }
}

#[test]
fn a_sharded_checkpoint_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write(
        &path("a.safetensors"),
        None,
        &[("bn.running_mean", "F32", &[1], f32s(&[1.0]))],
    );
    write(
        &path("b.safetensors"),
        None,
        &[("bn.running_var", "F32", &[1], f32s(&[2.0]))],
    );
    let index = json!({
        "metadata": {"total_size": 8},
        "weight_map": {"bn.running_mean": "a.safetensors", "bn.running_var": "b.safetensors"},
    });
    fs::write(path("net.json"), index.to_string()).unwrap();
    let args = ["inspect", "net.json", "--format", "json"];
    let report = bnkit(folder.path(), &args).is_done().json();
    assert_eq!(report["format"], "safetensors-index");
    assert_eq!(report["metadata"], json!([["total_size", "8"]]));
    assert_eq!(report["files"].as_array().unwrap().len(), 2);
    assert_eq!(report["batch_norms"][0]["channels"], 1);
    let text = bnkit(folder.path(), &["inspect", "net.json"]).stdout;
    assert!(
        text.contains("safetensors in 2 files") && text.contains("\nFiles\n"),
        "{text}"
    );
    write(
        &path("one.safetensors"),
        None,
        &[
            ("bn.running_var", "F32", &[1], f32s(&[2.0])),
            ("bn.running_mean", "F32", &[1], f32s(&[1.0])),
        ],
    );
    let args = ["diff", "net.json", "one.safetensors"];
    let text = &bnkit(folder.path(), &args).is_done().stdout.clone();
    assert!(text.contains("All 2 common tensors the same\n"), "{text}");
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let folder = folder_with("tiny_resnet.onnx");
    fs::write(folder.path().join("torch.pt"), b"PK\x03\x04....").unwrap();
    for args in [
        &["inspect", "torch.pt"][..],
        &["stats", "torch.pt"],
        &["diff", "net.onnx", "torch.pt"],
        &["diff", "torch.pt", "net.onnx"],
    ] {
        bnkit(folder.path(), args).is_error(&["torch.pt", "torch.save"]);
    }
    bnkit(folder.path(), &["diff", "net.onnx", "no.safetensors"]).is_error(&["no.safetensors"]);
}
