//! Streams with all sums right, so that every check behind the sums is reached.
#![no_main]

#[path = "../../tests/vectors/reseal.rs"]
mod reseal;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use siphon::format::Reader;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    reseal::reseal(&mut data[..size], !seed.is_multiple_of(8));
    size
});

fuzz_target!(|data: &[u8]| {
    let Ok(mut reader) = Reader::open(data) else { return };
    let (mut end, size) = (0, reader.object().new_size);
    while let Ok(Some(change)) = reader.change() {
        assert!(change.offset() >= end && change.len() > 0 && change.end() <= size);
        end = change.end();
    }
    assert!(reader.change().is_err() || reader.trailer().is_some());
});
