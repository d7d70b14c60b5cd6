//! Where changes become true: one file or folder for each kind.

// The compiler lists who must decide about a new kind of change.
#![deny(clippy::wildcard_enum_match_arm)]

mod changes;
pub mod dataset;
mod encoder;
mod halves;
pub mod image;
mod listing;
mod manifest;
mod memory;
mod outcome;
mod queue;
mod raw_bytes;
pub mod rbd;
mod rbd_diff;
mod reached;
mod remote;
mod request;
pub mod tree;
pub mod zvol;

pub use changes::ChangeLines;
pub use encoder::{Encoder, Sealed};
pub use halves::{Keep, Writing};
pub use listing::{Listing, Style};
pub use memory::Memory;
pub use outcome::Outcome;
pub use queue::{Durable, WriteQueue};
pub use raw_bytes::RawBytes;
pub use rbd_diff::RbdDiffFile;
use reached::KEPT;
pub use reached::{Cut, Reached};
pub use remote::{Remote, answer};
use request::Request;
