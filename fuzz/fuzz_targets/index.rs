#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| native_store::store::memory::check::check_index(bytes));
