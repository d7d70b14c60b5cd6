//! A record as bytes: fields at offsets, in the sender's byte order.

/// Bytes of a record without its payload (`dmu_replay_record`).
pub(super) const RECORD_LEN: usize = 312;
/// Where the running checksum stands in every record but BEGIN: its last 32 bytes.
pub(super) const CHECKSUM_AT: usize = 280;

/// One record.
pub(super) struct Raw {
    pub bytes: [u8; RECORD_LEN],
    /// The sender's byte order is not little-endian.
    pub swapped: bool,
}

impl Raw {
    pub fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or_default()
    }

    pub fn u32(&self, at: usize) -> u32 {
        let value = u32::from_le_bytes(self.array(at));
        if self.swapped { value.swap_bytes() } else { value }
    }

    pub fn u64(&self, at: usize) -> u64 {
        let value = u64::from_le_bytes(self.array(at));
        if self.swapped { value.swap_bytes() } else { value }
    }

    /// Four words.
    pub fn checksum(&self, at: usize) -> [u64; 4] {
        [0, 8, 16, 24].map(|word| self.u64(at.saturating_add(word)))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }
}
