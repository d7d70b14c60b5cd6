//! The canonical form of extent-stream(5): the same content gives the same extents, however it came.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod common;

use common::streams::{Given, data, encoded};
use proptest::prelude::*;
use siphon::filter::Normal;
use siphon::flow::{Proof, Sink, Source, copy};
use siphon::format::{Change, Header, Image, wire};
use siphon::sink::Memory;
use siphon::source::Decoder;
use siphon::state::Fault;

const GRAIN: u64 = 4096;

fn given(whole: bool, old_size: u64, new_size: u64, changes: &[Change]) -> Given {
    let (from, old_size) = if whole { (0, 0) } else { (1, old_size) };
    Given::new(from, 2, (old_size, new_size), changes.to_vec())
}

/// Keeps what comes.
#[derive(Default)]
struct Kept(Vec<Change>);

impl Sink for Kept {
    type Done = Vec<Change>;
    fn begin(&mut self, _: &Header, _: &Image) -> Result<(), Fault> {
        Ok(())
    }
    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.0.push(change);
        Ok(())
    }
    fn commit(self, _: Proof) -> Result<Vec<Change>, Fault> {
        Ok(self.0)
    }
}

fn normal(source: &mut Given) -> Vec<Change> {
    copy(source, Normal::new(Kept::default())).unwrap()
}

/// What a source may say: grains that are unchanged, zero, freed, data of zeros or data, each a run of some grains.
#[derive(Clone, Debug)]
struct Said {
    whole: bool,
    old: Vec<u8>,
    new_size: u64,
    changes: Vec<Change>,
}

fn said() -> impl Strategy<Value = Said> {
    let run = (0_u8..6, 1_u64..20);
    (any::<bool>(), 0_usize..20_000, prop::collection::vec(run, 0..16), 0_u64..GRAIN, any::<bool>()).prop_map(
        |(whole, old, runs, ragged, far)| {
            let (mut at, mut changes) = (if far { (1 << 20) - 3 * GRAIN } else { 0 }, Vec::new());
            for (kind, grains) in runs {
                let len = grains * GRAIN;
                match kind {
                    0 => {}
                    1 => changes.push(Change::Zero { offset: at, len, may_deallocate: true }),
                    2 => changes.push(Change::Zero { offset: at, len, may_deallocate: false }),
                    3 => changes.push(data(at, vec![0; len as usize])),
                    _ => changes.push(data(at, (0..len).map(|n| (n / 5000) as u8).collect())),
                }
                at += len;
            }
            // The last grain of the image is a short one, and data or zeros.
            if ragged > 0 {
                changes.push(data(at, vec![(ragged % 2) as u8; ragged as usize]));
            }
            Said { whole, old: vec![0xee; old], new_size: at + ragged, changes }
        },
    )
}

/// The same, with data cut anywhere.
fn recut(changes: &[Change], cuts: &[usize]) -> Vec<Change> {
    let mut cuts = cuts.iter().cycle();
    let mut out = Vec::new();
    for change in changes {
        match change {
            Change::Data(data) => {
                let (mut at, len) = (0, data.bytes().len());
                while at < len {
                    let end = len.min(at + cuts.next().unwrap());
                    out.push(Change::Data(data.slice(at..end)));
                    at = end;
                }
            }
            zero => out.push(zero.clone()),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn content_is_preserved_and_the_wire_adds_nothing(said in said()) {
        let Said { whole, old, new_size, changes } = said;
        let size = old.len() as u64;
        let source = || given(whole, size, new_size, &changes);
        let direct = copy(&mut source(), Memory::new(old.clone())).unwrap();
        prop_assert_eq!(&copy(&mut source(), Normal::new(Memory::new(old.clone()))).unwrap(), &direct);
        let stream = encoded(&mut source());
        let piped = copy(&mut Decoder::open(stream.as_slice()).unwrap(), Memory::new(old)).unwrap();
        prop_assert_eq!(&piped, &direct);
        // Once more through a filter: the same bytes.
        let again = encoded(&mut Decoder::open(stream.as_slice()).unwrap());
        prop_assert!(again == stream, "normal twice is normal once");
    }

    #[test]
    fn content_cut_differently_gives_the_same_extents(said in said(), cuts in prop::collection::vec(1_usize..100_000, 1..9)) {
        let Said { whole, old, new_size, changes } = said;
        let size = old.len() as u64;
        let cut = recut(&changes, &cuts);
        prop_assert_eq!(
            normal(&mut given(whole, size, new_size, &cut)),
            normal(&mut given(whole, size, new_size, &changes))
        );
    }

    #[test]
    fn extents_have_the_form_of_the_page(said in said()) {
        let Said { whole, old, new_size, changes } = said;
        let extents = normal(&mut given(whole, old.len() as u64, new_size, &changes));
        for pair in extents.windows(2) {
            prop_assert!(pair[0].end() <= pair[1].offset(), "ascending");
            let touching = pair[0].end() == pair[1].offset();
            match (&pair[0], &pair[1]) {
                (Change::Data(_), Change::Data(data)) =>
                    prop_assert!(!touching || data.offset().is_multiple_of(wire::CUT), "touching DATA is one but for the cuts"),
                (Change::Zero { may_deallocate: a, .. }, Change::Zero { may_deallocate: b, .. }) =>
                    prop_assert!(!touching || a != b, "touching ZERO is one"),
                _ => {}
            }
        }
        for extent in extents {
            match &extent {
                Change::Zero { offset, len, .. } => {
                    prop_assert!(!whole, "no ZERO in a whole stream");
                    prop_assert!(offset.is_multiple_of(GRAIN) && (len.is_multiple_of(GRAIN) || extent.end() == new_size));
                }
                Change::Data(data) => {
                    let offset = data.offset();
                    prop_assert!(offset / wire::CUT == (extent.end() - 1) / wire::CUT, "cut at 1 MiB");
                    for (n, grain) in data.bytes().chunks(GRAIN as usize).enumerate() {
                        prop_assert!(grain.iter().any(|byte| *byte != 0), "grain {n} of DATA at {offset} is zeros");
                    }
                }
            }
        }
    }
}

#[test]
fn data_larger_than_a_window_is_cut_where_windows_end() {
    let bytes = vec![1; 3 << 20];
    let extents = normal(&mut given(true, 0, 5 << 20, &[data((1 << 20) - 4096, bytes)]));
    let spans: Vec<(u64, u64)> = extents.iter().map(|extent| (extent.offset(), extent.len())).collect();
    let mib = 1 << 20;
    assert_eq!(spans, [(mib - 4096, 4096), (mib, mib), (2 * mib, mib), (3 * mib, mib - 4096)]);
}

#[test]
fn zeros_smaller_than_a_grain_stay_data() {
    let mut bytes = vec![1; 8192];
    bytes[100..6000].fill(0);
    let extents = normal(&mut given(false, 8192, 8192, &[data(0, bytes.clone())]));
    assert_eq!(extents, [data(0, bytes)]);
}

#[test]
fn a_stream_with_another_payload_bound_is_cut_anew() {
    let mut source = given(true, 0, 2 << 20, &[data(0, vec![1; 2 << 20])]);
    source.header.max_payload = wire::LIMIT_MIN_PAYLOAD;
    let stream = encoded(&mut source);
    let decoder = Decoder::open(stream.as_slice()).unwrap();
    assert_eq!(decoder.header().max_payload, wire::DEFAULT_MAX_PAYLOAD);
}
