//! Ceph by its own client libraries: clusters, pools, RBD images at a snapshot, reads in flight.
//!
//! Read-only throughout: no lock is taken, nothing is written, no watch is set up. Handles keep what they stand on alive
//! (an image its pool, a pool its cluster, a read its image and its buffer), so no order of dropping is wrong. Nothing
//! here may run in a process that forks after [`Cluster::connect`]: librados's threads do not survive a fork.

#![allow(unsafe_code)]

mod cluster;
mod error;
mod ffi;
mod image;
mod read;

pub use cluster::{Access, Cluster, Pool};
pub use image::{DiffRange, Image, Layout, Parent, Snapshot, feature, flag};
pub use read::Reading;
