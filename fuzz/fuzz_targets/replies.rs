#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| native_store::store::redis::check_replies(bytes));
