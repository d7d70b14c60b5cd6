//! What librbd is working on.

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use super::error::{check, failed};
use super::ffi::RawCompletion;
use super::image::Image;
use crate::state::Fault;

/// One call that was started. Dropping it waits for its end: until then librbd uses the memory that it was given.
pub(super) struct Completion {
    image: Arc<Image>,
    raw: RawCompletion,
}

// SAFETY: a completion may be waited for on any thread (rbd_aio_* lock it).
unsafe impl Send for Completion {}

impl Completion {
    /// Starts a call: `begin` gives librbd the completion, and librbd's answer.
    pub fn start(
        image: &Arc<Image>,
        tried: impl FnOnce() -> String,
        begin: impl FnOnce(RawCompletion) -> c_int,
    ) -> Result<Completion, Fault> {
        let rbd = image.rbd();
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` takes the completion; no callback, so nothing of ours is called by it.
        let code = unsafe { (rbd.rbd_aio_create_completion)(ptr::null_mut(), ptr::null(), &mut raw) };
        check(code, "preparing a read or write")?;
        let code = begin(raw);
        if code < 0 {
            // SAFETY: nothing was started: the completion is ours alone and is released once.
            unsafe { (rbd.rbd_aio_release)(raw) };
            return Err(failed(code, tried()));
        }
        Ok(Completion { image: image.clone(), raw })
    }

    /// Whether [`Completion::wait`] would return at once.
    pub fn is_complete(&self) -> bool {
        // SAFETY: the completion is live until it is dropped.
        unsafe { (self.image.rbd().rbd_aio_is_complete)(self.raw) != 0 }
    }

    /// Waits for the end: what librbd says of it, a negated error number below 0.
    pub fn wait(self) -> isize {
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
        // SAFETY: waits until librbd lets go of the memory; then the completion, which is ours, is released once.
        unsafe {
            (rbd.rbd_aio_wait_for_complete)(self.raw);
            (rbd.rbd_aio_release)(self.raw);
        }
    }
}
