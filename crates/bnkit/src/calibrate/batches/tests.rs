use super::*;

fn spec(dims: Vec<Dim>) -> InputSpec {
    InputSpec {
        name: "x".into(),
        dtype: DType::F32,
        dims: Some(dims),
    }
}

fn free() -> InputSpec {
    spec(vec![Dim::Symbol("N".into()), Dim::Fixed(2)])
}

/// A file of `count` samples [k, −k].
fn file(folder: &Path, count: usize) -> DataOptions {
    let values: Vec<f32> = (0..count).flat_map(|k| [k as f32, -(k as f32)]).collect();
    write(folder, vec![count, 2], &values)
}

fn write(folder: &Path, dims: Vec<usize>, values: &[f32]) -> DataOptions {
    let path = folder.join("x.safetensors");
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, dims, &bytes).unwrap();
    std::fs::write(&path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
    DataOptions {
        batch_size: 4,
        ..DataOptions::new(path)
    }
}

fn rows(batches: &Batches) -> Vec<Vec<f64>> {
    let first = |sample: &Sample| sample[0].1.to_f64().unwrap()[0];
    batches
        .iter()
        .map(|batch| batch.unwrap().iter().map(first).collect())
        .collect()
}

#[test]
fn the_last_batch_is_short_or_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = file(folder.path(), 10);
    let batches = Batches::open(&[free()], &options, Shard::WHOLE).unwrap();
    assert_eq!(
        rows(&batches),
        [vec![0., 1., 2., 3.], vec![4., 5., 6., 7.], vec![8., 9.]]
    );
    assert_eq!(
        (batches.samples(), batches.sample_dims()),
        (10, vec![("x".to_owned(), vec![1, 2])])
    );
    options.drop_last = true;
    let batches = Batches::open(&[free()], &options, Shard::WHOLE).unwrap();
    assert_eq!(batches.samples(), 8);
    options.max_batches = Some(1);
    assert_eq!(
        rows(&Batches::open(&[free()], &options, Shard::WHOLE).unwrap()).len(),
        1
    );
    options.max_samples = Some(3);
    let text = Batches::open(&[free()], &options, Shard::WHOLE)
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains("3 samples") && text.contains("x.safetensors"),
        "{text}"
    );
}

#[test]
fn shards_in_order_are_all_batches() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = file(folder.path(), 43);
    for seed in [None, Some(3)] {
        options.shuffle = seed;
        let whole = rows(&Batches::open(&[free()], &options, Shard::WHOLE).unwrap());
        assert_eq!(whole.len(), 11);
        for count in [1, 2, 3, 11] {
            let parts = (1..=count).flat_map(|index| {
                rows(&Batches::open(&[free()], &options, Shard { index, count }).unwrap())
            });
            assert_eq!(parts.collect::<Vec<_>>(), whole);
        }
    }
    assert!(
        Batches::open(
            &[free()],
            &options,
            Shard {
                index: 1,
                count: 12
            }
        )
        .is_err()
    );
}

#[test]
fn shuffling_keeps_every_sample_and_repeats_with_its_seed() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = file(folder.path(), 40);
    options.shuffle = Some(1);
    let all = |options: &DataOptions| {
        rows(&Batches::open(&[free()], options, Shard::WHOLE).unwrap()).concat()
    };
    let once = all(&options);
    assert_eq!(once, all(&options));
    let mut sorted = once.clone();
    sorted.sort_by(f64::total_cmp);
    assert_eq!(sorted, (0..40).map(f64::from).collect::<Vec<_>>());
    assert_ne!(once, sorted);
    options.shuffle = Some(2);
    assert_ne!(once, all(&options));
}

#[test]
fn a_model_for_a_fixed_batch_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = file(folder.path(), 10);
    let fixed = spec(vec![Dim::Fixed(3), Dim::Fixed(2)]);
    let batches = Batches::open(&[fixed], &options, Shard::WHOLE).unwrap();
    assert_eq!(
        rows(&batches),
        [vec![0., 1., 2.], vec![3., 4., 5.], vec![6., 7., 8.]]
    );
    assert_eq!(batches.warnings.len(), 2);
}

#[test]
fn bad_data_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = |specs: &[InputSpec], options: &DataOptions| {
        Batches::open(specs, options, Shard::WHOLE)
            .err()
            .unwrap()
            .to_string()
    };
    let options = write(folder.path(), vec![3, 2], &[0., 1., 2., f32::NAN, 4., 5.]);
    let found = text(&[free()], &options);
    assert!(
        found.contains("x.safetensors") && found.contains("sample 1") && found.contains("NaN"),
        "{found}"
    );
    let options = write(folder.path(), vec![2, 3], &[0.; 6]);
    let found = text(&[free()], &options);
    assert!(
        found.contains("expected shape [N, 2], found [2, 3]"),
        "{found}"
    );
    let options = DataOptions {
        batch_size: 0,
        ..options
    };
    assert!(text(&[free()], &options).contains("at least one"));
}

#[test]
fn images_are_decoded_in_order_and_a_bad_one_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    for grey in 0..7u8 {
        let image = image::GrayImage::from_pixel(2, 2, image::Luma([grey]));
        image
            .save(folder.path().join(format!("{grey}.png")))
            .unwrap();
    }
    let input = spec(vec![
        Dim::Symbol("N".into()),
        Dim::Fixed(3),
        Dim::Unknown,
        Dim::Unknown,
    ]);
    let mut options = DataOptions {
        batch_size: 3,
        ..DataOptions::new(folder.path())
    };
    let error = Batches::open(std::slice::from_ref(&input), &options, Shard::WHOLE)
        .err()
        .unwrap();
    assert!(error.to_string().contains("--preprocess"));
    options.preprocess = Some(data::preprocess::Preprocess {
        scale: 1.0,
        ..Default::default()
    });
    let batches = Batches::open(std::slice::from_ref(&input), &options, Shard::WHOLE).unwrap();
    assert_eq!(
        rows(&batches),
        [vec![0., 1., 2.], vec![3., 4., 5.], vec![6.]]
    );
    let text = Batches::open(&[free()], &options, Shard::WHOLE)
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("0.png") && text.contains("[N, 2]"), "{text}");
    std::fs::write(folder.path().join("4.png"), "no").unwrap();
    let results: Vec<bool> = batches.iter().map(|batch| batch.is_ok()).collect();
    assert_eq!(results, [true, false]);
}
