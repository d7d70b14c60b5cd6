//! The files of `rbd export-diff` (v1) and of `rbd export --export-format 2` (a container of v2 diffs), record by record.
//!
//! Layout: Ceph `doc/dev/rbd-diff.rst`, `doc/dev/rbd-export.rst`, `src/tools/rbd/action/{Export,Import}.cc`. Neither has a
//! check sum: only a missing end, and what makes no sense, can be noticed.

use std::io::{self, Read, Write};

/// What a v1 diff begins with.
const BANNER_V1: &[u8; 12] = b"rbd diff v1\n";
/// … and each diff of a container.
const BANNER_V2: &[u8; 12] = b"rbd diff v2\n";
/// What a container begins with.
const BANNER_IMAGE: &[u8; 13] = b"rbd image v2\n";
/// What stands before its diffs.
const BANNER_DIFFS: &[u8; 19] = b"rbd image diffs v2\n";
/// The longest name of a snapshot: what `rbd import-diff` takes.
const LIMIT_NAME: u64 = 4096;
/// The longest record of a container that says something of the image.
const LIMIT_ABOUT: u64 = 16 << 20;
/// Data is handed on in pieces of so many bytes at most.
const PIECE: u64 = 1 << 20;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Records without lengths.
    V1,
    /// Records with lengths.
    V2,
}

/// Why a diff cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system could not read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It ends without its end record.
    #[error("the diff ends early, without its end record")]
    Truncated,
    /// It must not be believed.
    #[error("{0}")]
    Damaged(String),
}

fn damaged(what: impl Into<String>) -> Error {
    Error::Damaged(what.into())
}

/// What a diff says before its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Name of the snapshot that it begins from; `None`: from nothing.
    pub from: Option<Vec<u8>>,
    /// Name of the snapshot that it leads to; `None`: the image itself, as it was then.
    pub to: Option<Vec<u8>>,
    /// Size of the image afterwards, in bytes.
    pub size: u64,
}

/// What a diff says of content. Offsets and lengths are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// These bytes stand here; at most 1 MiB of them.
    Data {
        /// Where they begin.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// This range reads as zero.
    Zero {
        /// Where it begins.
        offset: u64,
        /// Its length.
        len: u64,
    },
}

/// Reads one diff. [`Records::record`] gives `None` at its end record; what follows is the caller's business.
pub struct Records<R: Read> {
    input: R,
    version: Version,
    about: About,
    /// A tag that was read and not yet looked at.
    tag: u8,
    /// What is left of a record of data: offset and length.
    data: (u64, u64),
    /// Everything before this was said.
    floor: u64,
}

impl<R: Read> Records<R> {
    /// Reads the banner, and what stands before the data.
    pub fn open(mut input: R, version: Version) -> Result<Records<R>, Error> {
        let banner = if version == Version::V1 { BANNER_V1 } else { BANNER_V2 };
        if read::<12>(&mut input)? != *banner {
            return Err(damaged(format!("this does not begin as {} does", String::from_utf8_lossy(banner).trim_end())));
        }
        let mut records = Records { input, version, about: About::default(), tag: 0, data: (0, 0), floor: 0 };
        let mut size = None;
        loop {
            records.tag = read::<1>(&mut records.input)?[0];
            match records.tag {
                b'f' if records.about.from.is_none() => records.about.from = Some(records.name()?),
                b't' if records.about.to.is_none() => records.about.to = Some(records.name()?),
                b's' if size.is_none() => size = Some(records.lengthy(8)?.u64()?),
                b'p' if version == Version::V2 => records.protection()?,
                b'w' | b'z' | b'e' => break,
                tag => return Err(damaged(format!("a record {:?} where none belongs", char::from(tag)))),
            }
        }
        records.about.size = size.ok_or_else(|| damaged("the diff does not say the image's size"))?;
        Ok(records)
    }

    /// What it said before its data.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The next record; `None` at the end record.
    pub fn record(&mut self) -> Result<Option<Record>, Error> {
        if self.data.1 > 0 {
            return self.piece().map(Some);
        }
        if self.tag == 0 {
            self.tag = read::<1>(&mut self.input)?[0];
        }
        match std::mem::take(&mut self.tag) {
            b'e' => {
                self.tag = b'e';
                Ok(None)
            }
            b'z' => {
                let mut body = self.lengthy(16)?;
                let (offset, len) = (body.u64()?, body.u64()?);
                self.admit(offset, len)?;
                Ok(Some(Record::Zero { offset, len }))
            }
            b'w' => {
                let told = if self.version == Version::V2 { Some(u64::from_le_bytes(read(&mut self.input)?)) } else { None };
                let (offset, len) = (u64::from_le_bytes(read(&mut self.input)?), u64::from_le_bytes(read(&mut self.input)?));
                if told.is_some_and(|told| Some(told) != len.checked_add(16)) {
                    return Err(damaged("a record's length does not fit what is in it"));
                }
                self.admit(offset, len)?;
                self.data = (offset, len);
                self.piece().map(Some)
            }
            tag => Err(damaged(format!("a record {:?} among data", char::from(tag)))),
        }
    }

    /// Reads what is left of it; the input, behind it.
    pub fn skip(mut self) -> Result<R, Error> {
        while self.record()?.is_some() {}
        Ok(self.input)
    }

    /// Reads what is left of it, and so many diffs behind it in a container: who writes them is not cut off, and a file that was
    /// cut anywhere is told. Nothing follows.
    pub fn close(mut self, behind: u64) -> Result<(), Error> {
        let version = self.version;
        for _ in 0..behind {
            self = Records::open(self.skip()?, version)?;
        }
        match self.skip()?.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(damaged("something follows the end record")),
        }
    }

    /// The next piece of a record of data.
    fn piece(&mut self) -> Result<Record, Error> {
        let (offset, len) = self.data;
        let now = len.min(PIECE - offset % PIECE);
        let mut bytes = vec![0; usize::try_from(now).unwrap_or_default()];
        fill(&mut self.input, &mut bytes)?;
        self.data = (offset + now, len - now);
        Ok(Record::Data { offset, bytes })
    }

    /// Ranges lie inside the image, and come in order: nothing else shows that a byte was lost.
    fn admit(&mut self, offset: u64, len: u64) -> Result<(), Error> {
        let end = offset.checked_add(len).filter(|end| len > 0 && *end <= self.about.size);
        let end =
            end.ok_or_else(|| damaged(format!("{len} bytes at offset {offset} of an image of {} bytes", self.about.size)))?;
        if offset < self.floor {
            return Err(damaged(format!("a range at offset {offset} after one that ended at {}", self.floor)));
        }
        self.floor = end;
        Ok(())
    }

    fn name(&mut self) -> Result<Vec<u8>, Error> {
        let told = if self.version == Version::V2 { Some(u64::from_le_bytes(read(&mut self.input)?)) } else { None };
        let len = u64::from(u32::from_le_bytes(read(&mut self.input)?));
        if len == 0 || len > LIMIT_NAME || told.is_some_and(|told| told != len + 4) {
            return Err(damaged("the name of a snapshot is empty or too long"));
        }
        let mut name = vec![0; usize::try_from(len).unwrap_or_default()];
        fill(&mut self.input, &mut name)?;
        Ok(name)
    }

    /// Whether the snapshot is protected, which says nothing of content. Ceph writes 8 for its length, and one byte.
    fn protection(&mut self) -> Result<(), Error> {
        let told = u64::from_le_bytes(read(&mut self.input)?);
        let [is_protected] = read::<1>(&mut self.input)?;
        match (told, is_protected) {
            (1 | 8, 0 | 1) => Ok(()),
            _ => Err(damaged("a snapshot that is neither protected nor not")),
        }
    }

    /// The body of a record that has `len` bytes.
    fn lengthy(&mut self, len: u64) -> Result<Body, Error> {
        if self.version == Version::V2 && u64::from_le_bytes(read(&mut self.input)?) != len {
            return Err(damaged("a record's length does not fit what is in it"));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        fill(&mut self.input, &mut bytes)?;
        Ok(Body(bytes))
    }
}

/// What is left of a record's body.
struct Body(Vec<u8>);

impl Body {
    fn u64(&mut self) -> Result<u64, Error> {
        let bytes = *self.0.first_chunk::<8>().ok_or_else(|| damaged("a record is too short"))?;
        self.0.drain(..8);
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Reads what a container says of its image; how many diffs follow.
pub fn open_container(input: &mut impl Read) -> Result<u64, Error> {
    if read::<13>(input)? != *BANNER_IMAGE {
        return Err(damaged("this is no export of format 2"));
    }
    loop {
        let tag = read::<1>(input)?[0];
        if tag == b'E' {
            break;
        }
        // Order, features, striping, metadata: nothing that says content.
        let len = u64::from_le_bytes(read(input)?);
        if len > LIMIT_ABOUT {
            return Err(damaged("a record about the image is too long"));
        }
        if io::copy(&mut input.take(len), &mut io::sink())? < len {
            return Err(Error::Truncated);
        }
    }
    if read::<19>(input)? != *BANNER_DIFFS {
        return Err(damaged("the export has no diffs"));
    }
    Ok(u64::from_le_bytes(read(input)?))
}

/// Writes one diff; in version 2, a container of one.
pub struct DiffWriter<W: Write> {
    output: W,
    version: Version,
}

impl<W: Write> DiffWriter<W> {
    /// Writes everything before the data.
    pub fn begin(mut output: W, version: Version, about: &About) -> io::Result<DiffWriter<W>> {
        if version == Version::V2 {
            output.write_all(&[&BANNER_IMAGE[..], b"E", BANNER_DIFFS, &1_u64.to_le_bytes()].concat())?;
        }
        output.write_all(if version == Version::V1 { BANNER_V1 } else { BANNER_V2 })?;
        let mut writer = DiffWriter { output, version };
        for (tag, name) in [(b'f', &about.from), (b't', &about.to)] {
            if let Some(name) = name {
                let len = u32::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
                writer.put(tag, &[&len.to_le_bytes(), name.as_slice()].concat(), 0)?;
            }
        }
        writer.put(b's', &about.size.to_le_bytes(), 0)?;
        Ok(writer)
    }

    /// Writes one record.
    pub fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        self.put(b'w', &[offset.to_le_bytes(), len.to_le_bytes()].concat(), len)?;
        self.output.write_all(bytes)
    }

    /// Writes one record.
    pub fn zero(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.put(b'z', &[offset.to_le_bytes(), len.to_le_bytes()].concat(), 0)
    }

    /// Writes the end record and flushes.
    pub fn finish(mut self) -> io::Result<()> {
        self.output.write_all(b"e")?;
        self.output.flush()
    }

    /// A tag, in version 2 the length of all that belongs to it, and the body; `more` bytes follow by themselves.
    fn put(&mut self, tag: u8, body: &[u8], more: u64) -> io::Result<()> {
        self.output.write_all(&[tag])?;
        if self.version == Version::V2 {
            self.output.write_all(&(body.len() as u64 + more).to_le_bytes())?;
        }
        self.output.write_all(body)
    }
}

fn read<const N: usize>(input: &mut impl Read) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    fill(input, &mut bytes)?;
    Ok(bytes)
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), Error> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Truncated,
        _ => Error::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        let about = About { from: Some(b"mon".to_vec()), to: Some(b"tue".to_vec()), size: 3 << 20 };
        let mut writer = DiffWriter::begin(&mut out, version, &about).unwrap();
        writer.zero(0, 4096).unwrap();
        writer.data((1 << 20) - 5, &[7; 1 << 20]).unwrap();
        writer.finish().unwrap();
        out
    }

    fn all(bytes: &[u8], version: Version) -> Result<(About, Vec<Record>), Error> {
        let mut input = bytes;
        if version == Version::V2 && open_container(&mut input)? != 1 {
            return Err(damaged("one diff"));
        }
        let mut records = Records::open(input, version)?;
        let mut out = Vec::new();
        while let Some(record) = records.record()? {
            out.push(record);
        }
        let about = records.about().clone();
        records.close(0).map(|()| (about, out))
    }

    #[test]
    fn what_is_written_is_read_and_a_cut_is_noticed() {
        for version in [Version::V1, Version::V2] {
            let bytes = written(version);
            let (about, records) = all(&bytes, version).unwrap();
            assert_eq!((about.from.as_deref(), about.to.as_deref(), about.size), (Some(&b"mon"[..]), Some(&b"tue"[..]), 3 << 20));
            assert_eq!(records[0], Record::Zero { offset: 0, len: 4096 });
            assert_eq!(records[1], Record::Data { offset: (1 << 20) - 5, bytes: vec![7; 5] });
            assert_eq!(records[2], Record::Data { offset: 1 << 20, bytes: vec![7; (1 << 20) - 5] });
            for cut in (0..200).chain(bytes.len() - 200..bytes.len()) {
                assert!(all(&bytes[..cut], version).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_protected_snapshot_is_read_as_ceph_writes_it() {
        // As `rbd export --export-format 2` of Ceph 16.2.15 has it: the length says 8, and one byte follows.
        let named = [&BANNER_V2[..], b"t", &6_u64.to_le_bytes(), &2_u32.to_le_bytes(), b"s0"].concat();
        let sized = [&b"s"[..], &8_u64.to_le_bytes(), &4096_u64.to_le_bytes(), b"e"].concat();
        for (told, is_protected, good) in [(8_u64, 1, true), (8, 0, true), (1, 1, true), (8, 2, false), (9, 1, false)] {
            let bytes = [&named[..], b"p", &told.to_le_bytes(), &[is_protected], &sized].concat();
            let read = Records::open(&bytes[..], Version::V2).map(|records| records.about().size);
            assert_eq!(read.ok(), good.then_some(4096), "{told}, {is_protected}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let diff = |records: &[u8]| [&BANNER_V1[..], b"s", &(1_u64 << 20).to_le_bytes(), records].concat();
        let range = |tag: u8, offset: u64, len: u64| [&[tag][..], &offset.to_le_bytes(), &len.to_le_bytes()].concat();
        for (bytes, why) in [
            (b"rbd diff v2\n".to_vec(), "another version"),
            ([&BANNER_V1[..], b"e"].concat(), "no size"),
            (diff(&[range(b'z', 1 << 20, 1), b"e".to_vec()].concat()), "behind the end"),
            (diff(&[range(b'z', u64::MAX, 2), b"e".to_vec()].concat()), "an overflow"),
            (diff(&[range(b'z', 0, 0), b"e".to_vec()].concat()), "nothing"),
            (diff(&[range(b'z', 4096, 4096), range(b'z', 0, 4096), b"e".to_vec()].concat()), "backwards"),
            (
                diff(&[range(b'z', 0, 4096), b"s".to_vec(), 5_u64.to_le_bytes().to_vec(), b"e".to_vec()].concat()),
                "a size among data",
            ),
            (diff(&range(b'w', 0, 1 << 20)), "data that is not there"),
            (diff(b"ex"), "more behind the end"),
            (diff(b"?e"), "an unknown record"),
        ] {
            assert!(all(&bytes, Version::V1).is_err(), "{why}");
        }
    }
}
