//! Blocks as ZFS compresses them.

use std::io::Read;

use super::{Error, damaged};

/// `enum zio_compress` of OpenZFS: the numbers of a record's compression field.
mod kind {
    pub const OFF: [u8; 2] = [0, 2];
    pub const LZJB: u8 = 3;
    pub const EMPTY: u8 = 4;
    pub const GZIP: std::ops::RangeInclusive<u8> = 5..=13;
    pub const ZLE: u8 = 14;
    pub const LZ4: u8 = 15;
    pub const ZSTD: u8 = 16;
}

/// What `packed` holds, as `len` bytes.
pub(super) fn unpack(compression: u8, packed: &[u8], len: usize) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; len];
    match compression {
        kind if kind::OFF.contains(&kind) && packed.len() == len => out.copy_from_slice(packed),
        kind::EMPTY => {}
        kind::LZJB => lzjb(packed, &mut out)?,
        kind::ZLE => zle(packed, &mut out)?,
        kind::LZ4 => {
            // A big-endian length, then a raw LZ4 block.
            let block = prefixed(packed, 4)?;
            let filled = lz4_flex::block::decompress_into(block, &mut out).map_err(|_| garbled("LZ4"))?;
            filled_all(filled, len, "LZ4")?;
        }
        kind::ZSTD => {
            // A big-endian length, level and version, then a frame without its magic number.
            let mut decoder = zstd_magicless()?;
            let filled = decoder.decompress_to_buffer(prefixed(packed, 8)?, &mut out[..]).map_err(|_| garbled("zstd"))?;
            filled_all(filled, len, "zstd")?;
        }
        kind if kind::GZIP.contains(&kind) => {
            flate2::read::ZlibDecoder::new(packed).read_exact(&mut out).map_err(|_| garbled("gzip"))?;
        }
        other => return Err(Error::Unsupported(format!("a block is compressed in way {other}, which is not known here"))),
    }
    Ok(out)
}

/// What stands behind a header of `header` bytes that begins with the big-endian length of it.
fn prefixed(packed: &[u8], header: usize) -> Result<&[u8], Error> {
    let len =
        packed.first_chunk::<4>().map(|bytes| usize::try_from(u32::from_le_bytes(*bytes).swap_bytes()).unwrap_or(usize::MAX));
    let inside = len.and_then(|len| packed.get(header..header.checked_add(len)?));
    inside.ok_or_else(|| damaged("a compressed block is shorter than it says"))
}

fn zstd_magicless() -> Result<zstd::bulk::Decompressor<'static>, Error> {
    let mut decoder = zstd::bulk::Decompressor::new().map_err(Error::Io)?;
    decoder.set_parameter(zstd::zstd_safe::DParameter::Format(zstd::zstd_safe::FrameFormat::Magicless)).map_err(Error::Io)?;
    Ok(decoder)
}

fn filled_all(filled: usize, len: usize, what: &str) -> Result<(), Error> {
    if filled == len { Ok(()) } else { Err(garbled(what)) }
}

fn garbled(what: &str) -> Error {
    damaged(format!("a block compressed by {what} is damaged"))
}

/// Zero runs and literals: a byte below 64 says how many literal bytes less one follow, another how many zeros less 63 are meant
/// (`module/zfs/zle.c`, with a level of 64).
fn zle(packed: &[u8], out: &mut [u8]) -> Result<(), Error> {
    const LEVEL: usize = 64;
    let (mut at, mut packed) = (0, packed);
    while at < out.len() {
        let (&first, rest) = packed.split_first().ok_or_else(|| garbled("zle"))?;
        let len = 1 + usize::from(first);
        if len <= LEVEL {
            let (literal, rest) = rest.split_at_checked(len).ok_or_else(|| garbled("zle"))?;
            out.get_mut(at..at + len).ok_or_else(|| garbled("zle"))?.copy_from_slice(literal);
            (at, packed) = (at + len, rest);
        } else {
            // Already zero.
            (at, packed) = (at + len - LEVEL, rest);
        }
    }
    if at == out.len() { Ok(()) } else { Err(garbled("zle")) }
}

/// Eight items behind a byte of flags: a literal byte, or 6 bits of length and 10 of distance (`module/zfs/lzjb.c`).
fn lzjb(packed: &[u8], out: &mut [u8]) -> Result<(), Error> {
    const MATCH_MIN: usize = 3;
    let mut packed = packed.iter().copied();
    let mut next = || packed.next().ok_or_else(|| garbled("lzjb")).map(usize::from);
    let (mut at, mut flags, mut bit) = (0, 0, 8);
    while at < out.len() {
        if bit == 8 {
            (flags, bit) = (next()?, 0);
        }
        if flags >> bit & 1 == 0 {
            out[at] = u8::try_from(next()?).unwrap_or_default();
            at += 1;
        } else {
            let (high, low) = (next()?, next()?);
            let len = (high >> 2) + MATCH_MIN;
            let distance = (high & 3) << 8 | low;
            if distance == 0 || distance > at {
                return Err(garbled("lzjb"));
            }
            for _ in 0..len.min(out.len() - at) {
                out[at] = out[at - distance];
                at += 1;
            }
        }
        bit += 1;
    }
    Ok(())
}
