//! 128-bit identities and 256-bit digests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What tells one thing or one state from every other: 128 bits, never nil.
///
/// "No id" is `Option::<Id>::None`; on the wire it is sixteen zero bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id([u8; 16]);

impl Id {
    /// The id of the wire's sixteen bytes; `None` for nil.
    pub fn from_wire(bytes: [u8; 16]) -> Option<Id> {
        (bytes != [0; 16]).then_some(Id(bytes))
    }

    /// The wire's sixteen bytes of an id or of nil.
    pub fn to_wire(id: Option<Id>) -> [u8; 16] {
        id.map_or([0; 16], |id| id.0)
    }

    /// The id of a kind of thing and what makes it this one: the first 16 bytes of BLAKE3 over each part in turn, the kind
    /// first, each behind its length in bytes as a 32-bit little-endian integer (extent-stream(5), "IDENTITIES").
    pub fn derive(kind: &str, parts: &[&[u8]]) -> Id {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&kind.as_bytes()).chain(parts) {
            // A part is an identifier of another system; none comes near 4 GiB.
            hasher.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            hasher.update(part);
        }
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        // One in 2^128; nil must stay free.
        if bytes == [0; 16] { Id([0xff; 16]) } else { Id(bytes) }
    }

    /// The sixteen bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight hexadecimal digits, for names that people read.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Id, ()> {
        Id::from_wire(unhex(text)?).ok_or(())
    }
}

/// A BLAKE3 digest, 256 bits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ();

    fn from_str(text: &str) -> Result<Digest, ()> {
        unhex(text).map(Digest)
    }
}

/// As plain text, where they are carried in JSON.
macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl From<$kind> for String {
            fn from(it: $kind) -> String {
                it.to_string()
            }
        }

        impl TryFrom<String> for $kind {
            type Error = &'static str;

            fn try_from(text: String) -> Result<$kind, &'static str> {
                text.parse().map_err(|()| "not hexadecimal digits, or the wrong number of them")
            }
        }
    )*};
}
as_text!(Id, Digest);

/// Exactly 2·N lower- or upper-case hexadecimal digits, nothing else.
fn unhex<const N: usize>(text: &str) -> Result<[u8; N], ()> {
    let mut digits = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(()));
    let mut bytes = [0; N];
    for byte in &mut bytes {
        let (high, low) = (digits.next().ok_or(())??, digits.next().ok_or(())??);
        *byte = high << 4 | low;
    }
    if digits.next().is_some() { Err(()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_and_nil_is_none() {
        let id = Id::derive("test", &[b"a", b"b"]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(Id::from_wire([0; 16]), None);
        for bad in ["", "00", "0".repeat(32).as_str(), "+f".repeat(16).as_str(), &"a".repeat(33), &"ä".repeat(16)] {
            assert_eq!(bad.parse::<Id>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(Id::derive("k", &[b"ab", b"c"]), Id::derive("k", &[b"a", b"bc"]));
        assert_ne!(Id::derive("k", &[b"ab"]), Id::derive("ka", &[b"b"]));
    }
}
