//! The records that a target keeps beside its content: one line of `key=value` words each.
//!
//! A [`Mark`] is set on a snapshot in the act that makes the snapshot; a [`Run`] says on the target itself that a run is
//! under way. Both carry the identity of what they were written on, because properties travel to places where they lie
//! (children, clones, replicas, foreign snapshots inherit them; `rbd cp` takes image metadata along).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::list::{escape, unescape};
use super::{Checkpoint, Class, Fault, ZfsGuid};
use crate::format::{Digest, Id};

/// What a record is bound to: found on anything else, it says nothing.
pub trait Home: FromStr + Display {
    /// What the record calls it.
    const WORD: &'static str;
}

/// The guid of a dataset.
impl Home for ZfsGuid {
    const WORD: &'static str = "dataset";
}

/// The id of an RBD image.
impl Home for String {
    const WORD: &'static str = "image";
}

/// What a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark<H = ZfsGuid> {
    /// What the snapshot was made of.
    pub home: H,
    /// Id of the source.
    pub source: Id,
    /// Id of the state that was received.
    pub state: Id,
    /// Ids of other states that were proved to hold the same: of the same image in another cluster, after it had to move.
    pub aliases: Vec<Id>,
    /// Exact size of the image in bytes; the volume may be larger, its rest is zero.
    pub size: u64,
    /// Digest of the stream that brought it.
    pub digest: Digest,
    /// Content root of the image, read back from the target before the snapshot was made; `None`: nobody asked for it.
    pub root: Option<Digest>,
    /// Of a tree: something was left as it was, by this stream or one before it.
    pub unset: bool,
    /// The name that the snapshot is to have.
    pub name: String,
}

/// An unfinished run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run<H = ZfsGuid> {
    /// What is being written.
    pub home: H,
    /// The newest mark below: guid of the ZFS snapshot, or number of the RBD snapshot. `None` when there is none.
    pub newest_mark: Option<u64>,
    /// Id of the stream.
    pub stream: Id,
    /// The state it begins from; `None` for a whole stream.
    pub from: Option<Id>,
    /// The state it leads to; `None` when the stream will only say so at its end.
    pub to: Option<Id>,
    /// Number of the [`Check`] that it stands on; `None` where there is none.
    pub check: Option<u32>,
}

/// A snapshot that a run takes before it writes, and that is gone when somebody went back past it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The dataset that the snapshot was made of.
    pub home: ZfsGuid,
    /// Number of the run.
    pub run: u32,
}

/// A snapshot that an unfinished run can go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause<H = ZfsGuid> {
    /// What the snapshot was made of.
    pub home: H,
    /// What it holds.
    pub checkpoint: Checkpoint,
}

/// The first word of each record: its version.
const VERSION: &str = "1";

impl<H> Mark<H> {
    /// All ids that it goes by.
    pub fn ids(&self) -> Vec<Id> {
        std::iter::once(self.state).chain(self.aliases.iter().copied()).collect()
    }

    /// Compares the content root with that of what the snapshot holds, which is read only if there is something to compare.
    pub fn check_root(&self, read: impl FnOnce() -> Result<Digest, Fault>) -> Result<(), Fault> {
        let Some(root) = self.root else {
            return Err(Fault::new(Class::NotFound, format!("the mark {} has no content root to compare with", self.name))
                .hint("marks get one when zvol-apply is run with --manifest FILE")
                .hint(
                    "for this one take it at the source: extent-digest --root; then of the mark: extent-digest --expect ROOT",
                ));
        };
        match read()? {
            found if found == root => Ok(()),
            found => Err(Fault::new(Class::Differs, format!("{} holds content with the root {found}, not {root}", self.name))),
        }
    }
}

impl<H: Home> Mark<H> {
    /// The record as one line of text.
    pub fn to_text(&self) -> String {
        let Mark { home, source, state, aliases, size, digest, root, unset, name } = self;
        let aliases: Vec<String> = aliases.iter().map(Id::to_string).collect();
        let aliases = if aliases.is_empty() { String::new() } else { format!(" aliases={}", aliases.join(",")) };
        let root = root.map(|root| format!(" root={root}")).unwrap_or_default();
        // Between the words are spaces, and the name of an RBD snapshot may hold some.
        let name = escape(name.as_bytes());
        let unset = if *unset { " unset=true" } else { "" };
        let content = format!("size={size} digest={digest}{root}{unset}");
        format!("v={VERSION} {}={home} source={source} state={state}{aliases} {content} name={name}", H::WORD)
    }

    /// Reads a record; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Mark<H>> {
        let words = Words::parse(text)?;
        Some(Mark {
            home: words.get(H::WORD)?,
            source: words.get("source")?,
            state: words.get("state")?,
            aliases: match words.0.get("aliases") {
                Some(aliases) => aliases.split(',').map(|id| id.parse().ok()).collect::<Option<_>>()?,
                None => Vec::new(),
            },
            size: words.get("size")?,
            digest: words.get("digest")?,
            root: words.if_there("root")?,
            unset: words.if_there("unset")?.unwrap_or(false),
            name: String::from_utf8(unescape(words.0.get("name")?)?).ok()?,
        })
    }
}

impl<H: Home> Run<H> {
    /// The record as one line of text.
    pub fn to_text(&self) -> String {
        let id = |id: Option<Id>| id.map_or("-".to_owned(), |id| id.to_string());
        let newest = self.newest_mark.map_or("-".to_owned(), |guid| guid.to_string());
        let (from, to, home) = (id(self.from), id(self.to), &self.home);
        let check = self.check.map(|run| format!(" check={run}")).unwrap_or_default();
        format!("v={VERSION} {}={home} newest={newest} stream={} from={from} to={to}{check}", H::WORD, self.stream)
    }

    /// Reads a record; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Run<H>> {
        let words = Words::parse(text)?;
        Some(Run {
            home: words.get(H::WORD)?,
            newest_mark: words.optional("newest")?,
            stream: words.get("stream")?,
            from: words.optional("from")?,
            to: words.optional("to")?,
            check: words.if_there("check")?,
        })
    }
}

impl Check {
    /// The record as one line of text.
    pub fn to_text(self) -> String {
        format!("v={VERSION} {}={} run={}", ZfsGuid::WORD, self.home, self.run)
    }

    /// Reads a record; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Check> {
        let words = Words::parse(text)?;
        Some(Check { home: words.get(ZfsGuid::WORD)?, run: words.get("run")? })
    }
}

impl<H: Home> Pause<H> {
    /// The record as one line of text.
    pub fn to_text(&self) -> String {
        format!("v={VERSION} {}={} checkpoint={}", H::WORD, self.home, self.checkpoint)
    }

    /// Reads a record; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Pause<H>> {
        let words = Words::parse(text)?;
        Some(Pause { home: words.get(H::WORD)?, checkpoint: words.get("checkpoint")? })
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

    /// A word that was left away where there was nothing to say, or by a version that did not know it.
    fn if_there<T: FromStr>(&self, key: &str) -> Option<Option<T>> {
        match self.0.get(key) {
            None => Some(None),
            Some(text) => text.parse().ok().map(Some),
        }
    }

    fn optional<T: FromStr>(&self, key: &str) -> Option<Option<T>> {
        match *self.0.get(key)? {
            "-" => Some(None),
            text => text.parse().ok().map(Some),
        }
    }
}

/// The name that a mark of this state will have on the target: `plain`, which the source's name became, unless it does not
/// fit. The id decides what a snapshot is, never its name.
pub fn choose_name(plain: &str, state: Id, fits: impl Fn(&str) -> bool) -> String {
    let short = state.short();
    let candidates = [plain.to_owned(), format!("{plain}.{short}"), format!("siphon-{short}")];
    let numbered = (2_u64..).map(|n| format!("siphon-{short}.{n}"));
    // The numbers do not end, and only finitely many names do not fit.
    candidates.into_iter().chain(numbered).find(|name| fits(name)).unwrap_or_default()
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
            home: u64::MAX,
            source: id(1),
            state: id(2),
            aliases: vec![],
            size: 10_485_761,
            digest: Digest([7; 32]),
            root: None,
            unset: false,
            name: "mon".into(),
        };
        assert_eq!(Mark::<u64>::parse(&mark.to_text()), Some(mark.clone()));
        let Mark { source, state, size, digest, name, .. } = mark;
        let name = format!("{name} 50% zürich v=2");
        let root = Some(Digest([0xab; 32]));
        let mark =
            Mark { home: "5e2b".to_owned(), source, state, aliases: vec![id(5), id(6)], size, digest, root, unset: true, name };
        assert_eq!(Mark::parse(&mark.to_text()), Some(mark.clone()));
        assert_eq!(Mark::<u64>::parse(&mark.to_text()), None, "of another system");
        for (newest_mark, from, to, check) in [(None, None, None, None), (Some(5), Some(id(3)), Some(id(4)), Some(u32::MAX))] {
            let run = Run { home: 1, newest_mark, stream: id(9), from, to, check };
            assert_eq!(Run::<u64>::parse(&run.to_text()), Some(run.clone()));
            assert_eq!(
                Run::<u64>::parse(&format!("{} check=-", Run { check: None, ..run }.to_text())),
                None,
                "a check that is none"
            );
        }
        let check = Check { home: 1, run: u32::MAX };
        assert_eq!(Check::parse(&check.to_text()), Some(check));
        assert_eq!(Check::parse("1"), None);
        for bad in ["", "v=2 dataset=1", "v=1", "v=1 dataset=-1 newest=- stream=x from=- to=-", "-"] {
            assert_eq!((Mark::<u64>::parse(bad), Run::<u64>::parse(bad)), (None, None), "{bad}");
        }
    }

    #[test]
    fn a_mark_of_before_there_were_roots_still_is_one() {
        let (source, state, digest) = ("1".repeat(32), "2".repeat(32), "3".repeat(64));
        let before = format!("v=1 dataset=7 source={source} state={state} size=4096 digest={digest} name=mon");
        let mark = Mark::<u64>::parse(&before).unwrap();
        assert_eq!((mark.root, mark.size, mark.name.as_str()), (None, 4096, "mon"));
        assert_eq!(mark.to_text(), before, "and nothing is added to it");
        let root = Digest([0xab; 32]);
        let with_root = Mark { root: Some(root), ..mark }.to_text();
        assert!(with_root.contains(&format!(" root={root} ")), "{with_root}");
        assert_eq!(Mark::<u64>::parse(&with_root).unwrap().root, Some(root));
        assert_eq!(Mark::<u64>::parse(&with_root.replace("root=ab", "root=xy")), None, "a root that is none");
    }

    #[test]
    fn a_root_is_compared_with_what_is_there() {
        let id = Id::derive("t", &[b"1"]);
        let digest = Digest([7; 32]);
        let root = Some(Digest([8; 32]));
        let (source, state, name) = (id, id, "mon".into());
        let mark = Mark { home: 1_u64, source, state, aliases: vec![], size: 9, digest, root, unset: false, name };
        assert_eq!(mark.check_root(|| Ok(Digest([8; 32]))), Ok(()));
        assert_eq!(mark.check_root(|| Ok(digest)).unwrap_err().class, Class::Differs);
        let read = || panic!("read for nothing");
        let without = Mark { root: None, ..mark }.check_root(read).unwrap_err();
        assert!(without.class == Class::NotFound && without.hints.iter().any(|hint| hint.contains("--manifest")), "{without:?}");
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
