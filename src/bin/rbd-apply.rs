//! rbd-apply(1): applies an extent stream to a Ceph RBD image and commits it as a snapshot.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use siphon::cli::{self, CephOptions, Meter, ProgressOption, Tool};
use siphon::filter::Tally;
use siphon::flow::copy;
use siphon::host::ceph::{Access, Creation, Spec, feature};
use siphon::host::stdio;
use siphon::sink::rbd::{self, Options, Rbd};
use siphon::source::Decoder;
use siphon::state::{Fault, Overrides};

/// Apply an extent stream to a Ceph RBD image
///
/// Reads a stream from standard input, writes what changed to IMAGE, commits it as a snapshot when the whole stream was
/// verified and is durable, and prints a receipt. A first, whole stream creates the image.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  ssh nas zvol-diff-stream tank/vm1@mon | rbd-apply rbd/vm1-restored
  rbd-diff-stream --from mon rbd/vm1@tue | ssh other rbd-apply rbd/vm1
  image-diff-stream vm1.img | rbd-apply --like rbd/vm0 rbd/vm1
  rbd-diff-stream --states rbd/vm1 | ssh other rbd-apply --common rbd/vm1")]
struct Args {
    /// Give up what lies above the state that the stream begins from
    #[arg(long)]
    rollback: bool,
    /// Let a whole stream replace content that is there; snapshots stay
    #[arg(long)]
    replace: bool,
    /// Read and verify the stream, say what would be done with it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep a manifest of what IMAGE holds in this file, for extent-digest(1); what was written is read back for it
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Read a state list, print the newest state that IMAGE also holds
    #[arg(long, conflicts_with_all = ["rollback", "replace", "dry_run", "manifest", "progress"])]
    common: bool,
    /// Seconds between checkpoints, from which a run that is cut goes on; 0: as often as the stream allows
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_every: u32,
    /// Make an image that is created as this one is: features, object size, striping, data pool
    #[arg(long, value_name = "IMAGE")]
    like: Option<Spec>,
    /// Object size of an image that is created: a power of two from 4K to 32M [default: as configured]
    #[arg(long, value_name = "SIZE", value_parser = object_size)]
    object_size: Option<u64>,
    /// Pool for the content of an image that is created [default: the image's own]
    #[arg(long, value_name = "POOL")]
    data_pool: Option<String>,
    /// Features of an image that is created, as for rbd(8) [default: as configured]
    #[arg(long, value_name = "NAMES", value_parser = features)]
    image_feature: Option<u64>,
    #[command(flatten)]
    ceph: CephOptions,
    /// Show progress: a bar on a terminal, or JSON lines
    #[arg(long, value_name = "json", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// POOL/[NAMESPACE/]IMAGE
    #[arg(value_name = "IMAGE", value_parser = image)]
    image: Spec,
}

/// An image, not a snapshot of one.
fn image(text: &str) -> Result<Spec, String> {
    match text.parse::<Spec>()? {
        spec if spec.snapshot.is_none() => Ok(spec),
        spec => Err(format!("a snapshot cannot be written to; name the image: {}", spec.image_name())),
    }
}

fn object_size(text: &str) -> Result<u64, String> {
    match cli::parse_size(text)? {
        size if size.is_power_of_two() && (4 << 10..=32 << 20).contains(&size) => Ok(size),
        _ => Err("not a power of two from 4K to 32M".to_owned()),
    }
}

/// Feature bits of names with commas between.
fn features(text: &str) -> Result<u64, String> {
    text.split(',').try_fold(0, |bits, name| {
        let known = feature::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, bit)| bits | bit).ok_or_else(|| {
            let names: Vec<&str> = feature::NAMES.iter().map(|(name, _)| *name).collect();
            format!("no feature {name}; there are {}", names.join(", "))
        })
    })
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        Some(self.image.to_string())
    }

    fn run(self) -> Result<(), Fault> {
        let CephOptions { cluster, conf, id, keyring } = self.ceph;
        let options = Options {
            access: Access { cluster, conf, id, keyring },
            spec: self.image,
            overrides: Overrides { rollback: self.rollback, replace: self.replace },
            dry_run: self.dry_run,
            creation: Creation {
                features: self.image_feature,
                object_size: self.object_size,
                striping: None,
                data_pool: self.data_pool,
            },
            like: self.like,
            checkpoint_every: Duration::from_secs(self.checkpoint_every.into()),
            manifest: self.manifest,
            notes: cli::note,
        };
        if self.common {
            return cli::common(&rbd::standing(&options)?);
        }
        let input = stdio::input()?;
        let sink = Tally::new(Rbd::new(options), Meter::new(self.progress));
        cli::print(&copy(&mut Decoder::open(input)?, sink)?.to_line())
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
