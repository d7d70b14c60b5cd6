//! Spans of time as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of seconds, more than none: `90s`, `15m`, `24h`, `30d`, `8w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its length in seconds.
    pub seconds: u64,
}

/// The units, and their seconds.
const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 604_800)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?} is no span of time; 90s, 15m, 24h, 30d and 8w are");
        let (_, unit) = UNITS.iter().find(|(letter, _)| text.ends_with(*letter)).ok_or_else(wrong)?;
        let digits = &text[..text.len() - 1];
        let number: u64 = plain(digits).ok_or_else(wrong)?;
        match number.checked_mul(*unit) {
            Some(0) => Err("a span of time is longer than nothing".to_owned()),
            Some(seconds) => Ok(Span { seconds }),
            None => Err(format!("{text} is too long")),
        }
    }
}

/// Digits alone, without a sign.
pub(super) fn plain(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, unit) = UNITS.iter().rev().find(|(_, unit)| self.seconds.is_multiple_of(*unit)).unwrap_or(&UNITS[0]);
        write!(f, "{}{letter}", self.seconds / unit)
    }
}
