//! A tree of files as a target.
//!
//! Two halves. What [`Keep`]s the state knows what the target holds, whether a stream may be applied, and how far a broken run
//! has come; it never touches an entry. A [`Directory`] has a record beside it, and no way back: while a run is under way it is
//! part old, part new, and its record says so. A [`FileSystem`] of ZFS is committed as a snapshot. The [writer](entries) makes
//! true below a root what a stream says, and knows no state.

mod aside;
mod differences;
mod directory;
mod entries;
mod file;
mod file_system;
mod keep;
mod place;
mod way;

use super::Outcome;
pub use directory::Directory;
pub use file_system::FileSystem;
pub use keep::{Keep, Prepared, Run};

use crate::flow::{Proof, Sink};
use crate::format::{Header, Tree, TreeChange, wire};
use crate::host::limits::many_open_files;
use crate::state::{Class, Fault, Receipt};
use differences::Differences;
use entries::Entries;
use keep::{Already, Left};

use super::dataset::marks::{Marked, on_receipt};

/// A tree as a sink.
pub struct Target<K: Keep> {
    keeper: K,
    /// Set what needs rights, too: owners, set-id bits, devices, what is below `trusted.` and `security.`.
    all: bool,
    /// Takes what the user should know: the target's name, and the text.
    notes: fn(&str, &str),
    stage: Stage<K::Run>,
}

enum Stage<R> {
    Waiting,
    Writing(Box<Writing<R>>),
    Already(Box<Already>),
    DryRun(String),
}

impl<K: Keep> Target<K> {
    /// The target of this keeper. Nothing is looked at before the stream begins.
    pub fn new(keeper: K, all: bool, notes: fn(&str, &str)) -> Target<K> {
        Target { keeper, all, notes, stage: Stage::Waiting }
    }

    /// No increment speaks of what stays as it is at the source.
    fn tell_unset(&self, left: Left) {
        if self.all && left.unset {
            let text = "what runs without --all left unset stays so: a whole stream with --all --replace sets it";
            (self.notes)(&self.keeper.name(), text);
        }
    }
}

impl<K: Keep> Sink<Tree> for Target<K> {
    type Done = Outcome;

    fn begin(&mut self, header: &Header, _: &Tree) -> Result<(), Fault> {
        if header.has(wire::FEATURE_LIST) {
            return Err(Fault::new(Class::Unsupported, "this is a list of changes: it has no content")
                .hint("tree-diff-stream --changes - makes a stream of it"));
        }
        many_open_files();
        self.stage = match self.keeper.prepare(header)? {
            Prepared::Already(already) => {
                self.tell_unset(already.left);
                Stage::Already(already)
            }
            Prepared::DryRun(words) => Stage::DryRun(words),
            Prepared::Write { run, before, is_increment } => {
                let left = run.left();
                self.tell_unset(left);
                let entries = Entries::new(run.root()?, before, Differences::new(self.all, left))?;
                Stage::Writing(Box::new(Writing { run, entries, is_going: is_increment }))
            }
        };
        Ok(())
    }

    fn change(&mut self, change: TreeChange) -> Result<(), Fault> {
        match &mut self.stage {
            Stage::Writing(writing) => writing.change(&change),
            Stage::Already(_) | Stage::DryRun(_) => Ok(()),
            Stage::Waiting => Err(out_of_turn()),
        }
    }

    fn commit(self, proof: Proof<Tree>) -> Result<Outcome, Fault> {
        let name = self.keeper.name();
        let receipt = proof.receipt("tree-apply", &name);
        let done = match self.stage {
            Stage::Writing(writing) => {
                let written = writing.commit(&proof, |text| (self.notes)(&name, text))?;
                let Written { entries, unset, marked } = written;
                on_receipt(marked, Receipt { entries, unset, ..receipt })
            }
            Stage::Already(already) => {
                already.plan.check_end(proof.ending().to)?;
                on_receipt(already.marked, Receipt { already: true, ..receipt })
            }
            Stage::DryRun(words) => return Ok(Outcome::Would(words)),
            Stage::Waiting => return Err(out_of_turn()),
        };
        Ok(Outcome::Done(Box::new(done)))
    }
}

/// A run that has touched the target, or is about to: the keeper's and the writer, in their order.
struct Writing<R> {
    run: R,
    entries: Entries,
    /// What is gone may still be said.
    is_going: bool,
}

/// What was written.
struct Written {
    /// Entries and links.
    entries: u64,
    /// Those that are not in all as the stream says.
    unset: u64,
    marked: Option<Marked>,
}

impl<R: Run> Writing<R> {
    fn change(&mut self, change: &TreeChange) -> Result<(), Fault> {
        let done = self.carry_out(change);
        if done.as_ref().is_err_and(|fault| fault.class == Class::WrongBase) {
            self.run.spoil()?;
        }
        done
    }

    fn carry_out(&mut self, change: &TreeChange) -> Result<(), Fault> {
        match change {
            TreeChange::Gone { path, number } => self.entries.gone(path, *number),
            TreeChange::Entry(entry) => self.all_gone().and_then(|()| self.entries.entry(entry)),
            TreeChange::Link { path, to } => self.all_gone().and_then(|()| self.entries.link(path, to)),
            TreeChange::Extent(extent) => self.entries.extent(extent),
            // Of lists, which are refused at their beginning.
            TreeChange::Roots { .. } => Ok(()),
        }
    }

    /// What is gone goes first; where a run is broken off, the next one must know whether all of it did.
    fn all_gone(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.is_going) {
            self.run.all_gone(self.entries.all_gone()?)?;
        }
        Ok(())
    }

    fn commit(mut self, proof: &Proof<Tree>, note: impl Fn(&str)) -> Result<Written, Fault> {
        self.all_gone()?;
        self.entries.settle(self.run.modified())?;
        self.entries.sync()?;
        let (entries, differences) = self.entries.finish();
        let marked = self.run.commit(proof.header(), proof.ending(), differences.left())?;
        differences.tell(note);
        Ok(Written { entries, unset: differences.count(), marked })
    }
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "a change before the stream began")
}
