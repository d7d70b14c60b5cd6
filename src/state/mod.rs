//! States: their identities, the lists that tools exchange, the records that targets keep, and what may follow what.
//!
//! Pure: no file, no process, no clock. What a target *is* ([`Standing`]) is found out by a sink; what may be done with
//! it ([`decide`]) is decided here, once for every sink.

mod common;
mod comparison;
mod content;
mod fault;
mod identity;
mod list;
mod manifest;
mod mark;
mod plan;
mod receipt;
mod standing;

pub use common::common;
pub use comparison::Comparison;
pub use content::{Block, Blocks, ContentRoot, RootHasher};
pub use fault::{Class, Fault};
pub use identity::{
    RbdImage, ZfsGuid, file_source, file_state, lvm_source, lvm_state, rbd_source, rbd_state, zfs_source, zfs_state,
};
pub(crate) use list::escape;
pub use list::{State, StateList};
pub use manifest::{
    BlockDigest, Entry, FINE_GRAIN, GrainDigest, ManifestEnd, ManifestHeader, ManifestReader, ManifestWriter, grain_digest,
    is_manifest,
};
pub use mark::{Mark, Run, escape_zfs_name};
pub use plan::{Act, Condition, Plan};
pub use receipt::Receipt;
pub use standing::{Head, Held, NextStream, Overrides, Standing, Unfinished, decide};
