//! State lists: no panic; and what is accepted has one spelling.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use siphon::state::StateList;

// Sealed anew after every change, or hardly one list would be accepted.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    let Some(at) = data[..size].windows(5).rposition(|word| word == b"#end\t") else { return size };
    let lines = data[..at].iter().filter(|byte| **byte == b'\n').count();
    let seal = format!("#end\t{lines}\t{}\n", blake3::hash(&data[..at]));
    match data.get_mut(at..at + seal.len()).filter(|_| !seed.is_multiple_of(8) && at + seal.len() <= max_size) {
        Some(place) => {
            place.copy_from_slice(seal.as_bytes());
            at + seal.len()
        }
        None => size,
    }
});

fuzz_target!(|data: &[u8]| {
    if let Ok(list) = StateList::parse(data) {
        assert_eq!(list.to_text().as_bytes(), data);
    }
});
