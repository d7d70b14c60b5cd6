//! Writes in flight.

use std::ffi::c_int;

use bytes::Bytes;

use super::claim::Claimed;
use super::completion::Completion;
use super::error::failed;
use crate::state::Fault;

/// `LIBRADOS_OP_FLAG_FADVISE_DONTNEED`: what a backup writes is not read again soon.
const DONT_NEED: c_int = 0x20;

/// One write that librbd is working on. Dropping it waits for its end, because librbd reads the bytes until then.
pub struct Writing {
    // First: it waits before the bytes are freed.
    completion: Completion,
    bytes: Bytes,
    offset: u64,
}

impl Writing {
    /// Starts to write bytes at `offset`.
    pub fn data(target: &Claimed, offset: u64, bytes: Bytes) -> Result<Writing, Fault> {
        let (at, len) = (bytes.as_ptr().cast(), bytes.len());
        let completion = Completion::start(
            target.image(),
            || format!("writing at byte {offset}"),
            |raw| {
                // SAFETY: `at` has `len` bytes that stay where they are while the Bytes is shared; the Writing shares it until the
                // write has ended. Whole images only change hands by value, so the handle is live.
                unsafe { (target.calls().rbd_aio_write2)(target.image().raw, offset, len, at, raw, DONT_NEED) }
            },
        )?;
        Ok(Writing { completion, bytes, offset })
    }

    /// Starts to make a range read as zero, freeing what can be freed. Ragged edges are written as zeros: librbd rounds
    /// discards inward (`rbd_discard_granularity_bytes`), but not these.
    pub fn zeros(target: &Claimed, offset: u64, len: u64) -> Result<Writing, Fault> {
        let count = usize::try_from(len).unwrap_or(usize::MAX);
        let completion = Completion::start(
            target.image(),
            || format!("zeroing at byte {offset}"),
            |raw| {
                // SAFETY: the handle is live; no memory is handed over.
                unsafe { (target.calls().rbd_aio_write_zeroes)(target.image().raw, offset, count, raw, 0, DONT_NEED) }
            },
        )?;
        Ok(Writing { completion, bytes: Bytes::new(), offset })
    }

    /// How many bytes of memory it holds on to.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Waits for the end.
    pub fn wait(self) -> Result<(), Fault> {
        let Writing { completion, bytes, offset } = self;
        let code = completion.wait();
        drop(bytes);
        match c_int::try_from(code) {
            Ok(0..) => Ok(()),
            Ok(code) => Err(failed(code, format_args!("writing at byte {offset}"))),
            Err(_) => Err(failed(c_int::MIN, format_args!("writing at byte {offset}"))),
        }
    }
}
