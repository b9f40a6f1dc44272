#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bnkit_fuzz::targets::safetensors(data));
