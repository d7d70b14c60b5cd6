//! The extent stream: bytes ⇄ vocabulary.
//!
//! `man/extent-stream.5` is the normative text; this folder is one reading of it. Nothing here knows a file, a process,
//! a clock or a tool. Every number of the wire stands once, in [`wire`].
//!
//! The vocabulary is four things: a [`Header`] (whose state becomes whose), the [`Image`] it is about, the
//! [`Change`]s in ascending order, and the [`Trailer`] that seals them. A [`Reader`] turns bytes into these, a
//! [`Writer`] turns these into bytes.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod buffer;
mod chain;
mod change;
mod damage;
mod data;
mod extents;
mod fields;
mod frame;
mod header;
mod id;
mod object;
mod reader;
mod trailer;
mod tree;
pub mod wire;
mod writer;
mod zeros;

pub use buffer::{Buffer, Pool};
pub use change::Change;
pub use damage::{Damage, DamagedStream};
pub use data::{Data, Leaf, Piece};
pub use header::{Feature, Header, Image, Names};
pub use id::{Digest, Id};
pub use object::Object;
pub use reader::{Beginning, ReadError, Reader};
pub use trailer::{Totals, Trailer};
pub use tree::{Attributes, Entry, Name, Node, Origin, Time, Tree, TreeChange, TreePath, encode_link, file_type};
pub use writer::Writer;
pub use zeros::all_zero;
