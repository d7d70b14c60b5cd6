//! What became of a stream.

use crate::state::Receipt;

/// What became of a stream that a target took, which keeps its state in a record beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target is in the stream's to-state, durably.
    Done(Box<Receipt>),
    /// A dry run: the stream is whole, and this would be done with it, in words.
    Would(String),
}

impl Outcome {
    /// What a tool prints of it: the receipt, or what a dry run would have done.
    pub fn to_line(&self) -> String {
        match self {
            Outcome::Done(receipt) => receipt.to_line(),
            Outcome::Would(words) => format!("{words}; nothing was changed\n"),
        }
    }
}
