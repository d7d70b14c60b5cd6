//! extent-inspect(1): lists or checks an extent stream.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Tool};
use siphon::flow::{Proof, copy};
use siphon::format::Object;
use siphon::host::stdio;
use siphon::sink::{Listing, Style};
use siphon::source::AnyDecoder;
use siphon::state::Fault;

/// List or check an extent stream
///
/// Reads one stream, of an image or a tree, from FILE or standard input to its end and prints what it holds. Memory is bounded, whatever the
/// stream claims.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  image-diff-stream disk.img | extent-inspect | less
  tree-diff-stream --base monday tuesday | extent-inspect
  extent-inspect --check saved.stream && echo whole
  extent-inspect --json saved.stream | jq 'select(.item == \"end\")'")]
struct Args {
    /// Print one JSON object a line
    #[arg(long, conflicts_with = "check")]
    json: bool,
    /// Print one line if the stream is whole; else say why not and exit with 3
    #[arg(long)]
    check: bool,
    /// The stream [default: standard input]
    file: Option<PathBuf>,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        self.file.as_ref().map(|file| file.display().to_string())
    }

    fn run(self) -> Result<(), Fault> {
        let style = match (self.check, self.json) {
            (true, _) => Style::Summary,
            (_, true) => Style::Json,
            (_, false) => Style::Text,
        };
        let input: Box<dyn Read> = match &self.file {
            Some(file) => Box::new(BufReader::new(File::open(file).map_err(|error| Fault::io("opening the stream", &error))?)),
            None => Box::new(stdio::input()?),
        };
        stdio::refuse_closed_output()?;
        let listing = Listing::new(BufWriter::new(std::io::stdout()), style);
        let summary = match AnyDecoder::open(input)? {
            AnyDecoder::Image(mut image) => summary(&copy(&mut image, listing)?),
            AnyDecoder::Tree(mut tree) => summary(&copy(&mut tree, listing)?),
        };
        if self.check { cli::print(&summary) } else { Ok(()) }
    }
}

fn summary<O: Object>(proof: &Proof<O>) -> String {
    let whole = if proof.header().is_whole() { "whole stream" } else { "increment" };
    let totals = proof.totals();
    let to = proof.ending().to.map_or("no state".to_owned(), |to| to.to_string());
    format!("ok: {whole} to {to}, data {} bytes, zero {} bytes\n", totals.data_bytes, totals.zero_bytes)
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
