//! State dicts on the way in and out.

use std::collections::HashMap;

use bnkit_model::safetensors::{
    Dtype, NewFile, NewTensor, SaveOptions, StateDict, dtype_of, of_dtype, save, save_sharded,
};
use bnkit_model::{DType, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|index| index as f32 * 0.5 - 3.0).collect()
}

fn new(name: &str, dims: &[usize]) -> NewTensor<'static> {
    let tensor = Tensor::from_f32(dims.to_vec(), &values(dims.iter().product())).unwrap();
    NewTensor::of_values(name.to_owned(), &tensor).unwrap()
}

#[test]
fn what_the_crate_writes_is_read() {
    let data: Vec<u8> = values(6).iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![2, 3], &data).unwrap();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    safetensors::serialize_to_file([("w \"quoted\"", view)], Some(metadata), &path).unwrap();
    let dict = StateDict::open(&path).unwrap();
    let tensor = dict.tensor("w \"quoted\"").unwrap();
    assert_eq!(
        (tensor.dtype, tensor.shape.as_slice()),
        (Dtype::F32, &[2, 3][..])
    );
    assert_eq!(dict.read(tensor).unwrap().data()[..], data);
    assert_eq!(
        dict.shards()[0].metadata.as_deref(),
        Some(&[("format".to_owned(), "pt".to_owned())][..])
    );
}

#[test]
fn what_is_written_the_crate_reads_and_the_order_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.safetensors");
    let metadata = vec![
        ("z".to_owned(), "ü\n".to_owned()),
        ("a".to_owned(), "1".to_owned()),
    ];
    let file = NewFile {
        metadata: Some(metadata.clone()),
        tensors: vec![new("z", &[3]), new("a", &[2, 2]), new("empty", &[0, 4])],
    };
    let saved = save(&path, file, SaveOptions::default()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(saved.bytes, bytes.len() as u64);
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let a: Vec<u8> = values(4).iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read.tensor("a").unwrap().data(), a);
    let dict = StateDict::open(&path).unwrap();
    let names: Vec<&str> = dict.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["z", "a", "empty"]);
    assert_eq!(dict.shards()[0].metadata, Some(metadata));
}

#[test]
fn shards_come_back_as_one_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors.index.json");
    let files = vec![
        NewFile {
            metadata: None,
            tensors: vec![new("b", &[2])],
        },
        NewFile {
            metadata: None,
            tensors: vec![new("a", &[3])],
        },
    ];
    let kept = vec![("note".to_owned(), serde_json::json!({"x": 1}))];
    let saved = save_sharded(&path, files, &kept, SaveOptions::default()).unwrap();
    assert_eq!(saved.files.len(), 3);
    let dict = StateDict::open(&path).unwrap();
    assert_eq!(dict.shards()[1].name, "net-00002-of-00002.safetensors");
    assert_eq!(dict.tensors().len(), 2);
    let total = dict
        .index_metadata()
        .iter()
        .find(|(key, _)| key == "total_size");
    assert_eq!(total.unwrap().1, serde_json::json!(20));
    assert_eq!(dict.index_metadata()[0], kept[0]);
}

#[test]
fn every_type_is_what_both_formats_mean_by_it() {
    use bnkit_model::proto::tensor_proto::DataType;
    let same = [
        (Dtype::BOOL, DataType::Bool),
        (Dtype::U8, DataType::Uint8),
        (Dtype::I8, DataType::Int8),
        (Dtype::U16, DataType::Uint16),
        (Dtype::I16, DataType::Int16),
        (Dtype::U32, DataType::Uint32),
        (Dtype::I32, DataType::Int32),
        (Dtype::U64, DataType::Uint64),
        (Dtype::I64, DataType::Int64),
        (Dtype::F16, DataType::Float16),
        (Dtype::BF16, DataType::Bfloat16),
        (Dtype::F32, DataType::Float),
        (Dtype::F64, DataType::Double),
        (Dtype::C64, DataType::Complex64),
        (Dtype::F8_E4M3, DataType::Float8e4m3fn),
        (Dtype::F8_E4M3FNUZ, DataType::Float8e4m3fnuz),
        (Dtype::F8_E5M2, DataType::Float8e5m2),
        (Dtype::F8_E5M2FNUZ, DataType::Float8e5m2fnuz),
        (Dtype::F4, DataType::Float4e2m1),
        (Dtype::F8_E8M0, DataType::Float8e8m0),
    ];
    for (ours, onnx) in same {
        let dtype = DType::from_onnx(onnx as i32);
        assert_eq!(dtype_of(ours), Some(dtype), "{ours}");
        assert_eq!(of_dtype(dtype), Some(ours), "{dtype}");
        if let Some(bits) = dtype.bits() {
            assert_eq!(bits, ours.bitsize() as u64, "{ours}");
        }
    }
    let others = [
        DataType::String,
        DataType::Complex128,
        DataType::Uint4,
        DataType::Int4,
    ];
    for onnx in others {
        assert_eq!(of_dtype(DType::from_onnx(onnx as i32)), None, "{onnx:?}");
    }
    assert_eq!(dtype_of(Dtype::F6_E2M3), None);
}
