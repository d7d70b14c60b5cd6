//! A model: one image lives through thousands of nights, and whatever way its states take, they arrive as they were.
//!
//! `SIPHON_FULL=1` makes it 10,000 nights, `SIPHON_SEED=n` another life.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod common;

use std::io::Cursor;
use std::ops::Range;
use std::time::Duration;

use common::nights::Nights;
use common::streams::{Given, data, encoded, id};
use siphon::filter::{Against, Described, Digester, Keeping, Merge, Normal};
use siphon::flow::{Source, copy};
use siphon::foreign::rbd_diff::Version;
use siphon::format::Change;
use siphon::sink::{Encoder, Memory, RbdDiffFile, Reached};
use siphon::source::resumed::{self, History};
use siphon::source::{Decoder, Identity, RbdDiff};
use siphon::state::{Checkpoint, State, StateList};

const GRAIN: usize = 4096;

/// Numbers that look like chance and are the same every time: the splitmix64 of Steele, Lea and Flood.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }
}

/// What happens to the image between two snapshots: writes, zeros, discards, another size and back.
fn live(image: &mut Vec<u8>, chance: &mut Chance) -> Vec<bool> {
    let mut touched = vec![false; 200];
    for _ in 0..chance.below(12) {
        let grains = image.len().div_ceil(GRAIN);
        let (start, len) = (chance.below(grains), 1 + chance.below(20));
        let range = start * GRAIN..((start + len) * GRAIN).min(image.len());
        touched[start..(start + len).min(200)].fill(true);
        match chance.below(8) {
            0 | 1 => image[range].fill(0),
            2 => {
                // Cut off and grown again before anybody looked.
                let (size, cut) = (image.len(), range.start);
                image.truncate(cut);
                image.resize(size, 0);
                touched[cut / GRAIN..].fill(true);
            }
            3 => {
                let size = chance.below(120 * GRAIN) / 512 * 512;
                touched[size.min(image.len()) / GRAIN..].fill(true);
                image.resize(size, 0);
            }
            _ => {
                let mut byte = chance.next();
                image[range].iter_mut().for_each(|at| {
                    byte = byte.rotate_left(7) ^ 0x5555;
                    *at = byte as u8;
                });
            }
        }
    }
    touched
}

/// What a source would say: all that was touched, changed or not; in a whole stream all that is not zero.
fn stream(old: Option<&[u8]>, new: &[u8], touched: &[bool], states: (u8, u8)) -> Vec<u8> {
    let grains = new.chunks(GRAIN).enumerate().filter(|(n, grain)| match old {
        Some(_) => touched[*n],
        None => grain.iter().any(|byte| *byte != 0),
    });
    let said = grains.map(|(n, grain)| match grain.iter().all(|byte| *byte == 0) {
        true => Change::Zero { offset: (n * GRAIN) as u64, len: grain.len() as u64, may_deallocate: n % 3 == 0 },
        false => data((n * GRAIN) as u64, grain.to_vec()),
    });
    let sizes = (old.map_or(0, <[u8]>::len) as u64, new.len() as u64);
    let mut source = Given::new(if old.is_some() { states.0 } else { 0 }, states.1, sizes, said.collect());
    source.header.names.from = if old.is_some() { format!("s{}", states.0).into_bytes() } else { Vec::new() };
    encoded(&mut source)
}

fn applied(stream: &[u8], base: &[u8]) -> Vec<u8> {
    copy(&mut Decoder::open(stream).unwrap(), Memory::new(base.to_vec())).unwrap()
}

fn merged(streams: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let sources = streams.iter().map(|stream| Decoder::open(stream.as_slice()).unwrap()).collect();
    copy(&mut Merge::new(sources).unwrap(), Normal::new(Encoder::new(&mut out))).unwrap();
    out
}

/// What differs from another image, by its manifest.
fn against(other: &[u8], whole: &[u8], fine: bool) -> Vec<u8> {
    let (mut manifest, mut out) = (Vec::new(), Vec::new());
    let described = stream(None, other, &[], (0, 250));
    let digested =
        copy(&mut Decoder::open(described.as_slice()).unwrap(), Digester::new(Keeping::new(&mut manifest, fine))).unwrap();
    digested.visitor.finish(digested.state).unwrap();
    let described = Described::verify(Cursor::new(manifest)).unwrap();
    let sink = Against::new(Some(described), Normal::new(Encoder::new(&mut out)));
    copy(&mut Decoder::open(whole).unwrap(), sink).unwrap();
    out
}

/// The same stream, by way of an rbd diff and back.
fn by_rbd_diff(stream: &[u8], old_size: u64) -> Vec<u8> {
    let (mut diff, mut out) = (Vec::new(), Vec::new());
    let mut source = Decoder::open(stream).unwrap();
    let (to, new_size) = (source.header().to, source.object().new_size);
    copy(&mut source, RbdDiffFile::new(&mut diff, Version::V1)).unwrap();
    let size = |state| if Some(state) == to { new_size } else { old_size };
    let states = (1..=250).map(|n| State { id: id(n), seconds: 0, bytes: size(id(n)), name: format!("s{n}").into_bytes() });
    let identity = Identity { source: id(200), states: StateList { states: states.collect() } };
    copy(&mut RbdDiff::v1(diff.as_slice(), &identity).unwrap(), Normal::new(Encoder::new(&mut out))).unwrap();
    out
}

#[test]
fn whatever_way_a_state_takes_it_arrives_as_it_was() {
    let nights = if std::env::var_os("SIPHON_FULL").is_some() { 10_000_u16 } else { 400 };
    let seed = std::env::var("SIPHON_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("{nights} of 10000 nights, seed {seed}");
    let mut chance = Chance(seed);
    let mut image = vec![0; 60 * GRAIN];
    live(&mut image, &mut chance);
    // The first state of a chain of streams, the streams, and the copy that they keep up to date.
    let (mut base, mut chain, mut copy) = (image.clone(), Vec::new(), image.clone());
    for night in 0..nights {
        let old = image.clone();
        let touched = live(&mut image, &mut chance);
        let states = (1 + (night % 240) as u8, 2 + (night % 240) as u8);
        let increment = stream(Some(&old), &image, &touched, states);
        let whole = stream(None, &image, &[], states);
        // One who cuts it anywhere gets nothing.
        let cut = chance.below(increment.len());
        assert!(
            Decoder::open(&increment[..cut]).and_then(|mut cut| siphon::flow::copy(&mut cut, Memory::default())).is_err(),
            "night {night}: cut at {cut}"
        );
        copy = match chance.below(6) {
            0 => applied(&whole, &vec![0xff; chance.below(100_000)]),
            1 => applied(&by_rbd_diff(&increment, old.len() as u64), &copy),
            2 => applied(&by_rbd_diff(&whole, 0), b""),
            // Somebody spoiled the copy, or it is another state altogether.
            3 => {
                live(&mut copy, &mut chance);
                applied(&against(&copy, &whole, chance.below(2) == 0), &copy)
            }
            _ => applied(&increment, &copy),
        };
        assert!(copy == image, "night {night}, seed {seed}");
        chain.push(increment);
        // Ids begin anew after 240 nights; a chain never spans that.
        if chance.below(5) == 0 || night % 240 == 239 {
            assert!(applied(&merged(&chain), &base) == image, "night {night}: {} merged, seed {seed}", chain.len());
            (base, chain) = (image.clone(), Vec::new());
        }
    }
}

/// A target whose runs are cut: its content, and what that is.
struct Target {
    content: Vec<u8>,
    /// `None`: it is in a state.
    cut: Option<Checkpoint>,
    state: Option<u8>,
}

impl Target {
    /// Takes changes until so many are used up; those behind `verified` of them then left anything behind. `None`: all were taken.
    fn take(&mut self, source: &mut dyn Source, to: u8, changes: usize, verified: usize) -> Option<Checkpoint> {
        let image = *source.object();
        let begin = match &self.cut {
            Some(cut) if source.header().from == Some(cut.id()) => cut.resized(image.new_size),
            _ => Checkpoint::begin(source.header().from, image.old_size, image.new_size),
        };
        if source.header().from.is_none() {
            self.content.clear();
        }
        self.content.resize(image.new_size as usize, 0);
        let (mut reached, mut spoiled) = (Reached::new(Duration::ZERO), Vec::new());
        for n in 0.. {
            if n == verified {
                reached.verified();
            }
            let Some(change) = source.change().unwrap() else { break };
            if n == changes {
                spoiled.into_iter().for_each(|range: Range<usize>| self.content[range].fill(0xa5));
                self.cut = reached.cut().checkpoint(&begin, Some(id(to)));
                return self.cut.clone();
            }
            reached.change(&change);
            let range = change.offset() as usize..change.end() as usize;
            if n >= verified {
                spoiled.push(range.clone());
            }
            match change {
                Change::Data(data) => self.content[range].copy_from_slice(data.bytes()),
                Change::Zero { .. } => self.content[range].fill(0),
            }
        }
        (self.cut, self.state) = (None, Some(to));
        None
    }
}

#[test]
fn a_run_that_was_cut_goes_on_whatever_the_source_has_become() {
    let lives = if std::env::var_os("SIPHON_FULL").is_some() { 1000 } else { 60 };
    let seed = std::env::var("SIPHON_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut chance = Chance(seed);
    let (mut cuts, mut resumed_runs) = (0, 0);
    for life in 0..lives {
        let mut image = vec![0; (10 + chance.below(60)) * GRAIN + chance.below(2) * 512];
        live(&mut image, &mut chance);
        let mut nights = vec![image.clone()];
        let mut target = Target { content: Vec::new(), cut: None, state: None };
        for _ in 0..10 {
            let history = Nights(nights.clone());
            let to = history.newest();
            let mut source: Box<dyn Source> = match &target.cut {
                // From where it is, by the token, as a script passes it on.
                Some(cut) => {
                    resumed_runs += 1;
                    resumed::open(history, &cut.token()).unwrap().0
                }
                None => history.between(target.state, (0, u64::MAX)).unwrap(),
            };
            let changes = if chance.below(3) == 0 { usize::MAX } else { chance.below(30) };
            let (was, state, before) = (target.content.clone(), target.state, target.cut.clone());
            let cut = target.take(&mut *source, to, changes, chance.below(changes.min(30) + 1).min(changes));
            if target.state == Some(to) {
                assert!(target.content == image, "life {life}, night {to}, seed {seed}");
            } else if cut.is_none() {
                // Nothing was done that is worth going on from: back to where it was.
                (target.content, target.state, target.cut) = (was, state, before);
            } else {
                cuts += 1;
            }
            // The next night, or the same snapshot again. Now and then the image was rolled back to an old one.
            if chance.below(4) > 0 {
                if chance.below(4) == 0 {
                    image = nights[chance.below(nights.len())].clone();
                } else {
                    live(&mut image, &mut chance);
                }
                nights.push(image.clone());
            }
        }
    }
    println!("{lives} lives, {cuts} cuts, {resumed_runs} runs went on");
    assert!(cuts > lives && resumed_runs > lives);
}
