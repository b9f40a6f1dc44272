//! The checked-in schema is the one that `proto/onnx.proto` describes, and that is the one ONNX publishes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use protox::prost_reflect::prost_types::FileDescriptorSet;
use protox::prost_reflect::{Cardinality, DescriptorPool, Kind};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn descriptors() -> FileDescriptorSet {
    let folder = workspace().join("proto");
    protox::compile([folder.join("onnx.proto")], [folder]).expect("proto/onnx.proto compiles")
}

#[test]
fn the_generated_code_is_up_to_date() {
    let out = tempfile::tempdir().expect("a temporary folder");
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(out.path())
        .compile_fds(descriptors())
        .expect("prost generates code");
    let fresh =
        std::fs::read_to_string(out.path().join("onnx.rs")).expect("one file for the package");
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto/onnx.rs");
    if std::env::var_os("BNKIT_BLESS").is_some() {
        std::fs::write(&checked_in, &fresh).expect("the generated file is written");
    }
    let stored = std::fs::read_to_string(&checked_in).expect("the generated file is checked in");
    assert!(
        stored == fresh,
        "src/proto/onnx.rs differs from what proto/onnx.proto gives; run with BNKIT_BLESS=1"
    );
}

/// One line per field: `Message.field number label type`, and one per enum value: `Enum.NAME number enum`.
fn lines_of(pool: &DescriptorPool) -> BTreeSet<String> {
    let package = |name: &str| name.strip_prefix("onnx.").unwrap_or(name).to_owned();
    let mut lines = BTreeSet::new();
    for message in pool.all_messages() {
        for field in message.fields() {
            let label = match field.cardinality() {
                Cardinality::Optional => "optional",
                Cardinality::Required => "required",
                Cardinality::Repeated => "repeated",
            };
            let kind = match field.kind() {
                Kind::Message(message) => package(message.full_name()),
                Kind::Enum(kind) => package(kind.full_name()),
                scalar => format!("{scalar:?}").to_lowercase(),
            };
            let packed = if field.is_packed() { " packed" } else { "" };
            let owner = package(message.full_name());
            lines.insert(format!(
                "{owner}.{} {} {label} {kind}{packed}",
                field.name(),
                field.number()
            ));
        }
    }
    for kind in pool.all_enums() {
        for value in kind.values() {
            lines.insert(format!(
                "{}.{} {} enum",
                package(kind.full_name()),
                value.name(),
                value.number()
            ));
        }
    }
    lines
}

#[test]
fn the_schema_is_the_published_one() {
    let table = workspace().join("testdata/schema/onnx_fields.txt");
    let table = std::fs::read_to_string(table).expect("the golden table is there");
    // Enums that no field uses are left out of the schema.
    let unused = |line: &str| line.starts_with("Version.") || line.starts_with("OperatorStatus.");
    let golden: BTreeSet<String> = table
        .lines()
        .filter(|line| !line.starts_with('#') && !unused(line))
        .map(str::to_owned)
        .collect();
    let pool =
        DescriptorPool::from_file_descriptor_set(descriptors()).expect("a consistent schema");
    let ours = lines_of(&pool);
    assert!(
        golden.len() > 100,
        "the golden table has only {} lines",
        golden.len()
    );
    let none = Vec::<&String>::new();
    assert_eq!(
        ours.difference(&golden).collect::<Vec<_>>(),
        none,
        "ONNX does not have these"
    );
    assert_eq!(
        golden.difference(&ours).collect::<Vec<_>>(),
        none,
        "these are missing here"
    );
}
