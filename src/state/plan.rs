//! What is to be done with a stream.

use super::{Fault, Held};
use crate::format::Id;

/// What to do with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Make the target, then apply; it reads as zero.
    Create,
    /// Make every byte read as zero, then apply.
    Clear,
    /// Apply to what is there.
    Apply,
    /// The target is in the to-state: read and verify, write nothing.
    Already,
}

impl Act {
    /// What a dry run says of it.
    pub fn would(self) -> &'static str {
        match self {
            Act::Create => "would create the target and fill it",
            Act::Clear => "would replace the whole content",
            Act::Apply => "would apply the stream",
            Act::Already => "would write nothing: the target is in this state",
        }
    }
}

/// What to do, and what to go back to first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Go back to this state of the target first.
    pub roll_back: Option<Held>,
    /// Then do this.
    pub act: Act,
    /// What the stream's end must show first.
    pub condition: Option<Condition>,
}

/// The stream is refused, unless its end shows that it leads to where the target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    refusal: Fault,
    newest: Held,
}

impl Plan {
    /// This, and nothing before it.
    pub fn new(act: Act) -> Plan {
        Plan { roll_back: None, act, condition: None }
    }

    /// Refused, unless the stream's end shows that it leads to the newest state: that is where the target is.
    pub fn at_end(refusal: Fault, newest: Held) -> Plan {
        Plan { condition: Some(Condition { refusal, newest }), ..Plan::new(Act::Already) }
    }

    /// What a dry run says of it.
    pub fn would(&self) -> String {
        match &self.roll_back {
            Some(held) => format!("would go back to {}; then {}", held.name, self.act.would()),
            None => self.act.would().to_owned(),
        }
    }

    /// At the stream's end, which says where it leads: refuses what could not be refused before.
    pub fn check_end(&self, to: Option<Id>) -> Result<(), Fault> {
        match &self.condition {
            Some(Condition { refusal, newest }) if !newest.is(to) => Err(refusal.clone()),
            Some(_) | None => Ok(()),
        }
    }
}
