//! Where changes come from: one file per kind.

mod decoder;
pub use decoder::Decoder;
