//! Chat templates.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dpo_eval_fuzz::template(bytes));
