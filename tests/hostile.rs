//! Whatever a stream claims: no panic, and no more memory than the page allows. Every allocation of this program is counted.
#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod vectors;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{BufReader, Read};

use proptest::prelude::*;
use siphon::filter::Normal;
use siphon::flow::{Proof, Sink, copy};
use siphon::format::{Change, Data, Header, Image, ReadError, Reader};
use siphon::source::Decoder;
use siphon::state::{Fault, StateList};

struct Counting;

thread_local! {
    /// Bytes held by this thread, and the most it held since the last reset.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // At a thread's end the cell is gone; nobody asks any more.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: every call is handed to the system's allocator unchanged; counting touches only a thread-local cell.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most memory that `run` held at once, in bytes.
fn most<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    let value = run();
    (value, (HELD.get().1 - before).unsigned_abs())
}

/// What a reader needs beside its payload: buffers of HEADER, messages.
const SLACK: usize = 256 << 10;

/// Reads to the end or the damage; the declared payload bound, if it came to that.
fn read(input: impl Read) -> (Result<u64, ReadError>, usize) {
    let mut reader = match Reader::open(input) {
        Ok(reader) => reader,
        Err(error) => return (Err(error), 0),
    };
    let bound = reader.header().max_payload as usize;
    let mut changes = 0;
    loop {
        match reader.change() {
            Ok(Some(_)) => changes += 1,
            Ok(None) => return (Ok(changes), bound),
            Err(error) => return (Err(error), bound),
        }
    }
}

fn reads_within_bounds(stream: &[u8]) -> bool {
    let ((result, bound), memory) = most(|| read(stream));
    assert!(memory <= bound + SLACK, "{memory} bytes for a payload bound of {bound}: {result:?}");
    result.is_ok()
}

#[test]
fn the_count_sees_what_is_taken() {
    let (_, memory) = most(|| drop(std::hint::black_box(vec![0_u8; 1 << 20])));
    assert!((1 << 20..2 << 20).contains(&memory), "{memory}");
}

#[test]
fn every_vector_is_read_within_its_bound() {
    for name in vectors::list() {
        reads_within_bounds(&vectors::load(&name).stream);
    }
}

#[test]
fn a_claimed_length_takes_no_memory_beyond_the_bound() {
    // Endless input behind a frame that claims 4 GiB, and behind one that claims what is allowed.
    for (name, most_allowed) in
        [("length_of_header_claimed_4_gib.vec", SLACK), ("length_of_data_claimed_4_gib.vec", (1 << 20) + SLACK)]
    {
        let stream = vectors::load(name).stream;
        let ((result, _), memory) = most(|| read(stream.chain(std::io::repeat(0))));
        assert!(result.is_err() && memory <= most_allowed, "{name}: {memory}");
    }
}

#[test]
fn an_endless_state_list_is_refused_early() {
    for endless in [&b"x"[..], b"\n", b"#", b"0\t"] {
        let input = BufReader::new(std::io::repeat(endless[0]));
        let (result, memory) = most(|| StateList::parse(input));
        assert!(result.is_err() && memory < SLACK, "{memory}");
    }
}

/// Takes everything and keeps nothing.
struct Null;

impl Sink for Null {
    type Done = ();
    fn begin(&mut self, _: &Header, _: &Image) -> Result<(), Fault> {
        Ok(())
    }
    fn change(&mut self, _: Change) -> Result<(), Fault> {
        Ok(())
    }
    fn commit(self, _: Proof) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn tiny_extents_under_a_large_bound_keep_no_large_buffers_alive() {
    // Each of 4096 touching extents of one byte could hold a buffer of 16 MiB.
    let mut stream = Vec::new();
    let header = Header { max_payload: 16 << 20, ..Header::new(siphon::state::file_source(), None, None, Default::default()) };
    let mut writer =
        siphon::format::Writer::begin(&mut stream, &header, &Image { grain: 1, old_size: 0, new_size: 4096 }).unwrap();
    for offset in 0..4096 {
        writer.change(&Change::Data(Data::new(offset, vec![7]))).unwrap();
    }
    writer.finish(None).unwrap();
    let (result, memory) = most(|| copy(&mut Decoder::open(stream.as_slice())?, Normal::new(Null)));
    assert!(result.is_ok());
    assert!(memory <= 3 * (16 << 20), "{memory}");
}

/// A number as hostile streams like them.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..70_000,
        (0_u32..64, -2_i64..3).prop_map(|(shift, off)| (1_u64 << shift).wrapping_add_signed(off)),
        any::<u64>(),
        Just(u64::MAX)
    ]
}

/// One frame: type, flags, offset, payload, and a lie about its length.
type Frame = (u16, u16, u64, Vec<u8>, Option<u32>);

fn frame() -> impl Strategy<Value = Frame> {
    let kind = prop_oneof![
        Just(0x10_u16),
        Just(0x11),
        Just(0x11),
        Just(0x03),
        Just(0x04),
        Just(0x01),
        Just(0x02),
        Just(0x8050),
        any::<u16>()
    ];
    let payload = prop_oneof![
        number().prop_map(|n| n.to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..200),
        (0_usize..5000).prop_map(|len| vec![7; len])
    ];
    let lie = prop::option::weighted(0.05, any::<u32>());
    (kind, prop_oneof![4 => Just(0_u16), 1 => Just(1), 1 => any::<u16>()], number(), payload, lie)
}

/// HEADER and OBJECT with hostile numbers, frames, and END or not; every sum right.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let head = (
        any::<bool>(),
        prop_oneof![Just(1_u32 << 20), Just(4096), Just(16 << 20), any::<u32>()],
        prop::collection::vec(any::<u8>(), 0..40),
    );
    let object = (prop_oneof![Just(1_u32), Just(4096), Just(65536), any::<u32>()], number(), number());
    (head, object, prop::collection::vec(frame(), 0..12), any::<bool>()).prop_map(
        |((whole, bound, tail), (grain, old, new), frames, end)| {
            let mut out = vectors::load("ok_whole_empty_image.vec").stream[..24].to_vec();
            let mut header = vec![0; 16];
            header.extend([1; 16]);
            header.extend([if whole { 0 } else { 2 }; 16]);
            header.extend([3; 32]);
            header.extend(bound.to_le_bytes());
            header.extend([0; 12]);
            header.extend(if tail.len() > 36 { tail } else { vec![] });
            vectors::frame(&mut out, 1, 0, 0, 0, &header);
            let mut object = vec![1, 0, 0, 0];
            object.extend(grain.to_le_bytes());
            object.extend((if whole { 0 } else { old }).to_le_bytes());
            object.extend(new.to_le_bytes());
            object.extend([0; 8]);
            vectors::frame(&mut out, 2, 0, 1, 0, &object);
            let mut number = 2;
            for (kind, flags, offset, payload, lie) in frames {
                let at = out.len();
                vectors::frame(&mut out, kind, flags, number, offset, &payload);
                if let Some(len) = lie {
                    out[at + 4..at + 8].copy_from_slice(&len.to_le_bytes());
                    let crc = crc32fast::hash(&out[at..at + 28]);
                    out[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
                }
                number += 1;
            }
            if end {
                let mut payload = vec![0; 88];
                payload[..8].copy_from_slice(&number.to_le_bytes());
                payload[40..56].fill(3);
                vectors::frame(&mut out, 4, 0, number, 0, &payload);
            }
            vectors::reseal::reseal(&mut out, true);
            out
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_frames_with_right_sums_neither_panic_nor_take_memory(stream in stream()) {
        reads_within_bounds(&stream);
    }

    #[test]
    fn any_bytes_changed_and_sealed_anew_neither_panic_nor_take_memory(
        name in prop::sample::select(vec!["ok_increment.vec", "ok_grain_1.vec", "ok_compatible_feature.vec", "ok_skippable_unknown.vec"]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut stream = vectors::load(name).stream;
        for (at, byte) in edits {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        vectors::reseal::reseal(&mut stream, false);
        reads_within_bounds(&stream);
    }

    #[test]
    fn any_bytes_are_no_stream(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!reads_within_bounds(&bytes));
    }
}
