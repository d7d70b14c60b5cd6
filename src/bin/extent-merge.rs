//! extent-merge(1): several extent streams that follow each other as one.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Meter, ProgressOption, Tool};
use siphon::filter::{Merge, Named, Normal, Tally};
use siphon::flow::copy;
use siphon::host::stdio;
use siphon::sink::Encoder;
use siphon::source::Decoder;
use siphon::state::Fault;

/// Merge extent streams: A→B and B→C become A→C
///
/// Reads streams that follow each other, oldest first, and writes one stream from where the first begins to where the last
/// leads. A whole stream and its increments become a new whole stream. Memory does not depend on their size.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  extent-merge mon-tue.siphon tue-wed.siphon >mon-wed.siphon
  extent-merge full.siphon mon-tue.siphon tue-wed.siphon >full-wed.siphon
  zstd -dc full.zst | extent-merge - increment.siphon | image-apply vm1.img")]
struct Args {
    /// Show how far it is, on standard error: a bar, or JSON lines
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// Write into FILE what was written, once all was
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// The streams, oldest first; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        None
    }

    fn run(self) -> Result<(), Fault> {
        let output = stdio::output()?;
        stdio::exit_when_reader_dies();
        let streams = self.files.iter().map(|file| Named::open(file.display().to_string(), || open(file)));
        let mut merged = Merge::new(streams.collect::<Result<_, _>>()?)?;
        let sealed = copy(&mut merged, Tally::new(Normal::new(Encoder::new(output)), Meter::of_source(self.progress)))?;
        stdio::all_was_written();
        cli::keep_receipt(self.receipt.as_deref(), &sealed.receipt(env!("CARGO_BIN_NAME"), "merged"))
    }
}

fn open(file: &Path) -> Result<Decoder<Box<dyn Read>>, Fault> {
    let input: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(stdio::input()?),
        false => Box::new(BufReader::new(File::open(file).map_err(|error| Fault::io("opening it", &error))?)),
    };
    Decoder::open(input)
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
