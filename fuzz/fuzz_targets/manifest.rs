//! Manifests, as they are and with their head's sum and their seal made right: no panic, and never more blocks than told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon::state::{Entry, ManifestReader};

fn read(data: &[u8]) {
    let Ok(mut manifest) = ManifestReader::open(data) else { return };
    let mut blocks = 0_u64;
    while let Ok(Some(entry)) = manifest.entry() {
        blocks += match entry {
            Entry::Zeros(count) => count,
            Entry::Full(_) => 1,
        };
        assert!(blocks <= manifest.header().size.div_ceil(65536));
    }
    assert!(manifest.end().is_none() || blocks == manifest.header().size.div_ceil(65536));
}

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut data = data.to_vec();
    if data.len() > 88 {
        // Small images: the root over a hole of petabytes is slow, and no bug.
        data[28..32].fill(0);
        let crc = crc32fast::hash(&data[..52]);
        data[52..56].copy_from_slice(&crc.to_le_bytes());
        let end = data.len() - 32;
        let (body, seal) = data.split_at_mut(end);
        seal.copy_from_slice(blake3::hash(body).as_bytes());
        read(&data);
    }
});
