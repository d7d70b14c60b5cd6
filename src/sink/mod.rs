//! Where changes become true: one file per kind. Every sink passes the shared suite in `tests/sinks.rs`.

// The compiler lists who must decide about a new kind of change.
#![deny(clippy::wildcard_enum_match_arm)]

mod encoder;
pub mod image;
mod listing;
mod memory;
mod queue;
mod raw_bytes;
mod rbd_diff;
pub mod zvol;

pub use encoder::{Encoder, Sealed};
pub use listing::{Listing, Style};
pub use memory::Memory;
pub use queue::{Durable, WriteQueue};
pub use raw_bytes::RawBytes;
pub use rbd_diff::RbdDiffFile;
