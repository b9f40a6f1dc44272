//! State dicts beside the `safetensors` crate: random files, small worlds, and damaged headers.
//!
//! The crate is the reference. What is accepted here it accepts, with the same tensors; what it accepts is accepted here,
//! but for the few things listed in [`STRICTER`].

use std::collections::HashMap;

use bnkit_model::safetensors::{Dtype, NewFile, NewTensor, SaveOptions, StateDict, save};
use bnkit_model::source::Source;
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

const DTYPES: [Dtype; 22] = [
    Dtype::BOOL,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
];

/// Why a file may be refused that the crate takes: names that repeat, fields that would be lost, blanks before the header
/// (the format forbids them), and dimensions that only do not overflow because one is 0.
const STRICTER: [&str; 4] = ["twice", "unknown field", "does not begin with", "overflows"];

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

type Plain = (Dtype, Vec<usize>, Vec<u8>);

fn tensor() -> impl Strategy<Value = Plain> {
    let shape = vec(0..5usize, 0..4);
    (select(&DTYPES[..]), shape).prop_flat_map(|(dtype, mut shape)| {
        if dtype.bitsize() < 8 {
            // Whole bytes: four elements of six bits are three.
            shape.push(4);
        }
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (Just(dtype), Just(shape), vec(any::<u8>(), bytes))
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.0-9]{0,12}", "\\PC{0,6}", any::<String>()]
        .prop_filter("not a tensor's name", |name| name != "__metadata__")
}

fn tensors() -> impl Strategy<Value = HashMap<String, Plain>> {
    hash_map(name(), tensor(), 0..8)
}

fn metadata() -> impl Strategy<Value = Option<HashMap<String, String>>> {
    proptest::option::of(hash_map(any::<String>(), any::<String>(), 0..5))
}

/// The file as the crate writes it.
fn written(tensors: &HashMap<String, Plain>, metadata: Option<HashMap<String, String>>) -> Vec<u8> {
    // For nothing at all but an empty map, the crate writes what is no JSON.
    let metadata = metadata.filter(|map| !(map.is_empty() && tensors.is_empty()));
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name, view)
    });
    safetensors::serialize(views, metadata).unwrap()
}

fn open(bytes: &[u8]) -> bnkit_model::Result<StateDict> {
    StateDict::from_source(Source::memory(bytes.to_vec()))
}

fn data(dict: &StateDict, tensor: &bnkit_model::safetensors::Tensor) -> Vec<u8> {
    let stored = dict.stored(tensor);
    stored.source.read(stored.range).unwrap().to_vec()
}

/// Both read the same in `bytes`, or both refuse it, or this one is stricter for a reason that is known. Whether it was
/// accepted.
#[track_caller]
fn agree(bytes: &[u8]) -> bool {
    let text = || String::from_utf8_lossy(bytes).into_owned();
    match (open(bytes), SafeTensors::deserialize(bytes)) {
        (Ok(own), Ok(theirs)) => {
            assert_eq!(own.tensors().len(), theirs.len(), "{}", text());
            for tensor in own.tensors() {
                let other = theirs.tensor(&tensor.name).unwrap();
                assert_eq!(
                    (tensor.dtype, tensor.shape.as_slice()),
                    (other.dtype(), other.shape())
                );
                assert_eq!(data(&own, tensor), other.data());
            }
            let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
            let own = own.shards()[0].metadata.clone();
            let own = own.map(|entries| entries.into_iter().collect::<HashMap<_, _>>());
            assert_eq!(&own, header.metadata());
            true
        }
        (Ok(_), Err(error)) => panic!("the crate refuses it: {error}: {}", text()),
        (Err(error), Ok(_)) => {
            let message = error.to_string();
            let known = STRICTER.iter().any(|reason| message.contains(reason));
            assert!(known, "the crate takes it: {message}: {}", text());
            false
        }
        (Err(_), Err(_)) => false,
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn what_the_crate_writes_is_read(tensors in tensors(), metadata in metadata()) {
        let bytes = written(&tensors, metadata);
        prop_assert!(agree(&bytes));
        prop_assert_eq!(open(&bytes).unwrap().tensors().len(), tensors.len());
    }

    #[test]
    fn a_copy_is_the_same_file(tensors in tensors(), metadata in metadata()) {
        let bytes = written(&tensors, metadata);
        let dict = open(&bytes).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let copy = |dict: &StateDict, name: &str| {
            let path = dir.path().join(name);
            let file = NewFile {
                metadata: dict.shards()[0].metadata.clone(),
                tensors: dict.tensors().iter().map(|tensor| NewTensor::copy(dict, tensor)).collect(),
            };
            save(&path, file, SaveOptions::default()).unwrap();
            std::fs::read(path).unwrap()
        };
        let first = copy(&dict, "first");
        prop_assert!(agree(&first));
        let again = open(&first).unwrap();
        // Order, types, shapes and the bytes of all tensors at once; the metadata in order.
        let start = |dict: &StateDict, bytes: &[u8]| {
            dict.tensors().first().map_or(bytes.len(), |tensor| tensor.range.start as usize)
        };
        prop_assert_eq!(&first[start(&again, &first)..], &bytes[start(&dict, &bytes)..]);
        let rows = |dict: &StateDict| -> Vec<_> {
            let row = |tensor: &bnkit_model::safetensors::Tensor| {
                (tensor.name.clone(), tensor.dtype, tensor.shape.clone())
            };
            dict.tensors().iter().map(row).collect()
        };
        prop_assert_eq!(rows(&again), rows(&dict));
        prop_assert_eq!(&again.shards()[0].metadata, &dict.shards()[0].metadata);
        prop_assert_eq!(&copy(&dict, "second"), &first);
        prop_assert_eq!(&copy(&again, "third"), &first);
    }

    #[test]
    fn any_order_is_written_so_that_the_crate_reads_it(tensors in tensors()) {
        // The order of the map is random.
        let dict = open(&written(&tensors, None)).unwrap();
        let file = NewFile {
            metadata: None,
            tensors: tensors.keys().map(|name| NewTensor::copy(&dict, dict.tensor(name).unwrap())).collect(),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        save(&path, file, SaveOptions::default()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        prop_assert!(agree(&bytes));
        let again = open(&bytes).unwrap();
        for tensor in again.tensors() {
            let size = (tensor.dtype.bitsize() / 8).max(1) as u64;
            prop_assert!(tensor.is_empty() || tensor.range.start.is_multiple_of(size));
            prop_assert_eq!(&data(&again, tensor), &tensors[&tensor.name].2);
        }
        prop_assert_eq!(again.tensors().len(), tensors.len());
    }
}

/// What a damaged header is made of: the characters that mean something in one.
const ALPHABET: &[u8] = b"0123456789-+.eE{}[],:\"\\ \n\tuaUIF_dn\x00\xc3\xff";

#[derive(Debug, Clone)]
enum Damage {
    Replace(Index, Index),
    Insert(Index, Index),
    Remove(Index),
    /// A part of the header, again, somewhere else.
    Repeat(Index, usize, Index),
    Cut(usize),
    Grow(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), at()).prop_map(|(at, with)| Damage::Replace(at, with)),
        2 => (at(), at()).prop_map(|(at, with)| Damage::Insert(at, with)),
        2 => at().prop_map(Damage::Remove),
        2 => (at(), 1..60usize, at()).prop_map(|(from, length, to)| Damage::Repeat(from, length, to)),
        1 => (1..9usize).prop_map(Damage::Cut),
        1 => (1..9usize).prop_map(Damage::Grow),
    ]
}

/// Does `damage` to a header and the data behind it.
fn apply(damage: &Damage, header: &mut Vec<u8>, data: &mut Vec<u8>) {
    if header.is_empty() {
        return;
    }
    let length = header.len();
    match *damage {
        Damage::Replace(at, with) => header[at.index(length)] = *with.get(ALPHABET),
        Damage::Insert(at, with) => header.insert(at.index(length), *with.get(ALPHABET)),
        Damage::Remove(at) => {
            header.remove(at.index(length));
        }
        Damage::Repeat(from, count, to) => {
            let from = from.index(length);
            let part = header[from..(from + count).min(length)].to_vec();
            let to = to.index(length);
            header.splice(to..to, part);
        }
        Damage::Cut(count) => data.truncate(data.len().saturating_sub(count)),
        Damage::Grow(count) => data.resize(data.len() + count, 0),
    }
}

proptest! {
    #![proptest_config(config(5000))]

    #[test]
    fn damaged_headers_are_judged_as_the_crate_does(
        tensors in hash_map("[a-c]{0,2}", tensor(), 0..4),
        metadata in metadata(),
        damages in vec(damage(), 1..4),
    ) {
        let bytes = written(&tensors, metadata);
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = bytes[8..8 + length].to_vec();
        let mut data = bytes[8 + length..].to_vec();
        for damage in &damages {
            apply(damage, &mut header, &mut data);
        }
        let mut damaged = (header.len() as u64).to_le_bytes().to_vec();
        damaged.extend(header);
        damaged.extend(data);
        agree(&damaged);
    }

    #[test]
    fn bytes_of_any_kind_are_no_trouble(bytes in vec(any::<u8>(), 0..200), length in 0..300u64) {
        agree(&bytes);
        let mut framed = length.to_le_bytes().to_vec();
        framed.push(b'{');
        framed.extend(bytes);
        agree(&framed);
    }
}

/// Every file of two tensors in a small world: holes, overlaps, wrong lengths and right ones.
#[test]
fn small_worlds_are_judged_as_the_crate_does() {
    let mut records = Vec::new();
    for dtype in ["U8", "F16", "F4"] {
        for shape in ["[]", "[0]", "[2]", "[2,1]"] {
            for (start, stop) in (0..16).map(|pair| (pair / 4, pair % 4)) {
                records.push(format!(
                    r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{stop}]}}"#
                ));
            }
        }
    }
    let mut accepted = 0;
    for first in &records {
        for second in &records {
            let header = format!("{{\"a\":{first},\"b\":{second}}}");
            for data in 0..4 {
                let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
                bytes.extend(header.as_bytes());
                bytes.extend(vec![7; data]);
                accepted += usize::from(agree(&bytes));
            }
        }
    }
    assert!(accepted > 100, "only {accepted} were right");
}
