//! Saving: all or nothing, streamed, with a data file of the output's own.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bnkit_model::DType;
use bnkit_model::onnx::{
    Edit, Model, NewTensor, Recipe, SaveOptions, Saved, Scale, TensorDef, ValueId,
};
use bnkit_model::proto::*;
use common::*;
use prost::Message;

const FORCE: SaveOptions<'static> = SaveOptions {
    force: true,
    progress: None,
};

fn write(dir: &Path, name: &str, proto: &ModelProto) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, proto.encode_to_vec()).unwrap();
    path
}

fn save(model: &Model, path: &Path) -> bnkit_model::Result<Saved> {
    model.save(path, SaveOptions::default())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn initializer(model: &Model, name: &str) -> ValueId {
    let ids = &model.scope(model.main()).initializers;
    *ids.iter()
        .find(|&&id| model.value(id).name == name)
        .expect("an initializer of this name")
}

fn def(model: &Model, name: &str) -> Arc<TensorDef> {
    model
        .value(initializer(model, name))
        .tensor
        .clone()
        .unwrap()
}

/// Multiplies a constant by `factor`.
fn multiply(model: &mut Model, name: &str, factor: f64) {
    let value = initializer(model, name);
    let old = def(model, name);
    let recipe = Recipe::of(&old).times([Scale {
        inner: 1,
        factors: [factor].into(),
    }]);
    let tensor = NewTensor {
        dtype: old.dtype,
        dims: old.dims.clone(),
        recipe: Arc::new(recipe),
    };
    model.apply(&[Edit::SetConstant { value, tensor }]).unwrap();
}

#[test]
fn an_unmodified_model_is_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut proto = conv_bn();
    // Long enough for the kernel to copy it.
    let many = vec![0.5; 200_000];
    proto
        .graph
        .as_mut()
        .unwrap()
        .initializer
        .push(tensor("large", &[200_000], &many));
    let input = write(dir.path(), "in.onnx", &proto);
    let model = Model::open(&input).unwrap();
    let output = dir.path().join("out.onnx");
    let saved = save(&model, &output).unwrap();
    assert_eq!(fs::read(&output).unwrap(), fs::read(&input).unwrap());
    assert_eq!(
        saved,
        Saved {
            bytes: fs::metadata(&input).unwrap().len(),
            data_file: None
        }
    );
    assert_eq!(names(dir.path()), ["in.onnx", "out.onnx"]);
    // An ordinary file, as the umask has it.
    assert_eq!(
        fs::metadata(&output).unwrap().mode(),
        fs::metadata(&input).unwrap().mode()
    );
    // From memory, too.
    let model = Model::from_bytes(fs::read(&input).unwrap()).unwrap();
    save(&model, &dir.path().join("third.onnx")).unwrap();
    assert_eq!(
        fs::read(dir.path().join("third.onnx")).unwrap(),
        fs::read(&input).unwrap()
    );
}

#[test]
fn saved_is_what_is_encoded() {
    let dir = tempfile::tempdir().unwrap();
    let mut proto = conv_bn();
    let many: Vec<f32> = (0..300_000).map(|index| index as f32).collect();
    proto
        .graph
        .as_mut()
        .unwrap()
        .initializer
        .push(tensor("large", &[300_000], &many));
    let mut model = Model::open(&write(dir.path(), "in.onnx", &proto)).unwrap();
    multiply(&mut model, "large", 0.1);
    multiply(&mut model, "w", 3.0);
    let output = dir.path().join("out.onnx");
    save(&model, &output).unwrap();
    let bytes = model
        .to_bytes(bnkit_model::onnx::Precision::Stored)
        .unwrap();
    assert_eq!(fs::read(&output).unwrap(), bytes);
    let again = Model::open(&output).unwrap();
    let expected: Vec<f64> = many
        .iter()
        .map(|&value| f64::from((f64::from(value) * 0.1) as f32))
        .collect();
    assert_eq!(again.read_f64(&def(&again, "large")).unwrap(), expected);
}

#[test]
fn what_exists_is_only_replaced_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let input = write(dir.path(), "in.onnx", &conv_bn());
    let output = dir.path().join("out.onnx");
    fs::write(&output, "mine").unwrap();
    let mut model = Model::open(&input).unwrap();
    assert!(
        save(&model, &output)
            .unwrap_err()
            .to_string()
            .contains("out.onnx: the file exists already")
    );
    assert_eq!(fs::read(&output).unwrap(), b"mine");
    model.save(&output, FORCE).unwrap();
    assert_eq!(fs::read(&output).unwrap(), fs::read(&input).unwrap());
    // The input itself.
    multiply(&mut model, "w", 2.0);
    assert!(save(&model, &input).is_err());
    model.save(&input, FORCE).unwrap();
    let again = Model::open(&input).unwrap();
    assert_eq!(again.read_f64(&def(&again, "w")).unwrap(), [4.0, 6.0]);
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    assert!(
        model
            .save(&folder, FORCE)
            .unwrap_err()
            .to_string()
            .contains("this is a folder")
    );
    assert!(
        model
            .save(&dir.path().join("no/such/x.onnx"), FORCE)
            .is_err()
    );
    assert_eq!(names(dir.path()), ["folder", "in.onnx", "out.onnx"]);
}

#[test]
fn an_input_that_changed_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let input = write(dir.path(), "in.onnx", &conv_bn());
    let model = Model::open(&input).unwrap();
    let mut bytes = fs::read(&input).unwrap();
    bytes.push(0);
    fs::write(&input, &bytes).unwrap();
    let message = save(&model, &dir.path().join("out.onnx"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("changed while it was being read"),
        "{message}"
    );
    fs::write(&input, &bytes[..40]).unwrap();
    assert!(save(&model, &dir.path().join("out.onnx")).is_err());
    assert_eq!(names(dir.path()), ["in.onnx"]);
}

#[test]
fn progress_ends_at_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let mut proto = conv_bn();
    proto.graph.as_mut().unwrap().initializer.push(tensor(
        "large",
        &[100_000],
        &vec![1.0; 100_000],
    ));
    let model = Model::open(&write(dir.path(), "in.onnx", &proto)).unwrap();
    let seen = Mutex::new(Vec::new());
    let report = |done: u64, total: u64| seen.lock().unwrap().push((done, total));
    let saved = model
        .save(
            &dir.path().join("out.onnx"),
            SaveOptions {
                force: false,
                progress: Some(&report),
            },
        )
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&(saved.bytes, saved.bytes)));
}

mod external {
    use super::*;

    fn stored_in(name: &str, values: usize, entries: &[(&str, &str)]) -> TensorProto {
        TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(1),
            dims: vec![values as i64],
            data_location: Some(1),
            external_data: entries
                .iter()
                .map(|(key, value)| entry(key, value))
                .collect(),
            ..Default::default()
        }
    }

    /// Three tensors in two files, 64 bytes apart and with gaps; one is there twice, one is sparse.
    fn external_model(dir: &Path) -> PathBuf {
        let mut first = vec![0xff; 512];
        let put = |bytes: &mut [u8], at: usize, values: &[f32]| {
            for (index, value) in values.iter().enumerate() {
                bytes[at + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
            }
        };
        put(&mut first, 64, &[1.0, 2.0, 3.0]);
        put(&mut first, 320, &[4.0, 5.0]);
        let mut second = vec![0; 64 + 8];
        put(&mut second, 64, &[6.0, 7.0]);
        fs::write(dir.join("first.bin"), first).unwrap();
        fs::write(dir.join("second.bin"), second).unwrap();
        let mut proto = conv_bn();
        let graph = proto.graph.as_mut().unwrap();
        let a = [
            ("location", "first.bin"),
            ("offset", "64"),
            ("length", "12"),
            ("checksum", "kept"),
            ("note", "n"),
        ];
        graph.initializer.extend([
            stored_in("a", 3, &a),
            stored_in(
                "far",
                2,
                &[
                    ("location", "second.bin"),
                    ("offset", "64"),
                    ("checksum", "old"),
                ],
            ),
            stored_in("a again", 3, &a[..3]),
        ]);
        graph.sparse_initializer = vec![SparseTensorProto {
            values: Some(stored_in(
                "sparse",
                2,
                &[
                    ("location", "first.bin"),
                    ("offset", "320"),
                    ("length", "8"),
                ],
            )),
            indices: Some(TensorProto {
                data_type: Some(7),
                dims: vec![2],
                int64_data: vec![0, 1],
                ..Default::default()
            }),
            dims: vec![4],
        }];
        write(dir, "in.onnx", &proto)
    }

    fn entries(tensor: &TensorProto) -> Vec<(&str, &str)> {
        tensor
            .external_data
            .iter()
            .map(|entry| (entry.key(), entry.value()))
            .collect()
    }

    fn decoded(path: &Path) -> GraphProto {
        ModelProto::decode(fs::read(path).unwrap().as_slice())
            .unwrap()
            .graph
            .unwrap()
    }

    #[test]
    fn the_output_gets_its_own_data_file() {
        let dir = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let mut model = Model::open(&external_model(dir.path())).unwrap();
        let output = out.path().join("out.onnx");
        let saved = save(&model, &output).unwrap();
        assert_eq!(saved.data_file, Some(out.path().join("out.onnx.data")));
        assert_eq!(names(out.path()), ["out.onnx", "out.onnx.data"]);
        let graph = decoded(&output);
        let new = |offset, length| {
            vec![
                ("location", "out.onnx.data"),
                ("offset", offset),
                ("length", length),
            ]
        };
        let mut a = new("0", "12");
        a.extend([("checksum", "kept"), ("note", "n")]);
        assert_eq!(entries(&graph.initializer[6]), a);
        let mut b = new("64", "8");
        b.push(("checksum", "old"));
        assert_eq!(entries(&graph.initializer[7]), b);
        assert_eq!(entries(&graph.initializer[8]), new("0", "12"));
        assert_eq!(
            entries(graph.sparse_initializer[0].values.as_ref().unwrap()),
            new("128", "8")
        );
        assert_eq!(
            fs::metadata(out.path().join("out.onnx.data"))
                .unwrap()
                .len(),
            136
        );
        assert_eq!(saved.bytes, 136 + fs::metadata(&output).unwrap().len());
        let again = Model::open(&output).unwrap();
        for (name, values) in [
            ("a", &[1.0, 2.0, 3.0][..]),
            ("far", &[6.0, 7.0]),
            ("a again", &[1.0, 2.0, 3.0]),
        ] {
            assert_eq!(again.read_f64(&def(&again, name)).unwrap(), values);
        }
        // The input stays as it is, the output is the same a second time.
        assert_eq!(names(dir.path()), ["first.bin", "in.onnx", "second.bin"]);
        let twice = tempfile::tempdir().unwrap();
        save(&model, &twice.path().join("out.onnx")).unwrap();
        for name in ["out.onnx", "out.onnx.data"] {
            assert_eq!(
                fs::read(out.path().join(name)).unwrap(),
                fs::read(twice.path().join(name)).unwrap()
            );
        }
        // A computed tensor stays external, and gets a checksum if it had one.
        multiply(&mut model, "far", 2.0);
        model.save(&output, FORCE).unwrap();
        let graph = decoded(&output);
        let found = entries(&graph.initializer[7]);
        assert_eq!(found[..3], b[..3]);
        assert_eq!(
            found[3],
            ("checksum", "8fd88ee9005ebe6720464acc703e1272468537c0")
        );
        let again = Model::open(&output).unwrap();
        assert_eq!(again.read_f64(&def(&again, "far")).unwrap(), [12.0, 14.0]);
        // In memory, stored tensors stay where they are and computed ones are inside.
        let bytes = model
            .to_bytes(bnkit_model::onnx::Precision::Stored)
            .unwrap();
        let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        assert_eq!(entries(&graph.initializer[6])[0].1, "first.bin");
        assert_eq!(graph.initializer[7].data_location, None);
        assert_eq!(graph.initializer[7].raw_data.as_ref().unwrap().len(), 8);
    }

    #[test]
    fn a_dropped_last_tensor_leaves_no_data_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.bin"), [0; 8]).unwrap();
        let mut proto = conv_bn();
        proto.graph.as_mut().unwrap().initializer.push(stored_in(
            "x1",
            2,
            &[("location", "x.bin")],
        ));
        let mut model = Model::open(&write(dir.path(), "in.onnx", &proto)).unwrap();
        model
            .apply(&[Edit::DropConstants {
                values: vec![initializer(&model, "x1")],
            }])
            .unwrap();
        assert_eq!(
            save(&model, &dir.path().join("out.onnx"))
                .unwrap()
                .data_file,
            None
        );
    }

    #[test]
    fn the_files_of_the_input_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("in.onnx.data"), [0; 8]).unwrap();
        let mut proto = conv_bn();
        let graph = proto.graph.as_mut().unwrap();
        graph
            .initializer
            .push(stored_in("x1", 2, &[("location", "in.onnx.data")]));
        let model = Model::open(&write(dir.path(), "in.onnx", &proto)).unwrap();
        for output in ["in.onnx", "in.onnx.data"] {
            let message = model
                .save(&dir.path().join(output), FORCE)
                .unwrap_err()
                .to_string();
            assert!(
                message.contains("in.onnx.data: this file belongs to the input"),
                "{message}"
            );
        }
        assert_eq!(fs::read(dir.path().join("in.onnx.data")).unwrap(), [0; 8]);
        // A data file may not take the place of the input either.
        fs::rename(dir.path().join("in.onnx"), dir.path().join("odd.data")).unwrap();
        let model = Model::open(&dir.path().join("odd.data")).unwrap();
        assert!(
            model
                .save(&dir.path().join("odd"), FORCE)
                .unwrap_err()
                .to_string()
                .contains("belongs to the input")
        );
        assert_eq!(names(dir.path()), ["in.onnx.data", "odd.data"]);
    }

    #[test]
    fn data_that_nothing_reads_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("b.onnx.data"), [7; 8]).unwrap();
        fs::write(path("x.bin"), [0; 8]).unwrap();
        let mut proto = conv_bn();
        let graph = proto.graph.as_mut().unwrap();
        for (name, location) in [("unread", "b.onnx.data"), ("read", "x.bin")] {
            let tensor = stored_in(name, 2, &[("location", location)]);
            graph.initializer.push(tensor);
        }
        let mut model = Model::open(&write(dir.path(), "a.onnx", &proto)).unwrap();
        let value = initializer(&model, "unread");
        model
            .apply(&[Edit::DropConstants {
                values: vec![value],
            }])
            .unwrap();
        for output in ["b.onnx", "b.onnx.data"] {
            let message = model.save(&path(output), FORCE).unwrap_err().to_string();
            for part in ["b.onnx.data: this file belongs to", "a.onnx and"] {
                assert!(message.contains(part), "{message}");
            }
        }
        assert_eq!(fs::read(path("b.onnx.data")).unwrap(), [7; 8]);
        assert_eq!(names(dir.path()), ["a.onnx", "b.onnx.data", "x.bin"]);
        model.save(&other.path().join("b.onnx"), FORCE).unwrap();
        assert_eq!(names(other.path()), ["b.onnx", "b.onnx.data"]);
    }

    #[test]
    fn missing_data_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let input = external_model(dir.path());
        let model = Model::open(&input).unwrap();
        fs::remove_file(dir.path().join("second.bin")).unwrap();
        let message = save(&model, &dir.path().join("out.onnx"))
            .unwrap_err()
            .to_string();
        for part in ["tensor \"", "cannot open external data", "second.bin"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        // Opened, but shorter by the time it is copied.
        fs::write(dir.path().join("second.bin"), [0; 72]).unwrap();
        let model = Model::open(&input).unwrap();
        model.read_tensor(&def(&model, "far")).unwrap();
        fs::write(dir.path().join("second.bin"), [0; 66]).unwrap();
        assert!(save(&model, &dir.path().join("out.onnx")).is_err());
        assert_eq!(names(dir.path()), ["first.bin", "in.onnx", "second.bin"]);
    }

    #[test]
    fn a_taken_data_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let model = Model::open(&external_model(dir.path())).unwrap();
        fs::write(dir.path().join("out.onnx.data"), "mine").unwrap();
        let message = save(&model, &dir.path().join("out.onnx"))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("out.onnx.data: the file exists already"),
            "{message}"
        );
        assert_eq!(fs::read(dir.path().join("out.onnx.data")).unwrap(), b"mine");
    }

    #[test]
    fn offsets_may_be_beyond_32_bits() {
        let dir = tempfile::tempdir().unwrap();
        let data = fs::File::create(dir.path().join("huge.bin")).unwrap();
        let far = 5 << 30;
        data.set_len(far + 16).unwrap();
        data.write_all_at(&2.5f32.to_le_bytes(), far).unwrap();
        let mut proto = conv_bn();
        let place = far.to_string();
        let entries = [
            ("location", "huge.bin"),
            ("offset", place.as_str()),
            ("length", "4"),
        ];
        proto
            .graph
            .as_mut()
            .unwrap()
            .initializer
            .push(stored_in("far", 1, &entries));
        let model = Model::open(&write(dir.path(), "in.onnx", &proto)).unwrap();
        assert_eq!(model.read_f64(&def(&model, "far")).unwrap(), [2.5]);
        save(&model, &dir.path().join("out.onnx")).unwrap();
        let again = Model::open(&dir.path().join("out.onnx")).unwrap();
        assert_eq!(again.read_f64(&def(&again, "far")).unwrap(), [2.5]);
    }

    /// Writes 2.5 GiB, so only on request.
    #[test]
    fn more_than_two_gigabytes_are_saved() {
        if std::env::var_os("BNKIT_BIG_TESTS").is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let count = 5usize << 27;
        let data = fs::File::create(dir.path().join("huge.bin")).unwrap();
        data.set_len(4 * count as u64).unwrap();
        let mut proto = conv_bn();
        proto.graph.as_mut().unwrap().initializer.push(stored_in(
            "huge",
            count,
            &[("location", "huge.bin")],
        ));
        let model = Model::open(&write(dir.path(), "in.onnx", &proto)).unwrap();
        let saved = save(&model, &dir.path().join("out.onnx")).unwrap();
        assert!(saved.bytes > 5 << 29);
        assert_eq!(
            fs::metadata(saved.data_file.unwrap()).unwrap().len(),
            4 * count as u64
        );
    }
}

#[test]
fn what_is_replaced_keeps_its_permissions_and_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let model = Model::open(&write(dir.path(), "in.onnx", &conv_bn())).unwrap();
    let expected = fs::read(dir.path().join("in.onnx")).unwrap();
    fs::create_dir(dir.path().join("far")).unwrap();
    let target = dir.path().join("far/target.onnx");
    let link = dir.path().join("link.onnx");
    symlink("far/target.onnx", &link).unwrap();
    for mode in [0o600, 0o666, 0o755] {
        fs::write(&target, "mine").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        assert!(save(&model, &link).is_err());
        model.save(&link, FORCE).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), expected);
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, mode);
    }
    // A link to what is not there yet, and one that leads nowhere.
    fs::remove_file(&target).unwrap();
    model.save(&link, FORCE).unwrap();
    assert_eq!(fs::read(&target).unwrap(), expected);
    symlink("loop.onnx", dir.path().join("loop.onnx")).unwrap();
    assert!(model.save(&dir.path().join("loop.onnx"), FORCE).is_err());
    assert_eq!(names(&dir.path().join("far")), ["target.onnx"]);
}

#[test]
fn only_regular_files_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::open(&write(dir.path(), "in.onnx", &conv_bn())).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for options in [FORCE, SaveOptions::default()] {
        let message = model.save(&socket, options).unwrap_err().to_string();
        assert!(
            message.contains("socket: this is no regular file"),
            "{message}"
        );
    }
    assert_eq!(names(dir.path()), ["in.onnx", "socket"]);
}

#[test]
fn a_message_beyond_two_gigabytes_is_an_error() {
    // A sparse file: a model that ends with one tensor of 2.5 GiB of zeros.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.onnx");
    let count = 5u64 << 29;
    let mut head = TensorProto {
        name: Some("huge".to_owned()),
        data_type: Some(DType::U8.to_onnx()),
        dims: vec![count as i64],
        ..Default::default()
    }
    .encode_to_vec();
    bnkit_model::wire::put_len_header(&mut head, 9, count);
    let mut graph = Vec::new();
    bnkit_model::wire::put_len_header(&mut graph, 5, head.len() as u64 + count);
    graph.extend_from_slice(&head);
    let mut model = Vec::new();
    bnkit_model::wire::put_len_header(&mut model, 7, graph.len() as u64 + count);
    model.extend_from_slice(&graph);
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(&model, 0).unwrap();
    file.set_len(model.len() as u64 + count).unwrap();
    let model = Model::open(&path).unwrap();
    assert_eq!(def(&model, "huge").len() as u64, count);
    let message = save(&model, &dir.path().join("out.onnx"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("protobuf ends at 2147483647"), "{message}");
    assert_eq!(names(dir.path()), ["in.onnx"]);
}

#[test]
fn what_must_be_finite_and_is_not_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let of = |values: &[f32], inner: usize, dtype: DType, factor: f64| {
        let mut proto = conv_bn();
        let weight = tensor("checked", &[values.len() as i64], values);
        proto.graph.as_mut().unwrap().initializer.push(weight);
        let mut model = Model::open(&write(dir.path(), "in.onnx", &proto)).unwrap();
        let mut recipe = Recipe::of(&def(&model, "checked")).times([Scale {
            inner,
            factors: [factor].into(),
        }]);
        recipe.must_be_finite = true;
        let edit = Edit::SetConstant {
            value: initializer(&model, "checked"),
            tensor: NewTensor {
                dtype,
                dims: [values.len()].into(),
                recipe: Arc::new(recipe),
            },
        };
        model.apply(&[edit]).unwrap();
        let saved = model.save(&dir.path().join("out.onnx"), FORCE);
        let there = fs::remove_file(dir.path().join("out.onnx")).is_ok();
        assert_eq!(names(dir.path()), ["in.onnx"]);
        match saved {
            Ok(_) => there,
            Err(bnkit_model::Error::NotFinite) => false,
            Err(error) => panic!("{error}"),
        }
    };
    // One factor for long runs, and one for each element; in the last of several chunks; in a type that is converted.
    for inner in [1, 100_000] {
        for at in [0, 99_999] {
            let mut values = vec![1.0; 100_000];
            assert!(of(&values, inner, DType::F32, 2.0));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -3e38] {
                values[at] = bad;
                assert!(!of(&values, inner, DType::F32, 2.0), "{bad} at {at}");
            }
            values[at] = 1.7e38;
            assert!(of(&values, inner, DType::F32, 2.0));
            assert!(!of(&values, inner, DType::F16, 2.0));
            values[at] = 3e4;
            assert!(of(&values, inner, DType::F16, 2.0));
            assert!(!of(&values, inner, DType::F16, 3.0));
        }
    }
}
