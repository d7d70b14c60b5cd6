//! The stream that `zfs send` writes of a volume, record by record, every checksum verified.
//!
//! Layout: OpenZFS `include/sys/zfs_ioctl.h` (`dmu_replay_record`), in the byte order of the sending host, told by the
//! magic number. Each record but BEGIN carries the running checksum of everything before it; END carries it once more.

mod fletcher;
mod raw;
mod unpack;

#[cfg(test)]
pub(crate) mod tests;

use std::io::{self, Read};

use fletcher::Fletcher4;
use raw::{CHECKSUM_AT, RECORD_LEN, Raw};

/// `DMU_BACKUP_MAGIC`, at byte 8 of BEGIN.
const MAGIC: u64 = 0x2_f5ba_cbac;
/// `DMU_OST_ZVOL` and `DMU_OST_ZFS`, the objset types of a volume and of a file system.
const OBJSET_ZVOL: u32 = 3;
const OBJSET_ZFS: u32 = 2;
/// The object that holds a volume's data (`ZVOL_OBJ`).
pub const ZVOL_DATA: u64 = 1;
/// The object that holds a volume's size (`ZVOL_ZAP_OBJ`).
pub const ZVOL_PROPERTIES: u64 = 2;
/// The largest block of ZFS: no payload is longer.
const LIMIT_BLOCK: u64 = 16 << 20;
/// BEGIN's payload: a list of properties.
const LIMIT_BEGIN: u64 = 1 << 20;

/// `DRR_*` record types.
mod kind {
    pub const BEGIN: u32 = 0;
    pub const OBJECT: u32 = 1;
    pub const FREEOBJECTS: u32 = 2;
    pub const WRITE: u32 = 3;
    pub const FREE: u32 = 4;
    pub const END: u32 = 5;
    pub const WRITE_BYREF: u32 = 6;
    pub const SPILL: u32 = 7;
    pub const WRITE_EMBEDDED: u32 = 8;
    pub const OBJECT_RANGE: u32 = 9;
    pub const REDACT: u32 = 10;
}

/// `DMU_BACKUP_FEATURE_*`: bits of the version information behind its two lowest, and what they are called.
const REFUSED_FEATURES: [(u32, &str); 4] = [
    (0, "deduplicated (zfs send -D)"),
    (20, "the rest of a stream that was cut (zfs send -t)"),
    (21, "redacted (zfs send --redact)"),
    (24, "raw (zfs send -w)"),
];
/// Features that change nothing here, or that are understood: SA_SPILL, EMBED_DATA, LZ4, LARGE_BLOCKS, COMPRESSED,
/// LARGE_DNODE, ZSTD, SWITCH_TO_LARGE_BLOCKS, LONGNAME, LARGE_MICROZAP.
const KNOWN_FEATURES: u64 = 1 << 2 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 22 | 1 << 23 | 1 << 25 | 1 << 27 | 1 << 28 | 1 << 29;

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system could not read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is cut off.
    #[error("the send stream ends early, without END")]
    Truncated,
    /// It must not be believed.
    #[error("{0}")]
    Damaged(String),
    /// It is whole, perhaps, but of a kind that is not taken.
    #[error("{0}")]
    Unsupported(String),
}

fn damaged(what: impl Into<String>) -> Error {
    Error::Damaged(what.into())
}

/// What a stream's first record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Guid of the snapshot that the stream leads to.
    pub to_guid: u64,
    /// Guid of the snapshot or bookmark that it begins from; `None`: it is whole.
    pub from_guid: Option<u64>,
    /// Name of the snapshot, as its system had it: `pool/volume@snapshot`.
    pub to_name: Vec<u8>,
}

/// What a record says about an object. Offsets and lengths are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A block of this object.
    Write {
        /// Object number.
        object: u64,
        /// Where it begins.
        offset: u64,
        /// What it holds.
        block: Block,
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
    /// One that says nothing about content.
    Other,
}

/// A block as it came: perhaps compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    compression: u8,
    packed: Vec<u8>,
    /// Bytes that it has when it is unpacked.
    unpacked: usize,
    /// Bytes that it stands for; what is behind the unpacked ones is zero.
    len: usize,
}

impl Block {
    /// How many bytes it stands for.
    #[allow(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// How it came: the number of its compression (`enum zio_compress`), and its bytes as they were packed.
    pub fn packed(&self) -> (u8, u64) {
        (self.compression, self.packed.len() as u64)
    }

    /// Its bytes.
    pub fn unpack(self) -> Result<Vec<u8>, Error> {
        let mut bytes = match self.compression {
            0 if self.packed.len() == self.unpacked => self.packed,
            compression => unpack::unpack(compression, &self.packed, self.unpacked)?,
        };
        bytes.resize(self.len, 0);
        Ok(bytes)
    }
}

/// Reads the records of one stream of a volume.
pub struct Records<R: Read> {
    input: R,
    swapped: bool,
    begin: Begin,
    checksum: Fletcher4,
    ended: bool,
}

impl<R: Read> Records<R> {
    /// Reads BEGIN, and refuses what is not a plain stream of a volume.
    pub fn open(mut input: R) -> Result<Records<R>, Error> {
        let mut raw = Raw { bytes: [0; RECORD_LEN], swapped: false };
        read(&mut input, &mut raw.bytes)?;
        raw.swapped = raw.u64(8).swap_bytes() == MAGIC;
        if raw.u64(8) != MAGIC || raw.u32(0) != kind::BEGIN {
            return Err(damaged("this is not a zfs send stream"));
        }
        refuse(&raw)?;
        let mut checksum = Fletcher4::default();
        checksum.update(&raw.bytes, raw.swapped);
        let payload = read_payload(&mut input, raw.u32(4).into(), LIMIT_BEGIN)?;
        checksum.update(&payload, raw.swapped);
        let begin = Begin {
            to_guid: raw.u64(40),
            from_guid: Some(raw.u64(48)).filter(|guid| *guid != 0),
            to_name: raw.bytes[56..].split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
        };
        Ok(Records { input, swapped: raw.swapped, begin, checksum, ended: false })
    }

    /// What BEGIN said.
    pub fn begin(&self) -> &Begin {
        &self.begin
    }

    /// The next record; `None` once END was right and nothing followed.
    pub fn record(&mut self) -> Result<Option<Record>, Error> {
        if self.ended {
            return Ok(None);
        }
        let raw = self.next_raw()?;
        let (record, guid) = match raw.u32(0) {
            kind::OBJECT => {
                let (bonus, raw_bonus) = (raw.u32(28), raw.u32(36));
                let len = if raw_bonus == 0 { u64::from(bonus).next_multiple_of(8) } else { raw_bonus.into() };
                self.payload(len)?;
                (Record::Other, raw.u64(40))
            }
            kind::FREEOBJECTS => (Record::Other, raw.u64(24)),
            kind::WRITE => (self.write(&raw)?, raw.u64(40)),
            kind::WRITE_EMBEDDED => (self.embedded(&raw)?, raw.u64(32)),
            kind::FREE => (Record::Free { object: raw.u64(8), offset: raw.u64(16), len: raw.u64(24) }, raw.u64(32)),
            kind::END => return self.end(&raw).map(|()| None),
            kind::WRITE_BYREF | kind::SPILL | kind::OBJECT_RANGE | kind::REDACT => {
                let what = format!("a record of type {} does not belong into a plain stream of a volume", raw.u32(0));
                return Err(Error::Unsupported(what));
            }
            other => return Err(damaged(format!("a record of unknown type {other}"))),
        };
        if guid != self.begin.to_guid {
            return Err(damaged("a record of another stream"));
        }
        Ok(Some(record))
    }

    /// A record, its checksum verified.
    fn next_raw(&mut self) -> Result<Raw, Error> {
        let mut raw = Raw { bytes: [0; RECORD_LEN], swapped: self.swapped };
        read(&mut self.input, &mut raw.bytes)?;
        let before = self.checksum;
        let (told, own) = raw.bytes.split_at(CHECKSUM_AT);
        self.checksum.update(told, self.swapped);
        // Senders of long ago left it empty; END's is always there.
        let carried = raw.checksum(CHECKSUM_AT);
        if carried != [0; 4] && carried != self.checksum.0 {
            return Err(damaged("a record's checksum does not fit"));
        }
        if raw.u32(0) == kind::END && raw.checksum(8) != before.0 {
            return Err(damaged("END's checksum does not agree with what was read"));
        }
        self.checksum.update(own, self.swapped);
        Ok(raw)
    }

    fn write(&mut self, raw: &Raw) -> Result<Record, Error> {
        let (len, compression) = (raw.u64(32), raw.byte(50));
        let packed = self.payload(if compression == 0 { len } else { raw.u64(96) })?;
        let len = block_len(len)?;
        Ok(Record::Write { object: raw.u64(8), offset: raw.u64(24), block: Block { compression, packed, unpacked: len, len } })
    }

    /// A block that is so small that it stands in its pointer.
    fn embedded(&mut self, raw: &Raw) -> Result<Record, Error> {
        let (len, compression, etype) = (raw.u64(24), raw.byte(40), raw.byte(41));
        let (unpacked, packed) = (raw.u32(48), raw.u32(52));
        let mut payload = self.payload(u64::from(packed).next_multiple_of(8))?;
        payload.truncate(packed.try_into().unwrap_or(usize::MAX));
        let (len, unpacked) = (block_len(len)?, block_len(unpacked.into())?);
        if etype != 0 || unpacked > len {
            return Err(damaged("an embedded block that holds no data"));
        }
        let block = Block { compression, packed: payload, unpacked, len };
        Ok(Record::Write { object: raw.u64(8), offset: raw.u64(16), block })
    }

    fn end(&mut self, raw: &Raw) -> Result<(), Error> {
        if raw.u64(40) != self.begin.to_guid {
            return Err(damaged("the END of another stream"));
        }
        match self.input.read(&mut [0])? {
            0 => self.ended = true,
            _ => return Err(damaged("something follows the stream's END")),
        }
        Ok(())
    }

    fn payload(&mut self, len: u64) -> Result<Vec<u8>, Error> {
        let payload = read_payload(&mut self.input, len, LIMIT_BLOCK)?;
        self.checksum.update(&payload, self.swapped);
        Ok(payload)
    }
}

/// Whether anything stands between BEGIN and END of a stream, of a volume or a file system. What does is not read.
pub fn has_records(mut input: impl Read) -> Result<bool, Error> {
    let mut raw = Raw { bytes: [0; RECORD_LEN], swapped: false };
    read(&mut input, &mut raw.bytes)?;
    raw.swapped = raw.u64(8).swap_bytes() == MAGIC;
    if raw.u64(8) != MAGIC || raw.u32(0) != kind::BEGIN {
        return Err(damaged("this is not a zfs send stream"));
    }
    read_payload(&mut input, raw.u32(4).into(), LIMIT_BEGIN)?;
    read(&mut input, &mut raw.bytes)?;
    Ok(raw.u32(0) != kind::END)
}

/// Refuses, by its name, a stream that would not be understood.
fn refuse(begin: &Raw) -> Result<(), Error> {
    let unsupported = |what: &str| Err(Error::Unsupported(format!("this send stream is {what}, which is not taken")));
    let version = begin.u64(16);
    match version & 3 {
        1 => {}
        2 => return unsupported("a package of several (zfs send -R, -I or -p)"),
        _ => return Err(damaged("this is not a zfs send stream")),
    }
    // 56 bits, of which senders of long ago knew 30 (`DMU_GET_FEATUREFLAGS`).
    let features = version >> 2 & ((1 << 56) - 1);
    if let Some((_, name)) = REFUSED_FEATURES.iter().find(|(bit, _)| features >> bit & 1 == 1) {
        return unsupported(name);
    }
    match begin.u32(32) {
        _ if features & !KNOWN_FEATURES != 0 => unsupported(&format!("with features {features:#x}")),
        OBJSET_ZVOL => Ok(()),
        OBJSET_ZFS => unsupported("of a file system, not of a volume"),
        _ => Err(damaged("this is not a send stream of a volume")),
    }
}

fn block_len(len: u64) -> Result<usize, Error> {
    let fits = usize::try_from(len).ok().filter(|_| (1..=LIMIT_BLOCK).contains(&len));
    fits.ok_or_else(|| damaged(format!("a block of {len} bytes")))
}

fn read_payload(input: &mut impl Read, len: u64, limit: u64) -> Result<Vec<u8>, Error> {
    if len > limit || !len.is_multiple_of(4) {
        return Err(damaged(format!("a payload of {len} bytes")));
    }
    let mut payload = vec![0; usize::try_from(len).unwrap_or_default()];
    read(input, &mut payload)?;
    Ok(payload)
}

fn read(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), Error> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Truncated,
        _ => Error::Io(error),
    })
}
