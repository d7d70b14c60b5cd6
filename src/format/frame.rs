//! The fixed frame header.

use super::fields::{Fields, PutFields};
use super::wire;

/// A frame header. Byte table: extent-stream(5), "FRAMES".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Type number with its two bits.
    pub kind: u16,
    /// Flags of that type.
    pub flags: u16,
    /// Payload length in bytes: the one length of a frame.
    pub len: u32,
    /// Number of the frame, from 0.
    pub number: u64,
    /// Where an extent begins, in bytes; 0 in frames that are no extents.
    pub offset: u64,
    /// CRC-32 (ISO-HDLC, as in zlib) of the payload.
    pub payload_crc: u32,
}

impl FrameHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(wire::FRAME_HEADER_LEN);
        out.put_u16(self.kind);
        out.put_u16(self.flags);
        out.put_u32(self.len);
        out.put_u64(self.number);
        out.put_u64(self.offset);
        out.put_u32(self.payload_crc);
        out.put_u32(crc32fast::hash(&out));
        out
    }

    /// `None` when the header's own check sum does not fit: then no field may be looked at.
    pub fn decode(bytes: &[u8; wire::FRAME_HEADER_LEN]) -> Option<FrameHeader> {
        let (covered, crc) = bytes.split_at(wire::FRAME_HEADER_LEN - 4);
        if Fields(crc).u32()? != crc32fast::hash(covered) {
            return None;
        }
        let mut fields = Fields(covered);
        Some(FrameHeader {
            kind: fields.u16()?,
            flags: fields.u16()?,
            len: fields.u32()?,
            number: fields.u64()?,
            offset: fields.u64()?,
            payload_crc: fields.u32()?,
        })
    }
}
