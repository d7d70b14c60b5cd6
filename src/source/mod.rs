//! Where changes come from: one file per kind.

mod decoder;
mod image;
mod rbd;
mod zvol;

pub use decoder::Decoder;
pub use image::{ImageFile, ImageOptions};
pub use rbd::{DEFAULT_JOBS, Rbd, RbdOptions, Spec};
pub use zvol::{SavedSizes, Zvol};
