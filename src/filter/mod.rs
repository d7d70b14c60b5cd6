//! A sink over a sink.

// The compiler lists who must decide about a new kind of change.
#![deny(clippy::wildcard_enum_match_arm)]

mod normal;
mod tally;

pub use normal::Normal;
pub use tally::{Progress, Tally};
