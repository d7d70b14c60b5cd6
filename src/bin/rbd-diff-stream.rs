//! rbd-diff-stream(1): a Ceph RBD snapshot as an extent stream, whole or since an earlier one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, CephOptions, Meter, ProgressOption, Tool};
use siphon::filter::{Against, Described, Normal, Tally};
use siphon::flow::copy;
use siphon::host::ceph::{Access, Spec};
use siphon::host::{spool, stdio};
use siphon::sink::Encoder;
use siphon::source::{DEFAULT_JOBS, Rbd, RbdOptions, Trust};
use siphon::state::Fault;

/// Write a Ceph RBD snapshot as an extent stream: whole, or what changed since an earlier one
///
/// The image is opened for reading only: no lock is taken, nothing is written. The stream is sealed only if image and
/// snapshots are still there when all was read.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  rbd-diff-stream rbd/vm1@mon | ssh nas zvol-apply --mark tank/vm1
  rbd-diff-stream --from mon rbd/vm1@tue | ssh nas zvol-apply --mark tank/vm1
  extent-digest <old.siphon | rbd-diff-stream --base-manifest - rbd/vm1@tue >new.siphon
  rbd-diff-stream --states rbd/vm1 | ssh nas zfs-snapmark common tank/vm1
  rbd-diff-stream rbd/vm1@mon >vm1.siphon && extent-inspect --check vm1.siphon")]
struct Args {
    /// Send only what changed since this snapshot of the same image
    #[arg(long, value_name = "SNAP", conflicts_with = "states")]
    from: Option<String>,
    /// Send only what differs from what this manifest of extent-digest(1) describes; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "states"])]
    base_manifest: Option<PathBuf>,
    /// List the snapshots that can be sent, as siphon-states(5)
    #[arg(long)]
    states: bool,
    #[command(flatten)]
    ceph: CephOptions,
    /// Most reads in flight, with 192 KiB of buffers each
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_JOBS.try_into().unwrap_or(u16::MAX), value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Believe the object maps' word on what changed: quick on large images, wrong if the image was ever rolled back
    #[arg(long)]
    trust_map: bool,
    /// Ask every object even for a whole stream, whatever the object maps say
    #[arg(long, conflicts_with = "trust_map")]
    no_trust_map: bool,
    /// Show how far it is, on standard error: a bar, or JSON lines
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// Write into FILE what was sent, once all was sent
    #[arg(long, value_name = "FILE", conflicts_with = "states")]
    receipt: Option<PathBuf>,
    /// POOL/[NAMESPACE/]IMAGE@SNAPSHOT; for --states without @SNAPSHOT
    #[arg(value_name = "IMAGE@SNAP")]
    image: Spec,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        Some(self.image.to_string())
    }

    fn run(self) -> Result<(), Fault> {
        let CephOptions { cluster, conf, id, keyring } = self.ceph;
        let access = Access { cluster, conf, id, keyring };
        if self.states {
            return cli::print(&Rbd::states(&access, &self.image)?.to_text());
        }
        let output = stdio::output()?;
        stdio::exit_when_reader_dies();
        let trust = match (self.trust_map, self.no_trust_map) {
            (true, _) => Trust::Changes,
            (_, true) => Trust::Nothing,
            _ => Trust::default(),
        };
        let options = RbdOptions { from: self.from, jobs: self.jobs.into(), trust };
        let described = self.base_manifest.as_deref().map(|file| Described::verify(spool::open(file)?)).transpose()?;
        let mut rbd = Rbd::open(&access, &self.image, &options)?;
        if let Some(note) = &rbd.note {
            cli::note(&self.image.to_string(), note);
        }
        let sink = Tally::new(Normal::new(Encoder::new(output)), Meter::of_source(self.progress));
        let sealed = copy(&mut rbd.changes, Against::new(described, sink))?;
        stdio::all_was_written();
        let receipt = sealed.receipt(env!("CARGO_BIN_NAME"), &self.image.to_string());
        cli::keep_receipt(self.receipt.as_deref(), &receipt)
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
