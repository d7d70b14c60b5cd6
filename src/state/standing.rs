//! What a target is in, and what the next stream may do with it: the table of design and siphon(7), "TARGET STATES".
//!
//! One function for every sink. No option given, it loses nothing but an unfinished run of our own.

use super::{Act, Checkpoint, Class, Fault, Plan};
use crate::format::{Header, Id};

/// A state that the target holds and can prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its ids: as it was received, and aliases.
    pub ids: Vec<Id>,
    /// Its name on the target.
    pub name: String,
}

impl Held {
    /// It is the state of this id.
    pub fn is(&self, id: Option<Id>) -> bool {
        id.is_some_and(|id| self.ids.contains(&id))
    }
}

/// What the live content of a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// The target does not exist.
    Absent,
    /// It exists and every byte is known to be zero.
    Blank,
    /// A run of ours began and did not end: part old, part new.
    Receiving(Unfinished),
    /// Exactly what the newest mark holds.
    AtMark,
    /// Somebody wrote since the newest mark.
    WrittenSince,
    /// It holds something, and no mark of ours says what.
    Foreign,
}

/// The run that did not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Id of its stream.
    pub stream: Id,
    /// Its from-state; `None` for a whole stream.
    pub from: Option<Id>,
    /// Its to-state, where the stream said it at its beginning.
    pub to: Option<Id>,
}

/// Everything about a target that decides what the next stream may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The live content.
    pub head: Head,
    /// The states that it holds, oldest first.
    pub marks: Vec<Held>,
    /// Snapshots of others above the newest mark. Rolling back would destroy them.
    pub above: Vec<String>,
    /// The target can go back to a mark. A file or plain device cannot.
    pub way_back: bool,
    /// Where an unfinished run of ours was cut, if it can go on from there.
    pub checkpoint: Option<Resumable>,
}

/// A state between states that a target can go back to, or is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumable {
    /// What it is made of.
    pub checkpoint: Checkpoint,
    /// As a state of the target.
    pub held: Held,
    /// Snapshots of others above it. Rolling back would destroy them.
    pub above: Vec<String>,
}

/// The stream that wants in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextStream {
    /// Its id.
    pub stream: Id,
    /// Its from-state; `None` for a whole stream.
    pub from: Option<Id>,
    /// Its to-state, where known before its end.
    pub to: Option<Id>,
}

impl From<&Header> for NextStream {
    fn from(header: &Header) -> NextStream {
        NextStream { stream: header.stream(), from: header.from, to: header.to }
    }
}

/// What the user allowed beyond the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--rollback`: give up what lies above the mark that the stream begins from.
    pub rollback: bool,
    /// `--replace`: a whole stream may replace content that is there.
    pub replace: bool,
}

/// Decides what `next` may do with a target in this standing.
pub fn decide(standing: &Standing, next: NextStream, overrides: Overrides) -> Result<Plan, Fault> {
    match (decide_at_once(standing, next, overrides), standing.marks.last()) {
        // It may be the last one again: that is no reason to fail. So it is read to its end, and nothing is written.
        (Err(refusal), Some(newest)) if standing.head == Head::AtMark && next.to.is_none() => {
            Ok(Plan::at_end(refusal, newest.clone()))
        }
        (decided, _) => decided,
    }
}

fn decide_at_once(standing: &Standing, next: NextStream, overrides: Overrides) -> Result<Plan, Fault> {
    let plain = |act| Ok(Plan::new(act));
    let whole = next.from.is_none();
    if let Some(resumable) = standing.checkpoint.as_ref().filter(|resumable| resumable.held.is(next.from)) {
        return resume(resumable, standing.way_back, overrides);
    }
    if whole && overrides.replace && standing.head != Head::Absent && !at_goal(standing, next) {
        return plain(Act::Clear);
    }
    match &standing.head {
        Head::Absent if whole => plain(Act::Create),
        Head::Blank if whole => plain(Act::Clear),
        Head::Absent | Head::Blank => Err(Fault::new(Class::WrongBase, "the target is new, and the stream is an increment")
            .hint("send all of it first: leave --from or --base away")),
        Head::Receiving(run) => receiving(standing, run, next, overrides),
        Head::AtMark => at_marks(standing, next, overrides),
        Head::WrittenSince if overrides.rollback && standing.way_back => back_then(standing, next, overrides),
        Head::WrittenSince => {
            let fault = Fault::new(Class::WrittenSince, format!("somebody wrote to the target since {}", newest_name(standing)));
            Err(match standing.way_back {
                true => fault.hint("--rollback gives up what was written since"),
                false => fault.hint("send all of it with --replace"),
            })
        }
        Head::Foreign => Err(Fault::new(Class::Foreign, "the target holds content that did not come from here")
            .hint("a whole stream with --replace overwrites it")),
    }
}

/// An unfinished run of ours loses nothing when it is given up.
fn receiving(standing: &Standing, run: &Unfinished, next: NextStream, overrides: Overrides) -> Result<Plan, Fault> {
    let plain = |act| Ok(Plan::new(act));
    // Extents are absolute: the same states again, from the beginning, come out right over any part of themselves; but not over
    // what others wrote meanwhile, which no evidence tells from our own. So where there is a way back we take it.
    let same = run.stream == next.stream && run.from == next.from && run.to == next.to;
    if next.from.is_none() && (standing.marks.is_empty() || !standing.way_back || same && run.from.is_none()) {
        return plain(Act::Clear);
    }
    if !standing.way_back && same && next.to.is_some() {
        return plain(Act::Apply);
    }
    if !standing.way_back {
        return Err(Fault::new(
            Class::Unfinished,
            "an unfinished run left the target between two states, and this stream leads elsewhere",
        )
        .hint(match run.to {
            Some(_) => "run the same transfer again, or send all of it",
            None => "send all of it",
        }));
    }
    back_then(standing, next, overrides)
}

/// The stream goes on where a run of ours was cut. What was written behind that place is given up, where there is a way back.
fn resume(resumable: &Resumable, way_back: bool, overrides: Overrides) -> Result<Plan, Fault> {
    let Resumable { held, above, .. } = resumable;
    if !above.is_empty() && !overrides.rollback {
        return Err(in_the_way(&held.name, above));
    }
    Ok(Plan { roll_back: way_back.then(|| held.clone()), ..Plan::new(Act::Apply) })
}

fn in_the_way(name: &str, above: &[String]) -> Fault {
    let above = above.join(", ");
    Fault::new(Class::ForeignSnapshot, format!("going back to {name} would destroy snapshots of others: {above}"))
        .hint("--rollback destroys them")
}

/// As if the target were at its newest mark (or, with `--rollback`, an older one), after going back there.
fn back_then(standing: &Standing, next: NextStream, overrides: Overrides) -> Result<Plan, Fault> {
    let plan = at_marks(standing, next, overrides)?;
    if !standing.above.is_empty() && !overrides.rollback {
        return Err(in_the_way(newest_name(standing), &standing.above));
    }
    Ok(Plan { roll_back: plan.roll_back.or_else(|| standing.marks.last().cloned()), ..plan })
}

/// The content is that of the newest mark.
fn at_marks(standing: &Standing, next: NextStream, overrides: Overrides) -> Result<Plan, Fault> {
    let Some((newest, older)) = standing.marks.split_last() else {
        return Err(Fault::new(Class::WrongBase, "the target holds no state that an increment could begin from")
            .hint("send all of it: leave --from or --base away"));
    };
    if newest.is(next.to) {
        return Ok(Plan::new(Act::Already));
    }
    if newest.is(next.from) {
        return Ok(Plan::new(Act::Apply));
    }
    if next.from.is_none() {
        return Err(Fault::new(
            Class::HasStates,
            format!("the target holds states (the newest is {}), and the stream is whole", newest.name),
        )
        .hint("send an increment: --from \"$(… --states … | … common …)\"")
        .hint(match standing.way_back {
            true => "or --replace: the older states stay, the live content is replaced",
            false => "or --replace: what it holds is replaced, and that state is lost",
        }));
    }
    let fault = |what: String| Fault::new(Class::WrongBase, what);
    match older.iter().rev().find(|held| held.is(next.from)) {
        Some(held) if overrides.rollback && standing.way_back => {
            Ok(Plan { roll_back: Some(held.clone()), ..Plan::new(Act::Apply) })
        }
        Some(held) => Err(fault(format!("the stream begins from {}, and the target is at {}", held.name, newest.name))
            .hint(format!("--rollback goes back to {} and gives up every newer state", held.name))),
        None => Err(fault(format!("the stream begins from a state that the target does not hold; it is at {}", newest.name))
            .hint("ask the target: … --states … | … common …")),
    }
}

/// The target is where the stream leads, whatever else was allowed.
fn at_goal(standing: &Standing, next: NextStream) -> bool {
    standing.head == Head::AtMark && standing.marks.last().is_some_and(|newest| newest.is(next.to))
}

fn newest_name(standing: &Standing) -> &str {
    standing.marks.last().map_or("its mark", |held| held.name.as_str())
}

#[cfg(test)]
mod tests;
