//! tree-apply(1): applies a tree stream to a directory, or to a ZFS file system that it commits as a snapshot.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Meter, ProgressOption, Tool};
use siphon::filter::Tally;
use siphon::flow::copy;
use siphon::format::{Beginning, Object, Tree};
use siphon::host::stdio;
use siphon::host::zfs::Dataset;
use siphon::sink::dataset::evidence;
use siphon::sink::tree::{Directory, FileSystem, Keep, Target};
use siphon::source::Decoder;
use siphon::state::{Fault, Overrides};

/// Apply a tree stream to a directory or a ZFS file system
///
/// Reads a stream from standard input, makes the target what it says, and prints a receipt when the whole stream was verified
/// and is durable. A first, whole stream makes the target. What DIR holds is recorded beside it; what a dataset holds is
/// committed as a snapshot.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  tree-diff-stream /mnt/home | tree-apply --all /backup/home
  tree-diff-stream --base /mnt/.snap/mon /mnt/.snap/tue | ssh nas tree-apply --all /backup/home
  cephfs-changed --from mon /mnt/home@tue | tree-diff-stream --changes - | ssh nas tree-apply --all --mark --dataset tank/home
  tree-diff-stream src | tree-apply copy")]
struct Args {
    /// Set owners, set-id bits, devices, trusted.* and security.*, too: the stream is trusted. For root
    #[arg(long)]
    all: bool,
    /// Let a whole stream replace content that is there: everything in the target is removed first
    #[arg(long)]
    replace: bool,
    /// Take DIR for what its record says: you know that nobody changed it since
    #[arg(long, conflicts_with = "dataset")]
    trust: bool,
    /// Read and verify the stream, say what would be done with it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The target is this ZFS file system
    #[arg(long, value_name = "DATASET")]
    dataset: Option<String>,
    /// Give the snapshot its final name and a hold: make it a mark
    #[arg(long, requires = "dataset")]
    mark: bool,
    /// Do not hold the newest mark against destruction
    #[arg(long, requires = "dataset")]
    no_hold: bool,
    /// Give up what lies above the state that the stream begins from
    #[arg(long, requires = "dataset")]
    rollback: bool,
    /// Leave the file system writable; else it is read-only between runs
    #[arg(long, requires = "dataset")]
    writable: bool,
    /// Property of a file system that is created, as for zfs create -o
    #[arg(short = 'o', long = "property", value_name = "NAME=VALUE", requires = "dataset")]
    properties: Vec<String>,
    /// Read a state list, print the newest state that the target also holds
    #[arg(long, conflicts_with_all = ["all", "replace", "dry_run", "mark", "no_hold", "rollback", "writable", "properties", "progress"])]
    common: bool,
    /// Show progress: a line on a terminal, or JSON lines
    #[arg(long, value_name = "json", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// A directory, which need not exist
    #[arg(value_name = "DIR", required_unless_present = "dataset", conflicts_with = "dataset")]
    path: Option<PathBuf>,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        self.dataset.clone().or_else(|| self.path.as_ref().map(|path| path.display().to_string()))
    }

    fn run(self) -> Result<(), Fault> {
        let Args { all, replace, trust, dry_run, progress, .. } = self;
        match self.dataset {
            Some(name) if self.common => cli::common(&evidence::standing(Dataset::load(&name)?.as_ref())),
            Some(name) => {
                let Args { mark, rollback, writable, properties, .. } = self;
                let (hold, overrides, notes) = (!self.no_hold, Overrides { rollback, replace }, cli::note);
                apply(FileSystem { name, mark, hold, overrides, writable, dry_run, properties, notes }, all, progress)
            }
            None => {
                let why = "it is for file systems of ZFS: --dataset";
                cli::refuse_unused([
                    (self.mark, "--mark", why),
                    (self.no_hold, "--no-hold", why),
                    (self.rollback, "--rollback", why),
                    (self.writable, "--writable", why),
                    (!self.properties.is_empty(), "-o", why),
                ])?;
                let directory = Directory { path: self.path.unwrap_or_default(), replace, trust, dry_run };
                if self.common { directory.ask(cli::common) } else { apply(directory, all, progress) }
            }
        }
    }
}

fn apply(keeper: impl Keep, all: bool, progress: Option<ProgressOption>) -> Result<(), Fault> {
    let beginning = Beginning::read(stdio::input()?, Tree::known_features());
    let reader = beginning.and_then(Beginning::of::<Tree>).map_err(Fault::from)?;
    let sink = Tally::new(Target::new(keeper, all, cli::note), Meter::new(progress));
    cli::print(&copy(&mut Decoder::of(reader), sink)?.to_line())
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
