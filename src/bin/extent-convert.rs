//! extent-convert(1): extent streams from and to the formats of others.

use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use siphon::cli::{self, Tool, parse_size};
use siphon::filter::Normal;
use siphon::flow::{Source, copy};
use siphon::foreign::rbd_diff::Version;
use siphon::format::wire;
use siphon::host::stdio;
use siphon::sink::{Encoder, RawBytes as RawOutput, RbdDiffFile};
use siphon::source::{Decoder, Identity, RawBytes, RbdDiff, SavedSizes, Zvol};
use siphon::state::{Class, Fault, StateList, file_source};

/// Convert extent streams from and to the formats of others
///
/// With --from, reads another format on standard input and writes an extent stream; with --to the other way. What a format
/// does not protect is checked as far as it can be: order, bounds, and a proper end.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  rbd export-diff rbd/vm1@mon - | extent-convert --from rbd-diff-v1 >mon.siphon
  extent-convert --from rbd-diff-v1 --states vm1.states <mon-tue.diff | zvol-apply --mark tank/vm1
  extent-convert --to rbd-diff-v1 <mon.siphon | rbd import-diff - rbd/vm1-restored
  xzcat disk.img.xz | extent-convert --from raw --size 32G | image-apply disk.img")]
struct Args {
    /// What standard input is
    #[arg(long, value_name = "FORMAT", required_unless_present = "to", conflicts_with = "to")]
    from: Option<Format>,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    to: Option<Format>,
    /// Size of the image, which raw and zfs-send do not tell where it is needed: bytes, or with K, M, G, T
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "from")]
    size: Option<u64>,
    /// Size of the image that an increment of zfs-send begins from, where it was another
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "size")]
    old_size: Option<u64>,
    /// Which diff of rbd-diff-v2: the one that leads to this snapshot [default: to the image itself]
    #[arg(long, value_name = "NAME", requires = "from")]
    snap: Option<String>,
    /// A state list of the image: the ids and sizes of the snapshots that an rbd diff only names
    #[arg(long, value_name = "FILE", requires = "from")]
    states: Option<PathBuf>,
}

/// Formats of others.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A file of `rbd export-diff`
    RbdDiffV1,
    /// A file of `rbd export --export-format 2`
    RbdDiffV2,
    /// An image's plain bytes
    Raw,
    /// A stream of `zfs send`, only to read
    ZfsSend,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        None
    }

    fn run(self) -> Result<(), Fault> {
        self.check_use()?;
        let (input, output) = (stdio::input()?, stdio::output()?);
        let Some(from) = self.from else {
            let mut stream = Decoder::open(input)?;
            let output = BufWriter::new(output);
            return match self.to {
                Some(Format::RbdDiffV1) => copy(&mut stream, RbdDiffFile::new(output, Version::V1)).map(drop),
                Some(Format::RbdDiffV2) => copy(&mut stream, RbdDiffFile::new(output, Version::V2)).map(drop),
                Some(Format::Raw) => copy(&mut stream, RawOutput::new(output)).map(drop),
                Some(Format::ZfsSend) | None => Err(Fault::new(Class::Usage, "zfs-send is read, not written")
                    .hint("zvol-apply writes a volume, and zfs send sends it")),
            };
        };
        let size = || match self.size {
            None => Err(Fault::new(Class::Usage, "--size is needed: the format does not tell it")),
            Some(size) if size > wire::LIMIT_IMAGE => Err(Fault::new(Class::Usage, "--size is beyond the largest image")),
            Some(size) => Ok(size),
        };
        match from {
            Format::Raw => send(&mut RawBytes::new(input, size()?), output),
            Format::ZfsSend => {
                send(&mut Zvol::saved(Box::new(input), SavedSizes { new: size()?, old: self.old_size })?.changes, output)
            }
            Format::RbdDiffV1 => send(&mut RbdDiff::v1(input, &self.known()?)?, output),
            Format::RbdDiffV2 => send(&mut RbdDiff::v2(input, self.snap.as_deref(), &self.known()?)?, output),
        }
    }
}

impl Args {
    /// Refuses options that the format has no use for.
    fn check_use(&self) -> Result<(), Fault> {
        let is_diff = matches!(self.from, Some(Format::RbdDiffV1 | Format::RbdDiffV2));
        let is_sized = matches!(self.from, Some(Format::Raw | Format::ZfsSend));
        let told = if is_diff { "an rbd diff tells its size" } else { "a stream tells its size" };
        cli::refuse_unused([
            (self.size.is_some() && !is_sized, "--size", told),
            (self.old_size.is_some() && self.from != Some(Format::ZfsSend), "--old-size", "it is for --from zfs-send"),
            (self.snap.is_some() && self.from != Some(Format::RbdDiffV2), "--snap", "it is for --from rbd-diff-v2"),
            (self.states.is_some() && !is_diff, "--states", "it is for rbd diffs"),
        ])
    }

    /// What is known of the states that a diff names.
    fn known(&self) -> Result<Identity, Fault> {
        let Some(file) = &self.states else { return Ok(Identity { source: file_source(), states: StateList::default() }) };
        let list = std::fs::File::open(file).map_err(|error| Fault::io(format!("opening {}", file.display()), &error))?;
        Ok(Identity { source: file_source(), states: StateList::parse(BufReader::new(list))? })
    }
}

fn send(source: &mut impl Source, output: impl std::io::Write) -> Result<(), Fault> {
    copy(source, Normal::new(Encoder::new(output))).map(drop)
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
