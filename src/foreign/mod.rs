//! Formats of others: bytes ⇄ their own records. Pure, and of ours they know nothing.

pub mod rbd_diff;
pub mod zfs_diff;
pub mod zfs_send;
