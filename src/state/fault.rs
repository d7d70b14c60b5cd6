//! What went wrong, with its stable class word, exit code and hints.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::format::{Damage, ReadError};

/// The class of a failure: the word in brackets at the end of a message, and the exit code that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// The stream is damaged or incomplete (exit 3).
    Stream(Damage),
    /// A state list, receipt or record is damaged or incomplete (exit 3).
    List,
    /// A manifest is damaged or incomplete (exit 3).
    Manifest,
    /// A stream of another format is damaged or incomplete (exit 3).
    ForeignStream,
    /// The system or another program failed (exit 1).
    Io,
    /// No room on the target (exit 1).
    NoSpace,
    /// Not allowed to (exit 1).
    Permission,
    /// Something the tool needs is not installed, or the call makes no sense (exit 2).
    Usage,
    /// The reader of our output went away (exit 1, silent).
    Pipe,
    /// The stream begins from another state than the target is in (exit 4).
    WrongBase,
    /// A whole stream for a target that already holds states (exit 4).
    HasStates,
    /// The target holds states, but none of those offered (exit 4).
    NoCommon,
    /// Somebody wrote to the target since its mark (exit 4).
    WrittenSince,
    /// The target holds content that is not ours (exit 4).
    Foreign,
    /// Snapshots of others stand in the way of a roll-back (exit 4).
    ForeignSnapshot,
    /// An unfinished run of ours without a way back, and the stream is another one (exit 4).
    Unfinished,
    /// Mounted (exit 4).
    Mounted,
    /// Claimed by another kernel user, such as LVM or md (exit 4).
    Claimed,
    /// The source is in use, or changed while it was read (exit 4).
    Changed,
    /// The source's snapshot or image is gone (exit 4).
    Vanished,
    /// A kind of source or target that is refused by name (exit 4).
    Unsupported,
    /// A key may not give this command (exit 4).
    Forbidden,
    /// No such source, snapshot or target (exit 4).
    NotFound,
    /// There is something of that name already (exit 4).
    Exists,
    /// The target is smaller than the image and cannot grow (exit 4).
    TooSmall,
    /// The check ran and the answer is no (exit 5).
    Differs,
    /// Another run holds the target: try again later (exit 6).
    Busy,
}

impl Class {
    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Class::Stream(damage) => damage.word(),
            Class::List => "list",
            Class::Manifest => "manifest",
            Class::ForeignStream => "foreign-stream",
            Class::Io => "io",
            Class::NoSpace => "no-space",
            Class::Permission => "permission",
            Class::Usage => "usage",
            Class::Pipe => "pipe",
            Class::WrongBase => "wrong-base",
            Class::HasStates => "has-states",
            Class::NoCommon => "no-common",
            Class::WrittenSince => "written-since",
            Class::Foreign => "foreign",
            Class::ForeignSnapshot => "foreign-snapshot",
            Class::Unfinished => "unfinished",
            Class::Mounted => "mounted",
            Class::Claimed => "claimed",
            Class::Changed => "changed",
            Class::Vanished => "vanished",
            Class::Unsupported => "unsupported",
            Class::Forbidden => "forbidden",
            Class::NotFound => "not-found",
            Class::Exists => "exists",
            Class::TooSmall => "too-small",
            Class::Differs => "differs",
            Class::Busy => "busy",
        }
    }

    /// The exit code, the same on every page.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Io | Class::NoSpace | Class::Permission | Class::Pipe => 1,
            Class::Usage => 2,
            Class::Stream(_) | Class::List | Class::Manifest | Class::ForeignStream => 3,
            Class::WrongBase
            | Class::HasStates
            | Class::NoCommon
            | Class::WrittenSince
            | Class::Foreign
            | Class::ForeignSnapshot
            | Class::Unfinished
            | Class::Mounted
            | Class::Claimed
            | Class::Changed
            | Class::Vanished
            | Class::Unsupported
            | Class::Forbidden
            | Class::NotFound
            | Class::Exists
            | Class::TooSmall => 4,
            Class::Differs => 5,
            Class::Busy => 6,
        }
    }
}

/// A failure as the user will see it: what, of which class, and what may help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its class.
    pub class: Class,
    /// What happened, lower case, without a full stop.
    pub what: String,
    /// What the user can do, one line each.
    pub hints: Vec<String>,
}

impl Fault {
    /// A failure of a class, in words.
    pub fn new(class: Class, what: impl Into<String>) -> Fault {
        Fault { class, what: what.into(), hints: Vec::new() }
    }

    /// The same with one more hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hints.push(hint.into());
        self
    }

    /// A failed system call: what was tried, and the system's reason.
    pub fn io(tried: impl fmt::Display, error: &io::Error) -> Fault {
        let class = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Class::NoSpace,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Class::Permission,
            io::ErrorKind::NotFound => Class::NotFound,
            io::ErrorKind::BrokenPipe => Class::Pipe,
            _ => Class::Io,
        };
        Fault::new(class, format!("{tried}: {error}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.what, self.class.word())
    }
}

impl std::error::Error for Fault {}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Fault {
        match error {
            ReadError::Damaged(damaged) => {
                let fault = Fault::new(Class::Stream(damaged.class), damaged.to_string());
                match damaged.class {
                    Damage::Empty | Damage::Truncated => {
                        fault.hint("the sender failed or was cut off: its own message says why; run the same command again")
                    }
                    Damage::NotAStream => {
                        fault.hint("extent-inspect shows what a stream holds; extent streams come from the *-stream tools")
                    }
                    _ => fault,
                }
            }
            ReadError::Io(error) => Fault::io("reading the stream", &error),
        }
    }
}
