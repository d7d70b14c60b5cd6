//! rbd-group-snap(1): takes a snapshot of all images of a Ceph RBD group at one moment.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use siphon::cli::{self, CephOptions, Tool};
use siphon::host::ceph::{Access, Cluster, Pool, Spec, members, snapshot_together};
use siphon::state::{Class, Fault};

/// Take a snapshot of all images of a Ceph RBD group at one moment
///
/// While every image's exclusive lock is held, so that nobody writes to any of them, a snapshot of this name is taken of
/// each: one as `rbd snap create` takes it, which rbd-diff-stream can send. Prints the snapshots.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  rbd-group-snap rbd/vm1@2026-11-21T020000Z
  rbd-group-snap --without rbd/vm1-swap rbd/vm1@mon")]
struct Args {
    /// Leave out this image of the group; can be given several times
    #[arg(long, value_name = "IMAGE")]
    without: Vec<Spec>,
    /// Say of which images a snapshot would be taken, and take none
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object: the snapshots, and for how many seconds writers were held
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ceph: CephOptions,
    /// POOL/[NAMESPACE/]GROUP@NAME: the group, and the name of the snapshots
    #[arg(value_name = "GROUP@NAME")]
    group: Spec,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        Some(self.group.to_string())
    }

    fn run(self) -> Result<(), Fault> {
        let CephOptions { cluster, conf, id, keyring } = self.ceph;
        let Spec { pool, namespace, image: group, snapshot } = &self.group;
        let name = snapshot
            .as_ref()
            .ok_or_else(|| Fault::new(Class::Usage, "no name for the snapshots").hint(format!("{}@NAME", self.group)))?;
        let cluster = Cluster::connect(&Access { cluster, conf, id, keyring })?;
        let mut images = members(&Pool::open(&cluster, pool, namespace)?, namespace, group)?;
        images.retain(|image| !self.without.iter().any(|without| without.to_string() == image.path));
        if images.is_empty() {
            return Err(Fault::new(Class::NotFound, "there is no image in the group"));
        }
        let waited = if self.dry_run { Duration::ZERO } else { snapshot_together(&images, name, cli::note)? };
        let taken: Vec<String> = images.iter().map(|image| format!("{}@{name}", image.path)).collect();
        let json = serde_json::json!({ "snapshots": taken, "seconds_held": waited.as_secs_f64() });
        cli::print_line(&taken.join("\n"), self.json.then_some(json))
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
