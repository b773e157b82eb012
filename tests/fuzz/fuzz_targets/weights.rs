//! Headers of safetensors files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dpo_eval_fuzz::weights(bytes));
