//! The record beside a target that cannot hold its own state: a file, or a plain block device.
//!
//! JSON, one object, written to a temporary name, made durable and renamed: it is always whole, old or new.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::stamp::{Between, Birth, Evidence};
use super::successor::Successor;
use crate::format::{Digest, Header, Id, Time};
use crate::state::{Class, Fault, Head, Held, Resumable, Standing, Unfinished, escape};

/// Where the records of devices lie, unless told otherwise.
pub const STATE_DIR: &str = "/var/lib/siphon/targets";
/// The version that this code reads and writes.
const VERSION: u32 = 1;
/// A record is some hundred bytes and a name; nothing near this.
const LIMIT: u64 = 64 << 10;

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of the record: 1.
    pub siphon_target: u32,
    /// The lasting name of the device; `None` for a file, which is known by its inode.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// A run that began and did not end: what the target holds is part old, part new.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receiving: Option<Receiving>,
    /// The last state that was made durable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<HeldState>,
    /// What the target looked like then.
    pub seen: Evidence,
}

/// An unfinished run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiving {
    /// Id of the stream.
    #[serde(with = "text")]
    pub stream: Id,
    /// Its from-state; absent for a whole stream.
    #[serde(with = "optional_text", skip_serializing_if = "Option::is_none", default)]
    pub from: Option<Id>,
    /// Its to-state, where the stream said it at its beginning.
    #[serde(with = "optional_text", skip_serializing_if = "Option::is_none", default)]
    pub to: Option<Id>,
    /// Where it was cut, if that is known: what the target held when the record was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<String>,
    /// On a device that takes a whole image: from this byte on it still holds what it held before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stale_from: Option<u64>,
    /// Of a directory: what the same stream must know to go on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub directory: Option<Progress>,
    /// Of the very file or directory that is being written, whose times tell nothing meanwhile.
    #[serde(default)]
    pub birth: Birth,
}

/// How far a run has come in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// When names in the root had changed before the run; for a stream that does not speak of the root.
    pub modified: Time,
    /// All that is gone was carried out, durably; and what that was.
    #[serde(with = "optional_text", skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<Digest>,
}

/// A state that was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldState {
    /// Id of the source.
    #[serde(with = "text")]
    pub source: Id,
    /// Id of the state.
    #[serde(with = "text")]
    pub id: Id,
    /// Its name at the source, escaped.
    pub name: String,
    /// Exact size of the image in bytes; a device may be larger, its rest is zero.
    pub size: u64,
    /// Digest of the stream that brought it.
    #[serde(with = "optional_text", skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<Digest>,
    /// Of a directory: something that only rights make is not there, by this stream or one before it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub lacks: bool,
    /// Of a directory: something was left as it was, by this stream or one before it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub unset: bool,
}

impl Record {
    /// A record of a target that nothing is known of but its looks.
    pub fn new(device: Option<String>, seen: Evidence) -> Record {
        Record { siphon_target: VERSION, device, receiving: None, held: None, seen }
    }

    /// What the target is, after this happened since.
    pub fn head(&self, between: Between) -> Head {
        match (&self.receiving, &self.held) {
            (Some(run), _) => Head::Receiving(run.into()),
            (None, None) => Head::Foreign,
            (None, Some(_)) => match between {
                Between::Untouched => Head::AtMark,
                Between::Written | Between::Unknown => Head::WrittenSince,
            },
        }
    }
}

impl Receiving {
    /// The run of this stream, at its beginning.
    pub fn of(header: &Header, birth: Birth) -> Receiving {
        let (stream, from, to) = (header.stream(), header.from, header.to);
        Receiving { stream, from, to, checkpoint: None, stale_from: None, directory: None, birth }
    }
}

impl HeldState {
    /// The state that this stream led to, as its end named it; `None`: it has none.
    pub fn of(header: &Header, to: Option<Id>, digest: Option<Digest>, size: u64) -> Option<HeldState> {
        let name = escape(&header.names.to);
        Some(HeldState { source: header.source, id: to?, name, size, digest, lacks: false, unset: false })
    }
}

/// What decides about the next stream, of a target that has no way back.
pub fn standing(head: Head, record: Option<&Record>, checkpoint: Option<Resumable>) -> Standing {
    let held = match head {
        Head::Absent | Head::Blank | Head::Foreign => None,
        Head::Receiving(_) | Head::AtMark | Head::WrittenSince => record.and_then(|record| record.held.as_ref()),
    };
    let marks = held.into_iter().map(|held| Held { ids: vec![held.id], name: held.name.clone() }).collect();
    Standing { head, marks, above: Vec::new(), way_back: false, checkpoint }
}

impl From<&Receiving> for Unfinished {
    fn from(run: &Receiving) -> Unfinished {
        Unfinished { stream: run.stream, from: run.from, to: run.to }
    }
}

/// Where a record lies.
#[derive(Clone, Debug)]
pub struct RecordFile(PathBuf);

impl RecordFile {
    /// The record of a regular file: beside it, with `.siphon` behind its name. The path must be free of links.
    pub fn beside(target: &Path) -> RecordFile {
        let mut name = target.as_os_str().to_owned();
        name.push(".siphon");
        RecordFile(name.into())
    }

    /// The record of a device with this lasting name, in a directory for all of them.
    pub fn of_device(directory: &Path, lasting: &str) -> RecordFile {
        const LONGEST: usize = 200;
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
        // Another device whose name differs only in what was replaced is told by the name inside.
        let name: String = lasting.chars().map(plain).take(LONGEST).collect();
        RecordFile(directory.join(name + ".json"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The record, if there is one. One that cannot be read is an error: what it said may matter.
    pub fn read(&self) -> Result<Option<Record>, Fault> {
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("opening the record", &error)),
        };
        let mut text = String::new();
        file.take(LIMIT).read_to_string(&mut text).map_err(|error| self.failed("reading the record", &error))?;
        let broken = |what: String| {
            Fault::new(Class::List, format!("the record {} {what}", self.0.display()))
                .hint("remove it, and the target counts as one that siphon knows nothing of")
        };
        let record: Record = serde_json::from_str(&text).map_err(|error| broken(format!("is damaged: {error}")))?;
        match record.siphon_target {
            VERSION => Ok(Some(record)),
            other => Err(broken(format!("is of version {other}, and this tool knows version {VERSION}"))),
        }
    }

    /// Replaces the record, durably.
    pub fn write(&self, record: &Record) -> Result<(), Fault> {
        let mut text = serde_json::to_string_pretty(record).unwrap_or_default();
        text.push('\n');
        // Only one run at a time gets here: it holds the target.
        let successor = Successor::of(self.0.clone())?;
        let written = successor.file().write_all(text.as_bytes());
        written.map_err(|error| self.failed("writing the record", &error))?;
        successor.sync()?;
        successor.take_place()
    }

    /// Writes down, durably, that what the target holds is part old, part new from now on. `held`: what it held before, where
    /// that can still be begun from.
    pub fn say_receiving(
        &self,
        device: Option<String>,
        seen: Evidence,
        run: Receiving,
        held: Option<HeldState>,
    ) -> Result<(), Fault> {
        self.write(&Record { receiving: Some(run), held, ..Record::new(device, seen) })
    }

    /// The commit. What has no state counts as content that is not ours: nothing can be said of it.
    pub fn say_held(&self, device: Option<String>, seen: Evidence, held: Option<HeldState>) -> Result<(), Fault> {
        match held {
            Some(held) => self.write(&Record { held: Some(held), ..Record::new(device, seen) }),
            None => self.remove(),
        }
    }

    /// Removes the record, durably.
    pub fn remove(&self) -> Result<(), Fault> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("removing the record", &error)),
            _ => self.sync_directory().map_err(|error| self.failed("removing the record", &error)),
        }
    }

    /// Makes the directory that the record is to lie in, for root alone.
    pub fn make_directory(&self) -> Result<(), Fault> {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(self.directory()).map_err(|error| {
            self.failed("making the directory of the record", &error).hint("--state-dir takes another directory")
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.directory())?.sync_all()
    }

    fn directory(&self) -> &Path {
        self.0.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn failed(&self, tried: &str, error: &io::Error) -> Fault {
        Fault::io(format!("{tried} {}", self.0.display()), error)
    }
}

/// Ids and digests as they print.
mod text {
    use super::{Display, FromStr};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom("not an id"))
    }
}

/// The same where there may be none.
mod optional_text {
    use super::{Display, FromStr};
    use serde::{Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        super::text::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_written_and_a_damaged_one_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::beside(&dir.path().join("disk.img"));
        assert_eq!(file.read().unwrap(), None);
        let id = Id::derive("t", &[b"1"]);
        let seen = Evidence::of(&dir.path().metadata().unwrap());
        let mut record = Record::new(Some("dm-LVM-x".to_owned()), seen);
        record.receiving = Some(Receiving {
            stream: id,
            from: None,
            to: Some(id),
            checkpoint: Some("-,9=0".into()),
            stale_from: Some(4096),
            directory: None,
            birth: Birth::default(),
        });
        let (name, digest) = ("mon".to_owned(), Some(Digest([7; 32])));
        let held = HeldState { source: id, id, name, size: 77, digest, lacks: true, unset: true };
        for held in [None, Some(held.clone()), Some(HeldState { lacks: false, unset: false, digest: None, ..held })] {
            record.held = held;
            file.write(&record).unwrap();
            assert_eq!(file.read().unwrap().as_ref(), Some(&record));
        }
        let text = fs::read_to_string(file.path()).unwrap();
        for bad in [&text[..text.len() / 2], "", "{}", &text.replace(r#""siphon_target": 1"#, r#""siphon_target": 2"#)] {
            fs::write(file.path(), bad).unwrap();
            assert_eq!(file.read().unwrap_err().class, Class::List);
        }
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn a_device_name_stays_inside_the_directory() {
        let file = RecordFile::of_device(Path::new("/d"), "loop-5-0-/../../x y");
        assert_eq!(file.path(), Path::new("/d/loop-5-0-_.._.._x_y.json"));
    }
}
