//! extent-digest(1): what an image holds, as one root or as a manifest of its blocks.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use siphon::cli::{self, SampleOptions, Tool};
use siphon::filter::{Comparing, Digested, Digester, Keeping, Visitor};
use siphon::flow::copy;
use siphon::format::Digest;
use siphon::host::stdio;
use siphon::source::{Decoder, ImageFile, ImageOptions, ImageParts};
use siphon::state::{Class, Fault, ManifestReader, Sample, tell_manifest};

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
    #[arg(long, value_name = "ROOT", value_parser = cli::parse_root, conflicts_with_all = ["compare", "fine"])]
    expect: Option<Digest>,
    /// Print offset and length in bytes of what differs from a manifest; exit with 5 if anything does
    #[arg(long, value_name = "MANIFEST", conflicts_with = "fine")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    sampling: SampleOptions,
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
        match (&self.compare, self.sampling.choice()) {
            (Some(manifest), Some(sample)) => return self.sample_of(manifest, sample),
            (Some(manifest), None) => return self.compare_with(manifest),
            (None, _) => {}
        }
        if self.root {
            let Digested { root, size, state, .. } = self.content()?;
            let (root, state) = (root.to_string(), state.map(|id| id.to_string()));
            return cli::print_line(&root, self.json.then(|| json!({ "root": root, "bytes": size, "state": state })));
        }
        if let Some(expected) = self.expect {
            return match self.content()?.root {
                root if root == expected => Ok(()),
                root => Err(Fault::new(Class::Differs, format!("the content root is {root}, not {expected}"))),
            };
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
            let (is_manifest, input) = tell_manifest(self.input()?).map_err(|error| Fault::io("reading", &error))?;
            if is_manifest {
                let (header, end) = ManifestReader::open(input)?.verify()?;
                return Ok(Digested { root: end.root, size: header.size, state: end.state, visitor: () });
            }
            return copy(&mut Decoder::open(input)?, Digester::new(()));
        }
        self.look(())
    }

    fn compare_with(&self, manifest: &Path) -> Result<(), Fault> {
        let digested = self.look(Comparing::new(described(manifest)?, |offset, len| self.tell(offset, len)))?;
        digested.visitor.finish(digested.root, digested.size)
    }

    fn sample_of(&self, manifest: &Path, sample: Sample) -> Result<(), Fault> {
        let Some(image) = &self.image else {
            return Err(Fault::new(Class::Usage, "--sample goes with --image: a stream is read to its end in any case"));
        };
        cli::note(&image.display().to_string(), &format!("the blocks are chosen by --seed {}", sample.seed));
        let (now, since) = (described(manifest)?, self.sampling.since.as_deref().map(described).transpose()?);
        let parts = ImageParts::open(image)?;
        let read = |offset, len| parts.read(offset, len);
        let found = sample.compare(parts.size(), now, since, read, |offset, len| self.tell(offset, len))?;
        parts.finish()?;
        let json = || json!({ "compared": found.compared, "blocks": found.blocks, "differing": found.differing });
        cli::print_line(&format!("compared {} of {} blocks", found.compared, found.blocks), self.json.then(json))?;
        found.verdict()
    }

    fn tell(&self, offset: u64, len: u64) -> Result<(), Fault> {
        cli::print_line(&format!("{offset}\t{len}"), self.json.then(|| json!({ "offset": offset, "len": len })))
    }

    /// Shows all blocks to a visitor.
    fn look<V: Visitor>(&self, visitor: V) -> Result<Digested<V>, Fault> {
        let sink = Digester::new(visitor);
        match &self.image {
            Some(image) => {
                let options = ImageOptions { raw: true, parallel: true, ..ImageOptions::default() };
                copy(&mut ImageFile::whole(image, &options)?, sink)
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

fn described(file: &Path) -> Result<ManifestReader<BufReader<File>>, Fault> {
    ManifestReader::open(BufReader::new(open(file)?))
}

fn open(file: &Path) -> Result<File, Fault> {
    File::open(file).map_err(|error| Fault::io(format!("opening {}", file.display()), &error))
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
