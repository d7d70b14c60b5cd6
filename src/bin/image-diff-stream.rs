//! image-diff-stream(1): a raw image or block device as an extent stream.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Meter, ProgressOption, Tool};
use siphon::filter::{Against, Described, Normal, Tally};
use siphon::flow::copy;
use siphon::host::record::STATE_DIR;
use siphon::host::{spool, stdio};
use siphon::sink::Encoder;
use siphon::source::{ImageFile, ImageOptions};
use siphon::state::{Fault, StateList};

const NAME: &str = env!("CARGO_BIN_NAME");

/// Send a raw image file or block device as an extent stream
///
/// Writes the content of NEW to standard output: all of it, or with --base only what differs from OLD. Holes are not
/// read. A file that changes while it is read, or a device in use, is refused.
#[derive(Parser)]
#[command(name = NAME, version, after_help = "Examples:
  image-diff-stream monday.img | image-apply copy.img
  image-diff-stream --base monday.img tuesday.img | ssh nas image-apply /backup/copy.img
  image-diff-stream /dev/vg/root-snapshot | zstd >root.stream.zst
  image-diff-stream --states monday.img")]
struct Args {
    /// Send only what differs from this image; it is read to its end first, to learn its state
    #[arg(long, value_name = "OLD")]
    base: Option<PathBuf>,
    /// Send only what differs from what this manifest of extent-digest(1) describes; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["base"])]
    base_manifest: Option<PathBuf>,
    /// Read NEW though it is in use or may change; the stream then leads to no state and cannot be marked
    #[arg(long)]
    live: bool,
    /// Read what the file system calls holes
    #[arg(long)]
    no_trust_holes: bool,
    /// Send the file's bytes even if they are an image format with an inside of its own, such as qcow2
    #[arg(long)]
    raw: bool,
    /// Show on standard error how far it is: a bar on a terminal, or JSON lines
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// Write a line of JSON about the whole stream into this file
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Where image-apply keeps the records of devices
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Print the state that this image can be sent in, and send nothing
    #[arg(long, value_name = "THING", conflicts_with_all = ["base", "base_manifest", "live", "progress", "receipt", "new"])]
    states: Option<PathBuf>,
    /// The image: a regular file or block device
    #[arg(required_unless_present = "states")]
    new: Option<PathBuf>,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        self.new.as_ref().or(self.states.as_ref()).map(|path| path.display().to_string())
    }

    fn run(self) -> Result<(), Fault> {
        let Args { live, no_trust_holes: read_holes, raw, .. } = self;
        let options = &ImageOptions { live, read_holes, raw, parallel: false, state_dir: self.state_dir };
        if let Some(thing) = &self.states {
            return cli::print(&StateList { states: vec![ImageFile::state(thing, options)?] }.to_text());
        }
        let Some(new) = &self.new else { return Ok(()) };
        // Before anything is read: a refusal should not take long.
        let output = stdio::output()?;
        stdio::exit_when_reader_dies();
        let described = self.base_manifest.as_deref().map(|file| Described::verify(spool::open(file)?)).transpose()?;
        let mut source = match &self.base {
            None => ImageFile::whole(new, options)?,
            Some(base) => ImageFile::since(base, new, options, || note_slow_base(base))?,
        };
        let sink = Tally::new(Normal::new(Encoder::new(output)), Meter::of_source(self.progress));
        let sealed = copy(&mut source, Against::new(described, sink))?;
        stdio::all_was_written();
        cli::keep_receipt(self.receipt.as_deref(), &sealed.receipt(NAME, &new.display().to_string()))
    }
}

fn note_slow_base(base: &Path) {
    cli::note(&base.display().to_string(), "reading it to its end first, to learn the state that it is in");
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
