//! Holding an image's writers: a snapshot that is being taken, and waits for us.
//!
//! librbd asks every client who wants to be asked before it takes a snapshot ("quiesce"), and waits for the answer. We want to be
//! asked, by the very handle that takes it. While it waits, the handle does not give its exclusive lock away: who wants it is
//! told to wait, and his writes wait, but do not fail.

use std::ffi::c_void;
use std::ptr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::claim::Claimed;
use super::error::check;
use crate::state::Fault;

/// An image whose snapshots ask us before they are taken.
pub(super) struct Rest<'a> {
    image: &'a Claimed,
    handle: u64,
    bell: Box<Bell>,
}

/// What a snapshot that was begun has come to.
pub(super) enum Come {
    /// It asks, and waits for [`Rest::answer`].
    Asks,
    /// It was taken, or not.
    Ended(Result<(), Fault>),
}

#[derive(Default)]
struct Bell {
    heard: Mutex<Heard>,
    rings: Condvar,
}

#[derive(Default)]
struct Heard {
    asks: bool,
    ended: Option<Result<(), Fault>>,
}

impl<'a> Rest<'a> {
    /// Wants to be asked from now on.
    pub fn watch(image: &'a Claimed) -> Result<Rest<'a>, Fault> {
        let bell = Box::<Bell>::default();
        let mut handle = 0;
        let at: *const Bell = &*bell;
        // SAFETY: the handle is live; the bell stays where it is until `drop` has taken the watch back.
        let code =
            unsafe { (image.calls().rbd_quiesce_watch)(image.image().raw, ring, go_on, at.cast_mut().cast(), &mut handle) };
        check(code, "watching for snapshots of the image")?;
        Ok(Rest { image, handle, bell })
    }

    /// Takes the snapshot: on a thread of its own, because it asks first.
    pub fn snapshot(&self, name: &str) {
        let taken = self.image.create_snapshot_at_rest(name);
        self.bell.heard().ended = Some(taken);
        self.bell.rings.notify_all();
    }

    /// Waits until it asks or has ended.
    pub fn come(&self) -> Come {
        let mut heard = self.bell.heard();
        loop {
            if let Some(ended) = heard.ended.take() {
                heard.asks = false;
                return Come::Ended(ended);
            }
            if heard.asks {
                return Come::Asks;
            }
            heard = self.bell.rings.wait(heard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the snapshot that asks be taken, or not.
    pub fn answer(&self, take: bool) {
        let code = if take { 0 } else { Errno::CANCELED.raw_os_error().saturating_neg() };
        self.bell.heard().asks = false;
        // SAFETY: the handles are live.
        unsafe { (self.image.calls().rbd_quiesce_complete)(self.image.image().raw, self.handle, code) };
    }

    /// Waits until the snapshot has ended.
    pub fn end(&self) -> Result<(), Fault> {
        loop {
            match self.come() {
                Come::Ended(outcome) => return outcome,
                // A snapshot of somebody else.
                Come::Asks => self.answer(true),
            }
        }
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        // SAFETY: exactly what `watch` set up; after it nobody has the bell.
        unsafe { (self.image.calls().rbd_quiesce_unwatch)(self.image.image().raw, self.handle) };
    }
}

impl Bell {
    /// Nobody panics under this lock.
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

unsafe extern "C" fn ring(bell: *mut c_void) {
    // SAFETY: `watch` gave a pointer to a Bell, which lives as long as the watch.
    let Some(bell) = (unsafe { ptr::NonNull::new(bell).map(|bell| bell.cast::<Bell>().as_ref()) }) else { return };
    bell.heard().asks = true;
    bell.rings.notify_all();
}

unsafe extern "C" fn go_on(_: *mut c_void) {}
