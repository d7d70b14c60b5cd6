//! The functions of librados and librbd that we call, found at run time.
//!
//! So every tool builds and starts on a machine without Ceph, and says there what to install. The signatures are those of
//! rados/librados.h and rbd/librbd.h of Ceph 16.2; none of them has changed since 14.2, and a C library keeps its symbols.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;

use crate::state::{Class, Fault};

/// `rados_t`.
pub(super) type RawCluster = *mut c_void;
/// `rados_ioctx_t`.
pub(super) type RawPool = *mut c_void;
/// `rbd_image_t`.
pub(super) type RawImage = *mut c_void;
/// `rbd_completion_t`.
pub(super) type RawCompletion = *mut c_void;
/// What `rbd_diff_iterate2` calls: offset and length in bytes, whether something is there, our argument.
pub(super) type DiffCallback = unsafe extern "C" fn(u64, usize, c_int, *mut c_void) -> c_int;

/// `librbd_progress_fn_t`: how much of how much is done.
pub(super) type ProgressCallback = unsafe extern "C" fn(u64, u64, *mut c_void) -> c_int;

/// `rbd_update_callback_t`.
pub(super) type UpdateCallback = unsafe extern "C" fn(*mut c_void);

/// `rbd_image_info_t`.
#[repr(C)]
pub(super) struct RawInfo {
    pub size: u64,
    pub object_size: u64,
    pub objects: u64,
    pub order: c_int,
    pub block_name_prefix: [c_char; 24],
    pub parent_pool: i64,
    pub parent_name: [c_char; 96],
}

/// `rbd_snap_info_t`.
#[repr(C)]
#[derive(Clone)]
pub(super) struct RawSnapshot {
    pub id: u64,
    pub size: u64,
    pub name: *const c_char,
}

/// `rbd_linked_image_spec_t`.
#[repr(C)]
pub(super) struct RawParentImage {
    pub pool: i64,
    pub pool_name: *mut c_char,
    pub namespace: *mut c_char,
    pub image_id: *mut c_char,
    pub image_name: *mut c_char,
    pub trash: bool,
}

/// `rbd_snap_spec_t`.
#[repr(C)]
pub(super) struct RawParentSnapshot {
    pub id: u64,
    pub namespace: c_int,
    pub name: *mut c_char,
}

/// `rbd_trash_image_info_t`. Times are seconds since 1970.
#[repr(C)]
#[derive(Clone)]
pub(super) struct RawTrash {
    pub id: *mut c_char,
    pub name: *mut c_char,
    pub source: c_int,
    pub deleted: i64,
    pub kept_until: i64,
}

/// `rbd_image_options_t`.
pub(super) type RawOptions = *mut c_void;

/// `rbd_image_watcher_t`.
#[repr(C)]
#[derive(Clone)]
pub(super) struct RawWatcher {
    pub address: *mut c_char,
    pub client: i64,
    pub cookie: u64,
}

/// `rbd_group_image_info_t`.
#[repr(C)]
#[derive(Clone)]
pub(super) struct RawMember {
    pub name: *mut c_char,
    pub pool: i64,
    pub state: c_int,
}

/// `struct timespec`.
#[repr(C)]
pub(super) struct RawTime {
    pub seconds: i64,
    pub nanoseconds: i64,
}

macro_rules! functions {
    ($doc:literal $table:ident { $($name:ident($($arg:ty),*) $(-> $result:ty)?;)* }) => {
        #[doc = $doc]
        pub(super) struct $table {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
        }

        impl $table {
            fn find(library: &Library) -> Result<$table, libloading::Error> {
                Ok($table {
                    // SAFETY: the type written here is the one the library's own header gives for this name.
                    $($name: unsafe { *library.get(concat!(stringify!($name), "\0").as_bytes())? },)*
                })
            }
        }
    };
}

functions! { "librados.so.2" Rados {
    rados_create2(*mut RawCluster, *const c_char, *const c_char, u64) -> c_int;
    rados_conf_read_file(RawCluster, *const c_char) -> c_int;
    rados_conf_parse_env(RawCluster, *const c_char) -> c_int;
    rados_conf_set(RawCluster, *const c_char, *const c_char) -> c_int;
    rados_conf_get(RawCluster, *const c_char, *mut c_char, usize) -> c_int;
    rados_connect(RawCluster) -> c_int;
    rados_shutdown(RawCluster);
    rados_cluster_fsid(RawCluster, *mut c_char, usize) -> c_int;
    rados_ioctx_create(RawCluster, *const c_char, *mut RawPool) -> c_int;
    rados_ioctx_create2(RawCluster, i64, *mut RawPool) -> c_int;
    rados_ioctx_destroy(RawPool);
    rados_ioctx_get_id(RawPool) -> i64;
    rados_ioctx_set_namespace(RawPool, *const c_char);
    rados_get_instance_id(RawCluster) -> u64;
    rados_pool_reverse_lookup(RawCluster, i64, *mut c_char, usize) -> c_int;
} }

functions! { "librbd.so.1" Rbd {
    rbd_open_read_only(RawPool, *const c_char, *mut RawImage, *const c_char) -> c_int;
    rbd_open_by_id_read_only(RawPool, *const c_char, *mut RawImage, *const c_char) -> c_int;
    rbd_close(RawImage) -> c_int;
    rbd_stat(RawImage, *mut RawInfo, usize) -> c_int;
    rbd_get_old_format(RawImage, *mut u8) -> c_int;
    rbd_get_id(RawImage, *mut c_char, usize) -> c_int;
    rbd_get_features(RawImage, *mut u64) -> c_int;
    rbd_get_flags(RawImage, *mut u64) -> c_int;
    rbd_get_overlap(RawImage, *mut u64) -> c_int;
    rbd_get_stripe_unit(RawImage, *mut u64) -> c_int;
    rbd_get_stripe_count(RawImage, *mut u64) -> c_int;
    rbd_get_data_pool_id(RawImage) -> i64;
    rbd_get_size(RawImage, *mut u64) -> c_int;
    rbd_metadata_list(RawImage, *const c_char, u64, *mut c_char, *mut usize, *mut c_char, *mut usize) -> c_int;
    rbd_get_parent(RawImage, *mut RawParentImage, *mut RawParentSnapshot) -> c_int;
    rbd_linked_image_spec_cleanup(*mut RawParentImage);
    rbd_snap_spec_cleanup(*mut RawParentSnapshot);
    rbd_snap_list(RawImage, *mut RawSnapshot, *mut c_int) -> c_int;
    rbd_snap_list_end(*mut RawSnapshot);
    rbd_snap_set_by_id(RawImage, u64) -> c_int;
    rbd_snap_get_namespace_type(RawImage, u64, *mut c_int) -> c_int;
    rbd_snap_get_timestamp(RawImage, u64, *mut RawTime) -> c_int;
    rbd_trash_list(RawPool, *mut RawTrash, *mut usize) -> c_int;
    rbd_trash_list_cleanup(*mut RawTrash, usize);
    rbd_diff_iterate2(RawImage, *const c_char, u64, u64, u8, u8, DiffCallback, *mut c_void) -> c_int;
    rbd_aio_create_completion(*mut c_void, *const c_void, *mut RawCompletion) -> c_int;
    rbd_aio_read2(RawImage, u64, usize, *mut c_char, RawCompletion, c_int) -> c_int;
    rbd_aio_is_complete(RawCompletion) -> c_int;
    rbd_aio_wait_for_complete(RawCompletion) -> c_int;
    rbd_aio_get_return_value(RawCompletion) -> isize;
    rbd_aio_release(RawCompletion);
} }

functions! { "librados.so.2, what only a sink calls." RadosWriting {
    rados_set_pool_full_try(RawPool);
} }

functions! { "librbd.so.1, what only who writes calls: `rbd_aio_write_zeroes` and `rbd_quiesce_watch` are there since Ceph 16." RbdWriting {
    rbd_open(RawPool, *const c_char, *mut RawImage, *const c_char) -> c_int;
    rbd_create4(RawPool, *const c_char, u64, RawOptions) -> c_int;
    rbd_image_options_create(*mut RawOptions);
    rbd_image_options_destroy(RawOptions);
    rbd_image_options_set_string(RawOptions, c_int, *const c_char) -> c_int;
    rbd_image_options_set_uint64(RawOptions, c_int, u64) -> c_int;
    rbd_resize(RawImage, u64) -> c_int;
    rbd_flatten(RawImage) -> c_int;
    rbd_rebuild_object_map(RawImage, ProgressCallback, *mut c_void) -> c_int;
    rbd_snap_create(RawImage, *const c_char) -> c_int;
    rbd_snap_create2(RawImage, *const c_char, u32, ProgressCallback, *mut c_void) -> c_int;
    rbd_snap_rename(RawImage, *const c_char, *const c_char) -> c_int;
    rbd_snap_remove(RawImage, *const c_char) -> c_int;
    rbd_metadata_set(RawImage, *const c_char, *const c_char) -> c_int;
    rbd_metadata_remove(RawImage, *const c_char) -> c_int;
    rbd_lock_acquire(RawImage, c_int) -> c_int;
    rbd_watchers_list(RawImage, *mut RawWatcher, *mut usize) -> c_int;
    rbd_watchers_list_cleanup(*mut RawWatcher, usize);
    rbd_aio_write2(RawImage, u64, usize, *const c_char, RawCompletion, c_int) -> c_int;
    rbd_aio_write_zeroes(RawImage, u64, usize, RawCompletion, c_int, c_int) -> c_int;
    rbd_flush(RawImage) -> c_int;
    rbd_is_exclusive_lock_owner(RawImage, *mut c_int) -> c_int;
    rbd_compare_and_write(RawImage, u64, usize, *const c_char, *const c_char, *mut u64, c_int) -> isize;
    rbd_quiesce_watch(RawImage, UpdateCallback, UpdateCallback, *mut c_void, *mut u64) -> c_int;
    rbd_quiesce_complete(RawImage, u64, c_int);
    rbd_quiesce_unwatch(RawImage, u64) -> c_int;
    rbd_group_image_list(RawPool, *const c_char, *mut RawMember, usize, *mut usize) -> c_int;
    rbd_group_image_list_cleanup(*mut RawMember, usize, usize) -> c_int;
} }

/// Both libraries. Loaded once and never unloaded: their threads and exit handlers outlive any use of ours.
pub(super) struct Ceph {
    pub rados: Rados,
    pub rbd: Rbd,
    writing: Result<(RadosWriting, RbdWriting), String>,
}

impl Ceph {
    /// What only a sink calls; an old librbd has not all of it.
    pub fn writing(&self) -> Result<&(RadosWriting, RbdWriting), Fault> {
        self.writing.as_ref().map_err(|error| {
            Fault::new(Class::Usage, format!("this librbd cannot be written through: {error}")).hint("librbd of Ceph 16 or later")
        })
    }
}

/// Loads the libraries, or says what to install.
pub(super) fn ceph() -> Result<&'static Ceph, Fault> {
    static CEPH: OnceLock<Result<Ceph, String>> = OnceLock::new();
    CEPH.get_or_init(|| load().map_err(|error| error.to_string())).as_ref().map_err(|error| {
        Fault::new(Class::Usage, format!("Ceph's client libraries cannot be loaded: {error}")).hint(
            "install librbd, the package is librbd1 on Debian and Ubuntu (apt-get install librbd1), librbd1 on Fedora and RHEL",
        )
    })
}

fn load() -> Result<Ceph, libloading::Error> {
    spare_memory();
    // SAFETY: loading runs the initialisers of Ceph's own libraries, which the user installed to be loaded.
    let (rados, rbd) = unsafe { (Library::new("librados.so.2")?, Library::new("librbd.so.1")?) };
    let writing = RadosWriting::find(&rados).and_then(|rados| Ok((rados, RbdWriting::find(&rbd)?)));
    let writing = writing.map_err(|error| error.to_string());
    let ceph = Ceph { rados: Rados::find(&rados)?, rbd: Rbd::find(&rbd)?, writing };
    // Forgotten on purpose: closing them would leave the function pointers dangling.
    std::mem::forget((rados, rbd));
    Ok(ceph)
}

/// glibc gives each of librados's threads a heap of its own, and each keeps what its largest hour needed: 20 MiB and more.
/// Two heaps did not cost time in any measurement.
fn spare_memory() {
    /// `M_ARENA_MAX` of glibc's malloc.h.
    const ARENA_MAX: c_int = -8;
    let program = libloading::os::unix::Library::this();
    // SAFETY: `mallopt` has this type wherever it exists; it may be called at any time.
    unsafe {
        if let Ok(mallopt) = program.get::<unsafe extern "C" fn(c_int, c_int) -> c_int>(b"mallopt\0") {
            mallopt(ARENA_MAX, 2);
        }
    }
}
