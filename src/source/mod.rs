//! Where changes come from: one file per kind.

mod decoder;
mod image;

pub use decoder::Decoder;
pub use image::{ImageFile, ImageOptions};
