//! Retention: which states may go. Pure, and without a clock: "now" is when the newest of them was made, so a clock that is
//! wrong today lets nothing go that would have stayed.
//!
//! A state goes only if there is no reason to keep it. Rules, what is not ours, what is in use: all of them can only add
//! reasons.

mod grid;
mod span;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};

use super::civil::{DAY, Utc};
use super::list::escape;
use super::{Checkpoint, Class, Fault, RESUME, StateList};
use crate::format::Id;

pub use grid::Grid;
pub use span::Span;

/// A name that the nightly lines give: `2026-11-21T0200Z`, or with seconds.
pub const NIGHTLY: &str = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{4}([0-9]{2})?Z";

/// A regular expression over the bytes of a name. `.` is any byte.
#[derive(Clone, Debug)]
pub struct Pattern {
    anywhere: Regex,
    whole: Regex,
}

impl Pattern {
    /// Whether it matches a name from end to end.
    pub fn is_whole(&self, name: &[u8]) -> bool {
        self.whole.is_match(name)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Pattern, String> {
        // Names are bytes, and need not be UTF-8.
        let build = |text: &str| RegexBuilder::new(text).unicode(false).dot_matches_new_line(true).build();
        // By itself first: `a)|(b` is none, whatever is put around it.
        let anywhere = build(text).map_err(|error| error.to_string())?;
        let whole = build(&format!(r"\A(?:{text})\z")).map_err(|error| error.to_string())?;
        Ok(Pattern { anywhere, whole })
    }
}

/// A stretch of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, from Monday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// The number of the one that a second lies in, ascending with time.
    fn number(self, seconds: i64) -> i64 {
        let day = seconds.div_euclid(DAY);
        match self {
            Period::Hour => seconds.div_euclid(3600),
            Period::Day => day,
            // 1 January 1970 was a Thursday.
            Period::Week => (day + 3).div_euclid(7),
            Period::Month => Utc::of(seconds).year * 12 + Utc::of(seconds).month,
            Period::Year => Utc::of(seconds).year,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Year => "yearly",
        }
    }
}

/// Why a state stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its name, or what it is, is not ours.
    NotOurs,
    /// The next increment begins from it.
    Newest,
    /// Asked for by its name, or by a token that it is part of.
    Named,
    /// One of the last.
    Last,
    /// The clock said a later time than for the newest one.
    Later,
    /// The newest of a period.
    Period(&'static str),
    /// Not older than that.
    Within,
    /// It has a place in a grid.
    Grid,
    /// Its name is of a form that is kept.
    Regex,
    /// A line or a shell would garble its name.
    Unspeakable,
    /// Enough go this time.
    Enough,
    /// It is held, by these tags.
    Held(String),
    /// It has these clones.
    Cloned(String),
    /// An unfinished run goes back to it.
    Unfinished,
    /// It has no name of its own yet.
    Unnamed,
    /// It is another one by now than was judged.
    Changed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotOurs => "not ours",
            Reason::Newest => "the newest",
            Reason::Named => "named",
            Reason::Last => "last",
            Reason::Later => "later than the newest",
            Reason::Period(word) => word,
            Reason::Within => "within",
            Reason::Grid => "grid",
            Reason::Regex => "regex",
            Reason::Unspeakable => "name unfit for a pipeline",
            Reason::Enough => "at most",
            Reason::Held(tags) => return write!(f, "held: {tags}"),
            Reason::Cloned(clones) => return write!(f, "has clones: {clones}"),
            Reason::Unfinished => "an unfinished run needs it",
            Reason::Unnamed => "not yet named",
            Reason::Changed => "changed meanwhile",
        })
    }
}

/// A state that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: Vec<u8>,
    /// Other names of it.
    pub other_names: Vec<Vec<u8>>,
    /// All ids that it goes by.
    pub ids: Vec<Id>,
    /// When it was made, in seconds since 1970 UTC.
    pub seconds: i64,
}

impl Candidate {
    /// The states of a list, oldest first. One that has several lines counts once, where its last line stands.
    pub fn of_list(list: &StateList) -> Result<Vec<Candidate>, Fault> {
        let names: BTreeSet<&[u8]> = list.states.iter().map(|state| state.name.as_slice()).collect();
        // Snapshots that were received are in a source's list as themselves, too, by this spelling.
        let plain = |name: &'_ [u8]| match name.strip_prefix(b"@") {
            Some(plain) if names.contains(plain) => plain.to_vec(),
            _ => name.to_vec(),
        };
        let mut found: BTreeMap<Vec<u8>, (usize, Candidate)> = BTreeMap::new();
        for (n, state) in list.states.iter().enumerate() {
            let name = plain(&state.name);
            let new = || (n, Candidate { name: name.clone(), other_names: vec![], ids: vec![], seconds: state.seconds });
            let (line, candidate) = found.entry(name.clone()).or_insert_with(new);
            if candidate.seconds != state.seconds {
                // One of them would go by the name of the other.
                return Err(Fault::new(Class::List, format!("two states of different times have the name {}", escape(&name))));
            }
            *line = n;
            candidate.ids.push(state.id);
            if name != state.name {
                candidate.other_names.push(state.name.clone());
            }
        }
        let mut ordered: Vec<_> = found.into_values().collect();
        ordered.sort_by_key(|(line, _)| *line);
        Ok(ordered.into_iter().map(|(_, candidate)| candidate).collect())
    }

    /// Whether it goes by this name.
    fn is_called(&self, name: &[u8]) -> bool {
        self.name == name || self.other_names.iter().any(|other| other == name)
    }

    /// Whether `xargs` and a shell leave its name as it is, and no program takes it for an option.
    pub fn is_speakable(&self) -> bool {
        let plain = |c: char| c.is_alphanumeric() || "._-:+,%".contains(c);
        std::str::from_utf8(&self.name).is_ok_and(|name| name.chars().all(plain) && !name.starts_with('-'))
    }
}

/// Its name, escaped.
impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.name))
    }
}

/// What a policy says of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: Candidate,
    /// Why it stays; without one it goes.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether it stays.
    pub fn keep(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// Its reasons in words.
    pub fn words(&self) -> Vec<String> {
        match self.reasons.as_slice() {
            [] => vec!["no rule keeps it".to_owned()],
            reasons => reasons.iter().map(Reason::to_string).collect(),
        }
    }
}

/// What became of a state that was to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went.
    Gone,
    /// It had to stay after all.
    Kept(Reason),
    /// It could not be removed; the others are another matter.
    Failed(Fault),
}

/// What is kept.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Names that it is about; `None`: all.
    pub ours: Option<Pattern>,
    /// As many of the newest.
    pub last: Option<u64>,
    /// The newest of each of as many of the newest periods.
    pub periods: Vec<(Period, u64)>,
    /// What is younger than that, seen from the newest.
    pub within: Option<Span>,
    /// What has a place in one of these.
    pub grids: Vec<Grid>,
    /// Names in which one of these is found.
    pub patterns: Vec<Pattern>,
    /// Names, or tokens of unfinished transfers.
    pub named: Vec<Vec<u8>>,
}

impl Policy {
    /// Whether it has a rule at all. One that only names states would let all others go.
    pub fn has_rule(&self) -> bool {
        self.last.is_some() || self.is_by_time() || !self.patterns.is_empty()
    }

    fn is_by_time(&self) -> bool {
        self.within.is_some() || !self.periods.is_empty() || !self.grids.is_empty()
    }

    /// Judges states, which stand oldest first. What is named must be there: who names a wrong one would lose the right one.
    pub fn judge(&self, states: Vec<Candidate>) -> Result<Vec<Verdict>, Fault> {
        let named: BTreeSet<usize> =
            self.named.iter().map(|name| find(&states, name)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let is_ours = |state: &Candidate| self.ours.as_ref().is_none_or(|ours| ours.is_whole(&state.name));
        let is_kept = |state: &Candidate| self.patterns.iter().any(|pattern| pattern.anywhere.is_match(&state.name));
        let (ours, others): (Vec<usize>, Vec<usize>) = (0..states.len()).partition(|n| is_ours(&states[*n]));
        let times: Vec<i64> = ours.iter().map(|n| states[*n].seconds).collect();
        let last = usize::try_from(self.last.unwrap_or(0)).unwrap_or(usize::MAX);

        let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); states.len()];
        let mut give = |n: usize, reason: Reason| reasons[n].push(reason);
        others.iter().for_each(|n| give(*n, Reason::NotOurs));
        ours.last().into_iter().for_each(|newest| give(*newest, Reason::Newest));
        named.into_iter().for_each(|n| give(n, Reason::Named));
        ours.iter().rev().take(last).for_each(|n| give(*n, Reason::Last));
        self.by_time(&times).into_iter().for_each(|(n, reason)| give(ours[n], reason));
        ours.iter().filter(|n| is_kept(&states[**n])).for_each(|n| give(*n, Reason::Regex));
        Ok(states.into_iter().zip(reasons).map(|(state, reasons)| Verdict { state, reasons }).collect())
    }

    /// What the rules about time keep, by its place in the times that were given, which stand in the order of the states.
    fn by_time(&self, times: &[i64]) -> Vec<(usize, Reason)> {
        let Some(now) = times.last().filter(|_| self.is_by_time()) else { return Vec::new() };
        // A clock was set back: what lies ahead of now has no age.
        let (mut past, later): (Vec<usize>, Vec<usize>) = (0..times.len()).partition(|n| times[*n] <= *now);
        past.sort_by_key(|n| (times[*n], *n));
        let mut kept: Vec<(usize, Reason)> = later.into_iter().map(|n| (n, Reason::Later)).collect();
        for (period, most) in &self.periods {
            let mut seen = BTreeSet::new();
            for n in past.iter().rev() {
                let is_new = seen.insert(period.number(times[*n]));
                if seen.len() as u64 > *most {
                    break;
                }
                kept.extend(is_new.then_some((*n, Reason::Period(period.word()))));
            }
        }
        let age = |n: &usize| now.abs_diff(times[*n]);
        let within = |n: &&usize| self.within.is_some_and(|span| age(n) < span.seconds);
        kept.extend(past.iter().filter(within).map(|n| (*n, Reason::Within)));
        for grid in &self.grids {
            let keeps = grid.keeps(past.iter().map(age));
            kept.extend(past.iter().zip(keeps).filter(|(_, keeps)| *keeps).map(|(n, _)| (*n, Reason::Grid)));
        }
        kept
    }
}

/// The states that a name or a token means.
fn find(states: &[Candidate], name: &[u8]) -> Result<Vec<usize>, Fault> {
    let missing = |what: Cow<'_, str>| {
        Fault::new(Class::NotFound, format!("{what}, which is to be kept, is none of these states"))
            .hint("is it the base of another image? nothing is let go")
    };
    if let Some(token) = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(RESUME)) {
        let checkpoint: Checkpoint = token
            .parse()
            .map_err(|()| Fault::new(Class::Usage, "that is no token").hint("`common` of the target prints tokens"))?;
        let place = |id: Id| states.iter().position(|state| state.ids.contains(&id));
        return checkpoint
            .states()
            .map(|id| place(id).ok_or_else(|| missing(format!("the state {id} of the token").into())))
            .collect();
    }
    let found: Vec<usize> = (0..states.len()).filter(|n| states[*n].is_called(name)).collect();
    if found.is_empty() { Err(missing(escape(name).into())) } else { Ok(found) }
}

/// Lets at most this many go, the oldest.
pub fn at_most(verdicts: &mut [Verdict], most: u64) {
    let going = verdicts.iter_mut().filter(|verdict| !verdict.keep());
    going.skip(usize::try_from(most).unwrap_or(usize::MAX)).for_each(|verdict| verdict.reasons.push(Reason::Enough));
}
