//! A stream as text or JSON lines: what extent-inspect prints, and the golden output of tests.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::flow::{Proof, Sink};
use crate::format::{Change, Entry, Header, Id, Image, Node, Object, Origin, Tree, TreeChange, TreePath, file_type, wire};
use crate::state::{Fault, escape};

/// How a listing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Aligned text for people and golden files.
    Text,
    /// One JSON object a line.
    Json,
    /// Nothing of the changes; only what the end says.
    Summary,
}

/// Lists what goes by.
pub struct Listing<W: Write> {
    output: W,
    style: Style,
}

/// One line of the JSON listing.
#[derive(Serialize)]
#[serde(tag = "item", rename_all = "lowercase")]
enum Item {
    Header { stream: String, source: String, from: Option<String>, to: Option<String>, names: [String; 3], max_payload: u32 },
    Image { old_size: u64, new_size: u64, grain: u32 },
    Tree { grain: u32, list: bool },
    Roots { old: Option<String>, new: String },
    Gone { path: String, number: Option<u64> },
    Entry(Box<Shown>),
    Link { path: String, to: String },
    Data { offset: u64, len: u64 },
    Zero { offset: u64, len: u64, may_deallocate: bool },
    End { to: Option<String>, data_extents: u64, zero_extents: u64, data_bytes: u64, zero_bytes: u64, digest: Option<String> },
}

/// An entry of a tree.
#[derive(Serialize)]
struct Shown {
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    origin: &'static str,
    number: Option<u64>,
    mode: u16,
    uid: u32,
    gid: u32,
    seconds: i64,
    nanoseconds: u32,
    /// Of files: before and now.
    old_size: Option<u64>,
    size: Option<u64>,
    target: Option<String>,
    /// Of devices: major and minor.
    device: Option<[u32; 2]>,
    xattrs: BTreeMap<String, String>,
}

impl Shown {
    fn new(entry: &Entry) -> Shown {
        let Entry { path, origin, node, attributes } = entry;
        let (origin, number) = match origin {
            Origin::New => ("new", None),
            Origin::Kept => ("kept", None),
            Origin::Taken(number) => ("taken", Some(*number)),
        };
        let (size, old_size) =
            if let Node::File { size, old_size } = node { (Some(*size), Some(*old_size)) } else { (None, None) };
        Shown {
            path: shown(path),
            kind: kind(node),
            origin,
            number,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            seconds: attributes.modified.seconds,
            nanoseconds: attributes.modified.nanoseconds,
            old_size,
            size,
            target: if let Node::Symlink { target } = node { Some(escape(target)) } else { None },
            device: if let Node::Device { major, minor, .. } = node { Some([*major, *minor]) } else { None },
            xattrs: attributes.xattrs.iter().map(|(name, value)| (escape(name), escape(value))).collect(),
        }
    }

    /// In columns; the path stands behind those that every entry has.
    fn text(&self) -> String {
        let Shown { path, kind, origin, mode, uid, gid, seconds, nanoseconds, .. } = self;
        let origin = self.number.map_or_else(|| (*origin).to_owned(), |number| format!("{origin}={number}"));
        // Before 1970 they count forwards from the second, too.
        let mut line = format!("entry   {origin:<8} {kind:<7} {mode:04o} {uid}:{gid} {seconds}+{nanoseconds:09} {path}");
        if let (Some(old), Some(new)) = (self.old_size, self.size) {
            line += &if self.origin == "new" { format!(" {new} bytes") } else { format!(" {new} bytes, before {old}") };
        }
        if let Some(target) = &self.target {
            line += &format!(" -> {target}");
        }
        if let Some([major, minor]) = self.device {
            line += &format!(" {major}:{minor}");
        }
        for (name, value) in &self.xattrs {
            line += &format!(" {name}={value}");
        }
        line
    }
}

fn kind(node: &Node) -> &'static str {
    match node.file_type() {
        file_type::FILE => "file",
        file_type::DIRECTORY => "dir",
        file_type::SYMLINK => "symlink",
        file_type::FIFO => "fifo",
        file_type::SOCKET => "socket",
        file_type::CHARACTER_DEVICE => "char",
        _ => "block",
    }
}

/// A path in one column. No name is a dot: that is the root.
fn shown(path: &TreePath) -> String {
    if path.names().is_empty() { ".".to_owned() } else { escape(&path.joined()) }
}

impl<W: Write> Listing<W> {
    /// Lists to `output`.
    pub fn new(output: W, style: Style) -> Listing<W> {
        Listing { output, style }
    }

    fn item(&mut self, item: &Item) -> io::Result<()> {
        match self.style {
            Style::Summary => Ok(()),
            Style::Json => {
                serde_json::to_writer(&mut self.output, item)?;
                self.output.write_all(b"\n")
            }
            Style::Text => self.text(item),
        }
    }

    fn text(&mut self, item: &Item) -> io::Result<()> {
        let nil = |id: &Option<String>| id.clone().unwrap_or_else(|| "-".to_owned());
        let out = &mut self.output;
        match item {
            Item::Header { stream, source, from, to, names: [source_name, from_name, to_name], max_payload } => {
                let whole = if from.is_none() { "whole" } else { "increment" };
                writeln!(out, "stream  {stream} {whole}, payload at most {max_payload}")?;
                writeln!(out, "source  {source} {source_name}")?;
                writeln!(out, "from    {} {from_name}", nil(from))?;
                writeln!(out, "to      {} {to_name}", nil(to))
            }
            Item::Image { old_size, new_size, grain } => {
                writeln!(out, "image   {new_size} bytes, before {old_size}, grain {grain}")
            }
            Item::Tree { grain, list } => writeln!(out, "tree    {}grain {grain}", if *list { "list of changes, " } else { "" }),
            Item::Roots { old, new } => writeln!(out, "roots   {} {new}", nil(old)),
            Item::Gone { path, number: None } => writeln!(out, "gone    {path}"),
            Item::Gone { path, number: Some(number) } => writeln!(out, "gone    {path} taken={number}"),
            Item::Entry(entry) => writeln!(out, "{}", entry.text()),
            Item::Link { path, to } => writeln!(out, "link    {path} {to}"),
            Item::Data { offset, len } => writeln!(out, "data    {offset:>14} {len:>10}"),
            Item::Zero { offset, len, may_deallocate } => {
                let hole = if *may_deallocate { " hole" } else { "" };
                writeln!(out, "zero    {offset:>14} {len:>10}{hole}")
            }
            Item::End { to, data_extents, zero_extents, data_bytes, zero_bytes, digest } => {
                writeln!(out, "end     data {data_bytes} bytes in {data_extents}, zero {zero_bytes} bytes in {zero_extents}")?;
                writeln!(out, "reached {}", nil(to))?;
                writeln!(out, "digest  {}", nil(digest))
            }
        }
    }
}

fn failed(error: io::Error) -> Fault {
    Fault::io("writing the listing", &error)
}

fn text(id: Option<Id>) -> Option<String> {
    id.map(|id| id.to_string())
}

impl<W: Write> Listing<W> {
    fn header(&mut self, header: &Header) -> io::Result<()> {
        let names = [&header.names.source, &header.names.from, &header.names.to].map(|name| escape(name));
        let (stream, source) = (header.stream().to_string(), header.source.to_string());
        let (from, to) = (text(header.from), text(header.to));
        self.item(&Item::Header { stream, source, from, to, names, max_payload: header.max_payload })
    }

    fn extent(&mut self, change: &Change) -> io::Result<()> {
        let len = change.len();
        self.item(&match change {
            Change::Data(data) => Item::Data { offset: data.offset(), len },
            Change::Zero { offset, may_deallocate, .. } => Item::Zero { offset: *offset, len, may_deallocate: *may_deallocate },
        })
    }

    fn end<O: Object>(mut self, proof: &Proof<O>) -> io::Result<()> {
        let (totals, ending) = (proof.totals(), proof.ending());
        self.item(&Item::End {
            to: text(ending.to),
            data_extents: totals.data_extents,
            zero_extents: totals.zero_extents,
            data_bytes: totals.data_bytes,
            zero_bytes: totals.zero_bytes,
            digest: ending.digest.map(|digest| digest.to_string()),
        })?;
        self.output.flush()
    }
}

impl<W: Write> Sink for Listing<W> {
    type Done = Proof;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        let Image { grain, old_size, new_size } = *image;
        self.header(header).and_then(|()| self.item(&Item::Image { old_size, new_size, grain })).map_err(failed)
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.extent(&change).map_err(failed)
    }

    fn commit(self, proof: Proof) -> Result<Proof, Fault> {
        self.end(&proof).map_err(failed)?;
        Ok(proof)
    }
}

impl<W: Write> Sink<Tree> for Listing<W> {
    type Done = Proof<Tree>;

    fn begin(&mut self, header: &Header, tree: &Tree) -> Result<(), Fault> {
        let item = Item::Tree { grain: tree.grain, list: header.has(wire::FEATURE_LIST) };
        self.header(header).and_then(|()| self.item(&item)).map_err(failed)
    }

    fn change(&mut self, change: TreeChange) -> Result<(), Fault> {
        match &change {
            TreeChange::Roots { old, new } => self.item(&Item::Roots { old: old.as_deref().map(escape), new: escape(new) }),
            TreeChange::Gone { path, number } => self.item(&Item::Gone { path: shown(path), number: *number }),
            TreeChange::Entry(entry) => self.item(&Item::Entry(Box::new(Shown::new(entry)))),
            TreeChange::Link { path, to } => self.item(&Item::Link { path: shown(path), to: shown(to) }),
            TreeChange::Extent(extent) => self.extent(extent),
        }
        .map_err(failed)
    }

    fn commit(self, proof: Proof<Tree>) -> Result<Proof<Tree>, Fault> {
        self.end(&proof).map_err(failed)?;
        Ok(proof)
    }
}
