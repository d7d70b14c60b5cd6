//! Ceph by its own client libraries: clusters, pools, RBD images, reads and writes in flight.
//!
//! An [`Image`] is opened read-only: no lock is taken, nothing is written, no watch is set up. Only a [`Claimed`] one is
//! written to. Handles keep what they stand on alive (an image its pool, a pool its cluster, a read its image and its
//! buffer), so no order of dropping is wrong. Nothing here may run in a process that forks after [`Cluster::connect`]:
//! librados's threads do not survive a fork.

#![allow(unsafe_code)]

mod claim;
mod cluster;
mod completion;
mod create;
mod error;
mod ffi;
mod found;
mod group;
mod image;
pub mod marks;
mod read;
mod rest;
mod spec;
mod write;

pub use claim::Claimed;
pub use cluster::{Access, Cluster, Pool};
pub use create::Creation;
pub use found::{Found, find};
pub use group::{Member, members, snapshot_together};
pub use image::{DiffRange, Image, Layout, Parent, Snapshot, feature, flag};
pub use marks::{Marked, Marks};
pub use read::Reading;
pub use spec::Spec;
pub use write::Writing;
