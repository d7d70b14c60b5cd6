//! What a target is in, and what the next stream may do with it: the table of design and siphon(7), "TARGET STATES".
//!
//! One function for every sink. No option given, it loses nothing but an unfinished run of our own.

use super::{Act, Class, Fault, Plan};
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
    if whole && overrides.replace && standing.head != Head::Absent && !at_goal(standing, next) {
        return plain(Act::Clear);
    }
    match &standing.head {
        Head::Absent if whole => plain(Act::Create),
        Head::Blank if whole => plain(Act::Clear),
        Head::Absent | Head::Blank => Err(Fault::new(Class::WrongBase, "the target is new, and the stream is an increment")
            .hint("send the whole image first: leave --from or --base away")),
        Head::Receiving(run) => receiving(standing, run, next, overrides),
        Head::AtMark => at_marks(standing, next, overrides),
        Head::WrittenSince if overrides.rollback && standing.way_back => back_then(standing, next, overrides),
        Head::WrittenSince => {
            let fault = Fault::new(Class::WrittenSince, format!("somebody wrote to the target since {}", newest_name(standing)));
            Err(match standing.way_back {
                true => fault.hint("--rollback gives up what was written since"),
                false => fault.hint("send the whole image with --replace"),
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
            Some(_) => "run the same transfer again, or send the whole image",
            None => "send the whole image",
        }));
    }
    back_then(standing, next, overrides)
}

/// As if the target were at its newest mark (or, with `--rollback`, an older one), after going back there.
fn back_then(standing: &Standing, next: NextStream, overrides: Overrides) -> Result<Plan, Fault> {
    let plan = at_marks(standing, next, overrides)?;
    if !standing.above.is_empty() && !overrides.rollback {
        return Err(Fault::new(
            Class::ForeignSnapshot,
            format!("going back to {} would destroy snapshots of others: {}", newest_name(standing), standing.above.join(", ")),
        )
        .hint("--rollback destroys them"));
    }
    Ok(Plan { roll_back: plan.roll_back.or_else(|| standing.marks.last().cloned()), ..plan })
}

/// The content is that of the newest mark.
fn at_marks(standing: &Standing, next: NextStream, overrides: Overrides) -> Result<Plan, Fault> {
    let Some((newest, older)) = standing.marks.split_last() else {
        return Err(Fault::new(Class::WrongBase, "the target holds no state that an increment could begin from")
            .hint("send the whole image: leave --from or --base away"));
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
        .hint("or --replace: the older states stay, the live content is replaced"));
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
mod tests {
    use super::*;

    fn id(n: u8) -> Id {
        Id::derive("t", &[&[n]])
    }

    fn stream(from: u8, to: u8) -> NextStream {
        let some = |n: u8| (n > 0).then(|| id(n));
        NextStream { stream: Id::derive("s", &[&[from, to]]), from: some(from), to: some(to) }
    }

    fn held(n: u8) -> Held {
        Held { ids: vec![id(n), id(100 + n)], name: format!("m{n}") }
    }

    /// A receiving head of the given transfer.
    fn run(from: u8, to: u8) -> Head {
        let next = stream(from, to);
        Head::Receiving(Unfinished { stream: next.stream, from: next.from, to: next.to })
    }

    fn outcome(head: Head, marks: &[u8], above: bool, way_back: bool, next: NextStream, rollback: bool, replace: bool) -> String {
        let above = if above { vec!["sanoid".to_owned()] } else { vec![] };
        let standing = Standing { head, marks: marks.iter().map(|n| held(*n)).collect(), above, way_back };
        match decide(&standing, next, Overrides { rollback, replace }) {
            Ok(plan) if plan.check_end(None).is_err() => format!("Already or {}", plan.check_end(None).unwrap_err().class.word()),
            Ok(Plan { roll_back: None, act, .. }) => format!("{act:?}"),
            Ok(Plan { roll_back: Some(held), act, .. }) => format!("back to {} {act:?}", held.name),
            Err(fault) => fault.class.word().to_owned(),
        }
    }

    /// Every head × every kind of next stream × {nothing, --rollback, --replace}. In each row: the head, the marks, a foreign
    /// snapshot above, a way back; then the outcome of each stream as `plain / --rollback / --replace` (one word: all three alike).
    #[test]
    fn every_state_meets_every_stream() {
        // whole to 3 · whole to 2 (a held state where marks are 1 2) · 2→3 · 2→4 · 1→3 (older mark) · 9→3 (unknown base) · 2→2 · 2→? · whole→?
        let streams = [(0, 3), (0, 2), (2, 3), (2, 4), (1, 3), (9, 3), (2, 2), (2, 0), (0, 0)];
        const ZVOL: bool = true;
        const FILE: bool = false;
        let has = "has-states/has-states/Clear";
        let late = "Already or has-states/Already or has-states/Clear";
        let back = "back to m2 Apply";
        type Row<'a> = (&'a str, Head, &'a [u8], bool, bool, [&'a str; 9]);
        let rows: Vec<Row> = vec![
            (
                "absent",
                Head::Absent,
                &[],
                false,
                ZVOL,
                [
                    "Create",
                    "Create",
                    "wrong-base",
                    "wrong-base",
                    "wrong-base",
                    "wrong-base",
                    "wrong-base",
                    "wrong-base",
                    "Create",
                ],
            ),
            (
                "blank",
                Head::Blank,
                &[],
                false,
                ZVOL,
                ["Clear", "Clear", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "Clear"],
            ),
            (
                "foreign",
                Head::Foreign,
                &[],
                false,
                ZVOL,
                [
                    "foreign/foreign/Clear",
                    "foreign/foreign/Clear",
                    "foreign",
                    "foreign",
                    "foreign",
                    "foreign",
                    "foreign",
                    "foreign",
                    "foreign/foreign/Clear",
                ],
            ),
            (
                "at 2",
                Head::AtMark,
                &[1, 2],
                false,
                ZVOL,
                [
                    has,
                    "Already",
                    "Apply",
                    "Apply",
                    "wrong-base/back to m1 Apply/wrong-base",
                    "wrong-base",
                    "Already",
                    "Apply",
                    late,
                ],
            ),
            (
                "at 2, sanoid above",
                Head::AtMark,
                &[1, 2],
                true,
                ZVOL,
                [
                    has,
                    "Already",
                    "Apply",
                    "Apply",
                    "wrong-base/back to m1 Apply/wrong-base",
                    "wrong-base",
                    "Already",
                    "Apply",
                    late,
                ],
            ),
            (
                "written since 2",
                Head::WrittenSince,
                &[1, 2],
                false,
                ZVOL,
                [
                    "written-since/has-states/Clear",
                    "written-since/back to m2 Already/Clear",
                    "written-since/back to m2 Apply/written-since",
                    "written-since/back to m2 Apply/written-since",
                    "written-since/back to m1 Apply/written-since",
                    "written-since/wrong-base/written-since",
                    "written-since/back to m2 Already/written-since",
                    "written-since/back to m2 Apply/written-since",
                    "written-since/has-states/Clear",
                ],
            ),
            (
                "receiving 2→3",
                run(2, 3),
                &[1, 2],
                false,
                ZVOL,
                [
                    has,
                    "back to m2 Already/back to m2 Already/Clear",
                    back,
                    back,
                    "wrong-base/back to m1 Apply/wrong-base",
                    "wrong-base",
                    "back to m2 Already",
                    back,
                    has,
                ],
            ),
            (
                "receiving 2→3, sanoid in mid-receive",
                run(2, 3),
                &[1, 2],
                true,
                ZVOL,
                [
                    has,
                    "foreign-snapshot/back to m2 Already/Clear",
                    "foreign-snapshot/back to m2 Apply/foreign-snapshot",
                    "foreign-snapshot/back to m2 Apply/foreign-snapshot",
                    "wrong-base/back to m1 Apply/wrong-base",
                    "wrong-base",
                    "foreign-snapshot/back to m2 Already/foreign-snapshot",
                    "foreign-snapshot/back to m2 Apply/foreign-snapshot",
                    has,
                ],
            ),
            (
                "receiving whole 3",
                run(0, 3),
                &[],
                false,
                ZVOL,
                ["Clear", "Clear", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "Clear"],
            ),
            (
                "receiving 2→?",
                run(2, 0),
                &[1, 2],
                false,
                ZVOL,
                [
                    has,
                    "back to m2 Already/back to m2 Already/Clear",
                    back,
                    back,
                    "wrong-base/back to m1 Apply/wrong-base",
                    "wrong-base",
                    "back to m2 Already",
                    back,
                    has,
                ],
            ),
            (
                "file at 2",
                Head::AtMark,
                &[2],
                false,
                FILE,
                [has, "Already", "Apply", "Apply", "wrong-base", "wrong-base", "Already", "Apply", late],
            ),
            (
                "file receiving 2→3",
                run(2, 3),
                &[2],
                false,
                FILE,
                ["Clear", "Clear", "Apply", "unfinished", "unfinished", "unfinished", "unfinished", "unfinished", "Clear"],
            ),
            (
                "file receiving whole",
                run(0, 0),
                &[],
                false,
                FILE,
                ["Clear", "Clear", "unfinished", "unfinished", "unfinished", "unfinished", "unfinished", "unfinished", "Clear"],
            ),
            (
                "file written since",
                Head::WrittenSince,
                &[2],
                false,
                FILE,
                [
                    "written-since/written-since/Clear",
                    "written-since/written-since/Clear",
                    "written-since",
                    "written-since",
                    "written-since",
                    "written-since",
                    "written-since",
                    "written-since",
                    "written-since/written-since/Clear",
                ],
            ),
        ];
        for (label, head, marks, above, way_back, expected) in rows {
            for ((from, to), expected) in streams.into_iter().zip(expected) {
                let words: Vec<&str> = expected.split('/').collect();
                for (at, (rollback, replace)) in [(false, false), (true, false), (false, true)].into_iter().enumerate() {
                    let got = outcome(head.clone(), marks, above, way_back, stream(from, to), rollback, replace);
                    let want = words.get(at).or(words.first()).unwrap();
                    assert_eq!(&got, want, "{label}, stream {from}→{to}, --rollback {rollback}, --replace {replace}");
                }
            }
        }
    }

    #[test]
    fn a_stream_that_ends_where_the_target_is_is_not_refused() {
        let standing = Standing { head: Head::AtMark, marks: vec![held(1), held(2)], above: vec![], way_back: true };
        for (next, refusal) in
            [(stream(0, 0), Class::HasStates), (stream(1, 0), Class::WrongBase), (stream(9, 0), Class::WrongBase)]
        {
            let plan = decide(&standing, next, Overrides::default()).unwrap();
            assert_eq!((plan.act, &plan.roll_back), (Act::Already, &None));
            assert_eq!((plan.check_end(Some(id(2))), plan.check_end(Some(id(102)))), (Ok(()), Ok(())));
            for to in [Some(id(1)), Some(id(3)), None] {
                assert_eq!(plan.check_end(to).unwrap_err().class, refusal);
            }
        }
    }

    #[test]
    fn an_alias_counts_as_the_state() {
        let next = NextStream { stream: id(50), from: Some(id(102)), to: Some(id(3)) };
        assert_eq!(outcome(Head::AtMark, &[1, 2], false, true, next, false, false), "Apply");
    }
}
