//! What an unfinished transfer left on its target, and the token that asks a source to go on from there.
//!
//! A transfer writes its image from the front to the back. Cut at some offset, the target is the to-state before it and the
//! from-state behind it. That is a state like any other: it has an id, and a stream can begin from it. So a transfer is
//! resumed by an increment from what is there, and it need not lead where the first one led: by the next night the source
//! has a newer state, and what is sent is what that differs from either part.

use std::fmt;
use std::str::FromStr;

use crate::format::Id;

/// What a token begins with.
pub const RESUME: &str = "resume:";
/// Each run that is cut adds a part; more than this many are no longer worth it.
const LIMIT_PARTS: usize = 16;

/// What a part of the target holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// What this state holds there.
    State(Id),
    /// One of several states, and nothing says which.
    Unknown,
    /// Zeros.
    Zero,
}

/// From the end of the part before it, or from the beginning of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first byte behind it.
    pub end: u64,
    /// What is there.
    pub content: Content,
}

/// A target between states, part by part.
///
/// As text: `FROM,END=CONTENT,END=CONTENT…`, the from-state or `-`, then each part's end in bytes and its state, `-` or `0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The newest state that the target can go back to; `None`: there is none.
    pub from: Option<Id>,
    parts: Vec<Part>,
}

impl Checkpoint {
    /// At the beginning of a run: the target holds the from-state of `old_size` bytes, or zeros, in the size of the to-state.
    pub fn begin(from: Option<Id>, old_size: u64, new_size: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint { from, parts: Vec::new() };
        if let Some(state) = from {
            checkpoint.push(old_size.min(new_size), Content::State(state));
        }
        checkpoint.push(new_size, Content::Zero);
        checkpoint
    }

    /// The same target once it has another size: what is cut off is gone, what grows is zero.
    #[must_use]
    pub fn resized(&self, size: u64) -> Checkpoint {
        let mut resized = Checkpoint { from: self.from, parts: Vec::new() };
        for part in &self.parts {
            resized.push(part.end.min(size), part.content);
        }
        resized.push(size, Content::Zero);
        resized
    }

    /// The same target once everything before `end` holds `content`.
    #[must_use]
    pub fn written(&self, end: u64, content: Content) -> Checkpoint {
        let mut written = Checkpoint { from: self.from, parts: Vec::new() };
        written.push(end.min(self.size()), content);
        for part in &self.parts {
            written.push(part.end, part.content);
        }
        written
    }

    /// Appends what reaches further than the parts there are.
    fn push(&mut self, end: u64, content: Content) {
        match self.parts.last_mut() {
            Some(last) if end <= last.end => {}
            Some(last) if last.content == content => last.end = end,
            None if end == 0 => {}
            _ => self.parts.push(Part { end, content }),
        }
    }

    /// The parts, ascending: where each begins, and what it is.
    pub fn parts(&self) -> impl Iterator<Item = (u64, Part)> {
        let starts = std::iter::once(0).chain(self.parts.iter().map(|part| part.end));
        starts.zip(self.parts.iter().copied())
    }

    /// Size of the image in bytes.
    pub fn size(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// All states that it is made of.
    pub fn states(&self) -> impl Iterator<Item = Id> {
        let of_parts = self.parts.iter().filter_map(|part| match part.content {
            Content::State(id) => Some(id),
            Content::Unknown | Content::Zero => None,
        });
        self.from.into_iter().chain(of_parts)
    }

    /// The id of this state (extent-stream(5), "IDENTITIES").
    pub fn id(&self) -> Id {
        Id::derive("unfinished", &[self.to_string().as_bytes()])
    }

    /// What `--from` takes.
    pub fn token(&self) -> String {
        format!("{RESUME}{self}")
    }

    /// Whether going on from here is worth it: something was written, and the token is of a bounded length.
    pub fn is_useful(&self) -> bool {
        let written = self.parts.iter().any(|part| matches!(part.content, Content::State(id) if Some(id) != self.from));
        written && self.parts.len() <= LIMIT_PARTS
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(id) => write!(f, "{id}")?,
            None => f.write_str("-")?,
        }
        self.parts.iter().try_for_each(|Part { end, content }| match content {
            Content::State(id) => write!(f, ",{end}={id}"),
            Content::Unknown => write!(f, ",{end}=-"),
            Content::Zero => write!(f, ",{end}=0"),
        })
    }
}

impl FromStr for Checkpoint {
    type Err = ();

    /// Takes the one spelling that [`Checkpoint::to_string`] has, and no other.
    fn from_str(text: &str) -> Result<Checkpoint, ()> {
        let mut words = text.split(',');
        let from = match words.next() {
            Some("-") => None,
            word => Some(word.ok_or(())?.parse()?),
        };
        let mut checkpoint = Checkpoint { from, parts: Vec::new() };
        for word in words.take(LIMIT_PARTS + 1) {
            let (end, content) = word.split_once('=').ok_or(())?;
            let content = match content {
                "-" => Content::Unknown,
                "0" => Content::Zero,
                id => Content::State(id.parse()?),
            };
            checkpoint.push(end.parse().map_err(|_| ())?, content);
        }
        if checkpoint.to_string() == text { Ok(checkpoint) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> Id {
        Id::derive("t", &[&[n]])
    }

    /// Contents one byte each, as digits: the states 1 to 9, `?`, `0`.
    fn picture(checkpoint: &Checkpoint) -> String {
        let letter = |content| match content {
            Content::State(state) => char::from(b'0' + (1..=9).find(|n| id(*n) == state).unwrap()),
            Content::Unknown => '?',
            Content::Zero => '0',
        };
        checkpoint.parts().flat_map(|(start, part)| (start..part.end).map(move |_| letter(part.content))).collect()
    }

    #[test]
    fn what_was_written_lies_before_what_was_there() {
        let begin = Checkpoint::begin(Some(id(1)), 6, 8);
        assert_eq!(picture(&begin), "11111100");
        assert!(!begin.is_useful());
        assert_eq!(picture(&Checkpoint::begin(Some(id(1)), 8, 5).resized(7)), "1111100", "what was cut off is gone");
        let cut = begin.written(3, Content::State(id(2)));
        assert_eq!(picture(&cut), "22211100");
        assert!(cut.is_useful());
        // The next night leads to 3, in another size, and is cut before and behind the place of the first cut.
        assert_eq!(picture(&cut.resized(5).written(2, Content::State(id(3)))), "33211");
        assert_eq!(picture(&cut.resized(5).resized(7).written(4, Content::State(id(3)))), "3333100");
        assert_eq!(picture(&cut.written(4, Content::Unknown).written(1, Content::State(id(2)))), "2???1100");
        assert_eq!(picture(&cut.written(2, Content::State(id(2)))), "22211100", "the same night again, cut earlier");
        assert_eq!(picture(&Checkpoint::begin(None, 0, 4).written(2, Content::State(id(2)))), "2200");
        assert_eq!(picture(&cut.written(100, Content::State(id(3)))), "33333333");
    }

    #[test]
    fn each_checkpoint_has_one_spelling_and_one_id() {
        let cut = Checkpoint::begin(Some(id(1)), 6, 8).written(3, Content::State(id(2)));
        let text = cut.to_string();
        assert_eq!(text.parse(), Ok(cut.clone()));
        assert_ne!(cut.id(), cut.written(4, Content::State(id(2))).id());
        for bad in [
            "",
            ",",
            "x",
            "-,",
            "-,5",
            "-,=0",
            "-,5=1",
            "-,05=0",
            "-,5=0,4=-",
            "-,5=0,5=-",
            "-,4=0,5=0",
            "-,0=0",
            "-,-1=0",
            "-,99999999999999999999=0",
            &text.to_uppercase(),
            &format!("{text},"),
            &format!(" {text}"),
            &format!("{text}\n"),
            &(1..40).map(|n| format!(",{n}={}", if n % 2 == 0 { "-" } else { "0" })).fold("-".to_owned(), |a, b| a + &b),
        ] {
            assert_eq!(bad.parse::<Checkpoint>(), Err(()), "{bad}");
        }
        assert_eq!("-".parse::<Checkpoint>().map(|empty| empty.size()), Ok(0));
    }
}
