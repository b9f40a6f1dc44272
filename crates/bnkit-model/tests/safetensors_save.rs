//! State dicts on the way out: all or nothing, in the order given, and nothing lost of what was there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bnkit_model::safetensors::{
    Contents, Dtype, NewFile, NewTensor, SaveOptions, Saved, StateDict, save, save_sharded,
};

const FORCE: SaveOptions<'static> = SaveOptions {
    force: true,
    input: None,
    progress: None,
};
const INDEX: &str = "net.safetensors.index.json";
const SHARDS: [&str; 2] = [
    "net-00001-of-00002.safetensors",
    "net-00002-of-00002.safetensors",
];

fn tensor(name: &str, dtype: Dtype, shape: &[usize], byte: u8) -> NewTensor<'static> {
    let bits = shape.iter().product::<usize>() * dtype.bitsize();
    NewTensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        contents: Contents::Bytes(vec![byte; bits / 8].into()),
    }
}

/// A file of one tensor with `count` bytes, all of them `byte`.
fn file(name: &str, count: usize, byte: u8) -> NewFile<'static> {
    NewFile {
        metadata: None,
        tensors: vec![tensor(name, Dtype::U8, &[count], byte)],
    }
}

fn two(byte: u8) -> Vec<NewFile<'static>> {
    vec![file("a", 5, byte), file("b", 7, byte)]
}

fn shards(dir: &Path, byte: u8, options: SaveOptions<'_>) -> bnkit_model::Result<Saved> {
    save_sharded(&dir.join(INDEX), two(byte), &[], options)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn refused<T>(result: bnkit_model::Result<T>, words: &[&str]) {
    let message = result.err().expect("it is refused").to_string();
    for word in words {
        assert!(message.contains(word), "\"{word}\" in: {message}");
    }
}

fn copies(dict: &StateDict) -> Vec<NewTensor<'static>> {
    let copy = |tensor| NewTensor::copy(dict, tensor);
    dict.tensors().iter().map(copy).collect()
}

fn bytes(dict: &StateDict, name: &str) -> Vec<u8> {
    let tensor = dict.tensor(name).unwrap();
    dict.read(tensor).unwrap().data().to_vec()
}

#[test]
fn what_exists_is_only_replaced_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    fs::write(&path, "mine").unwrap();
    refused(
        save(&path, file("a", 3, 1), SaveOptions::default()),
        &["w.safetensors: the file exists already"],
    );
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    save(&path, file("a", 3, 1), FORCE).unwrap();
    assert_eq!(bytes(&StateDict::open(&path).unwrap(), "a"), [1; 3]);
    // A link to nothing is something, too.
    let link = dir.path().join("link");
    symlink("nothing", &link).unwrap();
    let result = save(&link, file("a", 3, 1), SaveOptions::default());
    refused(result, &["exists already"]);
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    refused(save(&folder, file("a", 1, 1), FORCE), &["this is a folder"]);
    refused(
        save(Path::new("/dev/null"), file("a", 1, 1), FORCE),
        &["no regular file"],
    );
    for name in [INDEX, SHARDS[0], SHARDS[1]] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), "mine").unwrap();
        let result = shards(dir.path(), 1, SaveOptions::default());
        refused(result, &[name, "exists already"]);
        assert_eq!(names(dir.path()), [name]);
    }
}

#[test]
fn a_file_may_replace_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    // Long enough for the kernel to copy it.
    save(&path, file("a", 600_000, 7), SaveOptions::default()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let dict = StateDict::open(&path).unwrap();
    let mut new = file("b", 10, 8);
    new.tensors.splice(0..0, copies(&dict));
    let options = SaveOptions {
        input: Some(&dict),
        ..FORCE
    };
    save(&path, new, options).unwrap();
    let again = StateDict::open(&path).unwrap();
    assert_eq!(bytes(&again, "a"), vec![7; 600_000]);
    assert_eq!(bytes(&again, "b"), [8; 10]);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(names(dir.path()), ["w.safetensors"]);
}

#[test]
fn files_of_a_sharded_input_stay() {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path(), 1, SaveOptions::default()).unwrap();
    let dict = StateDict::open(&dir.path().join(INDEX)).unwrap();
    let options = SaveOptions {
        input: Some(&dict),
        ..FORCE
    };
    let before: Vec<_> = names(dir.path());
    refused(
        shards(dir.path(), 2, options),
        &[SHARDS[0], "belongs to the input"],
    );
    for name in [SHARDS[1], INDEX] {
        let result = save(&dir.path().join(name), file("a", 1, 1), options);
        refused(result, &[name, "belongs to the input"]);
    }
    // By another name, too.
    let link = dir.path().join("link.safetensors");
    fs::hard_link(dir.path().join(SHARDS[0]), &link).unwrap();
    refused(
        save(&link, file("a", 1, 1), options),
        &["belongs to the input"],
    );
    fs::remove_file(&link).unwrap();
    // Another number of files leaves those of the input alone, but not its index.
    let result = save_sharded(&dir.path().join(INDEX), vec![file("a", 1, 1)], &[], options);
    refused(result, &[INDEX, "belongs to the input"]);
    assert_eq!(names(dir.path()), before);
    assert_eq!(
        bytes(&StateDict::open(&dir.path().join(INDEX)).unwrap(), "b"),
        [1; 7]
    );
}

#[test]
fn shards_replace_shards() {
    let dir = tempfile::tempdir().unwrap();
    shards(dir.path(), 1, SaveOptions::default()).unwrap();
    let first = dir.path().join(SHARDS[0]);
    fs::set_permissions(&first, fs::Permissions::from_mode(0o640)).unwrap();
    let saved = shards(dir.path(), 2, FORCE).unwrap();
    let files: Vec<PathBuf> = [SHARDS[0], SHARDS[1], INDEX]
        .map(|name| dir.path().join(name))
        .to_vec();
    assert_eq!(saved.files, files);
    let sizes = files.iter().map(|file| fs::metadata(file).unwrap().len());
    assert_eq!(saved.bytes, sizes.sum::<u64>());
    let dict = StateDict::open(&dir.path().join(INDEX)).unwrap();
    assert_eq!(
        (bytes(&dict, "a"), bytes(&dict, "b")),
        (vec![2; 5], vec![2; 7])
    );
    assert_eq!(
        fs::metadata(&first).unwrap().permissions().mode() & 0o777,
        0o640
    );
    // What was replaced is gone.
    assert_eq!(names(dir.path()), [SHARDS[0], SHARDS[1], INDEX]);
}

/// Saves two shards over old ones, and lets `disturb` loose when all is written and nothing in place yet.
fn disturbed(force: bool, old: bool, disturb: impl Fn(&Path) + Sync) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    if old {
        shards(dir.path(), 1, SaveOptions::default()).unwrap();
    }
    let progress = |done: u64, total: u64| {
        if done == total {
            disturb(dir.path());
        }
    };
    let options = SaveOptions {
        force,
        input: None,
        progress: Some(&progress),
    };
    assert!(shards(dir.path(), 2, options).is_err());
    dir
}

#[test]
fn shards_are_replaced_all_or_none() {
    // The second shard, and then the index, turn into folders that no file can replace.
    for name in [SHARDS[1], INDEX] {
        let dir = disturbed(true, true, |dir| {
            fs::rename(dir.join(name), dir.join("aside")).unwrap();
            fs::create_dir(dir.join(name)).unwrap();
        });
        assert_eq!(names(dir.path()), ["aside", SHARDS[0], SHARDS[1], INDEX]);
        assert!(dir.path().join(name).is_dir());
        fs::remove_dir(dir.path().join(name)).unwrap();
        fs::rename(dir.path().join("aside"), dir.path().join(name)).unwrap();
        let dict = StateDict::open(&dir.path().join(INDEX)).unwrap();
        assert_eq!(
            (bytes(&dict, "a"), bytes(&dict, "b")),
            (vec![1; 5], vec![1; 7])
        );
    }
    // Where there was nothing before, nothing stays.
    let dir = disturbed(true, false, |dir| fs::create_dir(dir.join(INDEX)).unwrap());
    assert_eq!(names(dir.path()), [INDEX]);
    // Somebody else's file appears meanwhile, and there is no `force`.
    for name in [SHARDS[1], INDEX] {
        let dir = disturbed(false, false, |dir| {
            fs::write(dir.join(name), "mine").unwrap()
        });
        assert_eq!(names(dir.path()), [name]);
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"mine");
    }
}

#[test]
fn an_input_that_shrinks_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.safetensors");
    let large = NewFile {
        metadata: None,
        tensors: vec![
            tensor("a", Dtype::U8, &[1_000_000], 1),
            tensor("b", Dtype::U8, &[1_000_000], 2),
        ],
    };
    save(&path, large, SaveOptions::default()).unwrap();
    let dict = StateDict::open(&path).unwrap();
    let cut = |_, _| {
        let input = fs::File::options().write(true).open(&path).unwrap();
        input.set_len(1_500_000).unwrap();
    };
    let options = SaveOptions {
        force: false,
        input: Some(&dict),
        progress: Some(&cut),
    };
    let new = NewFile {
        metadata: None,
        tensors: copies(&dict),
    };
    refused(
        save(&dir.path().join("out.safetensors"), new, options),
        &["in.safetensors", "cannot read"],
    );
    assert_eq!(names(dir.path()), ["in.safetensors"]);
}

#[test]
fn an_input_that_changed_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.safetensors");
    save(&path, file("a", 10, 1), SaveOptions::default()).unwrap();
    let dict = StateDict::open(&path).unwrap();
    let input = fs::File::options().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut &input, b"more").unwrap();
    // Whether it is said to be the input or only copied from.
    for input in [Some(&dict), None] {
        let new = NewFile {
            metadata: None,
            tensors: copies(&dict),
        };
        let options = SaveOptions {
            input,
            ..SaveOptions::default()
        };
        let result = save(&dir.path().join("out.safetensors"), new, options);
        refused(
            result,
            &["in.safetensors", "changed while it was being read"],
        );
    }
    assert_eq!(names(dir.path()), ["in.safetensors"]);
}

#[test]
fn a_folder_that_takes_no_files_is_an_error() {
    refused(
        save(
            Path::new("/proc/out.safetensors"),
            file("a", 1, 1),
            SaveOptions::default(),
        ),
        &["/proc/out.safetensors", "cannot create a file"],
    );
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("no/such/w.safetensors");
    refused(
        save(&nowhere, file("a", 1, 1), SaveOptions::default()),
        &["no/such"],
    );
    // The second of two files, when the first is written already.
    symlink("no/such/file", dir.path().join(SHARDS[1])).unwrap();
    refused(
        shards(dir.path(), 1, FORCE),
        &["no/such/file", "cannot create"],
    );
    assert_eq!(names(dir.path()), [SHARDS[1]]);
}

#[test]
fn links_keep_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link.safetensors");
    fs::write(dir.path().join("target"), "old").unwrap();
    symlink("target", &path).unwrap();
    save(&path, file("a", 3, 9), FORCE).unwrap();
    assert!(path.is_symlink());
    let target = dir.path().join("target");
    assert_eq!(bytes(&StateDict::open(&target).unwrap(), "a"), [9; 3]);
    // Two outputs in one place would leave one of them.
    for shard in SHARDS {
        symlink(
            "../".to_owned() + dir.path().file_name().unwrap().to_str().unwrap() + "/same",
            dir.path().join(shard),
        )
        .unwrap();
    }
    refused(
        shards(dir.path(), 1, FORCE),
        &[SHARDS[1], "two files of the checkpoint"],
    );
    assert!(!dir.path().join("same").exists());
}

#[test]
fn what_no_reader_would_take_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let refuses = |file: NewFile<'_>, words: &[&str]| {
        refused(save(&path, file, SaveOptions::default()), words);
    };
    let of = |tensors| NewFile {
        metadata: None,
        tensors,
    };
    let u8 = |name| tensor(name, Dtype::U8, &[2], 0);
    refuses(
        of(vec![u8("a"), u8("b"), u8("a")]),
        &["w.safetensors", "tensor \"a\"", "two tensors"],
    );
    refuses(
        of(vec![u8("__metadata__")]),
        &["tensor \"__metadata__\"", "no tensor of this name"],
    );
    let pair = |key: &str| (key.to_owned(), String::new());
    let repeated = NewFile {
        metadata: Some(vec![pair("k"), pair("l"), pair("k")]),
        tensors: vec![u8("a")],
    };
    refuses(repeated, &["__metadata__", "\"k\" would occur twice"]);
    let mut short = u8("a");
    short.shape = vec![3];
    refuses(
        of(vec![short]),
        &["tensor \"a\"", "U8 of shape [3] takes 3 bytes, found 2"],
    );
    let mut vast = u8("a");
    vast.shape = vec![usize::MAX, 2];
    refuses(of(vec![vast]), &["tensor \"a\"", "has no size"]);
    let mut part = u8("a");
    (part.dtype, part.shape) = (Dtype::F4, vec![3]);
    refuses(of(vec![part]), &["tensor \"a\"", "has no size"]);
    let long = "n".repeat(100_000_001);
    refuses(of(vec![u8(&long)]), &["the header would have"]);
    let index = dir.path().join(INDEX);
    let default = SaveOptions::default();
    refused(
        save_sharded(&index, vec![], &[], default),
        &["at least one tensor"],
    );
    refused(
        save_sharded(&index, vec![of(vec![])], &[], default),
        &["at least one tensor"],
    );
    let both = vec![file("a", 1, 1), file("a", 1, 1)];
    refused(
        save_sharded(&index, both, &[], default),
        &["tensor \"a\"", "two tensors"],
    );
    let metadata = [("k".to_owned(), 1.into()), ("k".to_owned(), 2.into())];
    refused(
        save_sharded(&index, two(1), &metadata, default),
        &["metadata", "\"k\""],
    );
    for name in ["net.json", "net.safetensors", "a\\b.safetensors.index.json"] {
        let result = save_sharded(&dir.path().join(name), two(1), &[], default);
        refused(result, &[name]);
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn tensors_lie_where_readers_can_view_them() {
    let dir = tempfile::tempdir().unwrap();
    let order = |tensors: Vec<NewTensor<'static>>| {
        let path = dir.path().join("w.safetensors");
        let file = NewFile {
            metadata: None,
            tensors,
        };
        save(&path, file, FORCE).unwrap();
        let dict = StateDict::open(&path).unwrap();
        for tensor in dict.tensors() {
            let size = (tensor.dtype.bitsize() / 8).max(1) as u64;
            assert!(tensor.is_empty() || tensor.range.start.is_multiple_of(size));
        }
        dict.tensors()
            .iter()
            .map(|tensor| tensor.name.clone())
            .collect::<Vec<_>>()
    };
    let of = |name, dtype, count| tensor(name, dtype, &[count], 1);
    // Smaller elements first, and still in place.
    let given = vec![of("z", Dtype::F16, 4), of("a", Dtype::F64, 1)];
    assert_eq!(order(given), ["z", "a"]);
    // Three bytes would shift all that follows, unless nothing does.
    let given = vec![
        of("z", Dtype::U8, 3),
        of("b", Dtype::F32, 1),
        of("a", Dtype::F32, 1),
        of("d", Dtype::F64, 1),
    ];
    assert_eq!(order(given), ["d", "b", "a", "z"]);
    let given = vec![of("z", Dtype::U8, 3), of("none", Dtype::F64, 0)];
    assert_eq!(order(given), ["z", "none"]);
    let given = vec![of("z", Dtype::F4, 2), of("six", Dtype::F6_E2M3, 4)];
    assert_eq!(order(given), ["z", "six"]);
}

#[test]
fn progress_ends_at_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Mutex::new(Vec::new());
    let progress = |done: u64, total: u64| seen.lock().unwrap().push((done, total));
    let options = SaveOptions {
        progress: Some(&progress),
        ..SaveOptions::default()
    };
    let files = vec![file("a", 700_000, 1), file("b", 10, 1)];
    let saved = save_sharded(&dir.path().join(INDEX), files, &[], options).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.len() > 3 && seen.is_sorted());
    assert!(seen.iter().all(|&(_, total)| total == saved.bytes));
    assert_eq!(seen.last(), Some(&(saved.bytes, saved.bytes)));
}
