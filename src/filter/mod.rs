//! A sink over a sink, or a source over sources.

// The compiler lists who must decide about a new kind of change.
#![deny(clippy::wildcard_enum_match_arm)]

mod against;
mod digest;
mod merge;
mod named;
mod normal;
mod tally;
mod visitors;

pub use against::{Against, Described};
pub use digest::{Digested, Digester, Visitor};
pub use merge::Merge;
pub use named::Named;
pub use normal::Normal;
pub use tally::{Progress, Tally};
pub use visitors::{Comparing, Keeping};
