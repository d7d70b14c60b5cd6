//! Where changes come from: one file per kind.

mod decoder;
mod image;
mod raw_bytes;
mod rbd;
mod rbd_diff;
mod zvol;

pub use decoder::Decoder;
pub use image::{ImageFile, ImageOptions};
pub use raw_bytes::RawBytes;
pub use rbd::{DEFAULT_JOBS, Rbd, RbdOptions, Spec, Trust};
pub use rbd_diff::{Identity, RbdDiff};
pub use zvol::{SavedSizes, Zvol};
