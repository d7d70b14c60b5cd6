//! State lists: siphon-states(5).

use std::io::BufRead;

use super::{Class, Fault};
use crate::format::Id;

/// One state that a source can send or a target holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its id.
    pub id: Id,
    /// When it was made, in seconds since 1970 UTC. For people and retention; it identifies nothing.
    pub seconds: i64,
    /// Exact size of the image in bytes.
    pub bytes: u64,
    /// Its name on this side.
    pub name: Vec<u8>,
}

/// States, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateList {
    /// One per line. A state with several ids (aliases) has several lines with one name.
    pub states: Vec<State>,
}

/// A line may hold an id, two numbers and an escaped name of 4096 bytes.
const LIMIT_LINE: usize = 16 << 10;
/// More states than any system keeps of one thing.
const LIMIT_STATES: usize = 1 << 20;

impl StateList {
    /// The newest state that has one of these ids.
    pub fn newest(&self, wanted: impl Fn(Id) -> bool) -> Option<&State> {
        self.states.iter().rev().find(|state| wanted(state.id))
    }

    /// The list as text, sealed by its last line.
    pub fn to_text(&self) -> String {
        let mut text: String = self
            .states
            .iter()
            .map(|state| format!("{}\t{}\t{}\t{}\n", state.id, state.seconds, state.bytes, escape(&state.name)))
            .collect();
        let seal = seal(&text, self.states.len());
        text.push_str(&seal);
        text
    }

    /// Reads a list. One without its last line, or with a wrong one, is refused: its writer may have died.
    pub fn parse(mut input: impl BufRead) -> Result<StateList, Fault> {
        let broken = |what: String| Fault::new(Class::List, what);
        let mut list = StateList::default();
        let mut text = String::new();
        loop {
            let start = text.len();
            let read = std::io::Read::take(&mut input, LIMIT_LINE as u64)
                .read_line(&mut text)
                .map_err(|error| Fault::io("reading the state list", &error))?;
            let line = &text[start..];
            if read == 0 {
                let what = if text.is_empty() { "the state list is empty" } else { "the state list ends without its #end line" };
                return Err(broken(what.to_owned()).hint("the program that lists the states failed: its own message says why"));
            }
            let Some(body) = line.strip_suffix('\n') else {
                return Err(broken("the state list is cut in the middle of a line, or a line is too long".to_owned()));
            };
            if body.starts_with('#') {
                if line != seal(&text[..start], list.states.len()) {
                    return Err(broken("the last line of the state list does not fit the others".to_owned()));
                }
                let mut more = [0];
                return match std::io::Read::read(&mut input, &mut more) {
                    Ok(0) => Ok(list),
                    Ok(_) => Err(broken("something follows the last line of the state list".to_owned())),
                    Err(error) => Err(Fault::io("reading the state list", &error)),
                };
            }
            let number = list.states.len() + 1;
            if number > LIMIT_STATES {
                return Err(broken(format!("more than {LIMIT_STATES} states")));
            }
            let state = parse_line(body).ok_or_else(|| broken(format!("line {number} of the state list is no state")))?;
            list.states.push(state);
        }
    }
}

fn parse_line(line: &str) -> Option<State> {
    let mut columns = line.split('\t');
    let state = State {
        id: columns.next()?.parse().ok()?,
        seconds: columns.next()?.parse().ok()?,
        bytes: columns.next()?.parse().ok()?,
        name: unescape(columns.next()?)?,
    };
    columns.next().is_none().then_some(state)
}

fn seal(text: &str, count: usize) -> String {
    format!("#end\t{count}\t{}\n", blake3::hash(text.as_bytes()).to_hex())
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

fn unescape(text: &str) -> Option<Vec<u8>> {
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
                assert!(StateList::parse(bytes.as_slice()).is_err(), "byte {at} bit {bit}");
            }
        }
        assert!(StateList::parse([text.as_bytes(), b"x"].concat().as_slice()).is_err());
    }
}
