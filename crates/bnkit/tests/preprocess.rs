//! Preprocessed images against Pillow's and torchvision's (`testdata/generate_images.py`).
//!
//! Sizes, crops, colours and the 8-bit values after a resize must be the very same; what follows is computed here in f64 and rounded
//! once, there in f32 step by step. A difference of one 8-bit step would be at least 1/255/σ; accepted are 4 roundings of f32 at the
//! largest value of the case.

use std::path::{Path, PathBuf};

use bnkit::data;
use bnkit::data::images::Images;
use bnkit::data::preprocess::Preprocess;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    image: String,
    steps: serde_json::Value,
    dims: [usize; 3],
    /// Only every so manyth row and column is in the golden.
    step: usize,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/images")
}

#[test]
fn images_are_those_of_pillow_and_torchvision() {
    let cases = std::fs::read(folder().join("cases.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    let golden = data::load(&folder().join("golden.npz")).unwrap();
    assert_eq!(cases.len(), golden.tensors.len());
    assert!(cases.len() > 40);
    for (number, case) in cases.iter().enumerate() {
        let place = format!("{number}: {} {}", case.image, case.steps);
        let preprocess: Preprocess = serde_json::from_value(case.steps.clone()).unwrap();
        let images = Images {
            files: vec![folder().join(format!("{}.png", case.image))],
            preprocess,
        };
        let (dims, values) = images.read(0).unwrap();
        assert_eq!(dims, case.dims, "{place}");
        let nhwc = dims[2] <= 3;
        let kept = |at: usize| {
            let index = [at / dims[2] / dims[1], at / dims[2] % dims[1], at % dims[2]];
            let [row, column] = if nhwc { [0, 1] } else { [1, 2] };
            index[row].is_multiple_of(case.step) && index[column].is_multiple_of(case.step)
        };
        let found = (0..values.len())
            .filter(|&at| kept(at))
            .map(|at| f64::from(values[at]));
        let named = golden
            .tensors
            .iter()
            .find(|named| named.name == format!("{number:02}"));
        let expected = named.unwrap().tensor.to_f64().unwrap();
        let range = expected
            .iter()
            .fold(1f64, |largest, x| largest.max(x.abs()));
        let accepted = 4.0 * range * f64::from(f32::EPSILON);
        assert_eq!(found.clone().count(), expected.len(), "{place}");
        for (at, (found, expected)) in found.zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() <= accepted,
                "{place}: value {at} is {found}, expected {expected}"
            );
        }
    }
}
