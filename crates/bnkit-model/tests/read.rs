//! The elements of tensors, from wherever they are.

mod common;

use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{Magnitude, Model, Payload, Recipe, Scale, TensorDef};
use bnkit_model::proto::*;
use common::*;
use prost::Message;

/// A model that is nothing but constants.
fn constants(tensors: Vec<TensorProto>) -> ModelProto {
    model(GraphProto {
        initializer: tensors,
        ..Default::default()
    })
}

fn defs(model: &Model) -> Vec<&TensorDef> {
    let ids = &model.scope(model.main()).initializers;
    ids.iter()
        .map(|&id| model.value(id).tensor.as_deref().unwrap())
        .collect()
}

fn typed(dtype: i32, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: Some("t".to_owned()),
        data_type: Some(dtype),
        dims: dims.to_vec(),
        ..Default::default()
    }
}

fn read(tensor: TensorProto) -> bnkit_model::Result<Vec<f64>> {
    let model = open(&constants(vec![tensor]))?;
    let def = defs(&model)[0];
    let values = model.read_f64(def)?;
    assert_eq!(model.read_tensor(def)?.to_f64()?, values);
    Ok(values)
}

#[test]
fn typed_fields_of_every_type_are_read() {
    let same = |tensor: TensorProto, expected: &[f64]| assert_eq!(read(tensor).unwrap(), expected);
    same(
        TensorProto {
            float_data: vec![1.5, -2.0],
            ..typed(1, &[2])
        },
        &[1.5, -2.0],
    );
    same(
        TensorProto {
            double_data: vec![0.1],
            ..typed(11, &[])
        },
        &[0.1],
    );
    same(
        TensorProto {
            int32_data: vec![255, 0],
            ..typed(2, &[2])
        },
        &[255.0, 0.0],
    );
    same(
        TensorProto {
            int32_data: vec![-128, 127],
            ..typed(3, &[2])
        },
        &[-128.0, 127.0],
    );
    same(
        TensorProto {
            int32_data: vec![65535],
            ..typed(4, &[1])
        },
        &[65535.0],
    );
    same(
        TensorProto {
            int32_data: vec![-32768],
            ..typed(5, &[1])
        },
        &[-32768.0],
    );
    same(
        TensorProto {
            int32_data: vec![i32::MIN, 7],
            ..typed(6, &[2])
        },
        &[f64::from(i32::MIN), 7.0],
    );
    same(
        TensorProto {
            int64_data: vec![-1, 1 << 40],
            ..typed(7, &[2])
        },
        &[-1.0, (1u64 << 40) as f64],
    );
    same(
        TensorProto {
            int32_data: vec![1, 0],
            ..typed(9, &[2])
        },
        &[1.0, 0.0],
    );
    same(
        TensorProto {
            int32_data: vec![0x3c00, 0xc000],
            ..typed(10, &[2])
        },
        &[1.0, -2.0],
    );
    same(
        TensorProto {
            uint64_data: vec![u64::from(u32::MAX)],
            ..typed(12, &[1])
        },
        &[f64::from(u32::MAX)],
    );
    same(
        TensorProto {
            uint64_data: vec![1 << 50],
            ..typed(13, &[1])
        },
        &[(1u64 << 50) as f64],
    );
    same(
        TensorProto {
            int32_data: vec![0x3f80],
            ..typed(16, &[1])
        },
        &[1.0],
    );
    same(typed(1, &[0, 3]), &[]);
}

#[test]
fn unpacked_and_split_fields_are_read() {
    let mut bytes = typed(1, &[3]).encode_to_vec();
    for value in [1.0f32, 2.0] {
        bytes.push(4 << 3 | 5);
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bnkit_model::wire::put_bytes_field(&mut bytes, 4, &3.0f32.to_le_bytes());
    let mut ints = typed(7, &[2]).encode_to_vec();
    bnkit_model::wire::put_varint_field(&mut ints, 7, 5);
    bnkit_model::wire::put_varint_field(&mut ints, 7, u64::MAX);
    let mut graph = Vec::new();
    bnkit_model::wire::put_bytes_field(&mut graph, 5, &bytes);
    bnkit_model::wire::put_bytes_field(&mut ints, 8, b"u");
    bnkit_model::wire::put_bytes_field(&mut graph, 5, &ints);
    let mut file = Vec::new();
    bnkit_model::wire::put_bytes_field(&mut file, 7, &graph);
    let model = Model::from_bytes(file).unwrap();
    assert_eq!(model.read_f64(defs(&model)[0]).unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(model.read_f64(defs(&model)[1]).unwrap(), [5.0, -1.0]);
}

#[test]
fn a_wrong_number_of_elements_names_the_tensor() {
    let message = read(TensorProto {
        float_data: vec![1.0, 2.0],
        ..typed(1, &[3])
    })
    .unwrap_err()
    .to_string();
    assert_eq!(
        message,
        "tensor \"t\": a float32 tensor of shape [3] takes 12 bytes, found 8"
    );
    let strings = TensorProto {
        string_data: vec![b"".as_slice().into()],
        ..typed(8, &[1])
    };
    assert!(
        read(strings)
            .unwrap_err()
            .to_string()
            .contains("expected numbers, found string")
    );
}

#[test]
fn tensors_in_typed_fields_are_the_same_only_where_they_are() {
    let tensor = |name: &str, value: f32| TensorProto {
        name: Some(name.to_owned()),
        float_data: vec![value],
        ..typed(1, &[1])
    };
    let model = open(&constants(vec![tensor("a", 1.0), tensor("b", 2.0)])).unwrap();
    let [one, other] = defs(&model)[..] else {
        panic!("two constants");
    };
    assert!(one.is_same(&one.clone()));
    assert!(!one.is_same(other));
}

#[test]
fn four_bit_elements_keep_their_bytes() {
    let model = open(&constants(vec![TensorProto {
        int32_data: vec![0x21, 0x03],
        ..typed(22, &[3])
    }]))
    .unwrap();
    let def = defs(&model)[0];
    assert_eq!(
        model.read_tensor(def).unwrap().data().as_ref(),
        [0x21, 0x03]
    );
    assert!(model.read_f64(def).is_err());
}

/// A weight of shape (8, 5000, 3), larger than a chunk, with values that differ.
fn weight() -> (Model, Vec<f32>) {
    let values: Vec<f32> = (0..8 * 5000 * 3)
        .map(|index| ((index * 7919) % 1009) as f32 / 331.0 - 1.5)
        .collect();
    let model = open(&constants(vec![tensor("w", &[8, 5000, 3], &values)])).unwrap();
    (model, values)
}

fn scaled(model: &Model, dtype: DType, scales: Vec<Scale>) -> TensorDef {
    let base = defs(model)[0];
    let recipe = Recipe::of(&Arc::new(base.clone())).times(scales);
    TensorDef::computed(dtype, base.dims.clone(), Arc::new(recipe))
}

fn factors(count: usize) -> Arc<[f64]> {
    (0..count).map(|index| 1.0 / (index as f64 + 0.7)).collect()
}

#[test]
fn recipes_are_evaluated_in_f64_and_rounded_once() {
    let (model, values) = weight();
    let by_axis: [(usize, usize); 3] = [(15000, 8), (3, 5000), (1, 3)];
    for (inner, count) in by_axis {
        let scale = Scale {
            inner,
            factors: factors(count),
        };
        let expected: Vec<f64> = values
            .iter()
            .enumerate()
            .map(|(at, &value)| f64::from(value) * scale.factors[at / inner % count])
            .collect();
        for dtype in [DType::F32, DType::F16, DType::F64] {
            let tensor = scaled(&model, dtype, vec![scale.clone()]);
            assert_eq!(model.read_f64(&tensor).unwrap(), expected, "{inner}");
            let rounded: Vec<f64> = expected.iter().map(|&value| dtype.round(value)).collect();
            assert_eq!(
                model.read_tensor(&tensor).unwrap().to_f64().unwrap(),
                rounded
            );
            let max_abs = expected
                .iter()
                .fold(0.0, |max: f64, value| max.max(value.abs()));
            assert_eq!(
                model.magnitude(&tensor).unwrap(),
                Magnitude {
                    max_abs,
                    finite: true
                },
                "{inner}"
            );
        }
    }
}

#[test]
fn chunks_follow_each_other() {
    let (model, values) = weight();
    let mut next = 0;
    let mut sum = 0.0;
    model
        .for_each_chunk(defs(&model)[0], |start, part| {
            assert_eq!(start, next);
            next += part.len();
            sum += part.iter().sum::<f64>();
            Ok(())
        })
        .unwrap();
    assert_eq!(next, values.len());
    assert!((sum - values.iter().map(|&value| f64::from(value)).sum::<f64>()).abs() < 1e-6);
}

#[test]
fn what_is_not_finite_is_seen() {
    let of = |values: &[f32], scales: Vec<Scale>| {
        let model = open(&constants(vec![tensor(
            "w",
            &[values.len() as i64],
            values,
        )]))
        .unwrap();
        let plain = model.magnitude(defs(&model)[0]).unwrap();
        let scaled = model
            .magnitude(&scaled(&model, DType::F32, scales))
            .unwrap();
        (plain, scaled)
    };
    let one = |factor: f64| {
        vec![Scale {
            inner: 1 << 20,
            factors: [factor].into(),
        }]
    };
    let each = |factor: f64| {
        vec![Scale {
            inner: 1,
            factors: [factor].into(),
        }]
    };
    for scales in [one, each] as [fn(f64) -> Vec<Scale>; 2] {
        let fine = Magnitude {
            max_abs: 3.0,
            finite: true,
        };
        assert_eq!(
            of(&[1.0, -3.0], scales(-2.0)),
            (
                fine,
                Magnitude {
                    max_abs: 6.0,
                    finite: true
                }
            )
        );
        let (plain, _) = of(&[1.0, f32::NAN, -3.0], scales(1.0));
        assert_eq!(
            plain,
            Magnitude {
                max_abs: 3.0,
                finite: false
            }
        );
        let (plain, _) = of(&[1.0, f32::NEG_INFINITY], scales(1.0));
        assert_eq!(
            plain,
            Magnitude {
                max_abs: f64::INFINITY,
                finite: false
            }
        );
        assert!(!of(&[0.0], scales(f64::INFINITY)).1.finite);
        assert!(!of(&[1.0], scales(f64::NAN)).1.finite);
        assert!(!of(&[f32::MAX], scales(f64::MAX)).1.finite);
    }
}

#[test]
fn recipes_that_do_not_fit_are_errors() {
    let (model, _) = weight();
    let short = TensorDef::computed(DType::F32, [3].into(), Arc::new(Recipe::values(vec![1.0])));
    assert!(
        model
            .read_tensor(&short)
            .unwrap_err()
            .to_string()
            .contains("computed from 1")
    );
    assert!(
        model
            .magnitude(&scaled(
                &model,
                DType::F32,
                vec![Scale {
                    inner: 1,
                    factors: [].into()
                }]
            ))
            .is_err()
    );
}

mod external {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn stored_in(location: &str, more: &[(&str, &str)]) -> TensorProto {
        let mut external_data = vec![entry("location", location)];
        external_data.extend(more.iter().map(|(key, value)| entry(key, value)));
        TensorProto {
            data_location: Some(1),
            external_data,
            ..typed(1, &[2])
        }
    }

    fn read_in(dir: &Path, tensor: TensorProto) -> bnkit_model::Result<Vec<f64>> {
        let path = dir.join("model.onnx");
        fs::write(&path, constants(vec![tensor]).encode_to_vec()).unwrap();
        let model = Model::open(&path)?;
        assert!(matches!(defs(&model)[0].payload, Payload::External(_)));
        model.read_f64(defs(&model)[0])
    }

    #[test]
    fn ranges_of_other_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = [9.0f32, 1.0, 2.0]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/w.bin"), &bytes).unwrap();
        let at_four = [("offset", "4"), ("length", "8")];
        assert_eq!(
            read_in(dir.path(), stored_in("sub/w.bin", &at_four)).unwrap(),
            [1.0, 2.0]
        );
        assert_eq!(
            read_in(dir.path(), stored_in("./sub/w.bin", &[])).unwrap(),
            [9.0, 1.0]
        );
        symlink(dir.path().join("sub/w.bin"), dir.path().join("link.bin")).unwrap();
        assert_eq!(
            read_in(dir.path(), stored_in("link.bin", &at_four[..1])).unwrap(),
            [1.0, 2.0]
        );
    }

    #[test]
    fn nothing_outside_the_folder_is_read() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("secret"), [0; 8]).unwrap();
        let dir = outer.path().join("model");
        fs::create_dir(&dir).unwrap();
        symlink("../secret", dir.join("link")).unwrap();
        symlink("..", dir.join("up")).unwrap();
        fs::create_dir(dir.join("folder")).unwrap();
        let absolute = outer.path().join("secret");
        for (location, expected) in [
            ("../secret", "lies outside"),
            ("folder/../../secret", "lies outside"),
            (absolute.to_str().unwrap(), "lies outside"),
            ("..\\secret", "plain relative path"),
            ("link", "leaves the model's folder"),
            ("up/secret", "leaves the model's folder"),
            ("folder", "is a folder"),
            ("missing", "cannot open external data"),
        ] {
            let message = read_in(&dir, stored_in(location, &[]))
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{location}: {message}");
        }
        let pipe = dir.join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(
            read_in(&dir, stored_in("pipe", &[]))
                .unwrap_err()
                .to_string()
                .contains("not a regular file")
        );
    }

    #[test]
    fn ranges_past_the_end_name_tensor_and_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("w.bin"), [0; 10]).unwrap();
        let message = read_in(dir.path(), stored_in("w.bin", &[("offset", "4")]))
            .unwrap_err()
            .to_string();
        assert!(message.contains("model.onnx: tensor \"t\": 8 bytes from 4 on were expected in \"w.bin\", which has 10"), "{message}");
        let huge = [("offset", "18446744073709551615")];
        assert!(read_in(dir.path(), stored_in("w.bin", &huge)).is_err());
        let odd = stored_in("w.bin", &[("length", "9")]);
        assert!(
            read_in(dir.path(), odd)
                .unwrap_err()
                .to_string()
                .contains("its external data has 9")
        );
        assert!(read_in(dir.path(), stored_in("w.bin", &[("offset", "x")])).is_err());
    }

    #[test]
    fn a_model_in_memory_has_no_other_files() {
        let model = open(&constants(vec![stored_in("w.bin", &[])])).unwrap();
        assert!(
            model
                .read_f64(defs(&model)[0])
                .unwrap_err()
                .to_string()
                .contains("in memory")
        );
    }
}
