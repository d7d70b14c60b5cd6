//! The running checksum of a send stream: fletcher-4 over 32-bit words, in the sender's byte order.

/// Four sums that wrap, `zio_cksum_t` of OpenZFS (`module/zcommon/zfs_fletcher.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fletcher4(pub [u64; 4]);

impl Fletcher4 {
    /// The next bytes: a multiple of four, as all parts of a stream are.
    pub fn update(&mut self, bytes: &[u8], swapped: bool) {
        let words = bytes.as_chunks::<4>().0.iter();
        if swapped {
            words.for_each(|word| self.word(u32::from_le_bytes(*word).swap_bytes()));
        } else {
            words.for_each(|word| self.word(u32::from_le_bytes(*word)));
        }
    }

    fn word(&mut self, word: u32) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(word.into());
        *b = b.wrapping_add(*a);
        *c = c.wrapping_add(*b);
        *d = d.wrapping_add(*c);
    }
}
