//! zvol-diff-stream(1): a snapshot of a ZFS volume as an extent stream, whole or since an earlier one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Meter, ProgressOption, Tool, parse_size};
use siphon::filter::{Against, Described, Normal, Tally};
use siphon::flow::copy;
use siphon::host::{spool, stdio};
use siphon::sink::Encoder;
use siphon::source::{SavedSizes, Zvol};
use siphon::state::{Class, Fault};

/// Write a snapshot of a ZFS volume as an extent stream: whole, or what changed since an earlier one
///
/// Runs `zfs send` and takes it apart, or reads a saved send stream on standard input. Where the snapshot is a mark of
/// zvol-apply(1), the stream leads to the state that was received: an RBD snapshot goes back as itself.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  zvol-diff-stream tank/vm1@mon | ssh ceph1 image-apply /restore/vm1.img
  zvol-diff-stream --from mon tank/vm1@tue | image-apply vm1.img
  zvol-diff-stream --from '#mon' tank/vm1@tue >tue.siphon
  zvol-diff-stream --size 32G - <saved.zfs | image-apply vm1.img")]
struct Args {
    /// Send only what changed since this snapshot or #BOOKMARK of the same volume
    #[arg(long, value_name = "SNAP|#BOOKMARK", conflicts_with = "states")]
    from: Option<String>,
    /// Send only what differs from what this manifest of extent-digest(1) describes; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "states"])]
    base_manifest: Option<PathBuf>,
    /// List the snapshots that can be sent, as siphon-states(5)
    #[arg(long)]
    states: bool,
    /// Size of the image in a saved stream, which does not tell it: bytes, or with K, M, G, T
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with_all = ["from", "states"])]
    size: Option<u64>,
    /// Size of the image that a saved increment begins from, where it was another
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "size")]
    old_size: Option<u64>,
    /// Show how far it is, on standard error: a bar, or JSON lines
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// Write into FILE what was sent, once all was sent
    #[arg(long, value_name = "FILE", conflicts_with = "states")]
    receipt: Option<PathBuf>,
    /// POOL/VOLUME@SNAPSHOT; for --states without @SNAPSHOT; - for a send stream on standard input
    #[arg(value_name = "VOLUME@SNAP")]
    volume: String,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        Some(self.volume.clone())
    }

    fn run(self) -> Result<(), Fault> {
        if self.states {
            return cli::print(&Zvol::states(&self.volume)?.to_text());
        }
        let output = stdio::output()?;
        stdio::exit_when_reader_dies();
        let mut source = match (self.volume.as_str(), self.size) {
            ("-", _) if self.base_manifest.as_deref() == Some(Path::new("-")) => {
                return Err(Fault::new(Class::Usage, "standard input cannot be both the send stream and the manifest"));
            }
            ("-", Some(new)) => Zvol::saved(Box::new(stdio::input()?), SavedSizes { new, old: self.old_size })?,
            ("-", None) => {
                return Err(Fault::new(Class::Usage, "--size is needed: a send stream does not tell it at its beginning"));
            }
            (_, Some(_)) => return Err(Fault::new(Class::Usage, "--size is for a saved stream: give - instead of a volume")),
            (volume, None) => Zvol::open(volume, self.from.as_deref())?,
        };
        if let Some(note) = &source.note {
            cli::note(&self.volume, note);
        }
        let described = self.base_manifest.as_deref().map(|file| Described::verify(spool::open(file)?)).transpose()?;
        let sink = Tally::new(Normal::new(Encoder::new(output)), Meter::of_source(self.progress));
        let sealed = copy(&mut source.changes, Against::new(described, sink))?;
        stdio::all_was_written();
        cli::keep_receipt(self.receipt.as_deref(), &sealed.receipt(env!("CARGO_BIN_NAME"), &self.volume))
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
