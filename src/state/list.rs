//! State lists: siphon-states(5).

use std::io::{self, BufRead, Read};

use super::{Class, Fault};
use crate::format::{Id, wire};

/// One state that a source can send or a target holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its id.
    pub id: Id,
    /// When it was made, in seconds since 1970 UTC. For people and retention; it identifies nothing.
    pub seconds: i64,
    /// Exact size of the image in bytes.
    pub bytes: u64,
    /// Its name on this side: 1 to 4096 bytes.
    pub name: Vec<u8>,
}

impl State {
    fn to_line(&self) -> String {
        format!("{}\t{}\t{}\t{}\n", self.id, self.seconds, self.bytes, escape(&self.name))
    }
}

/// States, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateList {
    /// One per line. A state with several ids (aliases) has several lines with one name.
    pub states: Vec<State>,
}

/// The longest line: an id, two numbers and an escaped name of 4096 bytes fit.
const LIMIT_LINE: u64 = 16 << 10;
/// More states than any system keeps of one thing.
const LIMIT_STATES: usize = 1 << 20;
/// The longest list in bytes.
const LIMIT_LIST: u64 = 128 << 20;

impl StateList {
    /// The newest state that has one of these ids.
    pub fn newest(&self, wanted: impl Fn(Id) -> bool) -> Option<&State> {
        self.states.iter().rev().find(|state| wanted(state.id))
    }

    /// The list as text, sealed by its last line.
    pub fn to_text(&self) -> String {
        let mut text: String = self.states.iter().map(State::to_line).collect();
        text.push_str(&seal(blake3::Hasher::new().update(text.as_bytes()), self.states.len()));
        text
    }

    /// Reads a list. One without its last line, or with a wrong one, is refused: its writer may have died.
    pub fn parse(mut input: impl BufRead) -> Result<StateList, Fault> {
        let broken = |what: String| Fault::new(Class::List, what);
        let mut list = StateList::default();
        let mut hasher = blake3::Hasher::new();
        let mut read = 0;
        loop {
            let mut line = Vec::new();
            (&mut input).take(LIMIT_LINE).read_until(b'\n', &mut line).map_err(failed)?;
            if line.is_empty() {
                let what = if read == 0 { "the state list is empty" } else { "the state list ends without its #end line" };
                return Err(broken(what.to_owned()).hint("the program that lists the states failed: its own message says why"));
            }
            read += line.len() as u64;
            let Some(body) = line.strip_suffix(b"\n") else {
                return Err(broken("the state list is cut in the middle of a line, or a line is too long".to_owned()));
            };
            if body.starts_with(b"#") {
                if line != seal(&hasher, list.states.len()).as_bytes() {
                    return Err(broken("the last line of the state list does not fit the others".to_owned()));
                }
                return match input.take(1).read_to_end(&mut Vec::new()).map_err(failed)? {
                    0 => Ok(list),
                    _ => Err(broken("something follows the last line of the state list".to_owned())),
                };
            }
            let number = list.states.len() + 1;
            if number > LIMIT_STATES || read > LIMIT_LIST {
                return Err(broken(format!("more than {LIMIT_STATES} states or {LIMIT_LIST} bytes")));
            }
            let state = parse_line(body).ok_or_else(|| broken(format!("line {number} of the state list is no state")))?;
            list.states.push(state);
            hasher.update(&line);
        }
    }
}

fn failed(error: io::Error) -> Fault {
    Fault::io("reading the state list", &error)
}

/// A state that this program would write in the very same way: there is one spelling of each.
fn parse_line(line: &[u8]) -> Option<State> {
    let line = std::str::from_utf8(line).ok()?;
    let mut columns = line.split('\t');
    let state = State {
        id: columns.next()?.parse().ok()?,
        seconds: columns.next()?.parse().ok()?,
        bytes: columns.next()?.parse().ok()?,
        name: unescape(columns.next()?)?,
    };
    (state.name.len() <= wire::LIMIT_NAME && state.to_line().strip_suffix('\n') == Some(line)).then_some(state)
}

fn seal(lines: &blake3::Hasher, count: usize) -> String {
    format!("#end\t{count}\t{}\n", lines.finalize().to_hex())
}

/// A name for one column of a line, and for messages: bytes outside printable ASCII, and `%` itself, become `%XX`.
pub(crate) fn escape(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' | 0..=0x20 | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            plain => out.push(char::from(*plain)),
        }
    }
    out
}

/// What [`escape`] made of a name; `None` if it is none, or empty.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                out.push(digit(bytes.next()?)? << 4 | digit(bytes.next()?)?);
            }
            0x21..0x7f => out.push(byte),
            _ => return None,
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StateList {
        let state = |n: u8, name: &[u8]| State { id: Id::derive("t", &[&[n]]), seconds: n.into(), bytes: 9, name: name.to_vec() };
        StateList { states: vec![state(1, b"mon"), state(2, b"before+upgrade \xff%\t\n"), state(3, "zürich".as_bytes())] }
    }

    #[test]
    fn a_list_reads_back_as_written() {
        for list in [sample(), StateList::default()] {
            assert_eq!(StateList::parse(list.to_text().as_bytes()).unwrap(), list);
        }
    }

    #[test]
    fn a_list_cut_or_changed_anywhere_is_refused() {
        let text = sample().to_text();
        for cut in 0..text.len() {
            assert_eq!(StateList::parse(&text.as_bytes()[..cut]).unwrap_err().class, Class::List, "cut at {cut}");
        }
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_eq!(StateList::parse(bytes.as_slice()).unwrap_err().class, Class::List, "byte {at} bit {bit}");
            }
        }
        assert!(StateList::parse([text.as_bytes(), b"x"].concat().as_slice()).is_err());
    }

    #[test]
    fn another_spelling_of_a_state_is_refused() {
        let good = sample().states.remove(0).to_line();
        let sealed = |line: &str| {
            let hasher = blake3::Hasher::new().update(line.as_bytes()).clone();
            StateList::parse((line.to_owned() + &seal(&hasher, 1)).as_bytes()).map_err(|fault| fault.class)
        };
        assert!(sealed(&good).is_ok());
        let other = [
            good.to_uppercase(),
            good.replace("\t1\t", "\t+1\t"),
            good.replace("\t9\t", "\t09\t"),
            good.replace("mon", "%6Don"),
            good.replace("mon", "m%c3"),
            good.replace("mon", "m\u{e9}n"),
            good.replace("mon", ""),
            good.replace("mon", &"m".repeat(4097)),
            good.replace('\n', "\tmore\n"),
            good.replace('\n', "\r\n"),
        ];
        for line in other {
            assert_eq!(sealed(&line), Err(Class::List), "{line}");
        }
    }
}
