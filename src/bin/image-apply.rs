//! image-apply(1): applies an extent stream to a raw image file or block device.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Meter, ProgressOption, Tool};
use siphon::filter::Tally;
use siphon::flow::copy;
use siphon::host::stdio;
use siphon::sink::image::{self, Options, RawImage, STATE_DIR};
use siphon::source::Decoder;
use siphon::state::Fault;

/// Apply an extent stream to a raw image file or block device
///
/// Reads a stream from standard input, writes what changed to TARGET, and prints a receipt when the whole stream was
/// verified and is durable. A first, whole stream creates a file. What TARGET holds is recorded beside it.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  image-diff-stream monday.img | image-apply copy.img
  image-diff-stream --base monday.img tuesday.img | image-apply copy.img
  rbd-diff-stream rbd/vm1@mon | image-apply --replace /dev/vg/vm1
  rbd-diff-stream --states rbd/vm1 | image-apply --common copy.img")]
struct Args {
    /// Let a whole stream replace content that is there
    #[arg(long)]
    replace: bool,
    /// Take TARGET for what its record says: you know that nobody wrote to it since
    #[arg(long)]
    trust: bool,
    /// Read TARGET first, and take an increment that begins from exactly the content that it has, whoever wrote that
    #[arg(long, conflicts_with_all = ["trust", "replace"])]
    by_content: bool,
    /// Read and verify the stream, say what would be done with it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep a manifest of what TARGET holds in this file, for extent-digest(1); what was written is read back for it
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Read a state list, print the newest state that TARGET also holds
    #[arg(long, conflicts_with_all = ["replace", "by_content", "dry_run", "manifest", "progress"])]
    common: bool,
    /// Where the records of block devices lie
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Show progress: a bar on a terminal, or JSON lines
    #[arg(long, value_name = "json", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// A regular file, which need not exist, or a block device
    target: PathBuf,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        Some(self.target.display().to_string())
    }

    fn run(self) -> Result<(), Fault> {
        let Args { replace, trust, by_content, dry_run, manifest, common, state_dir, progress, target } = self;
        let options = Options { path: target, replace, trust, by_content, dry_run, state_dir, manifest, notes: cli::note };
        if common {
            return cli::common(&image::standing(&options)?);
        }
        let input = stdio::input()?;
        let sink = Tally::new(RawImage::new(options), Meter::new(progress));
        cli::print(&copy(&mut Decoder::open(input)?, sink)?.to_line())
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
