//! States: their identities, the lists that tools exchange, the records that targets keep, and what may follow what.
//!
//! Pure: no file, no process, no clock. What a target *is* ([`Standing`]) is found out by a sink; what may be done with
//! it ([`decide`]) is decided here, once for every sink.

mod anchor;
mod checkpoint;
mod civil;
mod common;
mod comparison;
mod content;
mod cursor;
mod fault;
mod forced;
mod identity;
mod list;
mod manifest;
mod mark;
mod memory;
mod plan;
mod receipt;
mod retention;
mod sample;
mod standing;
mod tree_root;

pub use anchor::{Anchor, Audit, Look};
pub use checkpoint::{Checkpoint, Content, Part, RESUME};
pub use civil::Utc;
pub use common::{Common, common};
pub use comparison::Comparison;
pub use content::{Block, Blocks, ContentRoot, RootHasher, check_size};
pub use cursor::ManifestCursor;
pub use fault::{Class, Fault};
pub use forced::{Allow, Place, Rights};
pub use identity::{
    RbdImage, ZfsGuid, cephfs_source, cephfs_state, file_source, file_state, lvm_source, lvm_state, rbd_source, rbd_state,
    tree_source, tree_state, zfs_source, zfs_state,
};
pub(crate) use list::escape;
pub use list::{State, StateList};
pub use manifest::{
    BlockDigest, Entry, FINE_GRAIN, GrainDigest, ManifestEnd, ManifestHeader, ManifestReader, ManifestWriter, grain_digest,
    is_manifest, tell_manifest,
};
pub use mark::{Check, Home, Mark, Pause, Run, choose_name, escape_zfs_name};
pub use memory::{Linked, Memory};
pub use plan::{Act, Condition, Plan};
pub use receipt::Receipt;
pub use retention::{Candidate, Grid, NIGHTLY, Outcome, Pattern, Period, Policy, Reason, Span, Verdict, at_most};
pub use sample::{Sample, Sampled, Share};
pub use standing::{Head, Held, NextStream, Overrides, Resumable, Standing, Unfinished, decide};
pub use tree_root::TreeRoot;
