//! zvol-apply(1): applies an extent stream to a ZFS volume and commits it as a snapshot.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use siphon::cli::{self, Meter, ProgressOption, Tool};
use siphon::filter::Tally;
use siphon::flow::copy;
use siphon::host::worker::Worker;
use siphon::host::zfs::Dataset;
use siphon::host::{sandbox, stdio};
use siphon::sink::dataset::evidence;
use siphon::sink::image::{self, RawImage, STATE_DIR};
use siphon::sink::zvol::{Options, Zvol};
use siphon::sink::{Keep, Remote, Writing, answer};
use siphon::source::Decoder;
use siphon::state::{Fault, Overrides};

/// Apply an extent stream to a ZFS volume
///
/// Reads a stream from standard input, writes what changed to the volume TARGET, commits it as a snapshot when the whole
/// stream was verified and is durable, and prints a receipt. A first, whole stream creates the volume.
#[derive(Clone, Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  rbd-diff-stream rbd/vm1@mon | ssh nas zvol-apply --mark tank/vm1
  rbd-diff-stream --from mon rbd/vm1@tue | ssh nas zvol-apply --mark tank/vm1
  rbd-diff-stream --states rbd/vm1 | ssh nas zvol-apply --common tank/vm1")]
struct Args {
    /// Give the snapshot its final name and a hold: make it a mark
    #[arg(long)]
    mark: bool,
    /// Do not hold the newest mark against destruction
    #[arg(long)]
    no_hold: bool,
    /// Give up what lies above the state that the stream begins from
    #[arg(long)]
    rollback: bool,
    /// Let a whole stream replace content that is there; marks stay
    #[arg(long)]
    replace: bool,
    /// Make the volume smaller when the image became smaller
    #[arg(long)]
    shrink: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Seconds between checkpoints, from which a run that is cut goes on; 0: as often as the stream allows
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_every: u32,
    /// Block size of a volume that is created [default: 16K]
    #[arg(short, long, value_name = "SIZE", value_parser = cli::parse_size)]
    block_size: Option<u64>,
    /// Property of a volume that is created, as for zfs create -o
    #[arg(short = 'o', long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// Keep a manifest of what TARGET holds in this file, for extent-digest(1); what was written is read back for it
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Read the stream with all the rights of this process
    #[arg(long)]
    no_sandbox: bool,
    #[arg(long, hide = true)]
    worker: bool,
    /// Read a state list, print the newest state that TARGET also holds
    #[arg(long)]
    common: bool,
    /// Show progress: a bar on a terminal, or JSON lines
    #[arg(long, value_name = "json", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// The volume: POOL/…/NAME; what begins with / or . is a file or device, as for image-apply
    target: String,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        Some(self.target.clone())
    }

    fn run(self) -> Result<(), Fault> {
        if self.target.starts_with(['/', '.']) {
            return self.run_on_path();
        }
        if self.common {
            return cli::common(&evidence::standing(Dataset::load(&self.target)?.as_ref()));
        }
        if self.worker {
            return self.write_behind_walls();
        }
        let receipt = match self.no_sandbox {
            true => self.clone().carry(Zvol::new(self.options()), stdio::input()?),
            false => Worker::start().and_then(|worker| answer(worker, Zvol::new(self.options()))),
        }?;
        receipt.map_or(Ok(()), |receipt| cli::print(&receipt.to_line()))
    }
}

impl Args {
    /// All that reads the stream.
    fn carry<K: Keep>(self, keeper: K, input: BufReader<File>) -> Result<K::Done, Fault> {
        let sink = Writing::new(keeper, Duration::from_secs(self.checkpoint_every.into()));
        copy(&mut Decoder::open(input)?, Tally::new(sink, Meter::new(self.progress)))
    }

    /// The second process. The first one says how it ended.
    fn write_behind_walls(self) -> Result<(), Fault> {
        let keeper = Remote::new(Worker::this()?);
        let carried = stdio::input().and_then(|input| sandbox::enter().and_then(|()| self.carry(keeper.clone(), input)));
        carried.or_else(|fault| keeper.failed(fault))
    }

    /// What image-apply does, for those who have only this tool at hand.
    fn run_on_path(self) -> Result<(), Fault> {
        let why = "a file or device keeps no snapshots";
        cli::refuse_unused([
            (self.mark, "--mark", why),
            (self.no_hold, "--no-hold", why),
            (self.rollback, "--rollback", why),
            (self.shrink, "--shrink", "a file always gets the size of the image, and a device has its own"),
            (self.block_size.is_some(), "--block-size", "it is for volumes"),
            (!self.properties.is_empty(), "-o", "it is for volumes"),
        ])?;
        let (path, state_dir) = (PathBuf::from(&self.target), PathBuf::from(STATE_DIR));
        let Args { replace, dry_run, manifest, .. } = self;
        let (trust, by_content, notes) = (false, false, cli::note);
        let options = image::Options { path, state_dir, replace, trust, by_content, dry_run, manifest, notes };
        if self.common {
            return cli::common(&image::standing(&options)?);
        }
        let input = stdio::input()?;
        let sink = Tally::new(RawImage::new(options), Meter::new(self.progress));
        cli::print(&copy(&mut Decoder::open(input)?, sink)?.to_line())
    }

    fn options(self) -> Options {
        let (hold, notes) = (!self.no_hold, cli::note);
        let Args { target: name, mark, rollback, replace, shrink, dry_run, block_size, properties, manifest, .. } = self;
        let overrides = Overrides { rollback, replace };
        Options { name, mark, hold, overrides, shrink, dry_run, block_size, properties, manifest, notes }
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
