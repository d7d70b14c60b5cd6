//! RBD images: what they are, what differs, what their metadata says.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Arc;

use rustix::io::Errno;

use super::cluster::{Pool, owned};
use super::error::{as_c, c_string, check, failed, is, text_of};
use super::ffi::{self, RawImage};
use crate::state::{Class, Fault};

/// Bits of an image's features: rbd/features.h.
pub mod feature {
    /// One client at a time writes.
    pub const EXCLUSIVE_LOCK: u64 = 1 << 2;
    /// Objects know which of them changed since a snapshot.
    pub const FAST_DIFF: u64 = 1 << 4;
    /// The image is on its way from another one.
    pub const MIGRATING: u64 = 1 << 9;
    /// The image is the receiving end of snapshot mirroring.
    pub const NON_PRIMARY: u64 = 1 << 10;
    /// What a copy of an image has, too: layering, exclusive-lock, object-map, fast-diff, deep-flatten. Striping and data
    /// pool come with their numbers; journaling belongs to a mirror.
    pub const OF_A_COPY: u64 = 1 | EXCLUSIVE_LOCK | 1 << 3 | FAST_DIFF | 1 << 5;
    /// Those that a user names, as the `rbd` command does.
    pub const NAMES: [(&str, u64); 6] = [
        ("layering", 1),
        ("exclusive-lock", EXCLUSIVE_LOCK),
        ("object-map", 1 << 3),
        ("fast-diff", FAST_DIFF),
        ("deep-flatten", 1 << 5),
        ("journaling", 1 << 6),
    ];
}

/// Flags of an image at a snapshot: rbd/librbd.h.
pub mod flag {
    /// The object map is not to be trusted.
    pub const OBJECT_MAP_INVALID: u64 = 1 << 0;
    /// What it says of changes is not to be trusted.
    pub const FAST_DIFF_INVALID: u64 = 1 << 1;
}

/// A snapshot of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Never used again in its pool.
    pub id: u64,
    /// Exact size of the image at the snapshot in bytes.
    pub size: u64,
    /// Its present name; it can be renamed.
    pub name: CString,
    /// Made by a user: not of a group, for mirroring, or in the trash.
    pub is_users: bool,
}

/// How bytes are spread over objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of an object.
    pub object: u64,
    /// Objects that a stripe goes over; 1 without fancy striping.
    pub stripe_count: u64,
}

impl Layout {
    /// Bytes after which the pattern begins anew, on other objects.
    pub fn period(&self) -> u64 {
        self.object.saturating_mul(self.stripe_count).max(1)
    }
}

/// What a clone shows where it has no objects of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Number of its pool.
    pub pool: i64,
    /// Its namespace.
    pub namespace: String,
    /// Its image id.
    pub image_id: String,
    /// The snapshot that was cloned.
    pub snapshot: u64,
}

/// Which differences are asked for.
#[derive(Clone, Copy, Debug)]
pub struct DiffRange<'a> {
    /// Since this snapshot; `None`: since there was nothing.
    pub from: Option<&'a CStr>,
    /// First byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// By whole objects, out of the object maps where there are any; else byte by byte, asking each object.
    pub whole_objects: bool,
}

/// An open image. Opened for reading it is as it was then: later snapshots, and removals, are unseen.
pub struct Image {
    pub(super) raw: RawImage,
    pool: Arc<Pool>,
}

// SAFETY: librbd's images are usable from any number of threads at once; the one call that changes what reads mean,
// rbd_snap_set_by_id, takes the Image by value.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// The image of this name, at its head.
    pub fn open(pool: &Arc<Pool>, name: &str) -> Result<Image, Fault> {
        Image::open_with(pool, name, pool.cluster.ceph.rbd.rbd_open_read_only)
    }

    /// The image of this id, at its head, in the trash or not.
    pub fn open_by_id(pool: &Arc<Pool>, id: &str) -> Result<Image, Fault> {
        Image::open_with(pool, id, pool.cluster.ceph.rbd.rbd_open_by_id_read_only)
    }

    pub(super) fn open_with(
        pool: &Arc<Pool>,
        name: &str,
        open: unsafe extern "C" fn(ffi::RawPool, *const c_char, *mut RawImage, *const c_char) -> c_int,
    ) -> Result<Image, Fault> {
        let (c_name, mut raw) = (c_string(name)?, ptr::null_mut());
        // SAFETY: the pool's handle is live, the string lives across the call, `raw` takes the handle; null means no snapshot.
        check(unsafe { open(pool.raw, c_name.as_ptr(), &mut raw, ptr::null()) }, format_args!("opening image {name}"))?;
        Ok(Image { raw, pool: pool.clone() })
    }

    /// The same image at a snapshot: what reads show and what differences lead to.
    pub fn at(self, snapshot: u64) -> Result<Image, Fault> {
        // SAFETY: the handle is live, and nobody else has it.
        check(unsafe { (self.rbd().rbd_snap_set_by_id)(self.raw, snapshot) }, format_args!("snapshot number {snapshot}"))?;
        Ok(self)
    }

    pub(super) fn rbd(&self) -> &'static ffi::Rbd {
        &self.pool.cluster.ceph.rbd
    }

    fn number(&self, ask: unsafe extern "C" fn(RawImage, *mut u64) -> c_int, what: &str) -> Result<u64, Fault> {
        let mut number = 0;
        // SAFETY: the handle is live, `number` takes the answer.
        check(unsafe { ask(self.raw, &mut number) }, format_args!("asking for the image's {what}"))?;
        Ok(number)
    }

    /// The image's id, as `rbd info` prints it. Images of the old format 1 have none and are refused.
    pub fn id(&self) -> Result<String, Fault> {
        let mut old = 0;
        // SAFETY: the handle is live, `old` takes the answer.
        check(unsafe { (self.rbd().rbd_get_old_format)(self.raw, &mut old) }, "asking for the image's format")?;
        if old != 0 {
            return Err(Fault::new(Class::Unsupported, "an image of format 1 has no id that its states could be known by")
                .hint("`rbd migration` or `rbd cp --image-format 2` brings it to format 2"));
        }
        // RBD_MAX_IMAGE_ID_LENGTH is 14 today.
        let mut id = [0; 256];
        // SAFETY: the buffer has the length that is told.
        let code = unsafe { (self.rbd().rbd_get_id)(self.raw, as_c(&mut id), id.len()) };
        check(code, "asking for the image's id")?;
        text_of(&id)
    }

    /// Feature bits: [`feature`].
    pub fn features(&self) -> Result<u64, Fault> {
        self.number(self.rbd().rbd_get_features, "features")
    }

    /// Flags at the snapshot: [`flag`].
    pub fn flags(&self) -> Result<u64, Fault> {
        self.number(self.rbd().rbd_get_flags, "flags")
    }

    /// Bytes from the beginning on for which a parent stands in.
    pub fn overlap(&self) -> Result<u64, Fault> {
        self.number(self.rbd().rbd_get_overlap, "overlap with its parent")
    }

    /// Exact size in bytes, at the snapshot or the head.
    pub fn size(&self) -> Result<u64, Fault> {
        self.number(self.rbd().rbd_get_size, "size")
    }

    /// Bytes of a stripe's part in one object; the object's size without fancy striping.
    pub fn stripe_unit(&self) -> Result<u64, Fault> {
        self.number(self.rbd().rbd_get_stripe_unit, "striping")
    }

    /// How bytes are spread over objects.
    pub fn layout(&self) -> Result<Layout, Fault> {
        // SAFETY: RawInfo is plain numbers, for which zeros are a value.
        let mut info: ffi::RawInfo = unsafe { std::mem::zeroed() };
        // SAFETY: the handle is live, `info` has the size that is told.
        let code = unsafe { (self.rbd().rbd_stat)(self.raw, &mut info, size_of::<ffi::RawInfo>()) };
        check(code, "asking for the image's layout")?;
        let stripe_count = self.number(self.rbd().rbd_get_stripe_count, "striping")?;
        Ok(Layout { object: info.object_size, stripe_count })
    }

    /// The parent at the snapshot; `None` for an image that stands on its own.
    pub fn parent(&self) -> Result<Option<Parent>, Fault> {
        // SAFETY: both are plain numbers and pointers, for which zeros are a value.
        let (mut image, mut snapshot): (ffi::RawParentImage, ffi::RawParentSnapshot) = unsafe { std::mem::zeroed() };
        // SAFETY: the handle is live; on success both are filled with strings that the clean-up below frees.
        let code = unsafe { (self.rbd().rbd_get_parent)(self.raw, &mut image, &mut snapshot) };
        if is(code, Errno::NOENT) {
            return Ok(None);
        }
        check(code, "asking for the image's parent")?;
        // SAFETY: strings of a successful call are null or NUL-terminated.
        let (namespace, image_id) = unsafe { (owned(image.namespace), owned(image.image_id)) };
        let (pool, id) = (image.pool, snapshot.id);
        // SAFETY: exactly what the call filled, freed once.
        unsafe {
            (self.rbd().rbd_linked_image_spec_cleanup)(&mut image);
            (self.rbd().rbd_snap_spec_cleanup)(&mut snapshot);
        }
        let image_id = image_id.ok_or_else(|| Fault::new(Class::Io, "the image's parent has no id"))?;
        Ok(Some(Parent { pool, namespace: namespace.unwrap_or_default(), image_id, snapshot: id }))
    }

    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, Fault> {
        let rbd = self.rbd();
        let mut room: c_int = 64;
        let (mut raw, count) = loop {
            let mut raw = vec![ffi::RawSnapshot { id: 0, size: 0, name: ptr::null() }; usize::try_from(room).unwrap_or(0)];
            // SAFETY: `raw` has room for `room` entries; if they do not suffice nothing is filled and `room` says how many would.
            let code = unsafe { (rbd.rbd_snap_list)(self.raw, raw.as_mut_ptr(), &mut room) };
            if !is(code, Errno::RANGE) {
                let count = check(code, "listing the snapshots")?;
                break (raw, usize::try_from(count).unwrap_or(0));
            }
        };
        let listed: Vec<(u64, u64, CString)> = raw
            .iter()
            .take(count)
            // SAFETY: the names of the first `count` entries are NUL-terminated and live until the clean-up below.
            .map(|entry| (entry.id, entry.size, unsafe { CStr::from_ptr(entry.name) }.to_owned()))
            .collect();
        if !raw.is_empty() {
            // SAFETY: frees the names up to the first null; librbd demands room for that end mark and sets it.
            unsafe { (rbd.rbd_snap_list_end)(raw.as_mut_ptr()) };
        }
        let mut snapshots = Vec::with_capacity(listed.len());
        for (id, size, name) in listed {
            let mut namespace = -1;
            // SAFETY: the handle is live, `namespace` takes the answer.
            let code = unsafe { (rbd.rbd_snap_get_namespace_type)(self.raw, id, &mut namespace) };
            check(code, format_args!("asking for the kind of snapshot number {id}"))?;
            // RBD_SNAP_NAMESPACE_TYPE_USER
            snapshots.push(Snapshot { id, size, name, is_users: namespace == 0 });
        }
        snapshots.sort_by_key(|snapshot| snapshot.id);
        Ok(snapshots)
    }

    /// The pool of the objects with content, where it is not the image's own.
    pub fn data_pool(&self) -> Result<Option<String>, Fault> {
        // SAFETY: the handle is live.
        let id = unsafe { (self.rbd().rbd_get_data_pool_id)(self.raw) };
        let of_image = self.pool.id();
        if id < 0 || id == of_image { Ok(None) } else { self.pool.cluster().pool_name(id).map(Some) }
    }

    /// The image's metadata, as `rbd image-meta list` prints it.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>, Fault> {
        let (mut keys_len, mut values_len) = (4096_usize, 16_384_usize);
        loop {
            let (mut keys, mut values) = (vec![0; keys_len], vec![0; values_len]);
            // SAFETY: both buffers have the lengths that are told; where they do not suffice nothing is filled, and the
            // lengths say what would. No limit to the number of pairs.
            let code = unsafe {
                let list = self.rbd().rbd_metadata_list;
                list(self.raw, c"".as_ptr(), 0, as_c(&mut keys), &mut keys_len, as_c(&mut values), &mut values_len)
            };
            if is(code, Errno::RANGE) {
                continue;
            }
            check(code, "reading the image's metadata")?;
            let texts = |bytes: Vec<u8>, len| -> Vec<String> {
                let filled = bytes.get(..len).unwrap_or_default();
                filled.split_inclusive(|byte| *byte == 0).map(lossy).collect()
            };
            let (keys, values) = (texts(keys, keys_len), texts(values, values_len));
            if keys.len() != values.len() {
                // A value with a NUL in it, which only C++ can set, would shift all that follow.
                return Err(Fault::new(Class::Io, "the image's metadata does not fit its keys")
                    .hint("`rbd image-meta list` shows it: is there a value with a NUL byte?"));
            }
            return Ok(keys.into_iter().zip(values).collect());
        }
    }

    /// When a snapshot was made, in seconds since 1970 UTC.
    pub fn seconds(&self, snapshot: u64) -> Result<i64, Fault> {
        let mut time = ffi::RawTime { seconds: 0, nanoseconds: 0 };
        // SAFETY: the handle is live, `time` takes the answer.
        let code = unsafe { (self.rbd().rbd_snap_get_timestamp)(self.raw, snapshot, &mut time) };
        check(code, format_args!("asking for the time of snapshot number {snapshot}"))?;
        Ok(time.seconds)
    }

    /// Tells `found` of each range that differs: offset, length, and whether it is there (else it was removed and reads as
    /// zero, or as the parent). It is called on this thread; when it breaks, the search ends and gives that break.
    ///
    /// Ranges come by stripe period, ascending. Nothing of the parent is told in an increment.
    pub fn diff<F: FnMut(u64, u64, bool) -> ControlFlow<()>>(
        &self,
        range: DiffRange<'_>,
        found: F,
    ) -> Result<ControlFlow<()>, Fault> {
        let DiffRange { from, offset, len, whole_objects } = range;
        let mut listener = Listener { found, broke: false, panic: None };
        // SAFETY: the handle is live, the name lives across the call; `tell` gets a pointer to the Listener<F> it is made for,
        // on this thread, and not after the call has returned.
        let code = unsafe {
            (self.rbd().rbd_diff_iterate2)(
                self.raw,
                from.map_or(ptr::null(), CStr::as_ptr),
                offset,
                len,
                // Include the parent; acts on a whole diff only.
                1,
                u8::from(whole_objects),
                tell::<F>,
                ptr::from_mut(&mut listener).cast(),
            )
        };
        if let Some(panic) = listener.panic {
            resume_unwind(panic);
        }
        match code {
            _ if listener.broke => Ok(ControlFlow::Break(())),
            0.. => Ok(ControlFlow::Continue(())),
            code => Err(failed(code, format_args!("asking for the differences from byte {offset} on"))),
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and every read or write in flight holds an Arc of this: nothing uses it any more. What
        // was to last was flushed, so the answer says nothing.
        unsafe { (self.rbd().rbd_close)(self.raw) };
    }
}

/// A text of C without its NUL.
fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned()
}

struct Listener<F> {
    found: F,
    broke: bool,
    panic: Option<Box<dyn Any + Send>>,
}

/// What librbd calls for each difference. A panic ends the search and goes on once librbd has returned.
unsafe extern "C" fn tell<F: FnMut(u64, u64, bool) -> ControlFlow<()>>(
    offset: u64,
    len: usize,
    exists: c_int,
    listener: *mut c_void,
) -> c_int {
    // SAFETY: `diff` gave a pointer to a Listener<F> that it does not touch while librbd is at work.
    let listener = unsafe { &mut *listener.cast::<Listener<F>>() };
    if listener.broke {
        return -Errno::CANCELED.raw_os_error();
    }
    match catch_unwind(AssertUnwindSafe(|| (listener.found)(offset, len as u64, exists != 0))) {
        Ok(ControlFlow::Continue(())) => return 0,
        Ok(ControlFlow::Break(())) => {}
        Err(panic) => listener.panic = Some(panic),
    }
    listener.broke = true;
    -Errno::CANCELED.raw_os_error()
}
