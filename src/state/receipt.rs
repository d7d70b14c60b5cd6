//! Receipts: what a tool that carried a stream says about it, as one line of JSON.

use serde::{Deserialize, Serialize};

use super::{Class, Fault};

/// What was carried. A sink's receipt says what is now durable; a source's what it sent. Over ssh it is a report: the
/// proof is the record on the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of the receipt: 1.
    pub receipt: u32,
    /// The tool that wrote it.
    pub tool: String,
    /// The target, or the source's name.
    pub target: String,
    /// Stream id.
    pub stream: String,
    /// From-state id; absent after a whole stream.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// To-state id; absent where the stream had none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// Exact size of the image in bytes.
    pub size: u64,
    /// Bytes that DATA extents held.
    pub data_bytes: u64,
    /// Bytes that ZERO extents held.
    pub zero_bytes: u64,
    /// Entries and links of a tree that were carried out.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub entries: u64,
    /// Entries of a tree that are not in all as the stream says, because what is not was left alone or cannot be set.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub unset: u64,
    /// Last link of the stream's digest chain.
    pub digest: String,
    /// The target was in this state already, and nothing was written.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub already: bool,
    /// Guid of the snapshot that is the commit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snapshot_guid: Option<u64>,
    /// Name of that snapshot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snapshot: Option<String>,
    /// The snapshot has its final name and is a mark.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub marked: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A receipt is a few hundred bytes; nothing near this.
const LIMIT: usize = 64 << 10;

impl Receipt {
    /// One line of JSON with its line end.
    pub fn to_line(&self) -> String {
        // Strings, numbers and booleans only: this cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads exactly one receipt.
    pub fn parse(input: impl std::io::Read) -> Result<Receipt, Fault> {
        let mut text = String::new();
        let mut limited = std::io::Read::take(input, LIMIT as u64);
        std::io::Read::read_to_string(&mut limited, &mut text).map_err(|error| Fault::io("reading the receipt", &error))?;
        let broken = |what: String| Fault::new(Class::List, what);
        if text.trim().is_empty() {
            return Err(broken("no receipt".into()).hint("the tool before this one failed: its own message says why"));
        }
        let receipt: Receipt = serde_json::from_str(&text).map_err(|error| broken(format!("this is no receipt: {error}")))?;
        if receipt.receipt != 1 {
            return Err(broken(format!("a receipt of version {}; this tool knows version 1", receipt.receipt)));
        }
        Ok(receipt)
    }
}
