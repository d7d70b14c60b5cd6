//! Pruning the marks of a dataset: what the policy says, and what stands against it.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::{self, Marked};
use crate::host::zfs::{self, Dataset, Snapshot};
use crate::state::{Candidate, Class, Fault, Outcome, Policy, Reason, Verdict};

/// The snapshots of a dataset, as of one moment.
pub struct Pruning {
    dataset: Dataset,
    marks: BTreeMap<String, Marked>,
}

impl Pruning {
    /// Looks a dataset up.
    pub fn open(name: &str) -> Result<Pruning, Fault> {
        let dataset = Dataset::open(name)?;
        let marks = marks::marks(&dataset).into_iter().map(|marked| (marked.snapshot.name.clone(), marked)).collect();
        Ok(Pruning { dataset, marks })
    }

    /// Judges all snapshots, oldest first. The policy is about the marks; snapshots of others, and checkpoints, stay and are
    /// not counted.
    pub fn judge(&self, policy: &Policy) -> Result<Vec<Verdict>, Fault> {
        if self.marks.is_empty() {
            return Err(Fault::new(Class::NotFound, "there is no mark")
                .hint("is it the right dataset? snapshots of others are not touched"));
        }
        let candidates = self.dataset.snapshots.iter().filter_map(|snapshot| self.marks.get(&snapshot.name)).map(candidate);
        let mut judged: BTreeMap<Vec<u8>, Verdict> =
            policy.judge(candidates.collect())?.into_iter().map(|verdict| (verdict.state.name.clone(), verdict)).collect();
        let obstacles = self.obstacles()?;
        let verdict = |snapshot: &Snapshot| {
            let mut verdict = judged.remove(snapshot.name.as_bytes()).unwrap_or_else(|| not_ours(snapshot));
            for reason in obstacles.get(snapshot.name.as_str()).into_iter().flatten() {
                if !verdict.reasons.contains(reason) {
                    verdict.reasons.push(reason.clone());
                }
            }
            verdict
        };
        Ok(self.dataset.snapshots.iter().map(verdict).collect())
    }

    /// What keeps each snapshot, whatever the policy says.
    fn obstacles(&self) -> Result<BTreeMap<&str, Vec<Reason>>, Fault> {
        let mut found: BTreeMap<&str, Vec<Reason>> = BTreeMap::new();
        let marks = || self.dataset.snapshots.iter().filter_map(|snapshot| self.marks.get(&snapshot.name));
        // Whatever a policy said when another one was: the next increment begins from it.
        if let Some(newest) = marks().next_back() {
            found.entry(&newest.snapshot.name).or_default().push(Reason::Newest);
        }
        let pauses = marks::pauses(&self.dataset);
        let run = marks::unfinished(&self.dataset).and_then(|run| run.from);
        let needed: BTreeSet<_> = pauses.iter().flat_map(|(_, checkpoint)| checkpoint.states()).chain(run).collect();
        for marked in marks() {
            let reasons = found.entry(&marked.snapshot.name).or_default();
            if marked.is_pending() {
                reasons.push(Reason::Unnamed);
            }
            if marked.mark.ids().iter().any(|id| needed.contains(id)) {
                reasons.push(Reason::Unfinished);
            }
            reasons.extend(cloned(&marked.snapshot));
        }
        let held: Vec<&str> =
            marks().filter(|marked| marked.snapshot.holds > 0).map(|marked| marked.snapshot.name.as_str()).collect();
        let holds = zfs::holds(&self.dataset.name, &held)?;
        for name in held {
            found.entry(name).or_default().push(held_by(&holds, name));
        }
        Ok(found)
    }

    /// Destroys a mark, if it still is the snapshot that was judged, and nothing stands against it by now.
    pub fn destroy(&self, verdict: &Verdict) -> Outcome {
        let destroyed = self.stays(verdict).and_then(|stays| match stays {
            Ok(name) => zfs::destroy_snapshot(&self.dataset.name, name).map(|()| Outcome::Gone),
            Err(reason) => Ok(Outcome::Kept(reason)),
        });
        destroyed.unwrap_or_else(Outcome::Failed)
    }

    /// The name to be destroyed, or why it has to stay after all.
    fn stays(&self, verdict: &Verdict) -> Result<Result<&str, Reason>, Fault> {
        let judged = std::str::from_utf8(&verdict.state.name).ok().and_then(|name| self.marks.get(name));
        let Some(judged) = judged else { return Ok(Err(Reason::NotOurs)) };
        let name = judged.snapshot.name.as_str();
        // The whole dataset: somebody may have gone back meanwhile, so that this mark is the newest.
        let now = Pruning::open(&self.dataset.name)?;
        let is_same = |marked: &Marked| marked.snapshot.guid == judged.snapshot.guid;
        if now.dataset.guid != self.dataset.guid || !now.marks.get(name).is_some_and(is_same) {
            return Ok(Err(Reason::Changed));
        }
        let obstacle = now.obstacles()?.remove(name).and_then(|mut reasons| reasons.pop());
        Ok(obstacle.map_or(Ok(name), Err))
    }
}

fn candidate(marked: &Marked) -> Candidate {
    let Marked { snapshot, mark } = marked;
    Candidate { name: snapshot.name.clone().into_bytes(), other_names: vec![], ids: mark.ids(), seconds: snapshot.creation }
}

fn not_ours(snapshot: &Snapshot) -> Verdict {
    let name = snapshot.name.clone().into_bytes();
    let state = Candidate { name, other_names: vec![], ids: vec![], seconds: snapshot.creation };
    Verdict { state, reasons: vec![Reason::NotOurs] }
}

fn cloned(snapshot: &Snapshot) -> Option<Reason> {
    (!snapshot.clones.is_empty()).then(|| Reason::Cloned(snapshot.clones.join(", ")))
}

fn held_by(holds: &[(String, String)], name: &str) -> Reason {
    let tags: Vec<&str> = holds.iter().filter(|(of, _)| of == name).map(|(_, tag)| tag.as_str()).collect();
    Reason::Held(tags.join(", "))
}
