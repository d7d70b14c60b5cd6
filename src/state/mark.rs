//! The records that a target keeps beside its content: one line of `key=value` words each.
//!
//! A [`Mark`] is set on a snapshot in the act that makes the snapshot; a [`Run`] says on the target itself that a run is
//! under way. Both carry the guid of what they were written on, because properties travel to places where they lie
//! (children, clones, replicas, foreign snapshots inherit them).

use std::collections::BTreeMap;
use std::str::FromStr;

use super::ZfsGuid;
use crate::format::{Digest, Id};

/// What a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Guid of the dataset that the snapshot was made of.
    pub dataset: ZfsGuid,
    /// Id of the source.
    pub source: Id,
    /// Id of the state that was received.
    pub state: Id,
    /// Exact size of the image in bytes; the volume may be larger, its rest is zero.
    pub size: u64,
    /// Digest of the stream that brought it.
    pub digest: Digest,
    /// The name that the snapshot is to have.
    pub name: String,
}

/// An unfinished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Guid of the dataset that is being written.
    pub dataset: ZfsGuid,
    /// Guid of the newest mark below; `None` when there is none.
    pub newest_mark: Option<ZfsGuid>,
    /// Id of the stream.
    pub stream: Id,
    /// The state it begins from; `None` for a whole stream.
    pub from: Option<Id>,
    /// The state it leads to; `None` when the stream will only say so at its end.
    pub to: Option<Id>,
}

/// The first word of each record: its version.
const VERSION: &str = "1";

impl Mark {
    /// The record as one line of text.
    pub fn to_text(&self) -> String {
        let Mark { dataset, source, state, size, digest, name } = self;
        format!("v={VERSION} dataset={dataset} source={source} state={state} size={size} digest={digest} name={name}")
    }

    /// Reads a record; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Mark> {
        let words = Words::parse(text)?;
        Some(Mark {
            dataset: words.get("dataset")?,
            source: words.get("source")?,
            state: words.get("state")?,
            size: words.get("size")?,
            digest: words.get("digest")?,
            name: words.get("name")?,
        })
    }
}

impl Run {
    /// The record as one line of text.
    pub fn to_text(&self) -> String {
        let id = |id: Option<Id>| id.map_or("-".to_owned(), |id| id.to_string());
        let newest = self.newest_mark.map_or("-".to_owned(), |guid| guid.to_string());
        let (from, to) = (id(self.from), id(self.to));
        format!("v={VERSION} dataset={} newest={newest} stream={} from={from} to={to}", self.dataset, self.stream)
    }

    /// Reads a record; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Run> {
        let words = Words::parse(text)?;
        Some(Run {
            dataset: words.get("dataset")?,
            newest_mark: words.optional("newest")?,
            stream: words.get("stream")?,
            from: words.optional("from")?,
            to: words.optional("to")?,
        })
    }
}

struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn parse(text: &'a str) -> Option<Words<'a>> {
        let words: BTreeMap<_, _> = text.split(' ').map(|word| word.split_once('=')).collect::<Option<_>>()?;
        (words.get("v") == Some(&VERSION)).then_some(Words(words))
    }

    fn get<T: FromStr>(&self, key: &str) -> Option<T> {
        self.0.get(key)?.parse().ok()
    }

    fn optional<T: FromStr>(&self, key: &str) -> Option<Option<T>> {
        match *self.0.get(key)? {
            "-" => Some(None),
            text => text.parse().ok().map(Some),
        }
    }
}

/// A source's name as a ZFS snapshot name: every byte that ZFS refuses, and `%`, becomes `_XX`… in hexadecimal.
///
/// ZFS takes letters, digits and `-_.:` (and space, which we do not use); `%` is reserved for its own use. `_` stays as it
/// is where no two hexadecimal digits follow, so that ordinary names do not change.
pub fn escape_zfs_name(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.iter().enumerate() {
        let reads_as_escape = *byte == b'_'
            && name.get(at + 1..at + 3).is_some_and(|next| next.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b)));
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b':' => out.push(char::from(*byte)),
            b'_' if !reads_as_escape => out.push('_'),
            other => out.push_str(&format!("_{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_as_written() {
        let id = |n: u8| Id::derive("t", &[&[n]]);
        let mark = Mark {
            dataset: u64::MAX,
            source: id(1),
            state: id(2),
            size: 10_485_761,
            digest: Digest([7; 32]),
            name: "mon".into(),
        };
        assert_eq!(Mark::parse(&mark.to_text()), Some(mark));
        for (newest_mark, from, to) in [(None, None, None), (Some(5), Some(id(3)), Some(id(4)))] {
            let run = Run { dataset: 1, newest_mark, stream: id(9), from, to };
            assert_eq!(Run::parse(&run.to_text()), Some(run));
        }
        for bad in ["", "v=2 dataset=1", "v=1", "v=1 dataset=-1 newest=- stream=x from=- to=-", "-"] {
            assert_eq!((Mark::parse(bad), Run::parse(bad)), (None, None), "{bad}");
        }
    }

    #[test]
    fn escaped_names_are_legal_and_distinct() {
        assert_eq!(escape_zfs_name(b"2026-11-21T0200Z"), "2026-11-21T0200Z");
        assert_eq!(escape_zfs_name(b"daily_mon"), "daily_mon");
        assert_eq!(escape_zfs_name(b"before+upgrade"), "before_2Bupgrade");
        assert_eq!(escape_zfs_name(b"before_2Bupgrade"), "before_5F2Bupgrade");
        assert_eq!(escape_zfs_name("zürich".as_bytes()), "z_C3_BCrich");
    }
}
