//! The outside: standard streams, block devices, other programs, librbd. The only place where `unsafe` is allowed, file by file.

pub mod ceph;
pub mod channel;
pub mod command;
pub mod device;
pub mod holes;
pub mod lasting;
pub mod leave;
pub mod limits;
pub mod record;
pub mod sandbox;
pub mod spool;
pub mod stamp;
pub mod stdio;
pub mod successor;
pub mod tree;
pub mod worker;
pub mod zfs;
