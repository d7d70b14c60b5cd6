//! Zero runs.

/// Whether no byte is other than zero. Sixty-four bytes at a time: as fast as memory, where a byte-wise test is not.
pub fn all_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}
