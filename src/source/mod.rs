//! Where changes come from: one file per kind.

mod decoder;
mod rbd;
pub use decoder::Decoder;
pub use rbd::{DEFAULT_JOBS, Rbd, RbdOptions, Spec};
