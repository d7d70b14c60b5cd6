//! Streams made by hand; those of a real `zfs send` are in tests/real.
#![allow(clippy::cast_possible_truncation, reason = "tests")]

use std::io::Write;

use super::*;

/// Builds a stream, its checksums right.
pub(crate) struct Stream {
    bytes: Vec<u8>,
    swapped: bool,
    sum: Fletcher4,
}

const GUID: u64 = 77;

impl Stream {
    pub fn begin(swapped: bool, objset: u32, features: u64, from: u64) -> Stream {
        let mut stream = Stream { bytes: Vec::new(), swapped, sum: Fletcher4::default() };
        let fields = [(8, MAGIC), (16, features << 2 | 1), (24, 1000), (40, GUID), (48, from)];
        let mut raw = stream.raw(kind::BEGIN, &fields, &[(32, objset)], &[]);
        raw[56..65].copy_from_slice(b"tank/v@s1");
        stream.put(&raw);
        stream
    }

    fn raw(&self, kind: u32, words: &[(usize, u64)], halves: &[(usize, u32)], bytes: &[(usize, u8)]) -> Vec<u8> {
        let order = |mut field: Vec<u8>| {
            if self.swapped {
                field.reverse();
            }
            field
        };
        let mut raw = vec![0; RECORD_LEN];
        raw[..4].copy_from_slice(&order(kind.to_le_bytes().to_vec()));
        words.iter().for_each(|(at, word)| raw[*at..at + 8].copy_from_slice(&order(word.to_le_bytes().to_vec())));
        halves.iter().for_each(|(at, half)| raw[*at..at + 4].copy_from_slice(&order(half.to_le_bytes().to_vec())));
        bytes.iter().for_each(|(at, byte)| raw[*at] = *byte);
        raw
    }

    fn put(&mut self, bytes: &[u8]) {
        self.sum.update(bytes, self.swapped);
        self.bytes.extend(bytes);
    }

    fn record(mut self, mut raw: Vec<u8>, payload: &[u8]) -> Stream {
        self.put(&raw[..CHECKSUM_AT]);
        let sum = self.sum.0.map(|word| if self.swapped { word.swap_bytes() } else { word });
        raw.splice(CHECKSUM_AT.., sum.iter().flat_map(|word| word.to_le_bytes()));
        self.put(&raw[CHECKSUM_AT..]);
        self.put(payload);
        self
    }

    pub fn write(self, offset: u64, len: u64, compression: u8, packed: &[u8]) -> Stream {
        let words = [(8, ZVOL_DATA), (24, offset), (32, len), (40, GUID), (96, packed.len() as u64)];
        let raw = self.raw(kind::WRITE, &words, &[], &[(50, compression)]);
        self.record(raw, packed)
    }

    pub fn embedded(self, offset: u64, len: u64, packed: &[u8]) -> Stream {
        let words = [(8, ZVOL_DATA), (16, offset), (24, len), (32, GUID)];
        let raw = self.raw(kind::WRITE_EMBEDDED, &words, &[(48, packed.len() as u32), (52, packed.len() as u32)], &[]);
        let mut padded = packed.to_vec();
        padded.resize(packed.len().next_multiple_of(8), 0);
        self.record(raw, &padded)
    }

    pub fn free(self, offset: u64, len: u64) -> Stream {
        let raw = self.raw(kind::FREE, &[(8, ZVOL_DATA), (16, offset), (24, len), (32, GUID)], &[], &[]);
        self.record(raw, &[])
    }

    pub fn end(self) -> Vec<u8> {
        let sum = self.sum.0;
        let words = [(8, sum[0]), (16, sum[1]), (24, sum[2]), (32, sum[3]), (40, GUID)];
        let raw = self.raw(kind::END, &words, &[], &[]);
        self.record(raw, &[]).bytes
    }
}

fn all(stream: &[u8]) -> Result<(Begin, Vec<Record>), Error> {
    let mut records = Records::open(stream)?;
    let mut out = Vec::new();
    while let Some(record) = records.record()? {
        out.push(record);
    }
    Ok((records.begin().clone(), out))
}

fn plain(swapped: bool) -> Vec<u8> {
    Stream::begin(swapped, OBJSET_ZVOL, 0, 5)
        .free(1 << 20, u64::MAX)
        .write(8192, 8, 0, b"12345678")
        .embedded(16384, 512, b"tiny")
        .end()
}

#[test]
fn both_byte_orders_are_read() {
    for swapped in [false, true] {
        let (begin, records) = all(&plain(swapped)).unwrap();
        assert_eq!(begin, Begin { to_guid: GUID, from_guid: Some(5), to_name: b"tank/v@s1".to_vec() });
        assert_eq!(records[0], Record::Free { object: ZVOL_DATA, offset: 1 << 20, len: u64::MAX });
        let Record::Write { offset: 8192, block, .. } = records[1].clone() else { panic!() };
        assert_eq!(block.unpack().unwrap(), b"12345678");
        let Record::Write { offset: 16384, block, .. } = records[2].clone() else { panic!() };
        assert_eq!(block.len(), 512);
        assert_eq!(block.unpack().unwrap(), [b"tiny".to_vec(), vec![0; 508]].concat());
    }
}

#[test]
fn a_stream_cut_or_changed_anywhere_is_an_error() {
    for swapped in [false, true] {
        let stream = plain(swapped);
        for cut in 0..stream.len() {
            assert!(matches!(all(&stream[..cut]), Err(Error::Truncated)), "cut at {cut}");
        }
        for bit in 0..8 * stream.len() {
            let mut bad = stream.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // The last checksum covers nothing behind it: what it is itself is told by no other.
            assert!(all(&bad).is_err(), "bit {bit}");
        }
        assert!(all(&[stream.as_slice(), b"\0"].concat()).is_err());
    }
}

#[test]
fn other_kinds_of_streams_are_refused_by_name() {
    for (objset, features, word) in [
        (OBJSET_ZFS, 0, "file system"),
        (OBJSET_ZVOL, 1 << 24, "raw"),
        (OBJSET_ZVOL, 1, "deduplicated"),
        (OBJSET_ZVOL, 1 << 21, "redacted"),
        (OBJSET_ZVOL, 1 << 20, "cut"),
        (OBJSET_ZVOL, 1 << 9, "features 0x200"),
    ] {
        match all(&Stream::begin(false, objset, features, 0).end()) {
            Err(Error::Unsupported(what)) => assert!(what.contains(word), "{what}"),
            other => panic!("{word}: {other:?}"),
        }
    }
}

#[test]
fn a_stream_without_records_is_told_of_whatever_it_is() {
    for objset in [OBJSET_ZFS, OBJSET_ZVOL] {
        for swapped in [false, true] {
            let empty = Stream::begin(swapped, objset, 0, 7).end();
            assert!(!has_records(empty.as_slice()).unwrap());
            assert!(has_records(Stream::begin(swapped, objset, 0, 7).free(0, 512).end().as_slice()).unwrap());
            assert!(has_records(&empty[..RECORD_LEN]).is_err(), "cut behind BEGIN");
        }
    }
    assert!(has_records([0; 2 * RECORD_LEN].as_slice()).is_err());
}

#[test]
fn blocks_are_unpacked_whatever_packed_them() {
    let content: Vec<u8> = (0..16384_u32).map(|n| if n % 100 < 60 { 0 } else { (n / 300) as u8 }).collect();
    let lz4 = lz4_flex::block::compress(&content);
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    zstd.set_parameter(zstd::zstd_safe::CParameter::Format(zstd::zstd_safe::FrameFormat::Magicless)).unwrap();
    let zstd = zstd.compress(&content).unwrap();
    let mut gzip = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&content).unwrap();
    let length = |len: usize| (len as u32).swap_bytes().to_le_bytes();
    for (compression, packed) in [
        (15, [&length(lz4.len())[..], &lz4].concat()),
        (16, [&length(zstd.len())[..], &[0; 4], &zstd].concat()),
        (9, gzip.finish().unwrap()),
        (14, zle(&content)),
        (3, lzjb(&content)),
    ] {
        let mut packed = packed;
        packed.resize(packed.len().next_multiple_of(512), 0);
        let stream = Stream::begin(false, OBJSET_ZVOL, 1 << 22, 0).write(0, content.len() as u64, compression, &packed).end();
        let Record::Write { block, .. } = all(&stream).unwrap().1.remove(0) else { panic!() };
        assert_eq!(block.unpack().unwrap(), content, "compression {compression}");
        // Whatever is in the block: no panic, and no other length.
        for at in 0..packed.len().min(3000) {
            let mut bad = packed.clone();
            bad[at] ^= 0x55;
            let bad = unpack::unpack(compression, &bad, content.len());
            assert!(bad.is_err() || bad.unwrap().len() == content.len());
            assert!(unpack::unpack(compression, &packed[..at], 1 << 20).is_err(), "{compression}: {at} bytes make a MiB");
        }
    }
    assert!(matches!(unpack::unpack(99, &[0; 8], 8), Err(Error::Unsupported(_))));
}

/// As `zle_compress` does, only simpler.
fn zle(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count().min(192);
        if zeros > 0 {
            out.push((63 + zeros) as u8);
            rest = &rest[zeros..];
        } else {
            let literal = rest.iter().take_while(|byte| **byte != 0).count().min(64);
            out.push((literal - 1) as u8);
            out.extend(&rest[..literal]);
            rest = &rest[literal..];
        }
    }
    out
}

/// Literals, and a run of the byte before where there is one.
fn lzjb(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut at, mut flags_at, mut bit) = (0, 0, 8);
    while at < content.len() {
        if bit == 8 {
            (flags_at, bit) = (out.len(), 0);
            out.push(0);
        }
        let run = if at == 0 { 0 } else { content[at..].iter().take_while(|byte| **byte == content[at - 1]).count().min(66) };
        if run >= 3 {
            out[flags_at] |= 1 << bit;
            out.extend([((run - 3) << 2) as u8, 1]);
            at += run;
        } else {
            out.push(content[at]);
            at += 1;
        }
        bit += 1;
    }
    out
}
