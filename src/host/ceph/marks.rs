//! The records that an image carries in its metadata.
//!
//! Metadata does not roll back with the content, and `rbd cp` takes it along. So a record names the image that it was
//! written on, a mark belongs to one snapshot by its number, and a run to the newest mark below it.
//!
//! Taking a snapshot and saying what it stands for are two acts. So the record is written first, under [`PENDING`]; then a
//! snapshot of a name that nobody else gives ([`pending_name`]) is the commit, and binds the record to its number.

use std::collections::BTreeMap;

use super::cluster::Pool;
use super::image::{Image, Snapshot};
use crate::format::{Digest, Id};
use crate::state::{
    Checkpoint, Class, Fault, Held, Mark, NextStream, Pause, RbdImage, Resumable, Run, State, StateList, rbd_source, rbd_state,
};

/// Says that a run is under way.
pub const RECEIVING: &str = "siphon.receiving";
/// What the snapshot that is about to be taken will stand for.
pub const PENDING: &str = "siphon.pending";
/// Before the number of the snapshot that the record is of.
const MARK: &str = "siphon.mark.";
/// Before the beginning of a checkpoint's id: its record. The snapshot that holds it has a name made of the same.
const CHECKPOINT: &str = "siphon.checkpoint.";

/// A snapshot and the record that makes it a mark.
#[derive(Clone, Debug)]
pub struct Marked {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Its record.
    pub mark: Mark<String>,
    /// Committed, but neither bound nor called by its name yet.
    pub is_pending: bool,
}

impl Marked {
    /// Its present name.
    pub fn name(&self) -> String {
        self.snapshot.name.to_string_lossy().into_owned()
    }

    /// As a state that the target holds.
    pub fn held(&self) -> Held {
        Held { ids: self.mark.ids(), name: self.name() }
    }
}

/// All that an image says about its states.
#[derive(Clone, Debug)]
pub struct Marks {
    /// The image's id.
    pub image_id: String,
    /// All snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    metadata: BTreeMap<String, String>,
    /// A user's own snapshot that a stream begins from.
    base: Option<Marked>,
}

/// The key of a snapshot's record.
pub fn key(snapshot: u64) -> String {
    format!("{MARK}{snapshot}")
}

/// What a committed snapshot is called until it has its name.
pub fn pending_name(state: Id) -> String {
    format!("siphon-pending-{state}")
}

/// The snapshot that holds a checkpoint, and the key of its record, which is written first.
pub fn pause_names(checkpoint: &Checkpoint) -> (String, String) {
    let short = checkpoint.id().short();
    (format!("siphon-checkpoint-{short}"), format!("{CHECKPOINT}{short}"))
}

impl Marks {
    /// Looks at an image.
    pub fn load(image: &Image) -> Result<Marks, Fault> {
        Ok(Marks { image_id: image.id()?, snapshots: image.snapshots()?, metadata: image.metadata()?, base: None })
    }

    fn record(&self, key: &str) -> Option<Mark<String>> {
        Mark::parse(self.metadata.get(key)?).filter(|mark: &Mark<String>| mark.home == self.image_id)
    }

    /// What a user's snapshot stands for, if it is a mark. A record that was copied with the image makes none, nor does one of
    /// another size: somebody resized the image just before it was taken.
    pub fn mark(&self, snapshot: &Snapshot) -> Option<Marked> {
        let marked = |mark, is_pending| Marked { snapshot: snapshot.clone(), mark, is_pending };
        if !snapshot.is_users {
            return None;
        }
        let pending = self.record(PENDING).filter(|mark| pending_name(mark.state).as_bytes() == snapshot.name.as_bytes());
        let found = pending.map(|mark| marked(mark, true));
        let found = found.or_else(|| self.record(&key(snapshot.id)).map(|mark| marked(mark, false)));
        found.filter(|marked| marked.mark.size == snapshot.size)
    }

    /// The marks, oldest first.
    pub fn all(&self) -> Vec<Marked> {
        self.snapshots.iter().filter_map(|snapshot| self.mark(snapshot)).collect()
    }

    /// The user's snapshots as the states that they are themselves, whatever was received into them; oldest first.
    pub fn own(&self, pool: &Pool, namespace: &str) -> Result<Vec<Marked>, Fault> {
        let fsid = pool.cluster().fsid()?;
        let pool = u64::try_from(pool.id()).map_err(|_| Fault::new(Class::Io, "the pool has no number"))?;
        let identity = RbdImage { fsid: &fsid, pool, namespace, image_id: &self.image_id };
        let own = |snapshot: &Snapshot| Marked {
            mark: Mark {
                home: self.image_id.clone(),
                source: rbd_source(identity),
                state: rbd_state(identity, snapshot.id),
                aliases: Vec::new(),
                size: snapshot.size,
                // No stream brought it.
                digest: Digest([0; 32]),
                root: None,
                unset: false,
                name: snapshot.name.to_string_lossy().into_owned(),
            },
            snapshot: snapshot.clone(),
            is_pending: false,
        };
        Ok(self.snapshots.iter().filter(|snapshot| snapshot.is_users).map(own).collect())
    }

    /// The same, with the user's own snapshot that a stream begins from, if it does. An older state can so be brought back over
    /// a newer one, or what was restored elsewhere into where it came from.
    ///
    /// Not where the newest mark is what that stream leads to: it was applied already.
    pub fn with_base(mut self, pool: &Pool, namespace: &str, next: NextStream) -> Result<Marks, Fault> {
        let (marks, NextStream { from, to, .. }) = (self.all(), next);
        let is_there = to.is_some() && marks.last().is_some_and(|newest| newest.held().is(to));
        if from.is_some() && !is_there && !marks.iter().any(|marked| marked.held().is(from)) {
            self.base = self.own(pool, namespace)?.into_iter().rfind(|own| own.held().is(from));
        }
        Ok(self)
    }

    /// The states that a stream may begin from: the marks, oldest first, and last a user's own snapshot that this one does.
    pub fn states(&self) -> Vec<Marked> {
        self.all().into_iter().chain(self.base.clone()).collect()
    }

    /// The snapshots that unfinished runs left to go on from, oldest first.
    pub fn pauses(&self) -> Vec<(Snapshot, Checkpoint)> {
        let records = self.metadata.iter().filter(|(key, _)| key.starts_with(CHECKPOINT));
        let pauses = records.filter_map(|(_, text)| Pause::<String>::parse(text)).filter(|pause| pause.home == self.image_id);
        let mut found: Vec<(Snapshot, Checkpoint)> = pauses
            .filter_map(|pause| {
                let (name, _) = pause_names(&pause.checkpoint);
                let snapshot = self.snapshots.iter().find(|snapshot| snapshot.name.as_bytes() == name.as_bytes());
                snapshot.filter(|snapshot| snapshot.is_users).map(|snapshot| (snapshot.clone(), pause.checkpoint))
            })
            .collect();
        found.sort_by_key(|(snapshot, _)| snapshot.id);
        found
    }

    /// Where an unfinished run can go on: what it left last, if no mark is newer. Snapshots of others never stand in the way.
    pub fn resumable(&self) -> Option<(Snapshot, Resumable)> {
        let newest = self.all().last().map_or(0, |marked| marked.snapshot.id);
        let (snapshot, checkpoint) = self.pauses().pop().filter(|(snapshot, _)| snapshot.id > newest)?;
        let held = Held { ids: vec![checkpoint.id()], name: snapshot.name.to_string_lossy().into_owned() };
        Some((snapshot, Resumable { held, checkpoint, above: Vec::new() }))
    }

    /// The unfinished run of ours, if its record still fits the image and its newest mark.
    pub fn unfinished(&self) -> Option<Run<String>> {
        let run: Run<String> = Run::parse(self.metadata.get(RECEIVING)?)?;
        let newest = self.all().last().map(|marked| marked.snapshot.id);
        (run.home == self.image_id && run.newest_mark == newest).then_some(run)
    }

    /// A run of ours is under way, or was broken off before or after its commit.
    pub fn is_under_way(&self) -> bool {
        let run: Option<Run<String>> = self.metadata.get(RECEIVING).and_then(|text| Run::parse(text));
        run.is_some_and(|run| run.home == self.image_id)
    }

    /// Keys of records that stand for nothing any more: of snapshots that are gone, of a run or a commit that ended.
    pub fn stale_keys(&self) -> Vec<String> {
        let mut kept: Vec<String> = self.snapshots.iter().map(|snapshot| key(snapshot.id)).collect();
        kept.extend(self.pauses().into_iter().map(|(_, checkpoint)| pause_names(&checkpoint).1));
        kept.extend(self.unfinished().is_some().then(|| RECEIVING.to_owned()));
        kept.extend(self.all().iter().any(|marked| marked.is_pending).then(|| PENDING.to_owned()));
        let ours = |key: &str| key.starts_with(MARK) || key.starts_with(CHECKPOINT) || key == RECEIVING || key == PENDING;
        self.metadata.keys().filter(|key| ours(key) && !kept.contains(key)).cloned().collect()
    }

    /// The marks as a state list: as what they were received.
    pub fn state_list(&self, image: &Image) -> Result<StateList, Fault> {
        let state = |marked: Marked| {
            let seconds = image.seconds(marked.snapshot.id)?;
            Ok(State { id: marked.mark.state, seconds, bytes: marked.mark.size, name: marked.snapshot.name.into_bytes() })
        };
        Ok(StateList { states: self.all().into_iter().map(state).collect::<Result<_, Fault>>()? })
    }
}
