//! Fixed-width little-endian fields of one payload.

use byteorder::{LittleEndian, ReadBytesExt, WriteBytesExt};

use super::Id;

/// Takes fields off the front of a payload. A missing byte is `None`, never a panic.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn u16(&mut self) -> Option<u16> {
        self.0.read_u16::<LittleEndian>().ok()
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.0.read_u32::<LittleEndian>().ok()
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.0.read_u64::<LittleEndian>().ok()
    }
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }
    pub fn id(&mut self) -> Option<Option<Id>> {
        self.array().map(Id::from_wire)
    }
}

/// Puts fields behind one another. Writing into memory cannot fail, so no result is returned.
pub(super) trait PutFields {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_id(&mut self, id: Option<Id>);
}

impl PutFields for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        let _: std::io::Result<()> = self.write_u16::<LittleEndian>(value);
    }
    fn put_u32(&mut self, value: u32) {
        let _: std::io::Result<()> = self.write_u32::<LittleEndian>(value);
    }
    fn put_u64(&mut self, value: u64) {
        let _: std::io::Result<()> = self.write_u64::<LittleEndian>(value);
    }
    fn put_id(&mut self, id: Option<Id>) {
        self.extend_from_slice(&Id::to_wire(id));
    }
}
