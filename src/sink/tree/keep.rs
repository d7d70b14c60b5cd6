//! The half that keeps the state of a tree: what the other half, the writer of entries, is told of it.

use super::entries::Before;
use crate::flow::Ending;
use crate::format::{Digest, Header, Time};
use crate::host::tree::Dir;
use crate::sink::dataset::marks::Marked;
use crate::state::{Fault, Plan};

/// A kind of target: where its state is kept, and how it is made true.
pub trait Keep {
    /// A run that has touched the target.
    type Run: Run;

    /// The target as the user calls it.
    fn name(&self) -> String;

    /// Finds out what the target holds and decides; makes and claims it, and puts on record that it is written to, if so.
    fn prepare(&self, header: &Header) -> Result<Prepared<Self::Run>, Fault>;
}

/// What comes of a stream.
pub enum Prepared<R> {
    /// It is carried out.
    Write {
        /// The run, on record.
        run: R,
        /// How far an earlier run of the same stream has come.
        before: Before,
        /// What the stream begins from is there; else the root is empty.
        is_increment: bool,
    },
    /// The target is where the stream leads, or its end refuses it.
    Already(Box<Already>),
    /// The user wants to know whether it would be accepted: it would, and this be done.
    DryRun(String),
}

/// A target to which nothing is written.
pub struct Already {
    /// What the end must show.
    pub plan: Plan,
    /// The snapshot that holds it, where there are such.
    pub marked: Option<Marked>,
    /// What the streams up to it left.
    pub left: Left,
    /// Keeps others away.
    pub claim: Option<Dir>,
}

/// What is not as streams said: not everything is set for everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Something may not be there at all.
    pub missing: bool,
    /// Something may be there otherwise.
    pub unset: bool,
}

/// A run that is on record, and the claim on its target.
pub trait Run {
    /// Where the entries are to be written.
    fn root(&self) -> Result<Dir, Fault>;

    /// When the root was changed last, before the run.
    fn modified(&self) -> Time;

    /// What the streams before this one left.
    fn left(&self) -> Left;

    /// All that is gone was carried out; this is what it was.
    fn all_gone(&mut self, plan: Digest) -> Result<(), Fault>;

    /// The target is not what the stream begins from: no other run must go on over what others put there.
    fn spoil(&mut self) -> Result<(), Fault>;

    /// All is durable. Says so, in one act; the snapshot that is this act, where it is one. `left`: by this stream, and before.
    fn commit(self, header: &Header, ending: Ending, left: Left) -> Result<Option<Marked>, Fault>;
}
