//! Reads in flight.

use std::ffi::c_int;
use std::sync::Arc;

use super::completion::Completion;
use super::error::failed;
use super::image::Image;
use crate::format::Buffer;
use crate::state::{Class, Fault};

/// `LIBRADOS_OP_FLAG_FADVISE_NOCACHE`: a backup reads everything once and should not push what guests use out of the OSDs' caches.
const NO_CACHE: c_int = 0x40;

/// One read that librbd is working on. Dropping it waits for its end, because librbd writes into the buffer until then.
pub struct Reading {
    completion: Option<Completion>,
    buffer: Option<Buffer>,
    offset: u64,
}

impl Reading {
    /// Starts to read the image from `offset` on, as many bytes as the buffer has.
    pub fn start(image: &Arc<Image>, offset: u64, mut buffer: Buffer) -> Result<Reading, Fault> {
        let (at, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        let completion = Completion::start(
            image,
            || format!("reading at byte {offset}"),
            |raw| {
                // SAFETY: `at` has room for `len` bytes. They lie on the heap and stay there while the Buffer moves into the
                // Reading, which nobody can look into before `wait`, and which neither gives the buffer up nor frees it before
                // the read ends.
                unsafe { (image.rbd().rbd_aio_read2)(image.raw, offset, len, at, raw, NO_CACHE) }
            },
        )?;
        Ok(Reading { completion: Some(completion), buffer: Some(buffer), offset })
    }

    /// How many bytes it reads.
    pub fn size(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// Whether [`Reading::wait`] would return at once.
    pub fn is_complete(&self) -> bool {
        self.completion.as_ref().is_none_or(Completion::is_complete)
    }

    /// Waits for the end and gives the buffer, filled.
    pub fn wait(mut self) -> Result<Buffer, Fault> {
        let none = || Fault::new(Class::Io, "a read was waited for twice");
        let code = self.completion.take().map(Completion::wait).ok_or_else(none)?;
        let buffer = self.buffer.take().ok_or_else(none)?;
        let offset = self.offset;
        match usize::try_from(code) {
            Ok(read) if read == buffer.len() => Ok(buffer),
            Ok(read) => Err(Fault::new(Class::Io, format!("reading at byte {offset}: {read} of {} bytes", buffer.len()))),
            Err(_) => Err(failed(c_int::try_from(code).unwrap_or(c_int::MIN), format_args!("reading at byte {offset}"))),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Before the buffer is freed.
        drop(self.completion.take());
    }
}
