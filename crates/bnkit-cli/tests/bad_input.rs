//! Bad input: exit code 2 (or 1 for bad statistics), one message that names the file and what is wrong in it, no output,
//! nothing left behind, nothing lost.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bnkit_model::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use prost::Message;
use tempfile::TempDir;

fn testdata(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(path)
}

fn fold(model: &Path, out: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bnkit"))
        .arg("fold")
        .arg(model)
        .arg("-o")
        .arg(out)
        .args(more)
        .output()
        .expect("bnkit runs")
}

/// Folds `model` (in a folder of its own) and checks that the job fails as it must: `code`, a message with each of
/// `words`, no output, no file that was not there before, and an existing output left as it was.
fn fails(folder: &TempDir, model: &Path, code: i32, words: &[&str]) {
    let listing = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let out = folder.path().join("out.onnx");
    let before = listing(folder.path());
    let done = fold(model, &out, &[]);
    let message = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(
        done.status.code(),
        Some(code),
        "{}: {message}",
        model.display()
    );
    let start = if code == 2 { "error: " } else { "failed: " };
    let lines: Vec<&str> = message
        .lines()
        .filter(|line| line.starts_with(start))
        .collect();
    assert_eq!(lines.len(), 1, "one message: {message}");
    assert!(!message.contains("panicked"), "{message}");
    for word in words {
        assert!(message.contains(word), "\"{word}\" in: {message}");
    }
    assert_eq!(
        listing(folder.path()),
        before,
        "nothing is left behind: {message}"
    );
    std::fs::write(&out, "precious").unwrap();
    let again = fold(model, &out, &["--force"]);
    assert_eq!(again.status.code(), Some(code));
    assert_eq!(
        std::fs::read(&out).unwrap(),
        b"precious",
        "an existing output stays"
    );
    std::fs::remove_file(&out).unwrap();
}

/// As [`fails`] with code 2, for a file of these bytes.
fn rejects(bytes: &[u8], words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, bytes).unwrap();
    fails(&folder, &model, 2, &[&["model.onnx"], words].concat());
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto::floats(name, dims, values.iter().copied())
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto::of(op, inputs.iter().copied(), [output]).named(format!("{output}_node"))
}

/// Conv (2 channels, 1×1) and BatchNorm, as one may break it.
fn graph() -> GraphProto {
    let port = |name: &str| ValueInfoProto::untyped(name);
    GraphProto {
        name: Some("g".to_owned()),
        input: vec![port("x")],
        output: vec![port("y")],
        node: vec![
            node("Conv", &["x", "w"], "c"),
            node("BatchNormalization", &["c", "s", "b", "m", "v"], "y"),
        ],
        initializer: [
            vec![tensor("w", &[2, 1, 1, 1], &[1.0, 2.0])],
            ["s", "b", "m", "v"]
                .map(|name| tensor(name, &[2], &[1.0, 1.0]))
                .to_vec(),
        ]
        .concat(),
        ..Default::default()
    }
}

fn encode(graph: GraphProto) -> Vec<u8> {
    ModelProto::of(graph, 17).encode_to_vec()
}

fn broken(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut graph = graph();
    change(&mut graph);
    encode(graph)
}

#[test]
fn the_graph_that_the_others_break_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, encode(graph())).unwrap();
    let done = fold(&model, &folder.path().join("out.onnx"), &[]);
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn files_that_are_no_models() {
    rejects(b"", &["empty"]);
    rejects(b"<html><body>404</body></html>\n", &["a web page"]);
    rejects(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01",
        &["not a readable ONNX model"],
    );
    rejects(b"PK\x03\x04\x14\0\0\0\0\0\0\0", &["a ZIP archive"]);
    // A claimed length of 2^60 bytes.
    rejects(
        &[0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10],
        &["not a readable ONNX model"],
    );
}

#[test]
fn paths_that_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    fails(
        &folder,
        &folder.path().join("absent.onnx"),
        2,
        &["absent.onnx"],
    );
    let inside = folder.path().join("folder.onnx");
    std::fs::create_dir(&inside).unwrap();
    fails(&folder, &inside, 2, &["folder.onnx", "not a regular file"]);
}

#[test]
fn a_file_cut_anywhere() {
    let whole = std::fs::read(testdata("models/tiny_resnet.onnx")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("cut.onnx");
    for part in 1..40 {
        std::fs::write(&model, &whole[..whole.len() * part / 40]).unwrap();
        let out = folder.path().join("out.onnx");
        let done = fold(&model, &out, &["--no-verify"]);
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{part}/40: {message}");
        assert!(
            message.contains("cut.onnx") && !message.contains("panicked"),
            "{message}"
        );
        assert!(!out.exists());
    }
}

#[test]
fn names_that_do_not_fit_together() {
    rejects(
        &broken(|graph| graph.node[0].input[0] = "nowhere".to_owned()),
        &["c_node", "\"nowhere\""],
    );
    rejects(
        &broken(|graph| graph.output[0].name = Some("nothing".to_owned())),
        &["\"nothing\""],
    );
    rejects(
        &broken(|graph| graph.node.push(node("Relu", &["x"], "c"))),
        &["\"c\"", "twice"],
    );
    rejects(
        &broken(|graph| graph.initializer.push(tensor("w", &[1], &[0.0]))),
        &["\"w\"", "twice"],
    );
    rejects(
        &broken(|graph| graph.node[0].input[0] = "y".to_owned()),
        &["cycle"],
    );
}

#[test]
fn names_that_a_terminal_would_obey() {
    // In an error: no line of its own, no sequence that is obeyed.
    rejects(
        &broken(|graph| {
            graph.node[0].input[0] = "\u{1b}[2J\nerror: all is well\u{202e}".to_owned()
        }),
        &[r#""\u{1b}[2J\nerror: all is well\u{202e}""#],
    );
    // In a result.
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    let named = broken(|graph| graph.node[1].name = Some("bn\u{1b}[2J\u{9b}1A\rx".to_owned()));
    std::fs::write(&model, named).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_bnkit"))
        .args(["inspect", "--color", "always"])
        .arg(&model)
        .output()
        .expect("bnkit runs");
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains(r"bn\u{1b}[2J\u{9b}1A\rx"), "{text}");
    assert!(text.contains("\u{1b}["), "our own styles stay: {text}");
}

#[test]
fn shapes_that_do_not_fit_together() {
    let short = |name: &str| {
        let name = name.to_owned();
        broken(move |graph| {
            let found = graph
                .initializer
                .iter_mut()
                .find(|tensor| tensor.name.as_deref() == Some(&name));
            *found.unwrap() = tensor(&name, &[1], &[1.0]);
        })
    };
    rejects(&short("m"), &["y_node", "expected 2 channels, found 1"]);
    rejects(&short("s"), &["y_node", "channels"]);
    // The parameters agree with each other, not with the Conv.
    let three = broken(|graph| {
        for at in 1..5 {
            let name = graph.initializer[at].name.clone().unwrap();
            graph.initializer[at] = tensor(&name, &[3], &[1.0; 3]);
        }
    });
    rejects(&three, &["channels"]);
    rejects(
        &broken(|graph| graph.initializer[0].dims = vec![2, 1, 1, 2]),
        &["\"w\"", "takes 16 bytes, found 8"],
    );
    rejects(
        &broken(|graph| graph.initializer[0].dims = vec![1 << 31, 1 << 31, 1 << 31]),
        &["\"w\"", "overflow"],
    );
    rejects(
        &broken(|graph| graph.initializer[0].dims = vec![-2]),
        &["\"w\"", "-2"],
    );
}

#[test]
fn external_data_that_is_not_there_or_not_inside() {
    let external = |location: &str, offset: &str| {
        broken(|graph| {
            let tensor = &mut graph.initializer[0];
            tensor.raw_data = None;
            tensor.data_location = Some(1);
            for (key, value) in [("location", location), ("offset", offset), ("length", "8")] {
                tensor
                    .external_data
                    .push(bnkit_model::proto::StringStringEntryProto {
                        key: Some(key.to_owned()),
                        value: Some(value.to_owned()),
                    });
            }
        })
    };
    rejects(&external("absent.bin", "0"), &["absent.bin", "\"w\""]);
    rejects(&external("../secret.bin", "0"), &["\"w\"", ".."]);
    rejects(&external("/etc/passwd", "0"), &["\"w\"", "/etc/passwd"]);
    rejects(&external("absent.bin", "many"), &["\"w\"", "many"]);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::write(folder.path().join("data.bin"), [0; 12]).unwrap();
    std::fs::write(&model, external("data.bin", "8")).unwrap();
    fails(&folder, &model, 2, &["data.bin", "\"w\""]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link.bin")).unwrap();
        std::fs::write(&model, external("link.bin", "0")).unwrap();
        fails(&folder, &model, 2, &["link.bin", "\"w\""]);
    }
}

#[test]
fn bodies_nested_too_deeply() {
    let mut inner = GraphProto {
        name: Some("leaf".to_owned()),
        ..Default::default()
    };
    for depth in 0..100 {
        let mut owner = node("If", &["x"], &format!("v{depth}"));
        owner.attribute.push(bnkit_model::proto::AttributeProto {
            name: Some("then_branch".to_owned()),
            r#type: Some(5),
            g: Some(inner),
            ..Default::default()
        });
        inner = GraphProto {
            name: Some("body".to_owned()),
            node: vec![owner],
            ..Default::default()
        };
    }
    inner.input.push(ValueInfoProto::untyped("x"));
    rejects(&encode(inner), &["deep"]);
}

#[test]
fn bad_statistics_are_an_answer() {
    for (name, tensor) in [
        ("bad_nan_gamma", "bn.weight"),
        ("bad_negative_variance", "bn.running_var"),
        ("bad_inf_mean", "bn.running_mean"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fails(
            &folder,
            &testdata(&format!("golden/{name}.onnx")),
            1,
            &[tensor, "channel"],
        );
    }
}

#[test]
fn malformed_golden_graphs_are_rejected() {
    let mut count = 0;
    for entry in std::fs::read_dir(testdata("golden")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("malformed_")
        {
            let folder = tempfile::tempdir().unwrap();
            fails(
                &folder,
                &path,
                2,
                &[&*path.file_name().unwrap().to_string_lossy()],
            );
            count += 1;
        }
    }
    assert!(count >= 8, "{count} malformed graphs");
}

#[test]
fn the_output_has_to_be_writable() {
    let model = testdata("models/tiny_resnet.onnx");
    let folder = tempfile::tempdir().unwrap();
    let done = fold(
        &model,
        &folder.path().join("no/such/folder/out.onnx"),
        &["--no-verify"],
    );
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("no/such/folder"));
    // The input itself, without --force.
    let copy = folder.path().join("model.onnx");
    std::fs::copy(&model, &copy).unwrap();
    assert_eq!(fold(&copy, &copy, &[]).status.code(), Some(2));
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        std::fs::read(&model).unwrap()
    );
}

/// Changed bytes: whatever comes of it, no panic, and code 0, 1 or 2.
#[test]
fn random_changes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        // xorshift64: any sequence will do, as long as it is always the same.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(testdata("golden"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "onnx")
    });
    files.sort();
    for _ in 0..3000 {
        let mut bytes = std::fs::read(&files[random(files.len())]).unwrap();
        if bytes.is_empty() {
            continue;
        }
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        if let Ok(model) = bnkit_model::onnx::Model::from_bytes(bytes) {
            let _ = bnkit::fold::plan(&model, &bnkit::fold::Options::default());
        }
    }
}
