//! A source in memory that has a state for every night.

use std::cmp::Ordering;

use siphon::flow::Source;
use siphon::format::{Header, Id, Image};
use siphon::source::resumed::History;
use siphon::state::{Fault, State, StateList};

use super::streams::{Given, data, id};

const GRAIN: usize = 4096;

/// A source that remembers every night: ids are numbered from 1.
pub struct Nights(pub Vec<Vec<u8>>);

impl Nights {
    pub fn at(&self, base: u8) -> &[u8] {
        &self.0[usize::from(base) - 1]
    }

    pub fn newest(&self) -> u8 {
        u8::try_from(self.0.len()).unwrap()
    }
}

impl Nights {
    /// As `--states` prints them.
    pub fn list(&self) -> String {
        let state = |(n, image): (u8, &Vec<u8>)| State {
            id: id(n),
            seconds: 0,
            bytes: image.len() as u64,
            name: format!("s{n}").into_bytes(),
        };
        StateList { states: (1..).zip(&self.0).map(state).collect() }.to_text()
    }
}

impl History for Nights {
    type Base = u8;

    fn base(&self, wanted: Id) -> Option<u8> {
        (1..=self.newest()).find(|n| id(*n) == wanted)
    }

    fn name(&self, base: &u8) -> String {
        format!("s{base}")
    }

    fn order(&self, base: &u8) -> Ordering {
        base.cmp(&self.newest())
    }

    fn begin(&self, from: Id, size: u64) -> Result<(Header, Image), Fault> {
        let given = Given::new(0, self.newest(), (size, self.at(self.newest()).len() as u64), Vec::new());
        let mut header = given.header.clone();
        (header.from, header.names.from) = (Some(from), b"unfinished".to_vec());
        Ok((header, given.image))
    }

    /// No more than differs, so that nothing is right by being sent twice.
    fn between(&self, from: Option<u8>, _: (u64, u64)) -> Result<Box<dyn Source>, Fault> {
        let new = self.at(self.newest());
        let old = from.map(|from| self.at(from));
        let differs = |n: usize, grain: &[u8]| {
            let was = old.and_then(|old| old.get(n * GRAIN..)).unwrap_or_default();
            let mut was = was[..was.len().min(grain.len())].to_vec();
            was.resize(grain.len(), 0);
            was != grain
        };
        let changed = new.chunks(GRAIN).enumerate().filter(|(n, grain)| differs(*n, grain));
        let said = changed.map(|(n, grain)| data((n * GRAIN) as u64, grain.to_vec())).collect();
        let sizes = (old.map_or(0, <[u8]>::len) as u64, new.len() as u64);
        Ok(Box::new(Given::new(from.unwrap_or(0), self.newest(), sizes, said)))
    }
}
