//! extent-digest(1): what an image holds, as one root or as a manifest of its blocks.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Tool};
use siphon::filter::{Comparing, Digested, Digester, Keeping, Visitor};
use siphon::flow::copy;
use siphon::format::Digest;
use siphon::host::stdio;
use siphon::source::{Decoder, ImageFile, ImageOptions};
use siphon::state::{Class, Fault, ManifestReader, is_manifest};

/// Take the digest of an image's content, or compare it with another's
///
/// Reads a whole extent stream from FILE or standard input, or an image with --image, and writes a manifest: a digest of each
/// block of 64 KiB. Content alone decides: how it was cut into extents, where holes were and what it lies on does not.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  root=$(rbd-diff-stream rbd/vm1@mon | extent-digest --root)
  extent-digest --image /dev/zvol/tank/vm1 --expect \"$root\" && echo equal
  rbd-diff-stream rbd/vm1@broken | extent-digest >broken.manifest
  extent-digest --image copy.img --compare broken.manifest")]
struct Args {
    /// Print only the content root
    #[arg(long, conflicts_with_all = ["expect", "compare", "fine"])]
    root: bool,
    /// Check that this is the content root; exit with 5 if not
    #[arg(long, value_name = "ROOT", value_parser = content_root, conflicts_with_all = ["compare", "fine"])]
    expect: Option<Digest>,
    /// Print offset and length in bytes of what differs from a manifest; exit with 5 if anything does
    #[arg(long, value_name = "MANIFEST", conflicts_with = "fine")]
    compare: Option<PathBuf>,
    /// Write a manifest with digests of each 4 KiB, too: nine times as large, and differences are found as finely
    #[arg(long)]
    fine: bool,
    /// With --root or --compare: print one JSON object a line
    #[arg(long, conflicts_with_all = ["expect", "fine"])]
    json: bool,
    /// Read this image file or block device instead of a stream, with all processors
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    image: Option<PathBuf>,
    /// A whole stream, or, with --root or --expect, a manifest [default: standard input]
    file: Option<PathBuf>,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        self.image.as_ref().or(self.file.as_ref()).map(|file| file.display().to_string())
    }

    fn run(self) -> Result<(), Fault> {
        if let Some(manifest) = &self.compare {
            return self.compare_with(manifest);
        }
        if self.root {
            let Digested { root, size, state, .. } = self.content()?;
            let state = state.map(|id| id.to_string());
            let json = serde_json::json!({ "root": root.to_string(), "bytes": size, "state": state });
            return cli::print(&if self.json { format!("{json}\n") } else { format!("{root}\n") });
        }
        if let Some(expected) = self.expect {
            let root = self.content()?.root;
            let differs = || Fault::new(Class::Differs, format!("the content root is {root}, not {expected}"));
            return if root == expected { Ok(()) } else { Err(differs()) };
        }
        if self.json {
            return Err(Fault::new(Class::Usage, "a manifest is not JSON; --json goes with --root or --compare"));
        }
        let digested = self.look(Keeping::new(BufWriter::new(stdio::output()?), self.fine))?;
        digested.visitor.finish(digested.state).map(drop)
    }
}

impl Args {
    fn content(&self) -> Result<Digested<()>, Fault> {
        if self.image.is_none() {
            let mut input = self.input()?;
            if is_manifest(input.fill_buf().map_err(|error| Fault::io("reading", &error))?) {
                let (header, end) = ManifestReader::open(input)?.verify()?;
                return Ok(Digested { root: end.root, size: header.size, state: end.state, visitor: () });
            }
            return copy(&mut Decoder::open(input)?, Digester::new(()));
        }
        self.look(())
    }

    fn compare_with(&self, manifest: &Path) -> Result<(), Fault> {
        let manifest = ManifestReader::open(BufReader::new(open(manifest)?))?;
        let described = manifest.header().size;
        let mut ranges = 0_u64;
        let digested = self.look(Comparing::new(manifest, |offset, len| {
            ranges += 1;
            let json = serde_json::json!({ "offset": offset, "len": len });
            cli::print(&if self.json { format!("{json}\n") } else { format!("{offset}\t{len}\n") })
        }))?;
        let same = digested.visitor.finish()?.root == digested.root;
        if digested.size != described {
            let what = format!("this image has {} bytes, and the manifest's {described}", digested.size);
            return Err(Fault::new(Class::Differs, what));
        }
        match ranges {
            0 if same => Ok(()),
            0 => Err(Fault::new(Class::Differs, "the content roots differ")),
            1 => Err(Fault::new(Class::Differs, "one range differs")),
            ranges => Err(Fault::new(Class::Differs, format!("{ranges} ranges differ"))),
        }
    }

    /// Shows all blocks to a visitor.
    fn look<V: Visitor>(&self, visitor: V) -> Result<Digested<V>, Fault> {
        let sink = Digester::new(visitor);
        match &self.image {
            Some(image) => {
                let options = ImageOptions { raw: true, parallel: true, ..ImageOptions::default() };
                copy(&mut ImageFile::whole(image, options)?, sink)
            }
            None => copy(&mut Decoder::open(self.input()?)?, sink),
        }
    }

    fn input(&self) -> Result<Box<dyn BufRead>, Fault> {
        Ok(match &self.file {
            Some(file) => Box::new(BufReader::new(open(file)?)),
            None => Box::new(stdio::input()?),
        })
    }
}

fn content_root(text: &str) -> Result<Digest, &'static str> {
    text.parse().map_err(|()| "a content root has 64 hexadecimal digits")
}

fn open(file: &Path) -> Result<File, Fault> {
    File::open(file).map_err(|error| Fault::io(format!("opening {}", file.display()), &error))
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
