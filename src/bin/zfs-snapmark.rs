//! zfs-snapmark(1): marks, finds, lists, holds and verifies the snapshots that stand for received states.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use siphon::cli::{self, Tool};
use siphon::host::zfs::{self, Dataset};
use siphon::sink::zvol::evidence;
use siphon::sink::zvol::marks::{self, Marked};
use siphon::state::{Class, Fault, Receipt};

/// Mark, find, list, hold and verify the snapshots that stand for received states
///
/// A mark is a snapshot with a record of ours, set on itself in the act that made it. Snapshots of others are never
/// touched nor believed.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  rbd-diff-stream --states rbd/vm1 | ssh nas zfs-snapmark common tank/vm1
  … | zvol-apply tank/vm1 | zfs-snapmark mark tank/vm1
  zfs-snapmark list tank/vm1")]
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
    Last {
        /// The dataset
        target: String,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print all marks, oldest first: a state list
    List {
        /// The dataset
        target: String,
        /// As one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Keep a mark from being destroyed until it is released
    Hold {
        /// The mark: DATASET@NAME
        mark: String,
    },
    /// Take back what hold did
    Release {
        /// The mark: DATASET@NAME
        mark: String,
    },
    /// Check that the newest mark is held and whole and that nothing was written since; exit 5 if not
    Verify {
        /// The dataset
        target: String,
    },
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        let (Verb::Mark { target, .. }
        | Verb::Common { target }
        | Verb::Last { target, .. }
        | Verb::List { target, .. }
        | Verb::Hold { mark: target }
        | Verb::Release { mark: target }
        | Verb::Verify { target }) = &self.verb;
        Some(target.clone())
    }

    fn run(self) -> Result<(), Fault> {
        match self.verb {
            Verb::Mark { committed, no_hold, target } => mark(&target, committed, !no_hold),
            Verb::Common { target } => cli::common(&marks::standing(Dataset::load(&target)?.as_ref())),
            Verb::Last { target, json } => {
                let newest = marks::marks(&Dataset::open(&target)?).pop();
                let newest = newest.ok_or_else(|| Fault::new(Class::NotFound, "there is no mark"))?;
                cli::print(&if json { newest.to_json() } else { format!("{target}@{}\n", newest.snapshot.name) })
            }
            Verb::List { target, json: false } => cli::print(&marks::state_list(&Dataset::open(&target)?).to_text()),
            Verb::List { target, json: true } => {
                cli::print(&marks::marks(&Dataset::open(&target)?).iter().map(Marked::to_json).collect::<String>())
            }
            Verb::Hold { mark } => find(&mark).and_then(|(dataset, name)| zfs::hold(zfs::KEEP, &dataset, &name)),
            Verb::Release { mark } => find(&mark).and_then(|(dataset, name)| zfs::release(zfs::KEEP, &dataset, &[&name])),
            Verb::Verify { target } => {
                let Marked { snapshot, mark } = evidence::verify(&Dataset::open(&target)?)?;
                cli::print(&format!("ok: {target} is at {}, {} bytes\n", snapshot.name, mark.size))
            }
        }
    }
}

/// Believes the record on the dataset; the receipt only has to fit it.
fn mark(target: &str, committed: bool, hold: bool) -> Result<(), Fault> {
    let told = if committed { None } else { Some(Receipt::parse(std::io::stdin())?) };
    let dataset = Dataset::open(target)?;
    if let Some(receipt) = &told {
        let fits = |marked: &Marked| Some(marked.snapshot.guid) == receipt.snapshot_guid;
        if receipt.target != target || !marks::marks(&dataset).iter().any(fits) {
            return Err(Fault::new(Class::NotFound, "no committed snapshot fits the receipt")
                .hint("the receipt is of another target, or of a target without snapshots"));
        }
    }
    let newest = marks::settle(&dataset, hold)?.ok_or_else(|| Fault::new(Class::NotFound, "nothing is committed here"))?;
    if marks::is_record_stale(&dataset) {
        zfs::inherit(target, zfs::RECEIVING)?;
    }
    match told {
        Some(receipt) => cli::print(&Receipt { marked: true, snapshot: Some(newest.snapshot.name), ..receipt }.to_line()),
        None => cli::print(&format!("{target}@{}\n", newest.snapshot.name)),
    }
}

/// Splits DATASET@NAME, and makes sure that it is a mark of ours.
fn find(full: &str) -> Result<(String, String), Fault> {
    let (dataset, name) = full.split_once('@').ok_or_else(|| Fault::new(Class::Usage, "name a mark as DATASET@NAME"))?;
    let known = marks::marks(&Dataset::open(dataset)?);
    match known.iter().any(|marked| marked.snapshot.name == name) {
        true => Ok((dataset.to_owned(), name.to_owned())),
        false => Err(Fault::new(Class::NotFound, "there is no mark of that name; snapshots of others are not touched")),
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
