//! The records of a `zfs send` stream.
//!
//! Layout: OpenZFS `include/sys/zfs_ioctl.h` (`dmu_replay_record`), written in the byte order of the sending host.

use std::io::{self, Read};

/// Bytes of a record without its payload.
const RECORD_LEN: usize = 312;
/// `DMU_BACKUP_MAGIC`, at byte 8 of BEGIN.
const MAGIC: u64 = 0x2_f5ba_cbac;
/// `DMU_OST_ZVOL`, the objset type of a volume.
const OBJSET_ZVOL: u32 = 3;
/// The object that holds a volume's data (`ZVOL_OBJ`).
pub const ZVOL_DATA: u64 = 1;
/// No payload of a plain send is larger: 16 MiB is the largest block of ZFS.
const LIMIT_PAYLOAD: u64 = 16 << 20;

/// What a record says about an object. Offsets and lengths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A block of this object is in the stream.
    Write {
        /// Object number.
        object: u64,
        /// Where it begins.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// A range of this object was freed, and reads as zero.
    Free {
        /// Object number.
        object: u64,
        /// Where it begins.
        offset: u64,
        /// Its length; 2^64 − 1 is "to the end".
        len: u64,
    },
    /// A record that says nothing about content.
    Other,
}

/// Reads the records of one plain stream (no `-c`, `-e`, `-L`, `-w`, `-R`) of a volume, without looking at content.
pub struct Records<R: Read> {
    input: R,
    swapped: bool,
    ended: bool,
}

impl<R: Read> Records<R> {
    /// Reads BEGIN.
    pub fn open(mut input: R) -> io::Result<Records<R>> {
        let record = read_record(&mut input)?;
        let swapped = match record.u64(8, false) {
            MAGIC => false,
            other if other.swap_bytes() == MAGIC => true,
            _ => return Err(garbled("this is not a zfs send stream")),
        };
        if record.u32(0, swapped) != 0 || record.u32(32, swapped) != OBJSET_ZVOL {
            return Err(garbled("this is not a zfs send stream of a volume"));
        }
        skip(&mut input, record.u32(4, swapped).into())?;
        Ok(Records { input, swapped, ended: false })
    }

    /// The next record; `None` after END.
    pub fn record(&mut self) -> io::Result<Option<Record>> {
        if self.ended {
            return Ok(None);
        }
        let raw = read_record(&mut self.input)?;
        let word = |at| raw.u64(at, self.swapped);
        let (record, payload) = match raw.u32(0, self.swapped) {
            // OBJECT: raw_bonuslen if any, else bonuslen rounded up to 8.
            1 => {
                let (bonus, raw_bonus) = (raw.u32(28, self.swapped), raw.u32(36, self.swapped));
                (Record::Other, if raw_bonus == 0 { u64::from(bonus).next_multiple_of(8) } else { raw_bonus.into() })
            }
            2 => (Record::Other, 0),
            3 => (
                Record::Write { object: word(8), offset: word(24), len: word(32) },
                if raw.byte(50) == 0 { word(32) } else { word(96) },
            ),
            4 => (Record::Free { object: word(8), offset: word(16), len: word(24) }, 0),
            5 => {
                self.ended = true;
                return Ok(None);
            }
            other => return Err(garbled(&format!("record type {other} does not belong into a plain stream of a volume"))),
        };
        if payload > LIMIT_PAYLOAD {
            return Err(garbled("a payload is longer than any block of ZFS"));
        }
        skip(&mut self.input, payload)?;
        Ok(Some(record))
    }
}

struct Raw([u8; RECORD_LEN]);

impl Raw {
    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }
    fn u32(&self, at: usize, swapped: bool) -> u32 {
        let value = self.0.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if swapped { value.swap_bytes() } else { value }
    }
    fn u64(&self, at: usize, swapped: bool) -> u64 {
        let value = self.0.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if swapped { value.swap_bytes() } else { value }
    }
}

fn read_record(input: &mut impl Read) -> io::Result<Raw> {
    let mut raw = Raw([0; RECORD_LEN]);
    input.read_exact(&mut raw.0)?;
    Ok(raw)
}

fn skip(input: &mut impl Read, len: u64) -> io::Result<()> {
    match io::copy(&mut input.take(len), &mut io::sink())? {
        copied if copied == len => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(kind: u32, words: &[(usize, u64)], swapped: bool) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_LEN];
        let order = |bytes: &mut [u8]| {
            if swapped {
                bytes.reverse()
            }
        };
        let mut put = |at: usize, mut field: Vec<u8>| {
            order(&mut field);
            bytes[at..at + field.len()].copy_from_slice(&field);
        };
        put(0, kind.to_le_bytes().to_vec());
        words.iter().for_each(|(at, word)| put(*at, word.to_le_bytes().to_vec()));
        if kind == 0 {
            put(32, OBJSET_ZVOL.to_le_bytes().to_vec());
        }
        bytes
    }

    #[test]
    fn both_byte_orders_are_read_and_a_cut_is_an_error() {
        for swapped in [false, true] {
            let write = raw(3, &[(8, 1), (24, 8192), (32, 4)], swapped);
            let stream = [
                raw(0, &[(8, MAGIC)], swapped),
                write,
                vec![9; 4],
                raw(4, &[(8, 1), (16, 0), (24, u64::MAX)], swapped),
                raw(5, &[], swapped),
            ]
            .concat();
            let mut records = Records::open(stream.as_slice()).unwrap();
            assert_eq!(records.record().unwrap(), Some(Record::Write { object: 1, offset: 8192, len: 4 }));
            assert_eq!(records.record().unwrap(), Some(Record::Free { object: 1, offset: 0, len: u64::MAX }));
            assert_eq!(records.record().unwrap(), None);
            for cut in 0..stream.len() {
                let all = Records::open(&stream[..cut]).and_then(|mut records| {
                    while records.record()?.is_some() {}
                    Ok(())
                });
                assert!(all.is_err(), "cut at {cut}");
            }
        }
    }
}
