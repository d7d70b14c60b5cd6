//! zfs-snapmark(1): marks, finds, lists, holds, prunes and verifies the snapshots that stand for received states.

mod content;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use siphon::cli::{self, PruneOptions, Tool};
use siphon::host::stdio;
use siphon::host::zfs::{self, Dataset};
use siphon::sink::dataset::evidence;
use siphon::sink::dataset::marks::{self, Marked};
use siphon::sink::dataset::retention::Pruning;
use siphon::state::{Fault, Receipt};

/// Mark, find, list, hold, prune and verify the snapshots that stand for received states
///
/// A mark is a snapshot with a record of ours, set on itself in the act that made it. Snapshots of others are never
/// touched nor believed.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  rbd-diff-stream --states rbd/vm1 | ssh nas zfs-snapmark common tank/vm1
  … | zvol-apply tank/vm1 | zfs-snapmark mark tank/vm1
  zfs-snapmark list tank/vm1
  rbd-diff-stream new/vm1@mon | extent-digest | ssh nas zfs-snapmark adopt tank/vm1@mon")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Give the committed snapshot that a receipt on standard input names its final name and hold
    Mark {
        /// Without a receipt: whatever is committed and has no name yet
        #[arg(long)]
        committed: bool,
        /// Do not hold the mark against destruction
        #[arg(long)]
        no_hold: bool,
        /// The dataset
        target: String,
    },
    /// Read a state list from standard input, print the newest state that is also marked here
    Common {
        /// The dataset; it need not exist
        target: String,
    },
    /// Print the newest mark
    Last(Listing),
    /// Print all marks, oldest first: a state list
    List(Listing),
    /// Print the manifest of the newest mark: what extent-digest(1) says of it
    Manifest {
        /// With a digest of every block of 4 KiB instead of 64 KiB
        #[arg(long)]
        fine: bool,
        /// The dataset, or one mark of it: DATASET@NAME
        target: String,
    },
    /// Keep a mark from being destroyed until it is released
    Hold(MarkName),
    /// Take back what hold did
    Release(MarkName),
    /// Read a manifest of extent-digest(1), and let the mark go by the id of its state, too, if both hold the same
    Adopt(MarkName),
    /// Destroy the marks that a retention policy lets go; the newest, held, cloned and needed ones always stay
    Prune(PruneOptions),
    /// Check that the newest mark is held and whole and that nothing was written since; exit 5 if not
    Verify {
        /// Read the mark whole, too, and compare it with the content root in its record
        #[arg(long)]
        content: bool,
        /// The dataset; with --content also one mark of it: DATASET@NAME
        target: String,
    },
}

#[derive(clap::Args)]
struct Listing {
    /// The dataset
    target: String,
    /// Each mark as one JSON object on a line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct MarkName {
    /// The mark: DATASET@NAME
    mark: String,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        let (Verb::Mark { target, .. }
        | Verb::Common { target }
        | Verb::Manifest { target, .. }
        | Verb::Last(Listing { target, .. })
        | Verb::List(Listing { target, .. })
        | Verb::Prune(PruneOptions { target, .. })
        | Verb::Verify { target, .. }
        | Verb::Hold(MarkName { mark: target })
        | Verb::Release(MarkName { mark: target })
        | Verb::Adopt(MarkName { mark: target })) = &self.verb;
        Some(target.clone())
    }

    fn run(self) -> Result<(), Fault> {
        match self.verb {
            Verb::Mark { committed, no_hold, target } => mark(&target, committed, !no_hold),
            Verb::Common { target } => cli::common(&evidence::standing(Dataset::load(&target)?.as_ref())),
            Verb::Last(Listing { target, json }) => cli::print(&marks::newest(&target)?.to_line(&target, json)),
            Verb::List(Listing { target, json }) => cli::print(&marks::listing(&Dataset::open(&target)?, json)),
            Verb::Manifest { fine, target } => content::manifest(&target, fine),
            Verb::Hold(MarkName { mark }) => marks::names(&mark).and_then(|(of, name)| zfs::hold(zfs::KEEP, &of, &name)),
            Verb::Release(MarkName { mark }) => marks::names(&mark).and_then(|(of, name)| zfs::release(zfs::KEEP, &of, &[&name])),
            Verb::Adopt(MarkName { mark }) => content::adopt(&mark),
            Verb::Prune(PruneOptions { options, target }) => {
                let (policy, marks) = (options.policy(None)?, Pruning::open(&target)?);
                options.carry_out(Some(&target), marks.judge(&policy)?, Some(|verdict: &_| marks.destroy(verdict)))
            }
            Verb::Verify { target, content } => {
                let Marked { snapshot, mark } = evidence::verify(&target, content.then_some(content::root))?;
                let is = if content { "holds what was received as" } else { "is at" };
                // A tree has no size.
                let size = snapshot.volsize.map(|_| format!(", {} bytes", mark.size)).unwrap_or_default();
                cli::print(&format!("ok: {target} {is} {}{size}\n", snapshot.name))
            }
        }
    }
}

fn mark(target: &str, committed: bool, hold: bool) -> Result<(), Fault> {
    let told = if committed { None } else { Some(Receipt::parse(stdio::input()?)?) };
    let newest = marks::name_committed(target, told.as_ref(), hold)?;
    match told {
        Some(receipt) => cli::print(&Receipt { marked: true, snapshot: Some(newest.snapshot.name), ..receipt }.to_line()),
        None => cli::print(&newest.to_line(target, false)),
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
