//! The lines of `zfs diff -FH`: what changed between two snapshots of a ZFS file system.
//!
//! A letter, with `-F` a letter for the type, a path, and of what was renamed its new path, with tabs between. Of what got or lost
//! names a last column says how many: `(+1)`. Paths begin at the root of the machine; what is not printable, space and backslash
//! is `\0ooo` in them. (libzfs_diff.c of OpenZFS 2.1.11.)

use std::fmt;

/// What a line says of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// `+`: the path is in the new snapshot.
    Added,
    /// `-`: the path was in the old snapshot.
    Removed,
    /// `M`: in both; where the number of names changed, in one of them at least.
    Modified,
    /// `R`: the first path was in the old snapshot, the second is in the new one.
    Renamed,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it says.
    pub letter: Letter,
    /// A path as bytes; of what was renamed both, the old one first.
    pub paths: Vec<Vec<u8>>,
    /// Another number of names than before.
    pub links_changed: bool,
}

/// A line that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoLine(pub String);

impl fmt::Display for NoLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no line of zfs diff -FH", self.0)
    }
}

impl Line {
    /// Reads one line, without its end.
    pub fn parse(line: &[u8]) -> Result<Line, NoLine> {
        Line::read(line).ok_or_else(|| NoLine(String::from_utf8_lossy(line.get(..200).unwrap_or(line)).into_owned()))
    }

    fn read(line: &[u8]) -> Option<Line> {
        let mut columns: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
        let letter = match columns.remove(0) {
            b"+" => Letter::Added,
            b"-" => Letter::Removed,
            b"M" => Letter::Modified,
            b"R" => Letter::Renamed,
            _ => return None,
        };
        // The type; without -F there is none. A path of one byte would be a slash, and has its mount point before it.
        if columns.first()?.len() == 1 && columns.len() > 1 {
            columns.remove(0);
        }
        let links_changed = columns.len() > 1 && is_count(columns.last()?);
        if links_changed {
            columns.pop();
        }
        let is_whole = columns.len() == if letter == Letter::Renamed { 2 } else { 1 };
        let paths = columns.into_iter().map(unescape).collect::<Option<Vec<_>>>()?;
        (is_whole && paths.iter().all(|path| path.starts_with(b"/"))).then_some(Line { letter, paths, links_changed })
    }
}

/// `(+1)`.
fn is_count(column: &[u8]) -> bool {
    let inside = column.strip_prefix(b"(").and_then(|column| column.strip_suffix(b")"));
    inside.is_some_and(|count| count.len() > 1 && count.iter().all(|byte| b"+-0123456789".contains(byte)))
}

/// `None`: what should be escaped is not, or the other way round.
fn unescape(column: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(column.len());
    let mut rest = column;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'\\' => {
                let (digits, behind) = rest.split_at_checked(4)?;
                let value = u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()?;
                // Older ones print three digits. A name of which a digit follows must not be taken for another.
                if digits.first() != Some(&b'0') || !matches!(value, 1..=0x20 | b'\\' | 0x7f..) {
                    return None;
                }
                rest = behind;
                out.push(value);
            }
            0x21..0x7f => out.push(*byte),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(letter: Letter, paths: &[&[u8]], links_changed: bool) -> Result<Line, NoLine> {
        Ok(Line { letter, paths: paths.iter().map(|path| path.to_vec()).collect(), links_changed })
    }

    #[test]
    fn every_kind_of_line_is_read() {
        for (text, wanted) in [
            (&b"M\t/\t/tank/home/"[..], line(Letter::Modified, &[b"/tank/home/"], false)),
            (b"+\tF\t/tank/home/a", line(Letter::Added, &[b"/tank/home/a"], false)),
            (b"-\t@\t/tank/home/a", line(Letter::Removed, &[b"/tank/home/a"], false)),
            (b"M\t/tank/home/a", line(Letter::Modified, &[b"/tank/home/a"], false)),
            (b"R\t/\t/tank/home/a\t/tank/home/b", line(Letter::Renamed, &[b"/tank/home/a", b"/tank/home/b"], false)),
            (b"M\tF\t/tank/home/a\t(+1)", line(Letter::Modified, &[b"/tank/home/a"], true)),
            (b"M\tF\t/tank/home/a\t(-12)", line(Letter::Modified, &[b"/tank/home/a"], true)),
            (b"+\tF\t/a\\0040b\\0134\\0012\\0377\\0011", line(Letter::Added, &[b"/a b\\\n\xff\t"], false)),
            (b"M\tF\t/tank(on_delete_queue)", line(Letter::Modified, &[b"/tank(on_delete_queue)"], false)),
        ] {
            assert_eq!(Line::parse(text), wanted, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for text in [
            &b""[..],
            b"M",
            b"M\tF",
            b"X\tF\t/a",
            b"M\tF\ta",
            b"M\tF\t/a\t/b",
            b"R\tF\t/a",
            b"R\tF\t/a -> /b",
            b"M\tF\t/a b",
            b"M\tF\t/a\xff",
            b"M\tF\t/a\\040b",
            b"M\tF\t/a\\0101",
            b"M\tF\t/a\\0000",
            b"M\tF\t/a\\0",
            b"M\tF\t/a\\0400",
            b"1795349796.624273415\tM\tF\t/a",
            b"M\tF\t/a\t(+x)",
        ] {
            assert!(Line::parse(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
