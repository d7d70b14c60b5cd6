//! Ceph's negative error numbers as faults.

use std::ffi::{CString, c_char, c_int};
use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::state::{Class, Fault};

/// Whether `code` is this error.
pub(super) fn is(code: c_int, errno: Errno) -> bool {
    code.checked_neg() == Some(errno.raw_os_error())
}

/// Zero and above are success; below is an error number, negated.
pub(super) fn check(code: c_int, tried: impl fmt::Display) -> Result<c_int, Fault> {
    if code >= 0 { Ok(code) } else { Err(failed(code, tried)) }
}

/// What was tried failed with this negative error number.
pub(super) fn failed(code: c_int, tried: impl fmt::Display) -> Fault {
    let errno = Errno::from_raw_os_error(code.saturating_neg());
    let mut fault = Fault::io(tried, &io::Error::from(errno));
    match errno {
        // A broken pipe of librados is none of our output, and must not be silent as that is.
        Errno::PIPE => fault.class = Class::Io,
        Errno::TIMEDOUT => fault = fault.hint("no monitor or OSD answered in time: `ceph -s` shows whether the cluster is up"),
        // EBLOCKLISTED
        Errno::SHUTDOWN => fault = fault.hint("the cluster has shut this client out: `ceph osd blocklist ls`"),
        Errno::NOSYS | Errno::OPNOTSUPP => {
            fault.class = Class::Unsupported;
            fault = fault.hint("the image uses a feature that the installed librbd does not know: `rbd info` lists its features");
        }
        Errno::EXIST => fault.class = Class::Exists,
        Errno::PERM | Errno::ACCESS => {
            fault = fault.hint("the user needs the capabilities mon 'profile rbd', osd 'profile rbd-read-only pool=…' to read (of a clone: its parent's pool, too), osd 'profile rbd pool=…' to write");
        }
        _ => {}
    }
    fault
}

/// A string for C. One with a NUL inside names nothing.
pub(super) fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, Fault> {
    CString::new(text).map_err(|_| Fault::new(Class::Usage, "a name holds a NUL byte"))
}

/// The text of a buffer that C filled and ended with a NUL.
pub(super) fn text_of(buffer: &[u8]) -> Result<String, Fault> {
    let text = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8(text.to_vec()).map_err(|_| Fault::new(Class::Io, "Ceph gave an identifier that is no text"))
}

/// A buffer for C to fill.
pub(super) fn as_c(buffer: &mut [u8]) -> *mut c_char {
    buffer.as_mut_ptr().cast()
}
