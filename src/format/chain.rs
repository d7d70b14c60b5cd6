//! The digest chain: d₀ = BLAKE3(preamble ‖ HEADER frame), dₙ = BLAKE3(dₙ₋₁ ‖ frames since the last CHECKPOINT).
//!
//! The payload of DATA is in it by its leaves, which the content root of an image is made of, too: so content is hashed
//! once, whoever asks.
//!
//! A link stands alone, so a digest can go on after a break where no hasher's inner state could be kept.

use super::{Data, Digest, wire};

/// The running chain, and what decides where its next CHECKPOINT stands.
pub(super) struct Chain {
    hasher: blake3::Hasher,
    frames: u64,
    payload_bytes: u64,
}

impl Chain {
    /// An empty chain, before the preamble.
    pub fn new() -> Chain {
        Chain { hasher: blake3::Hasher::new(), frames: 0, payload_bytes: 0 }
    }

    /// Hashes bytes in wire order.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Hashes what stands for a DATA frame's payload.
    pub fn leaves(&mut self, data: &Data) {
        for piece in data.pieces() {
            self.update(&piece.leaf().0);
        }
    }

    /// Counts a whole frame towards the next CHECKPOINT.
    pub fn frame(&mut self, payload_len: u32) {
        self.frames = self.frames.saturating_add(1);
        self.payload_bytes = self.payload_bytes.saturating_add(u64::from(payload_len));
    }

    /// A CHECKPOINT must follow here.
    pub fn checkpoint_due(&self) -> bool {
        self.payload_bytes >= wire::CHECKPOINT_PAYLOAD || self.frames >= wire::CHECKPOINT_FRAMES
    }

    /// Closes a segment and gives its link, which begins the next one.
    pub fn link(&mut self) -> Digest {
        let link = Digest(*self.hasher.finalize().as_bytes());
        *self = Chain::new();
        self.update(&link.0);
        link
    }
}
