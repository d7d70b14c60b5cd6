//! What a key may ask for: the lines that a forced command lets through, and no others.
//!
//! A line is taken apart into words here and never handed to a shell. What it names lies one component below a place that
//! the administrator fixed; what else it says is an option of a fixed few.

use std::fmt;
use std::str::FromStr;

use super::{Class, Fault, NIGHTLY, Pattern, RESUME};

/// The longest line in bytes: a `resume:` token of several thousand fits.
const LIMIT_LINE: usize = 16 << 10;
/// The longest component of a name in bytes: what ZFS and Ceph take.
const LIMIT_NAME: usize = 255;

/// A kind of line that a key may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Find the state that both sides have.
    Common,
    /// Apply a stream.
    Apply,
    /// With `apply`: give up what lies above the state that the stream begins from.
    Rollback,
    /// With `apply`: let a whole stream replace content that is there.
    Replace,
    /// With `apply`: let a tree have owners, set-id bits, devices and privileged attributes.
    All,
    /// Print the manifest of the newest mark.
    Manifest,
    /// List what is there.
    List,
    /// List states that can be sent.
    States,
    /// Send a stream.
    Stream,
    /// Take a snapshot.
    Snap,
    /// Remove a snapshot whose name is of the form that the nightly lines give.
    Prune,
}

impl Allow {
    const ALL: [(Allow, &str); 11] = [
        (Allow::Common, "common"),
        (Allow::Apply, "apply"),
        (Allow::Rollback, "rollback"),
        (Allow::Replace, "replace"),
        (Allow::All, "all"),
        (Allow::Manifest, "manifest"),
        (Allow::List, "list"),
        (Allow::States, "states"),
        (Allow::Stream, "stream"),
        (Allow::Snap, "snap"),
        (Allow::Prune, "prune"),
    ];
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Allow, String> {
        let found = Allow::ALL.iter().find(|(_, word)| *word == text).map(|(allow, _)| *allow);
        found.ok_or_else(|| format!("one of {}", Allow::ALL.map(|(_, word)| word).join(", ")))
    }
}

/// Below what everything lies that a key may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A ZFS dataset: volumes and file systems directly below it.
    Dataset(String),
    /// A Ceph pool, or POOL/NAMESPACE: images in it.
    Pool(String),
}

/// A part of a line.
enum Piece {
    /// This word.
    Is(&'static str),
    /// This word, or nothing.
    May(&'static str),
    /// This word, or nothing, where that is allowed.
    MayIf(Allow, &'static str),
    /// `--from STATE` or nothing: the name of a state, or where a cut run goes on.
    From,
    /// The place itself.
    Here,
    /// PLACE/NAME.
    Thing,
    /// PLACE/NAME@SNAPSHOT.
    Snapshot,
    /// PLACE/NAME@2026-11-21T0200Z, seconds or not.
    Dated,
}

use Piece::{Dated, From, Here, Is, May, MayIf, Snapshot, Thing};

const OF_DATASET: [(Allow, &[Piece]); 12] = [
    (Allow::Common, &[Is("zfs-snapmark"), Is("common"), Thing]),
    (Allow::Common, &[Is("zvol-apply"), Is("--common"), Thing]),
    (
        Allow::Apply,
        &[
            Is("zvol-apply"),
            May("--mark"),
            May("--dry-run"),
            MayIf(Allow::Rollback, "--rollback"),
            MayIf(Allow::Replace, "--replace"),
            Thing,
        ],
    ),
    (Allow::Common, &[Is("tree-apply"), Is("--common"), Is("--dataset"), Thing]),
    (
        Allow::Apply,
        &[
            Is("tree-apply"),
            MayIf(Allow::All, "--all"),
            May("--mark"),
            May("--dry-run"),
            MayIf(Allow::Rollback, "--rollback"),
            MayIf(Allow::Replace, "--replace"),
            Is("--dataset"),
            Thing,
        ],
    ),
    (Allow::Manifest, &[Is("zfs-snapmark"), Is("manifest"), May("--fine"), Thing]),
    (Allow::List, &[Is("zfs-snapmark"), Is("list"), Thing]),
    (Allow::List, &[Is("zfs-snapmark"), Is("last"), Thing]),
    (Allow::States, &[Is("zvol-diff-stream"), Is("--states"), Thing]),
    (Allow::Stream, &[Is("zvol-diff-stream"), From, Snapshot]),
    (Allow::States, &[Is("tree-diff-stream"), Is("--states"), Is("--dataset"), Thing]),
    (Allow::Stream, &[Is("tree-diff-stream"), From, Is("--dataset"), Snapshot]),
];

const OF_POOL: [(Allow, &[Piece]); 5] = [
    (Allow::List, &[Is("rbd"), Is("ls"), Here]),
    (Allow::States, &[Is("rbd-diff-stream"), Is("--states"), Thing]),
    (Allow::Stream, &[Is("rbd-diff-stream"), From, Snapshot]),
    (Allow::Snap, &[Is("rbd"), Is("snap"), Is("create"), Snapshot]),
    (Allow::Prune, &[Is("rbd"), Is("snap"), Is("rm"), Dated]),
];

/// What a key may do.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Where.
    pub place: Place,
    /// Which lines.
    pub allow: Vec<Allow>,
}

impl Rights {
    /// The words of a line that is allowed: the tool, then its arguments. The same words that a shell would make of it.
    pub fn parse(&self, line: &[u8]) -> Result<Vec<String>, Fault> {
        let no = |why: &str| Err(self.refusal(why));
        if line.len() > LIMIT_LINE {
            return no("the line is too long");
        }
        // Nothing that a shell takes for anything but itself. One blank between two words, none around them.
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b" ._-/@:=,".contains(byte);
        let Some(line) = str::from_utf8(line).ok().filter(|line| line.bytes().all(|byte| plain(&byte))) else {
            return no("the line holds characters other than letters, digits, blanks and . _ - / @ : = ,");
        };
        let words: Vec<&str> = line.split(' ').collect();
        match self.lines().any(|pieces| self.fits(pieces, &words)) {
            true => Ok(words.into_iter().map(str::to_owned).collect()),
            false => no("this key may not say that"),
        }
    }

    fn lines(&self) -> impl Iterator<Item = &'static [Piece]> {
        let all: &[(Allow, &[Piece])] = match self.place {
            Place::Dataset(_) => &OF_DATASET,
            Place::Pool(_) => &OF_POOL,
        };
        all.iter().filter(|(allow, _)| self.allow.contains(allow)).map(|(_, pieces)| *pieces)
    }

    fn fits(&self, pieces: &[Piece], words: &[&str]) -> bool {
        let Some((piece, pieces)) = pieces.split_first() else { return words.is_empty() };
        let Some((word, rest)) = words.split_first() else { return false };
        match piece {
            Is(wanted) => word == wanted && self.fits(pieces, rest),
            Here => *word == self.place.name() && self.fits(pieces, rest),
            Thing => self.is_thing(word) && self.fits(pieces, rest),
            Snapshot => self.is_snapshot(word, is_component) && self.fits(pieces, rest),
            Dated => self.is_snapshot(word, is_dated) && self.fits(pieces, rest),
            May(option) => self.fits(pieces, if word == option { rest } else { words }),
            MayIf(allow, option) if self.allow.contains(allow) => self.fits(pieces, if word == option { rest } else { words }),
            MayIf(..) => self.fits(pieces, words),
            From => match (word.strip_prefix("--from="), rest.split_first()) {
                (Some(state), _) => is_state(state) && self.fits(pieces, rest),
                (None, Some((state, rest))) if *word == "--from" => is_state(state) && self.fits(pieces, rest),
                (None, _) => self.fits(pieces, words),
            },
        }
    }

    fn is_thing(&self, word: &str) -> bool {
        word.strip_prefix(self.place.name()).and_then(|rest| rest.strip_prefix('/')).is_some_and(is_component)
    }

    fn is_snapshot(&self, word: &str, is_name: fn(&str) -> bool) -> bool {
        word.split_once('@').is_some_and(|(thing, name)| self.is_thing(thing) && is_name(name))
    }

    fn refusal(&self, why: &str) -> Fault {
        let lines: Vec<String> = self.lines().map(|pieces| self.show(pieces)).collect();
        let refused = Fault::new(Class::Forbidden, why);
        lines.into_iter().fold(refused, |refused, line| refused.hint(format!("it may say: {line}")))
    }

    fn show(&self, pieces: &[Piece]) -> String {
        let place = self.place.name();
        let words = pieces.iter().filter_map(|piece| match piece {
            Is(word) => Some((*word).to_owned()),
            May(word) => Some(format!("[{word}]")),
            MayIf(allow, word) => self.allow.contains(allow).then(|| format!("[{word}]")),
            From => Some("[--from STATE]".to_owned()),
            Here => Some(place.to_owned()),
            Thing => Some(format!("{place}/NAME")),
            Snapshot => Some(format!("{place}/NAME@SNAPSHOT")),
            Dated => Some(format!("{place}/NAME@YYYY-MM-DDTHHMM[SS]Z")),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

impl Place {
    fn name(&self) -> &str {
        match self {
            Place::Dataset(name) | Place::Pool(name) => name,
        }
    }

    /// A place of which every component is a plain name.
    pub fn check(&self) -> Result<(), Fault> {
        match self.name().split('/').all(is_component) {
            true => Ok(()),
            false => Err(Fault::new(Class::Usage, format!("{self} is no place of plain names: letters, digits and . _ -"))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One name that no program takes for an option or a path.
fn is_component(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    plain && (1..=LIMIT_NAME).contains(&text.len()) && !text.starts_with('-') && text != "." && text != ".."
}

/// A snapshot's name as the nightly lines make it.
fn is_dated(text: &str) -> bool {
    NIGHTLY.parse().is_ok_and(|nightly: Pattern| nightly.is_whole(text.as_bytes()))
}

/// What `--from` takes: a snapshot's name, or a token, which the tool checks as hostile input.
fn is_state(text: &str) -> bool {
    let token = |token: &str| token.bytes().all(|byte| byte.is_ascii_hexdigit() || b"-=,".contains(&byte));
    is_component(text) || text.strip_prefix(RESUME).is_some_and(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(allow: &[Allow]) -> Rights {
        Rights { place: Place::Dataset("tank/backup/pve1".to_owned()), allow: allow.to_vec() }
    }

    fn pull(allow: &[Allow]) -> Rights {
        Rights { place: Place::Pool("rbd".to_owned()), allow: allow.to_vec() }
    }

    #[test]
    fn the_nightly_lines_go_through_as_they_are() {
        let trees = push(&[Allow::Common, Allow::Apply, Allow::All]);
        let back = push(&[Allow::States, Allow::Stream]);
        let push = push(&[Allow::Common, Allow::Apply, Allow::Manifest]);
        let pull = pull(&[Allow::List, Allow::States, Allow::Stream, Allow::Snap]);
        for (rights, line) in [
            (&push, "zfs-snapmark common tank/backup/pve1/vm1"),
            (&push, "zvol-apply --common tank/backup/pve1/vm1"),
            (&push, "zvol-apply --mark tank/backup/pve1/vm1"),
            (&push, "zvol-apply tank/backup/pve1/vm-100_disk.0"),
            (&push, "zvol-apply --mark --dry-run tank/backup/pve1/vm1"),
            (&push, "zfs-snapmark manifest --fine tank/backup/pve1/vm1"),
            (&push, "tree-apply --common --dataset tank/backup/pve1/home"),
            (&push, "tree-apply --mark --dataset tank/backup/pve1/home"),
            (&push, "tree-apply --dataset tank/backup/pve1/home"),
            (&trees, "tree-apply --all --mark --dataset tank/backup/pve1/home"),
            (&trees, "tree-apply --mark --dataset tank/backup/pve1/home"),
            (&back, "tree-diff-stream --states --dataset tank/backup/pve1/home"),
            (&back, "tree-diff-stream --dataset tank/backup/pve1/home@tue"),
            (&back, "tree-diff-stream --from mon --dataset tank/backup/pve1/home@tue"),
            (&pull, "rbd ls rbd"),
            (&pull, "rbd-diff-stream --states rbd/vm1"),
            (&pull, "rbd-diff-stream rbd/vm1@2026-11-21T0200Z"),
            (&pull, "rbd-diff-stream --from mon rbd/vm1@tue"),
            (&pull, "rbd-diff-stream --from=resume:0a1b,4096=0a1b,8192=- rbd/vm1@tue"),
            (&pull, "rbd snap create rbd/vm1@tue"),
        ] {
            assert_eq!(rights.parse(line.as_bytes()).map(|words| words.join(" ")).as_deref(), Ok(line));
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused_and_said() {
        let line = b"zvol-apply --mark --rollback tank/backup/pve1/vm1";
        assert!(push(&[Allow::Apply, Allow::Rollback]).parse(line).is_ok());
        let refused = push(&[Allow::Apply]).parse(line).unwrap_err();
        assert_eq!(refused.class, Class::Forbidden);
        let lines = [
            "it may say: zvol-apply [--mark] [--dry-run] tank/backup/pve1/NAME",
            "it may say: tree-apply [--mark] [--dry-run] --dataset tank/backup/pve1/NAME",
        ];
        assert_eq!(refused.hints, lines);
        assert!(push(&[Allow::Common]).parse(b"zvol-apply --mark tank/backup/pve1/vm1").is_err());
        assert!(pull(&[Allow::Stream]).parse(b"rbd snap create rbd/vm1@tue").is_err());
        let prune = pull(&[Allow::Prune]);
        assert!(prune.parse(b"rbd snap rm rbd/vm1@2026-11-21T0200Z").is_ok());
        for theirs in ["before-upgrade", "2026-11-21", "2026-11-21T0200Z-keep", "x2026-11-21T0200Z"] {
            assert!(prune.parse(format!("rbd snap rm rbd/vm1@{theirs}").as_bytes()).is_err(), "{theirs}");
        }
        assert!(push(&[Allow::Rollback]).parse(line).is_err(), "an option's right alone is none");
    }

    #[test]
    fn a_tree_has_privileged_metadata_only_where_the_key_says_so() {
        let lines =
            ["tree-apply --all --mark --dataset tank/backup/pve1/home", "tree-apply --all --dataset tank/backup/pve1/home"];
        for line in lines {
            assert!(push(&[Allow::Apply, Allow::All]).parse(line.as_bytes()).is_ok(), "{line}");
            assert!(push(&[Allow::Apply, Allow::Rollback, Allow::Replace]).parse(line.as_bytes()).is_err(), "{line}");
            assert!(push(&[Allow::All]).parse(line.as_bytes()).is_err(), "an option's right alone is none");
        }
        let rights = push(&[Allow::Common, Allow::Apply, Allow::All, Allow::States, Allow::Stream]);
        for line in [
            "tree-apply --mark tank/backup/pve1/home",
            "tree-apply --mark /etc",
            "tree-apply --all /",
            "tree-apply --mark --dataset /etc",
            "tree-apply --mark --dataset tank/backup/pve2/home",
            "tree-apply --mark --dataset tank/backup/pve1/home /etc",
            "tree-apply --mark --dataset=tank/backup/pve1/home",
            "tree-apply --mark --all --dataset tank/backup/pve1/home",
            "tree-apply --mark --writable --dataset tank/backup/pve1/home",
            "tree-apply --mark --trust --dataset tank/backup/pve1/home",
            "tree-apply --mark -o setuid=on --dataset tank/backup/pve1/home",
            "tree-apply --common tank/backup/pve1/home",
            "tree-diff-stream /etc",
            "tree-diff-stream --dataset tank/backup/pve1/home",
            "tree-diff-stream --states /etc",
            "tree-diff-stream --changes /etc/shadow",
            "tree-diff-stream --dataset tank/backup/pve1/home@tue -- id",
            "tree-diff-stream --from mon --dataset tank/backup/pve1/home@tue -- zfs diff -FH a b",
        ] {
            assert!(rights.parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_name_stays_one_component_below_its_place() {
        let rights = push(&[Allow::Apply]);
        let long = "x".repeat(256);
        for name in ["", ".", "..", "-o", "a/b", "a/..", "/a", "a@b", "a b", "a:b", "a=b", "a,b", "ä", "a\n", "*", long.as_str()]
        {
            let line = format!("zvol-apply --mark tank/backup/pve1/{name}");
            assert!(rights.parse(line.as_bytes()).is_err(), "{name:?}");
        }
        for other in
            ["tank/backup/pve2/a", "tank/backup/pve11/a", "tank/backup/a", "tank/backup/pve1", "/tank/backup/pve1/a", "./a"]
        {
            assert!(rights.parse(format!("zvol-apply --mark {other}").as_bytes()).is_err(), "{other}");
        }
    }
}
