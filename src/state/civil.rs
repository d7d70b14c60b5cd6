//! Dates in UTC of seconds since 1970. No time zone, no daylight saving, no leap second: only those 24 × 3600 seconds a day.

use std::fmt;

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;
/// Days of 400 years; after as many the calendar repeats.
const ERA: i64 = 146_097;
/// Days from 1 March of the year 0 to 1 January 1970.
const TO_1970: i64 = 719_468;

/// A second, as people write it: `2026-11-21T02:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// The year.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// Seconds since midnight.
    pub second_of_day: i64,
}

impl Utc {
    /// The date of this many seconds since 1970.
    pub fn of(seconds: i64) -> Utc {
        // A year that begins in March has its odd day at its end, and the lengths of its months follow one line: five of
        // them have 153 days.
        let days = seconds.div_euclid(DAY) + TO_1970;
        let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
        // Of the days before this one, those that are the 29th of a February do not count: the last of each fourth year, but
        // of the hundredth, but for the last of all.
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (year * 365 + year / 4 - year / 100);
        let month = (day * 5 + 2) / 153;
        Utc {
            year: era * 400 + year + i64::from(month >= 10),
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day - (month * 153 + 2) / 5 + 1,
            second_of_day: seconds.rem_euclid(DAY),
        }
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Utc { year, month, day, second_of_day } = self;
        let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_each_other_as_in_the_calendar() {
        // By counting, from 1 January 1601 on for 800 years: two whole turns of the calendar.
        let (mut year, mut month, mut day) = (1601, 1, 1);
        let first = -134_774;
        for n in first..first + 2 * ERA {
            let utc = Utc::of(n * DAY);
            assert_eq!((utc.year, utc.month, utc.day), (year, month, day), "day {n}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn seconds_are_written_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_226_415, "2026-11-21T02:00:15Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Utc::of(seconds).to_string(), text);
        }
        // No overflow, whatever a list says.
        assert!(Utc::of(i64::MAX).year > 292_000_000_000 && Utc::of(i64::MIN).year < -292_000_000_000);
    }
}
