//! The way back, on models small enough to check by hand.

mod damaged;

use std::path::PathBuf;

use bnkit_model::onnx::{Model, Precision};
use tempfile::TempDir;

use super::restore;
use crate::fold::{Options, plan};
use crate::verify::nets::Net;

struct Folded {
    folder: TempDir,
    model: Model,
}

/// Conv with two outputs and a BatchNorm whose first channel is dead.
fn net(weight: &[f64]) -> Net {
    Net::new("x", &[1, 2, 2, 2])
        .constant("w", &[2, 2, 3, 3], weight)
        .constant("g", &[2], &[0.0, 4.0])
        .constant("be", &[2], &[0.5, 0.25])
        .constant("m", &[2], &[0.125, 1.0])
        .constant("v", &[2], &[3.0, 2.0])
        .node("Conv", &["x", "w"], "c")
        .with(crate::verify::nets::attribute(
            "pads",
            bnkit_model::onnx::AttributeValue::Ints(vec![1; 4]),
        ))
        .node("BatchNormalization", &["c", "g", "be", "m", "v"], "y")
        .output("y")
}

fn weight() -> Vec<f64> {
    (0..36).map(|index| f64::from(index) * 0.37 - 5.0).collect()
}

impl Folded {
    fn new(net: Net) -> Self {
        let original = net.model();
        let plan = plan(&original, &Options::default()).unwrap();
        assert_eq!(plan.summary.folded, 1);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("stats"),
            plan.kept_stats(&original).unwrap(),
        )
        .unwrap();
        let bytes = plan.apply().to_bytes(Precision::Stored).unwrap();
        let model = Model::from_bytes(bytes).unwrap();
        Self { folder, model }
    }

    fn stats(&self) -> PathBuf {
        self.folder.path().join("stats")
    }

    fn error(&self, model: &Model) -> String {
        restore(model, &self.stats()).unwrap_err().to_string()
    }
}

fn values(model: &Model, name: &str) -> Vec<f64> {
    let main = model.scope(model.main());
    let mut named = main.initializers.iter().map(|&id| model.value(id));
    let value = named.find(|value| value.name == name).unwrap();
    model.read_f64(value.tensor.as_ref().unwrap()).unwrap()
}

#[test]
fn a_dead_channel_comes_back() {
    let weight: Vec<f64> = weight().iter().map(|&w| f64::from(w as f32)).collect();
    let folded = Folded::new(net(&weight));
    assert_eq!(values(&folded.model, "w")[..18], [0.0; 18]);
    let (unfolded, norms) = restore(&folded.model, &folded.stats()).unwrap();
    assert_eq!(norms.len(), 1);
    assert_eq!(norms[0].from, ["c"]);
    let unfolded = Model::from_bytes(unfolded.to_bytes(Precision::Stored).unwrap()).unwrap();
    let back = values(&unfolded, "w");
    assert_eq!(back[..18], weight[..18]);
    for (back, was) in back.iter().zip(&weight) {
        assert!((back - was).abs() <= 2.0 * f64::from(f32::EPSILON) * was.abs());
    }
    assert_eq!(values(&unfolded, "m"), [0.125, 1.0]);
    assert_eq!(values(&unfolded, "g"), [0.0, 4.0]);
    // No bias is left, and the wiring is the original's.
    let nodes: Vec<_> = unfolded
        .nodes()
        .map(|(_, node)| {
            let name = |value: &Option<_>| unfolded.value(value.unwrap()).name.to_string();
            let inputs: Vec<String> = node.inputs.iter().map(name).collect();
            (
                node.op_type.as_str(),
                inputs.join(" "),
                name(&node.outputs[0]),
            )
        })
        .collect();
    assert_eq!(
        nodes,
        [
            ("Conv", "x w".to_owned(), "c".to_owned()),
            (
                "BatchNormalization",
                "c g be m v".to_owned(),
                "y".to_owned()
            )
        ]
    );
}

#[test]
fn the_file_holds_factors_and_not_weights() {
    // 64 KiB of weights, one dead channel of two.
    let many: Vec<f64> = (0..16384).map(|index| f64::from(index) + 0.5).collect();
    let net = Net::new("x", &[1, 2048, 1, 1])
        .constant("w", &[8, 2048, 1, 1], &many)
        .constant("g", &[8], &[1.5; 8])
        .constant("z", &[8], &[0.25; 8])
        .constant("v", &[8], &[2.0; 8])
        .node("Conv", &["x", "w"], "c")
        .node("BatchNormalization", &["c", "g", "z", "z", "v"], "y")
        .output("y");
    let folded = Folded::new(net);
    let size = std::fs::metadata(folded.stats()).unwrap().len();
    assert!(size < 4096, "{size}");
    assert!(restore(&folded.model, &folded.stats()).is_ok());
}

#[test]
fn another_weight_is_an_error_that_names_it() {
    let folded = Folded::new(net(&weight()));
    let mut other = weight();
    other[20] = 1.0;
    let other = Folded::new(net(&other));
    let error = folded.error(&other.model);
    assert!(error.contains("node \"c\" (Conv)"), "{error}");
    assert!(error.contains("tensor \"w\""), "{error}");
}

#[test]
fn a_missing_node_is_an_error_that_names_it() {
    let folded = Folded::new(net(&weight()));
    let other = Net::new("x", &[1, 2, 2, 2])
        .node("Relu", &["x"], "y")
        .output("y");
    let error = folded.error(&other.model());
    assert!(error.contains("node \"c\" (Conv)"), "{error}");
    // The model as it was before the fold is not the folded one either.
    let error = folded.error(&net(&weight()).model());
    assert!(error.contains("node \"c\" (Conv)"), "{error}");
}

#[test]
fn other_files_are_refused() {
    let folded = Folded::new(net(&weight()));
    std::fs::write(folded.stats(), b"no safetensors").unwrap();
    let error = folded.error(&folded.model);
    assert!(error.contains("--keep-stats"), "{error}");
    let views: Vec<(String, safetensors::tensor::TensorView<'_>)> = Vec::new();
    let metadata = [(
        "bnkit.unfold".to_owned(),
        r#"{"schema":"bnkit.unfold/2"}"#.to_owned(),
    )];
    let bytes = safetensors::serialize(views, Some(metadata.into())).unwrap();
    std::fs::write(folded.stats(), bytes).unwrap();
    let error = folded.error(&folded.model);
    assert!(error.contains("found bnkit.unfold/2"), "{error}");
}
