//! Siphon moves *what changed* between block devices, images and file trees of different storage systems.
//!
//! > A source turns one system's idea of change into extents · the stream carries them · a sink makes them true and
//! > commits on proof · a mark remembers the state · the next source asks for it.
//!
//! Read [`flow`] first: it is the whole of what every tool does. The modules, in the order in which data flows:

#![cfg_attr(
    not(test),
    deny(clippy::print_stderr, clippy::print_stdout, reason = "a full disk ends no work, and lost output is told")
)]

pub mod format;
pub mod state;
pub mod flow;
pub mod foreign;
pub mod source;
pub mod filter;
pub mod sink;
pub mod host;
pub mod cli;
