//! Reads in flight.

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use super::error::{check, failed};
use super::ffi::RawCompletion;
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
    // Last, so that the image outlives the completion above.
    image: Arc<Image>,
}

/// A completion that a read was started with.
struct Completion {
    image: Arc<Image>,
    raw: RawCompletion,
}

// SAFETY: a completion may be waited for on any thread (rbd_aio_* lock it).
unsafe impl Send for Completion {}

impl Reading {
    /// Starts to read the image from `offset` on, as many bytes as the buffer has.
    pub fn start(image: &Arc<Image>, offset: u64, mut buffer: Buffer) -> Result<Reading, Fault> {
        let rbd = image.rbd();
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` takes the completion; no callback, so nothing of ours is called by it.
        let code = unsafe { (rbd.rbd_aio_create_completion)(ptr::null_mut(), ptr::null(), &mut raw) };
        check(code, "preparing a read")?;
        let (at, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: `at` has room for `len` bytes. They lie on the heap and stay there while the Buffer moves into the Reading,
        // which nobody can look into before `wait`, and which neither gives the buffer up nor frees it before the read ends.
        let code = unsafe { (rbd.rbd_aio_read2)(image.raw, offset, len, at, raw, NO_CACHE) };
        if code < 0 {
            // SAFETY: the read was not started: the completion is ours alone and is released once.
            unsafe { (rbd.rbd_aio_release)(raw) };
            return Err(failed(code, format_args!("reading at byte {offset}")));
        }
        let completion = Some(Completion { image: image.clone(), raw });
        Ok(Reading { completion, buffer: Some(buffer), offset, image: image.clone() })
    }

    /// How many bytes it reads.
    pub fn size(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// Whether [`Reading::wait`] would return at once.
    pub fn is_complete(&self) -> bool {
        // SAFETY: the completion is live until it is dropped.
        self.completion.as_ref().is_none_or(|ours| unsafe { (self.image.rbd().rbd_aio_is_complete)(ours.raw) } != 0)
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

impl Completion {
    fn wait(self) -> isize {
        let rbd = self.image.rbd();
        // SAFETY: the completion is live until `self` is dropped, at the end of this.
        unsafe {
            (rbd.rbd_aio_wait_for_complete)(self.raw);
            (rbd.rbd_aio_get_return_value)(self.raw)
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        let rbd = self.image.rbd();
        // SAFETY: waits until librbd lets go of the buffer; then the completion, which is ours, is released once.
        unsafe {
            (rbd.rbd_aio_wait_for_complete)(self.raw);
            (rbd.rbd_aio_release)(self.raw);
        }
    }
}
