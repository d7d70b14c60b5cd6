//! Streams of `zfs send`, as they are and with their checksums made right: no panic, and no block of another length than told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon::foreign::zfs_send::{Record, Records};

const RECORD: usize = 312;

/// Fletcher-4 over little-endian words.
fn update(sum: &mut [u64; 4], bytes: &[u8]) {
    for word in bytes.chunks_exact(4) {
        sum[0] = sum[0].wrapping_add(u32::from_le_bytes([word[0], word[1], word[2], word[3]]).into());
        (1..4).for_each(|n| sum[n] = sum[n].wrapping_add(sum[n - 1]));
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

/// Walks the records as their lengths have them, and sets the checksums.
fn reseal(stream: &mut [u8]) {
    let (mut at, mut sum) = (0, [0; 4]);
    while at + RECORD <= stream.len() {
        let record = &mut stream[at..at + RECORD];
        let kind = u32_at(record, 0);
        let payload = match kind {
            0 => u32_at(record, 4),
            1 if u32_at(record, 36) != 0 => u32_at(record, 36),
            1 => u32_at(record, 28).next_multiple_of(8),
            3 if record[50] == 0 => u32_at(record, 32),
            3 => u32_at(record, 96),
            8 => u32_at(record, 52).next_multiple_of(8),
            _ => 0,
        };
        let put = |record: &mut [u8], at: usize, sum: [u64; 4]| {
            (0..4).for_each(|n| record[at + 8 * n..][..8].copy_from_slice(&sum[n].to_le_bytes()));
        };
        if kind == 5 {
            put(record, 8, sum);
        }
        if kind == 0 {
            update(&mut sum, record);
        } else {
            update(&mut sum, &record[..280]);
            put(record, 280, sum);
            update(&mut sum, &record[280..]);
        }
        let end = at + RECORD + payload;
        if end > stream.len() {
            return;
        }
        update(&mut sum, &stream[at + RECORD..end]);
        at = end;
    }
}

fn read(data: &[u8]) {
    let Ok(mut records) = Records::open(data) else { return };
    while let Ok(Some(record)) = records.record() {
        if let Record::Write { block, .. } = record {
            let len = block.len();
            if let Ok(bytes) = block.unpack() {
                assert_eq!(bytes.len() as u64, len);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut data = data.to_vec();
    reseal(&mut data);
    read(&data);
});
