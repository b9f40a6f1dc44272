#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| bnkit_fuzz::targets::fold(data));

// Bytes changed at random rarely stay a model; one change of the graph nearly always does.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match bnkit_fuzz::mutate::model(&data[..size], max_size, seed) {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});
