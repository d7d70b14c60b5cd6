//! What volumes and file systems of ZFS have in common as targets: states are marks, a run that was cut is gone back from, and
//! the commit is a snapshot.

mod back;
mod begin;
pub mod check;
mod commit;
pub mod evidence;
pub mod marks;
pub mod retention;

pub(super) use back::go_back;
pub(super) use begin::begin;
pub(super) use commit::{Committing, commit, end_without_state};

use crate::state::{Class, Fault};

/// Refuses properties (`name=value`) of a new dataset that it could not be created with.
pub(super) fn check_new(properties: &[String]) -> Result<(), Fault> {
    let asks = properties.iter().any(|property| property.starts_with("keyformat=passphrase"));
    let is_told = properties.iter().any(|property| property.starts_with("keylocation=file"));
    if asks && !is_told {
        return Err(Fault::new(Class::Usage, "a passphrase cannot be asked for here: standard input is the stream")
            .hint("-o keylocation=file:///… or create it below an encrypted dataset whose key is loaded"));
    }
    Ok(())
}
