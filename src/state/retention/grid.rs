//! Grids: how closely states are kept, going back in time.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::span::{Span, plain};

/// Buckets of time that go back from the newest state, without gaps: `1x1h(keep=all) | 24x1h | 14x1d`.
///
/// A bucket holds what is as old as its newer edge, and not what is as old as its older one. Of each bucket the oldest states
/// are kept. So a state that is kept wanders into the larger buckets, and is there before the next one comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    rows: Vec<Row>,
}

/// Buckets of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    count: u64,
    length: Span,
    /// Most states that are kept of a bucket; `None`: all.
    keep: Option<u64>,
}

impl Grid {
    /// The bucket for this age in seconds, counted by row, and how many it keeps. `None`: it is older than all of them.
    fn bucket(&self, age: u64) -> Option<((usize, u64), Option<u64>)> {
        let mut age = u128::from(age);
        for (n, row) in self.rows.iter().enumerate() {
            let length = u128::from(row.length.seconds);
            let in_row = age / length;
            match u64::try_from(in_row) {
                Ok(bucket) if bucket < row.count => return Some(((n, bucket), row.keep)),
                _ => age -= length * u128::from(row.count),
            }
        }
        None
    }

    /// Which of some states are kept. They stand oldest first, each with its age in seconds.
    pub(super) fn keeps(&self, ages: impl Iterator<Item = u64>) -> Vec<bool> {
        let mut taken = BTreeMap::new();
        let fits = |age| {
            let Some((bucket, most)) = self.bucket(age) else { return false };
            let taken: &mut u64 = taken.entry(bucket).or_default();
            *taken += 1;
            most.is_none_or(|most| *taken <= most)
        };
        ages.map(fits).collect()
    }
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Grid, String> {
        let rows: Vec<Row> = text.split('|').map(|row| row.trim().parse()).collect::<Result<_, _>>()?;
        for (n, pair) in rows.windows(2).enumerate() {
            // What was thinned out would be counted by the finer buckets behind.
            if pair[1].length < pair[0].length && !rows[..=n].iter().all(|row| row.keep.is_none()) {
                return Err(format!(
                    "{} behind {}: the buckets must not become shorter going back",
                    pair[1].length, pair[0].length
                ));
            }
        }
        Ok(Grid { rows })
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Row, String> {
        let wrong = || format!("{text:?} is no row of a grid; 24x1h, 7x1d(keep=2) and 1x1h(keep=all) are");
        let (buckets, keep) = match text.split_once('(') {
            None => (text, "keep=1"),
            Some((buckets, keep)) => (buckets, keep.strip_suffix(')').ok_or_else(wrong)?),
        };
        let (count, length) = buckets.split_once('x').ok_or_else(wrong)?;
        let number = |digits: &str| plain(digits.trim()).filter(|number| *number > 0).ok_or_else(wrong);
        let keep = match keep.trim().strip_prefix("keep=").ok_or_else(wrong)?.trim() {
            "all" => None,
            most => Some(number(most)?),
        };
        Ok(Row { count: number(count)?, length: length.trim().parse()?, keep })
    }
}
