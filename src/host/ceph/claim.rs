//! RBD images that are written to.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use rustix::io::Errno;

use super::cluster::{Pool, owned};
use super::error::{c_string, check, is};
use super::ffi::{RawWatcher, RbdWriting};
use super::image::{Image, feature, flag};
use crate::state::{Class, Fault};

/// `RBD_LOCK_MODE_EXCLUSIVE`: the lock does not go on to whoever asks for it.
const EXCLUSIVE: c_int = 0;

/// An image that is open for writing.
///
/// Its size, snapshots and metadata are changed here and nowhere else; its content by [`super::Writing`].
pub struct Claimed {
    image: Arc<Image>,
    calls: &'static RbdWriting,
    client: u64,
}

impl Claimed {
    /// Opens the image of this name at its head. Not yet exclusive: see [`Claimed::others`] and [`Claimed::lock`].
    pub fn open(pool: &Arc<Pool>, name: &str) -> Result<Claimed, Fault> {
        let ceph = pool.cluster().ceph;
        let (_, calls) = ceph.writing()?;
        let image = Arc::new(Image::open_with(pool, name, calls.rbd_open)?);
        // SAFETY: the connection is live.
        let client = unsafe { (ceph.rados.rados_get_instance_id)(pool.cluster().raw) };
        Ok(Claimed { image, calls, client })
    }

    /// The image, for everything that only reads.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    pub(super) fn calls(&self) -> &'static RbdWriting {
        self.calls
    }

    /// Other clients that have the image open and may write: guests, mapped devices, other runs. A client that was killed is
    /// among them for half a minute (`osd_client_watch_timeout`).
    pub fn others(&self) -> Result<Vec<String>, Fault> {
        let empty = RawWatcher { address: ptr::null_mut(), client: 0, cookie: 0 };
        let mut room = 16_usize;
        let (mut raw, count) = loop {
            let mut raw = vec![empty.clone(); room];
            // SAFETY: `raw` has room for `room` entries; where they do not suffice nothing is filled and `room` says how many do.
            let code = unsafe { (self.calls.rbd_watchers_list)(self.image.raw, raw.as_mut_ptr(), &mut room) };
            if !is(code, Errno::RANGE) {
                check(code, "asking who has the image open")?;
                break (raw, room);
            }
        };
        let filled = raw.get(..count).unwrap_or_default().iter();
        let others = filled.filter(|watcher| u64::try_from(watcher.client) != Ok(self.client)).map(|watcher| {
            // SAFETY: the addresses of filled entries are NUL-terminated and live until the clean-up below.
            let address = unsafe { owned(watcher.address) }.unwrap_or_default();
            format!("client.{} at {address}", watcher.client)
        });
        let others = others.collect();
        // SAFETY: exactly the entries that the call above filled, freed once.
        unsafe { (self.calls.rbd_watchers_list_cleanup)(raw.as_mut_ptr(), count.min(raw.len())) };
        Ok(others)
    }

    /// Takes the exclusive lock, for as long as the image is open. An image without the feature has none to take.
    pub fn lock(&self) -> Result<(), Fault> {
        if self.image.features()? & feature::EXCLUSIVE_LOCK == 0 {
            return Ok(());
        }
        // SAFETY: the handle is live.
        match unsafe { (self.calls.rbd_lock_acquire)(self.image.raw, EXCLUSIVE) } {
            // Whoever writes gives the lock away when it is asked for, but for one that took it as we do.
            code if is(code, Errno::ROFS) || is(code, Errno::BUSY) => Err(held_by_another()),
            code => check(code, "taking the image's exclusive lock").map(|_| ()),
        }
    }

    /// Gives the image another size in bytes. What is cut off is gone; what grows reads as zero.
    pub fn resize(&self, size: u64) -> Result<(), Fault> {
        // SAFETY: the handle is live.
        check(unsafe { (self.calls.rbd_resize)(self.image.raw, size) }, format_args!("resizing to {size} bytes")).map(|_| ())
    }

    /// Lets go of the image's parent, if it has one: what it shows of it is copied.
    pub fn flatten(&self) -> Result<(), Fault> {
        // SAFETY: the handle is live.
        match unsafe { (self.calls.rbd_flatten)(self.image.raw) } {
            // There is none. It cannot be asked for: one of which nothing shows is not told, but still has a child.
            code if is(code, Errno::INVAL) => Ok(()),
            code => check(code, "letting go of the image's parent").map(|_| ()),
        }
    }

    /// Makes a snapshot whole that was just being taken when its client died: librbd (16.2.15) puts down its object map after
    /// the snapshot itself, and one without a map cannot be opened by its name. To be called before [`Claimed::lock`], because
    /// librbd wants the lock for it on a handle of its own.
    pub fn mend(&self, pool: &Arc<Pool>, name: &str, snapshot: u64) -> Result<(), Fault> {
        let at = Image::open_with(pool, name, self.calls.rbd_open)?.at(snapshot)?;
        if at.flags()? & flag::OBJECT_MAP_INVALID == 0 {
            return Ok(());
        }
        // SAFETY: the handle is live; the callback uses nothing.
        let code = unsafe { (self.calls.rbd_rebuild_object_map)(at.raw, unheard, ptr::null_mut()) };
        check(code, format_args!("making the object map of snapshot number {snapshot}")).map(|_| ())
    }

    /// Takes a snapshot of what was written and flushed.
    pub fn create_snapshot(&self, name: &str) -> Result<(), Fault> {
        self.named(self.calls.rbd_snap_create, name, "taking the snapshot")
    }

    /// The same, when all who asked for it have come to rest: [`super::rest::Rest`].
    pub(super) fn create_snapshot_at_rest(&self, name: &str) -> Result<(), Fault> {
        let c_name = c_string(name)?;
        // SAFETY: the handle is live, the string lives across the call; the callback uses nothing.
        let code = unsafe { (self.calls.rbd_snap_create2)(self.image.raw, c_name.as_ptr(), 0, unheard, ptr::null_mut()) };
        check(code, format_args!("taking the snapshot {name}")).map(|_| ())
    }

    /// Gets the exclusive lock as every writer does: whoever has it gives it away, and gets it back as soon as he asks. (Those
    /// who ask in vain, as under [`Claimed::lock`], see their writes fail.) Nothing is written: the condition is never met, and
    /// if it were, what is written would be what is there.
    pub(super) fn borrow_lock(&self) -> Result<(), Fault> {
        const SECTOR: usize = 512;
        const SALT: &[u8] = b"siphon: no disk begins like this. ";
        let guess: [u8; SECTOR] = std::array::from_fn(|n| SALT.get(n % SALT.len()).copied().unwrap_or(1));
        let (at, mut differs) = (guess.as_ptr().cast(), 0);
        // SAFETY: the handle is live, the buffer has the length that is told.
        let code = unsafe { (self.calls.rbd_compare_and_write)(self.image.raw, 0, SECTOR, at, at, &mut differs, 0) };
        match c_int::try_from(code).unwrap_or(c_int::MIN) {
            code if is(code, Errno::ILSEQ) => Ok(()),
            code if is(code, Errno::ROFS) => Err(held_by_another()),
            code if is(code, Errno::INVAL) => Err(Fault::new(Class::Unsupported, "the image is smaller than a sector")),
            code => check(code, "borrowing the image's exclusive lock").map(|_| ()),
        }
    }

    /// Whether this handle has the exclusive lock now.
    pub(super) fn has_lock(&self) -> Result<bool, Fault> {
        let mut owner = 0;
        // SAFETY: the handle is live, `owner` takes the answer.
        let code = unsafe { (self.calls.rbd_is_exclusive_lock_owner)(self.image.raw, &mut owner) };
        check(code, "asking who has the image's exclusive lock").map(|_| owner != 0)
    }

    /// Removes a snapshot.
    pub fn remove_snapshot(&self, name: &CStr) -> Result<(), Fault> {
        // SAFETY: the handle is live, the string lives across the call.
        let code = unsafe { (self.calls.rbd_snap_remove)(self.image.raw, name.as_ptr()) };
        check(code, format_args!("removing snapshot {}", name.to_string_lossy())).map(|_| ())
    }

    /// Gives a snapshot another name; it stays the same snapshot.
    pub fn rename_snapshot(&self, old: &CStr, new: &str) -> Result<(), Fault> {
        let c_new = c_string(new)?;
        // SAFETY: the handle is live, the strings live across the call.
        let code = unsafe { (self.calls.rbd_snap_rename)(self.image.raw, old.as_ptr(), c_new.as_ptr()) };
        check(code, format_args!("renaming snapshot {} to {new}", old.to_string_lossy())).map(|_| ())
    }

    /// Sets a key of the image's metadata.
    pub fn set(&self, key: &str, value: &str) -> Result<(), Fault> {
        let (c_key, c_value) = (c_string(key)?, c_string(value)?);
        // SAFETY: the handle is live, the strings live across the call.
        let code = unsafe { (self.calls.rbd_metadata_set)(self.image.raw, c_key.as_ptr(), c_value.as_ptr()) };
        check(code, format_args!("setting the image's metadata {key}")).map(|_| ())
    }

    /// Removes a key of the image's metadata, if it is there.
    pub fn unset(&self, key: &str) -> Result<(), Fault> {
        match self.named(self.calls.rbd_metadata_remove, key, "removing the image's metadata") {
            Err(fault) if fault.class == Class::NotFound => Ok(()),
            done => done,
        }
    }

    /// Waits until everything that was written is durable.
    pub fn flush(&self) -> Result<(), Fault> {
        // SAFETY: the handle is live.
        check(unsafe { (self.calls.rbd_flush)(self.image.raw) }, "flushing the image").map(|_| ())
    }

    fn named(
        &self,
        call: unsafe extern "C" fn(super::ffi::RawImage, *const std::ffi::c_char) -> c_int,
        name: &str,
        tried: &str,
    ) -> Result<(), Fault> {
        let c_name = c_string(name)?;
        // SAFETY: the handle is live, the string lives across the call.
        check(unsafe { call(self.image.raw, c_name.as_ptr()) }, format_args!("{tried} {name}")).map(|_| ())
    }
}

fn held_by_another() -> Fault {
    Fault::new(Class::Busy, "another client has the image's exclusive lock and does not give it away")
}

/// Progress that nobody asks for; 0 goes on.
unsafe extern "C" fn unheard(_: u64, _: u64, _: *mut c_void) -> c_int {
    0
}
