//! State dicts that somebody broke on purpose: each is refused, with the reason and the tensor.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bnkit_model::onnx::Model;
use bnkit_model::safetensors::{Dtype, StateDict};
use bnkit_model::source::Source;
use common::conv_bn;
use prost::Message;

/// A file with this header and so many zeros after it.
fn file(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

fn read(bytes: Vec<u8>) -> bnkit_model::Result<StateDict> {
    StateDict::from_source(Source::memory(bytes))
}

#[track_caller]
fn refused(bytes: Vec<u8>, words: &[&str]) {
    let message = read(bytes).expect_err("it is broken").to_string();
    for word in words {
        assert!(message.contains(word), "\"{word}\" in: {message}");
    }
    assert!(message.len() < 1000, "{} bytes", message.len());
}

/// A file of these entries and so many bytes is refused.
#[track_caller]
fn broken(entries: &[&str], data: usize, words: &[&str]) {
    refused(file(format!("{{{}}}", entries.join(",")), data), words);
}

#[test]
fn lengths_of_headers() {
    refused(Vec::new(), &["0 bytes are too few"]);
    refused(vec![0; 7], &["7 bytes are too few"]);
    refused(vec![0; 8], &["does not begin with \"{\""]);
    let mut long = file("{}", 0);
    long[0] = 3;
    refused(long.clone(), &["claims 3 bytes, 2 are left"]);
    // Nothing is allocated for what is only claimed: these would not fit into any memory.
    for claimed in [100_000_001, 1 << 40, 1 << 62, u64::MAX] {
        long[..8].copy_from_slice(&claimed.to_le_bytes());
        refused(
            long.clone(),
            &[&format!("claims {claimed} bytes"), "100000000"],
        );
    }
    long[..8].copy_from_slice(&1u64.to_le_bytes());
    refused(long, &["the header", "EOF"]);
}

#[test]
fn a_header_is_a_json_object() {
    let well = entry("w", "F32", "[1]", "[0,4]");
    refused(
        file(b"{\"\xff\":1}", 0),
        &["the header", "UTF-8 from byte 2"],
    );
    refused(file(b"{\xff}", 0), &["the header", "UTF-8"]);
    refused(file("{not json}", 0), &["the header", "column 2"]);
    refused(file("[]", 0), &["does not begin with"]);
    refused(file(format!(" {{{well}}}"), 4), &["does not begin with"]);
    refused(file(format!("{{{well}}} x"), 4), &["trailing characters"]);
    refused(file(format!("{{{well},}}"), 4), &["trailing comma"]);
    refused(file(format!("{{{well}}}\0"), 4), &["trailing characters"]);
    assert!(read(file(format!("{{{well}}}  \n"), 4)).is_ok());
    let deep = |open: &str| format!("{{\"w\":{}", open.repeat(1_000_000));
    refused(file(deep("["), 0), &["tensor \"w\"", "column"]);
    refused(file(deep("{\"a\":"), 0), &["tensor \"w\"", "unknown field"]);
    let deep = format!("{{\"__metadata__\":{{\"k\":{}", "[".repeat(1_000_000));
    refused(file(deep, 0), &["__metadata__", "\"k\""]);
}

#[test]
fn names_occur_once() {
    let (one, two) = (
        entry("w", "U8", "[1]", "[0,1]"),
        entry("w", "U8", "[1]", "[1,2]"),
    );
    broken(&[&one, &two], 2, &["tensor \"w\"", "twice"]);
    broken(&[&one, &one], 1, &["tensor \"w\"", "twice"]);
    // The same name, spelled in another way.
    let spelled = entry("\\u0077", "U8", "[1]", "[1,2]");
    broken(&[&one, &spelled], 2, &["tensor \"w\"", "twice"]);
    let metadata = r#""__metadata__":{"a":"1","b":"2","a":"1"}"#;
    broken(&[metadata, &one], 1, &["__metadata__", "\"a\"", "twice"]);
    let metadata = r#""__metadata__":{}"#;
    broken(&[metadata, &one, metadata], 1, &["__metadata__", "twice"]);
    let fields = r#""w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    broken(&[fields], 1, &["tensor \"w\"", "duplicate field `dtype`"]);
}

#[test]
fn tensors_cover_the_file() {
    let one = |name: &str, offsets: &str| entry(name, "U8", "[4]", offsets);
    let (a, b) = (one("a", "[0,4]"), one("b", "[4,8]"));
    assert!(read(file(format!("{{{b},{a}}}"), 8)).is_ok());
    let overlap = one("b", "[2,6]");
    broken(
        &[&a, &overlap],
        6,
        &["tensor \"b\"", "overlaps tensor \"a\""],
    );
    let same = one("b", "[0,4]");
    broken(&[&a, &same], 4, &["tensor \"b\"", "overlaps tensor \"a\""]);
    let hole = one("b", "[6,10]");
    broken(
        &[&a, &hole],
        10,
        &["tensor \"b\"", "hole behind tensor \"a\"", "ends at 4"],
    );
    broken(&[&b], 8, &["tensor \"b\"", "hole behind the header"]);
    broken(&[&a], 5, &["1 bytes at the end", "tensor \"a\""]);
    refused(file("{}", 1), &["1 bytes at the end"]);
    broken(&[&a, &b], 7, &["tensor \"b\"", "ends at 8, beyond the 7"]);
    let back = entry("w", "U8", "[0]", "[4,2]");
    broken(&[&a, &back], 4, &["tensor \"w\"", "ends at 2, before"]);
    let end = format!("[{0},{0}]", u64::MAX);
    let end = entry("w", "U8", "[0]", &end);
    broken(&[&end], 4, &["tensor \"w\"", "beyond the 4"]);
    // An empty tensor may lie anywhere between two, not within one.
    let inside = entry("e", "U8", "[0]", "[2,2]");
    broken(&[&a, &inside], 4, &["tensor \"e\"", "overlaps"]);
    let between = entry("e", "U8", "[0]", "[4,4]");
    let read = read(file(format!("{{{b},{between},{a}}}"), 8)).unwrap();
    let names: Vec<&str> = read.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "e", "b"]);
}

#[test]
fn shapes_fit_lengths() {
    let w = |dtype: &str, shape: &str, data: usize, words: &[&str]| {
        let entry = entry("w", dtype, shape, &format!("[0,{data}]"));
        broken(&[&entry], data, &[&["tensor \"w\""], words].concat());
    };
    w(
        "F32",
        "[2]",
        4,
        &["F32 of shape [2] takes 8 bytes, found 4"],
    );
    w("F32", "[]", 8, &["takes 4 bytes, found 8"]);
    w("F32", "[0]", 4, &["takes 0 bytes, found 4"]);
    let most = u64::MAX;
    w("U8", &format!("[{most}]"), 1, &["overflows"]);
    w("U8", &format!("[{most},{most}]"), 1, &["overflows"]);
    w("U8", &format!("[{},4]", 1u64 << 62), 0, &["overflows"]);
    w("F64", &format!("[{}]", 1u64 << 61), 0, &["overflows"]);
    // A zero makes the product small, not the part of it that somebody may need.
    w("F32", &format!("[0,{most},{most}]"), 0, &["overflows"]);
    w("F32", &format!("[{most},{most},0]"), 0, &["overflows"]);
    w(
        "F32",
        &format!("[{}1]", "1,".repeat(9999)),
        8,
        &["…", "takes 4"],
    );
    w(
        "F4",
        "[3]",
        2,
        &["F4 of shape [3] is no whole number of bytes"],
    );
    w("F6_E2M3", "[2]", 2, &["no whole number of bytes"]);
    w("F6_E3M2", "[5]", 4, &["no whole number of bytes"]);
    let fits = entry("w", "F6_E3M2", "[2,2]", "[0,3]");
    let read = read(file(format!("{{{fits}}}"), 3)).unwrap();
    assert_eq!(read.tensor("w").unwrap().dtype, Dtype::F6_E3M2);
}

#[test]
fn records_are_what_they_should_be() {
    let w = |record: &str, words: &[&str]| {
        let entry = format!("\"w\":{record}");
        broken(&[&entry], 4, &[&["tensor \"w\""], words].concat());
    };
    let shape = |shape: &str| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}"#);
    let offsets =
        |offsets: &str| format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}"#);
    let dtype = |dtype: &str| format!(r#"{{"dtype":{dtype},"shape":[1],"data_offsets":[0,4]}}"#);
    for number in [
        "-1",
        "-0",
        "1.0",
        "1e0",
        "1e400",
        "18446744073709551616",
        "\"1\"",
        "null",
    ] {
        w(&shape(&format!("[{number}]")), &["column"]);
        w(&offsets(&format!("[0,{number}]")), &["column"]);
    }
    w(&shape("1"), &["expected a sequence"]);
    w(&shape("NaN"), &["column"]);
    w(&offsets("[0]"), &["column"]);
    w(&offsets("[0,4,8]"), &["column"]);
    for unknown in ["\"F31\"", "\"f32\"", "\"\"", "\"torch.float32\""] {
        w(&dtype(unknown), &["unknown variant"]);
    }
    w(
        &dtype(&format!("\"{}\"", "F".repeat(100_000))),
        &["unknown variant", "…"],
    );
    w(&dtype("32"), &["column"]);
    w(
        r#"{"shape":[1],"data_offsets":[0,4]}"#,
        &["missing field `dtype`"],
    );
    w(
        r#"{"dtype":"F32","data_offsets":[0,4]}"#,
        &["missing field `shape`"],
    );
    w(
        r#"{"dtype":"F32","shape":[1]}"#,
        &["missing field `data_offsets`"],
    );
    w("{}", &["missing field"]);
    w("null", &["invalid type: null"]);
    w("[]", &["column"]);
    w(
        r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}"#,
        &["unknown field `strides`"],
    );
    for metadata in [
        "[]",
        "\"x\"",
        "1",
        "{\"k\":1}",
        "{\"k\":null}",
        "{\"k\":{}}",
    ] {
        let metadata = format!("\"__metadata__\":{metadata}");
        broken(&[&metadata], 0, &["__metadata__"]);
    }
    // The crate takes this for no metadata at all.
    let none = read(file(r#"{"__metadata__":null}"#, 0)).unwrap();
    assert!(none.shards()[0].metadata.is_none());
}

#[test]
fn names_are_anything() {
    let long = "n".repeat(1_000_000);
    let names = [
        "",
        "\u{1b}[31mred",
        "a\nb\0c",
        "../../etc/passwd",
        "\u{202e}cod",
        &long,
    ];
    for name in names {
        let json = serde_json::to_string(name).unwrap();
        let header = |offsets: &str| {
            format!("{{{json}:{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{offsets}}}}}")
        };
        let dict = read(file(header("[0,1]"), 1)).unwrap();
        assert!(dict.tensor(name).is_some());
        let message = read(file(header("[0,2]"), 2)).unwrap_err().to_string();
        assert!(message.contains("takes 1 bytes, found 2"), "{message}");
        assert!(message.len() < 500, "{} bytes", message.len());
    }
    let lone = r#"{"\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    refused(file(lone, 1), &["the header", "hex escape"]);
}

mod index {
    use super::*;

    const INDEX: &str = "model.safetensors.index.json";

    /// A folder with a.safetensors (x, y) and b.safetensors (z), and this index.
    fn folder(index: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let one = |name: &str, offsets: &str| entry(name, "U8", "[1]", offsets);
        let a = format!("{{{},{}}}", one("x", "[0,1]"), one("y", "[1,2]"));
        fs::write(dir.path().join("a.safetensors"), file(a, 2)).unwrap();
        let b = format!("{{{}}}", one("z", "[0,1]"));
        fs::write(dir.path().join("b.safetensors"), file(b, 1)).unwrap();
        fs::write(dir.path().join(INDEX), index).unwrap();
        dir
    }

    fn map(entries: &[(&str, &str)]) -> String {
        let entry = |(tensor, file): &(&str, &str)| format!("\"{tensor}\":\"{file}\"");
        let entries: Vec<String> = entries.iter().map(entry).collect();
        format!("{{\"weight_map\":{{{}}}}}", entries.join(","))
    }

    const RIGHT: [(&str, &str); 3] = [
        ("x", "a.safetensors"),
        ("y", "a.safetensors"),
        ("z", "b.safetensors"),
    ];

    /// The right entries, but this file for z.
    fn z_in(file: &str) -> String {
        map(&[RIGHT[0], RIGHT[1], ("z", file)])
    }

    #[track_caller]
    fn refuses(dir: &Path, words: &[&str]) {
        let error = StateDict::open(&dir.join(INDEX)).expect_err("it is broken");
        let message = error.to_string();
        for word in words {
            assert!(message.contains(word), "\"{word}\" in: {message}");
        }
        assert!(message.len() < 1000, "{} bytes", message.len());
    }

    #[track_caller]
    fn broken(index: &str, words: &[&str]) {
        refuses(folder(index).path(), words);
    }

    #[test]
    fn a_right_one_is_read() {
        let dir = folder(&map(&RIGHT));
        let dict = StateDict::open(&dir.path().join(INDEX)).unwrap();
        assert_eq!(dict.tensors().len(), 3);
        assert_eq!(dict.shards().len(), 2);
    }

    #[test]
    fn files_lie_beside_the_index() {
        let plain = "is no plain name of a file beside the index";
        for file in [
            "",
            ".",
            "..",
            "../b.safetensors",
            "/etc/passwd",
            "sub/b.safetensors",
            "./b.safetensors",
            "..\\\\b.safetensors",
            "b\\u0000",
        ] {
            broken(&z_in(file), &[INDEX, "tensor \"z\"", plain]);
        }
        broken(
            &z_in("c.safetensors"),
            &["tensor \"z\"", "c.safetensors", "No such file"],
        );
        broken(&z_in(&"f".repeat(100_000)), &["tensor \"z\"", "…"]);
    }

    #[test]
    fn links_stay_in_the_folder() {
        let other = folder("{}");
        let dir = folder(&z_in("link"));
        let link = dir.path().join("link");
        symlink(other.path().join("b.safetensors"), &link).unwrap();
        refuses(
            dir.path(),
            &["tensor \"z\"", "leaves the checkpoint's folder"],
        );
        fs::remove_file(&link).unwrap();
        symlink("link", &link).unwrap();
        refuses(dir.path(), &["tensor \"z\"", "cannot open"]);
        fs::remove_file(&link).unwrap();
        symlink("b.safetensors", &link).unwrap();
        assert!(StateDict::open(&dir.path().join(INDEX)).is_ok());
    }

    #[test]
    fn a_snapshot_of_a_cache_links_to_its_blobs() {
        let files = folder(&map(&RIGHT));
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("models--a--b");
        let blobs = repository.join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        for (below, up) in [("snapshots/1", "../.."), ("snapshots/1/unet", "../../..")] {
            let snapshot = repository.join(below);
            fs::create_dir_all(&snapshot).unwrap();
            for name in [INDEX, "a.safetensors", "b.safetensors"] {
                fs::copy(files.path().join(name), blobs.join(name)).unwrap();
                symlink(format!("{up}/blobs/{name}"), snapshot.join(name)).unwrap();
            }
            assert!(StateDict::open(&snapshot.join(INDEX)).is_ok(), "{below}");
        }
        // Nothing but the blobs of this repository.
        let snapshot = repository.join("snapshots/1");
        fs::remove_file(snapshot.join("b.safetensors")).unwrap();
        fs::copy(blobs.join("b.safetensors"), root.path().join("b")).unwrap();
        symlink("../../../b", snapshot.join("b.safetensors")).unwrap();
        refuses(
            &snapshot,
            &["tensor \"z\"", "leaves the checkpoint's folder"],
        );
        // Not if the blobs themselves are elsewhere.
        fs::remove_file(snapshot.join("b.safetensors")).unwrap();
        symlink("../../blobs/b.safetensors", snapshot.join("b.safetensors")).unwrap();
        fs::rename(&blobs, root.path().join("elsewhere")).unwrap();
        symlink("../elsewhere", &blobs).unwrap();
        refuses(&snapshot, &["leaves the checkpoint's folder"]);
    }

    #[test]
    fn shards_are_regular_files() {
        let dir = folder(&z_in("c"));
        let c = dir.path().join("c");
        fs::create_dir(&c).unwrap();
        refuses(dir.path(), &["tensor \"z\"", "not a regular file"]);
        fs::remove_dir(&c).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&c).status();
        assert!(made.unwrap().success());
        // Nobody writes to it: waiting for that would take forever.
        refuses(dir.path(), &["tensor \"z\"", "not a regular file"]);
        assert!(StateDict::open(&c).is_err());
        assert!(StateDict::open(dir.path()).is_err());
    }

    #[test]
    fn index_and_files_say_the_same() {
        let more = [RIGHT.as_slice(), &[("missing", "a.safetensors")]].concat();
        broken(&map(&more), &["tensor \"missing\"", "is not there"]);
        broken(
            &map(&[RIGHT[0], RIGHT[2]]),
            &["tensor \"y\"", "does not name it"],
        );
        broken(
            &z_in("a.safetensors"),
            &["tensor \"z\"", "a.safetensors, but it is not there"],
        );
        let swapped = map(&[("x", "b.safetensors"), RIGHT[1], RIGHT[2]]);
        broken(
            &swapped,
            &["tensor \"x\"", "says b.safetensors, it is in a.safetensors"],
        );
        let twice = [RIGHT.as_slice(), &[("z", "b.safetensors")]].concat();
        broken(&map(&twice), &["weight_map: \"z\"", "twice"]);
        // One tensor in two files.
        let dir = folder(&map(&RIGHT));
        let z = entry("z", "U8", "[1]", "[0,1]");
        let a = format!("{{{z}}}");
        fs::write(dir.path().join("a.safetensors"), file(a, 1)).unwrap();
        refuses(
            dir.path(),
            &["b.safetensors", "tensor \"z\"", "is in a.safetensors, too"],
        );
        // A broken file.
        let dir = folder(&map(&RIGHT));
        fs::write(dir.path().join("b.safetensors"), "short").unwrap();
        refuses(dir.path(), &["b.safetensors", "5 bytes are too few"]);
    }

    #[test]
    fn an_index_is_an_object_with_two_members() {
        broken("{\"weight_map\":{}}", &[INDEX, "the weight_map is empty"]);
        broken("{\"metadata\":{}}", &["no weight_map"]);
        broken("{\"weight_map\":[]}", &["weight_map", "JSON object"]);
        broken("{\"weight_map\":{\"x\":1}}", &["weight_map: \"x\""]);
        broken("{\"weight_map\":{\"x\":null}}", &["weight_map: \"x\""]);
        broken(
            "{\"architectures\":[]}",
            &["architectures", "metadata and weight_map"],
        );
        broken("{\"weight_map\":{}} {}", &["trailing characters"]);
        broken("{\"weight_map\":", &["EOF"]);
        broken(
            "{\"weight_map\":{},\"weight_map\":{}}",
            &["weight_map", "twice"],
        );
        broken(
            "{\"metadata\":{\"a\":1,\"a\":1}}",
            &["metadata: \"a\"", "twice"],
        );
        broken("[1, 2, 3, 4]", &[INDEX, "claims"]);
        let deep = format!("{{\"metadata\":{{\"a\":{}", "[".repeat(1_000_000));
        broken(&deep, &["metadata: \"a\"", "recursion limit"]);
        let dir = folder("{\"\u{0}");
        fs::write(dir.path().join(INDEX), b"{\"weight_map\":{\"\xff\":\"a\"}}").unwrap();
        refuses(dir.path(), &["not UTF-8"]);
    }

    #[test]
    fn a_huge_one_is_not_read() {
        let dir = folder("{");
        let index = fs::File::options()
            .write(true)
            .open(dir.path().join(INDEX))
            .unwrap();
        index.set_len(200_000_000).unwrap();
        refuses(dir.path(), &["200000000 bytes; more than"]);
    }
}

#[test]
fn a_file_of_another_kind_is_called_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let message = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let dict = StateDict::open(&path).map(|_| ());
        let model = Model::open(&path).map(|_| ());
        [dict, model]
            .map(|result| result.map_or_else(|error| error.to_string(), |()| String::new()))
    };
    let onnx = message(&conv_bn().encode_to_vec());
    assert!(onnx[0].contains("this is an ONNX model"), "{}", onnx[0]);
    assert_eq!(onnx[1], "");
    let weights = message(&file("{}", 0));
    assert_eq!(weights[0], "");
    assert!(
        weights[1].contains("this is a safetensors file"),
        "{}",
        weights[1]
    );
    let pickle = message(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.");
    assert!(
        pickle.iter().all(|text| text.contains("a Python pickle")),
        "{pickle:?}"
    );
    let index = message(b"{\"weight_map\": {}}");
    assert!(
        index[1].contains("index of a sharded checkpoint"),
        "{}",
        index[1]
    );
    let nothing = message(b"hello, world");
    assert!(nothing[0].contains("the header claims"), "{}", nothing[0]);
    assert!(
        nothing[1].contains("not a readable ONNX model"),
        "{}",
        nothing[1]
    );
}
