//! A stream as text or JSON lines: what extent-inspect prints, and the golden output of tests.

use std::io::{self, Write};

use serde::Serialize;

use crate::flow::{Proof, Sink};
use crate::format::{Change, Header, Id, Image};
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
    Data { offset: u64, len: u64 },
    Zero { offset: u64, len: u64, may_deallocate: bool },
    End { to: Option<String>, data_extents: u64, zero_extents: u64, data_bytes: u64, zero_bytes: u64, digest: Option<String> },
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

impl<W: Write> Sink for Listing<W> {
    type Done = Proof;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<(), Fault> {
        let names = [&header.names.source, &header.names.from, &header.names.to].map(|name| escape(name));
        let (stream, source) = (header.stream().to_string(), header.source.to_string());
        let (from, to) = (text(header.from), text(header.to));
        self.item(&Item::Header { stream, source, from, to, names, max_payload: header.max_payload }).map_err(failed)?;
        let Image { grain, old_size, new_size } = *image;
        self.item(&Item::Image { old_size, new_size, grain }).map_err(failed)
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        let len = change.len();
        let item = match change {
            Change::Data(data) => Item::Data { offset: data.offset(), len },
            Change::Zero { offset, may_deallocate, .. } => Item::Zero { offset, len, may_deallocate },
        };
        self.item(&item).map_err(failed)
    }

    fn commit(mut self, proof: Proof) -> Result<Proof, Fault> {
        let (totals, ending) = (proof.totals(), proof.ending());
        let item = Item::End {
            to: text(ending.to),
            data_extents: totals.data_extents,
            zero_extents: totals.zero_extents,
            data_bytes: totals.data_bytes,
            zero_bytes: totals.zero_bytes,
            digest: ending.digest.map(|digest| digest.to_string()),
        };
        self.item(&item).and_then(|()| self.output.flush()).map_err(failed)?;
        Ok(proof)
    }
}
