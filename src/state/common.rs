//! Which state a source and a target both have: what the next increment begins from.

use super::{Checkpoint, Class, Fault, Head, Standing, State, StateList};

/// What the next stream begins from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common<'a> {
    /// The target is new: from nothing.
    New,
    /// From this state, the newest of the target's that the source can still send an increment from.
    State(&'a State),
    /// From where an unfinished run was cut.
    Resume(&'a Checkpoint),
}

/// What a source that offers these states and the target have in common.
///
/// A target that holds something, but none of the offered
/// states, is an error and never taken for a new one: a failure must not look like a new target and ask for terabytes. Except where an
/// unfinished run left nothing to go on from: on a target that cannot go back, only the same run once more or a whole
/// stream can heal it.
pub fn common<'a>(standing: &'a Standing, offered: &'a StateList) -> Result<Common<'a>, Fault> {
    let is_offered = |wanted| offered.newest(|id| id == wanted).is_some();
    match &standing.checkpoint {
        Some(resumable) if resumable.checkpoint.states().all(is_offered) => Ok(Common::Resume(&resumable.checkpoint)),
        _ => finished(standing, offered).map(|found| found.map_or(Common::New, Common::State)),
    }
}

/// The newest common state, as if no unfinished run could go on. `None`: the target is new.
fn finished<'a>(standing: &Standing, offered: &'a StateList) -> Result<Option<&'a State>, Fault> {
    let found = standing.marks.iter().rev().find_map(|held| offered.newest(|id| held.ids.contains(&id)));
    if let (Head::Receiving(run), false) = (&standing.head, standing.way_back) {
        let same_again = offered.states.last().is_some_and(|newest| run.to == Some(newest.id));
        return Ok(found.filter(|_| same_again));
    }
    match (found, &standing.head) {
        (Some(state), _) => Ok(Some(state)),
        (None, Head::Absent | Head::Blank) => Ok(None),
        (None, Head::Receiving(_)) if standing.marks.is_empty() => Ok(None),
        (None, Head::Foreign) => Err(Fault::new(Class::Foreign, "the target holds content that did not come from here")
            .hint("a whole stream with --replace overwrites it")),
        (None, Head::Receiving(_) | Head::AtMark | Head::WrittenSince) => {
            let newest = standing.marks.last().map_or("none", |held| held.name.as_str());
            Err(Fault::new(
                Class::NoCommon,
                format!("the target holds states (the newest is {newest}), but none of those offered"),
            )
            .hint("was the snapshot removed on the source, or was this another source's target?")
            .hint("to send only what differs of an image: `extent-digest` of what the target holds, and --base-manifest at the source")
            .hint(match standing.way_back {
                true => "a whole stream with --replace keeps the old states and replaces the live content",
                false => "a whole stream with --replace replaces what it holds: that state is lost",
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Id;
    use crate::state::{Content, Held, Resumable, Unfinished};

    #[test]
    fn an_error_never_looks_like_a_new_target() {
        let id = |n: u8| Id::derive("t", &[&[n]]);
        let state = |n: u8| State { id: id(n), seconds: 0, bytes: 0, name: format!("s{n}").into_bytes() };
        let offered = StateList { states: vec![state(1), state(2), state(3)] };
        let held = |n: u8| Held { ids: vec![id(n)], name: format!("m{n}") };
        let run = Head::Receiving(Unfinished { stream: id(9), from: None, to: None });
        let answer = |head: &Head, marks: &[u8]| {
            let standing = Standing {
                head: head.clone(),
                marks: marks.iter().map(|n| held(*n)).collect(),
                above: vec![],
                way_back: true,
                checkpoint: None,
            };
            match common(&standing, &offered) {
                Ok(Common::New) => "new".to_owned(),
                Ok(Common::State(state)) => String::from_utf8_lossy(&state.name).into_owned(),
                Ok(Common::Resume(checkpoint)) => checkpoint.token(),
                Err(fault) => fault.class.word().to_owned(),
            }
        };
        for head in [Head::AtMark, Head::WrittenSince, run.clone()] {
            assert_eq!(answer(&head, &[1, 2]), "s2");
            assert_eq!(answer(&head, &[2, 7]), "s2", "an older one, when the newest is gone at the source");
            assert_eq!(answer(&head, &[7, 8]), "no-common");
        }
        assert_eq!([answer(&Head::Absent, &[]), answer(&Head::Blank, &[]), answer(&run, &[])], ["new"; 3]);
        assert_eq!(answer(&Head::Foreign, &[]), "foreign");
        // Without a way back: the very run that was cut, or a whole stream.
        for (to, expected) in [(Some(id(3)), Some(2)), (Some(id(4)), None), (None, None)] {
            let head = Head::Receiving(Unfinished { stream: id(9), from: Some(id(2)), to });
            let standing = Standing { head, marks: vec![held(2)], above: vec![], way_back: false, checkpoint: None };
            let answer = common(&standing, &offered).unwrap();
            let expected = expected.and_then(|n| offered.newest(|state| state == id(n)));
            assert_eq!(answer, expected.map_or(Common::New, Common::State), "{to:?}");
        }
    }

    #[test]
    fn a_run_goes_on_only_where_all_that_it_needs_is_offered() {
        let id = |n: u8| Id::derive("t", &[&[n]]);
        let state = |n: u8| State { id: id(n), seconds: 0, bytes: 0, name: format!("s{n}").into_bytes() };
        let list = |ids: &[u8]| StateList { states: ids.iter().map(|n| state(*n)).collect() };
        let cut = Checkpoint::begin(Some(id(1)), 9, 9).written(5, Content::State(id(2)));
        let held = |id, name: &str| Held { ids: vec![id], name: name.to_owned() };
        let resumable = Resumable { held: held(cut.id(), "checkpoint"), checkpoint: cut.clone(), above: vec![] };
        let run = Unfinished { stream: id(9), from: Some(id(1)), to: Some(id(2)) };
        let standing = Standing {
            head: Head::Receiving(run),
            marks: vec![held(id(1), "m1")],
            above: vec![],
            way_back: true,
            checkpoint: Some(resumable),
        };
        assert_eq!(common(&standing, &list(&[1, 2, 3])), Ok(Common::Resume(&cut)));
        let offered = list(&[1, 3]);
        assert_eq!(common(&standing, &offered), Ok(Common::State(&offered.states[0])), "what it led to is gone");
        assert_eq!(common(&standing, &list(&[2, 3])).unwrap_err().class, Class::NoCommon);
    }
}
