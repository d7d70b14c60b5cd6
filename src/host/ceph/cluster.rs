//! Connections and pools.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use rustix::io::Errno;

use super::error::{as_c, c_string, check, failed, is, text_of};
use super::ffi::{self, Ceph, RawCluster, RawPool};
use crate::state::{Class, Fault};

/// How to reach a cluster; what is `None` is as for the `rbd` command.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Name of the cluster, which names its configuration file: `ceph`.
    pub cluster: Option<String>,
    /// Configuration file: `$CEPH_CONF`, else the usual places.
    pub conf: Option<PathBuf>,
    /// User without `client.`: `admin`.
    pub id: Option<String>,
    /// Keyring file.
    pub keyring: Option<PathBuf>,
}

/// What we set whatever the configuration says.
const SETTINGS: [(&CStr, &CStr); 3] = [
    // Every byte is read once: a cache and read-ahead would only cost memory.
    (c"rbd_cache", c"false"),
    (c"rbd_readahead_max_bytes", c"0"),
    // A library's own words have no place between a tool's messages.
    (c"log_to_stderr", c"false"),
];
/// Seconds until a dead monitor is an error, where the configuration has Ceph's default of 5 minutes or for ever.
const TIMEOUTS: [(&CStr, f64); 2] = [(c"client_mount_timeout", 300.0), (c"rados_mon_op_timeout", 0.0)];
const TIMEOUT: &CStr = c"30";

/// A connection to a cluster.
pub struct Cluster {
    pub(super) ceph: &'static Ceph,
    pub(super) raw: RawCluster,
}

// SAFETY: librados.h documents rados_t as usable from any number of threads at once.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

impl Cluster {
    /// Connects, or says within half a minute that it cannot.
    pub fn connect(access: &Access) -> Result<Arc<Cluster>, Fault> {
        let ceph = ffi::ceph()?;
        let user = format!("client.{}", access.id.as_deref().unwrap_or("admin"));
        let name = c_string(access.cluster.as_deref().unwrap_or("ceph"))?;
        let c_user = c_string(user.as_str())?;
        let mut raw = ptr::null_mut();
        // SAFETY: the strings live across the call; `raw` takes the handle.
        check(unsafe { (ceph.rados.rados_create2)(&mut raw, name.as_ptr(), c_user.as_ptr(), 0) }, "setting up the Ceph client")?;
        // From here on Drop shuts the handle down, connected or not; both are allowed.
        let cluster = Cluster { ceph, raw };
        cluster.configure(access)?;
        // SAFETY: the handle is live and not yet connected.
        match unsafe { (ceph.rados.rados_connect)(raw) } {
            0.. => Ok(Arc::new(cluster)),
            code if is(code, Errno::NOENT) => Err(Fault::new(
                Class::Usage,
                format!("no way to reach a cluster as {user}: no monitor address or no key was found"),
            )
            .hint("--conf names the configuration file, --id the user, --keyring the file with the user's key")),
            code if is(code, Errno::ACCESS) || is(code, Errno::PERM) => {
                Err(Fault::new(Class::Permission, format!("the cluster does not let {user} in")).hint(
                    "--id names the user, --keyring the file with the user's key; `ceph auth get` shows both to an administrator",
                ))
            }
            code => Err(failed(code, format_args!("connecting to the cluster as {user}"))),
        }
    }

    fn configure(&self, access: &Access) -> Result<(), Fault> {
        let conf = access.conf.as_ref().map(|path| c_string(path.as_os_str().as_encoded_bytes())).transpose()?;
        let path = conf.as_ref().map_or(ptr::null(), |path| path.as_ptr());
        // SAFETY: the handle is live; a null path makes librados look at $CEPH_CONF and the usual places.
        let code = unsafe { (self.ceph.rados.rados_conf_read_file)(self.raw, path) };
        // Without a file the environment may still say all that is needed.
        if let Some(path) = &access.conf {
            check(code, format_args!("the configuration file {}", path.display())).map_err(|mut fault| {
                fault.class = Class::Usage;
                fault.hint("--conf names a file as /etc/ceph/ceph.conf is one")
            })?;
        } else if !is(code, Errno::NOENT) {
            check(code, "the Ceph configuration file")?;
        }
        // SAFETY: the handle is live; a null name means $CEPH_ARGS.
        check(unsafe { (self.ceph.rados.rados_conf_parse_env)(self.raw, ptr::null()) }, "CEPH_ARGS")?;
        if let Some(path) = &access.keyring {
            self.set(c"keyring", &c_string(path.as_os_str().as_encoded_bytes())?)?;
        }
        for (key, value) in SETTINGS {
            self.set(key, value)?;
        }
        for (key, default) in TIMEOUTS {
            // Absent in some later version, or set by the user: then it stays.
            if self.get(key).is_some_and(|value| (value - default).abs() < 0.5) {
                self.set(key, TIMEOUT)?;
            }
        }
        Ok(())
    }

    fn set(&self, key: &CStr, value: &CStr) -> Result<(), Fault> {
        // SAFETY: the handle is live, the strings live across the call.
        let code = unsafe { (self.ceph.rados.rados_conf_set)(self.raw, key.as_ptr(), value.as_ptr()) };
        check(code, format_args!("setting {}", key.to_string_lossy())).map(|_| ())
    }

    /// A setting that is a number.
    fn get(&self, key: &CStr) -> Option<f64> {
        let mut value = [0; 64];
        // SAFETY: the buffer has the length that is told.
        let code = unsafe { (self.ceph.rados.rados_conf_get)(self.raw, key.as_ptr(), as_c(&mut value), value.len()) };
        if code < 0 { None } else { text_of(&value).ok()?.parse().ok() }
    }

    /// The cluster's fsid, as `ceph fsid` prints it.
    pub fn fsid(&self) -> Result<String, Fault> {
        // 36 characters and the NUL.
        let mut fsid = [0; 64];
        // SAFETY: the buffer has the length that is told.
        let code = unsafe { (self.ceph.rados.rados_cluster_fsid)(self.raw, as_c(&mut fsid), fsid.len()) };
        check(code, "asking for the cluster's fsid")?;
        text_of(&fsid)
    }

    /// The name of a pool's number.
    pub(super) fn pool_name(&self, id: i64) -> Result<String, Fault> {
        let mut name = [0; 4096];
        // SAFETY: the handle is live, the buffer has the length that is told.
        let code = unsafe { (self.ceph.rados.rados_pool_reverse_lookup)(self.raw, id, as_c(&mut name), name.len()) };
        check(code, format_args!("the name of pool number {id}"))?;
        text_of(&name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and every pool holds an Arc of this: nothing uses it any more.
        unsafe { (self.ceph.rados.rados_shutdown)(self.raw) }
    }
}

/// A pool, with the namespace that images are looked for in.
pub struct Pool {
    pub(super) cluster: Arc<Cluster>,
    pub(super) raw: RawPool,
}

// SAFETY: librados.h allows an ioctx on any thread; ours is never changed once `open` has set its namespace.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// The pool of this name; an empty namespace is the default one.
    pub fn open(cluster: &Arc<Cluster>, name: &str, namespace: &str) -> Result<Arc<Pool>, Fault> {
        let (c_name, mut raw) = (c_string(name)?, ptr::null_mut());
        // SAFETY: the handle is live, the string lives across the call, `raw` takes the handle.
        let code = unsafe { (cluster.ceph.rados.rados_ioctx_create)(cluster.raw, c_name.as_ptr(), &mut raw) };
        check(code, format_args!("pool {name}")).map_err(|fault| match fault.class {
            Class::NotFound => fault.hint("`ceph osd pool ls` lists the pools"),
            _ => fault,
        })?;
        Pool::in_namespace(Pool { cluster: cluster.clone(), raw }, namespace)
    }

    /// The pool of this number.
    pub fn open_by_id(cluster: &Arc<Cluster>, id: i64, namespace: &str) -> Result<Arc<Pool>, Fault> {
        let mut raw = ptr::null_mut();
        // SAFETY: the handle is live, `raw` takes the handle.
        let code = unsafe { (cluster.ceph.rados.rados_ioctx_create2)(cluster.raw, id, &mut raw) };
        check(code, format_args!("pool number {id}"))?;
        Pool::in_namespace(Pool { cluster: cluster.clone(), raw }, namespace)
    }

    fn in_namespace(pool: Pool, namespace: &str) -> Result<Arc<Pool>, Fault> {
        let namespace = c_string(namespace)?;
        // SAFETY: the handle is live, the string lives across the call and is copied.
        unsafe { (pool.cluster.ceph.rados.rados_ioctx_set_namespace)(pool.raw, namespace.as_ptr()) };
        Ok(Arc::new(pool))
    }

    /// The pool of this name, for writing: where it is full, or has come to its quota, a write fails. By default it would wait,
    /// silently and for ever.
    pub fn open_to_write(cluster: &Arc<Cluster>, name: &str, namespace: &str) -> Result<Arc<Pool>, Fault> {
        let (calls, _) = cluster.ceph.writing()?;
        let pool = Pool::open(cluster, name, namespace)?;
        // SAFETY: the handle is live, and nobody else has it yet.
        unsafe { (calls.rados_set_pool_full_try)(pool.raw) };
        Ok(pool)
    }

    /// The connection that the pool was opened by.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The pool's number.
    pub fn id(&self) -> i64 {
        // SAFETY: the handle is live.
        unsafe { (self.cluster.ceph.rados.rados_ioctx_get_id)(self.raw) }
    }

    /// The id of an image of this name in the trash, if there is one.
    pub fn in_trash(&self, name: &str) -> Option<String> {
        let rbd = &self.cluster.ceph.rbd;
        let empty = ffi::RawTrash { id: ptr::null_mut(), name: ptr::null_mut(), source: 0, deleted: 0, kept_until: 0 };
        let mut len = 0_usize;
        // SAFETY: no room is told, so nothing but `len` is written.
        unsafe { (rbd.rbd_trash_list)(self.raw, ptr::null_mut(), &mut len) };
        let mut entries = vec![empty; len];
        // SAFETY: `entries` has room for `len` entries; `len` becomes the number of those filled.
        if unsafe { (rbd.rbd_trash_list)(self.raw, entries.as_mut_ptr(), &mut len) } < 0 {
            return None;
        }
        let filled = entries.get(..len).unwrap_or_default();
        // SAFETY: the strings of filled entries are NUL-terminated and live until the clean-up below.
        let text = |text: *mut c_char| unsafe { owned(text) };
        let found = filled.iter().find(|entry| text(entry.name).as_deref() == Some(name)).and_then(|entry| text(entry.id));
        // SAFETY: exactly the entries that the call above filled, freed once.
        unsafe { (rbd.rbd_trash_list_cleanup)(entries.as_mut_ptr(), len.min(entries.len())) };
        found
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and every image holds an Arc of this: nothing uses it any more.
        unsafe { (self.cluster.ceph.rados.rados_ioctx_destroy)(self.raw) }
    }
}

/// A copy of C's string; `None` where it is null or no text.
///
/// # Safety
/// `text` is null or a NUL-terminated string.
pub(super) unsafe fn owned(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, so NUL-terminated by this function's own condition.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok().map(str::to_owned)
}
