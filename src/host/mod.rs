//! The outside: standard streams, block devices, other programs, librbd. The only place where `unsafe` is allowed, file by file.

pub mod ceph;
pub mod command;
pub mod device;
pub mod holes;
pub mod lasting;
pub mod leave;
pub mod record;
pub mod spool;
pub mod stamp;
pub mod stdio;
pub mod zfs;
