//! Where changes come from: one file per kind.

mod cephfs;
mod decoder;
mod image;
mod raw_bytes;
mod rbd;
mod rbd_diff;
pub mod resumed;
mod tree;
mod window;
mod zvol;

pub use cephfs::{CephfsChanged, CephfsOptions, Place as CephfsPlace, split as split_cephfs};
pub use decoder::{AnyDecoder, Decoder};
pub use image::{ImageFile, ImageOptions, ImageParts};
pub use raw_bytes::RawBytes;
pub use rbd::{DEFAULT_JOBS, Rbd, RbdOptions, Trust};
pub use rbd_diff::{Identity, RbdDiff};
pub use tree::{DatasetTree, DatasetWish, FilledList, TreeFiles, TreeIdentity, TreeOptions};
pub use zvol::{SavedSizes, Zvol};
