//! Finding what differs, ahead of the reads.
//!
//! One thread finds the pieces of the image that may differ: from the object maps, where they can be trusted, else simply
//! all. A few more ask the objects of each piece byte by byte. Pieces are handed on in order, whoever was first, and
//! bounded queues keep the search from running far ahead of the reads.

use std::collections::VecDeque;
use std::ffi::CString;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::shape::{Extent, Ranges, Raw, Shape};
use crate::host::ceph::{DiffRange, Image, Layout};
use crate::state::{Class, Fault};

/// Bytes of one piece: eight objects of the usual 4 MiB, which one search asks at once (librbd itself asks 10 at a time).
const PIECE: u64 = 32 << 20;
/// Pieces that are searched at once. With eight objects each, as many questions are under way as reads can be.
const SEARCHERS: usize = 4;
/// Pieces that may be searched, or wait to be read, at a time. One holds 24 bytes for each of at most 65,536 differences.
const AHEAD: usize = 8;

/// What is to be searched.
pub(super) struct Search {
    /// At the to-state.
    pub image: Arc<Image>,
    /// Name of the from-state, as the image handle knows it.
    pub from: Option<CString>,
    pub layout: Layout,
    pub way: Way,
    pub shape: Shape,
    /// The part of the image that is asked for, in bytes: begins and ends at multiples of the grain, or at the image's end.
    pub range: (u64, u64),
}

/// How the pieces are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Both states are the same.
    Nowhere,
    /// The object maps tell.
    Maps,
    /// Every object is asked.
    Everywhere,
}

type Found = Result<Vec<Extent>, Fault>;

/// A piece of the image and where the answer goes.
struct Job {
    range: (u64, u64),
    answer: SyncSender<Found>,
}

/// In the order of the image.
enum Item {
    Piece(Receiver<Found>),
    Failed(Fault),
    /// Said by a search that came to its end; a search that died says nothing.
    End,
}

/// What [`Extents::next`] has.
pub(super) enum Next {
    Extent(Extent),
    NotYet,
    End,
}

/// The extents of an image, found in the background.
pub(super) struct Extents {
    items: Option<Receiver<Item>>,
    piece: Option<Receiver<Found>>,
    ready: VecDeque<Extent>,
    ended: bool,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Extents {
    /// Begins to search.
    pub fn start(search: Search) -> Result<Extents, Fault> {
        let stop = Arc::new(AtomicBool::new(false));
        let (item_in, items) = sync_channel(AHEAD);
        let (job_in, jobs) = sync_channel(AHEAD);
        let mut extents = Extents {
            items: Some(items),
            piece: None,
            ready: VecDeque::new(),
            ended: false,
            stop: stop.clone(),
            threads: Vec::new(),
        };
        let search = Arc::new(search);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..SEARCHERS {
            let (search, jobs, stop) = (search.clone(), jobs.clone(), stop.clone());
            extents.spawn("rbd-diff", move || answer_jobs(&search, &jobs, &stop))?;
        }
        extents.spawn("rbd-pieces", move || {
            let desk = Desk { items: &item_in, jobs: &job_in, stop: &stop };
            let last = match find_pieces(&search, &desk) {
                Ok(ControlFlow::Continue(())) => Item::End,
                Ok(ControlFlow::Break(())) => return,
                Err(fault) => Item::Failed(fault),
            };
            // Nobody there any more: then nobody asks.
            let _ = item_in.send(last);
        })?;
        Ok(extents)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Fault> {
        let thread = Builder::new().name(name.to_owned()).spawn(work).map_err(|error| Fault::io("starting a thread", &error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// The next extent, ascending. `patient`: waits for it; else it may be [`Next::NotYet`].
    pub fn next(&mut self, patient: bool) -> Result<Next, Fault> {
        let died = || Fault::new(Class::Io, "the search for differences died");
        loop {
            if let Some(extent) = self.ready.pop_front() {
                return Ok(Next::Extent(extent));
            }
            if self.ended {
                return Ok(Next::End);
            }
            if let Some(piece) = &self.piece {
                let Some(found) = receive(piece, patient).map_err(|()| died())? else { return Ok(Next::NotYet) };
                self.ready = found?.into();
                self.piece = None;
                continue;
            }
            let items = self.items.as_ref().ok_or_else(died)?;
            match receive(items, patient).map_err(|()| died())? {
                None => return Ok(Next::NotYet),
                Some(Item::Piece(piece)) => self.piece = Some(piece),
                Some(Item::Failed(fault)) => return Err(fault),
                Some(Item::End) => self.ended = true,
            }
        }
    }
}

impl Drop for Extents {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever waits to hand something over is let go.
        self.items = None;
        self.piece = None;
        for thread in self.threads.drain(..) {
            // It may have panicked: then `next` has said that the search died.
            let _ = thread.join();
        }
    }
}

fn receive<T>(receiver: &Receiver<T>, patient: bool) -> Result<Option<T>, ()> {
    if patient {
        return receiver.recv().map(Some).map_err(|_| ());
    }
    match receiver.try_recv() {
        Ok(item) => Ok(Some(item)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Disconnected) => Err(()),
    }
}

/// Where pieces are handed out.
struct Desk<'a> {
    items: &'a SyncSender<Item>,
    jobs: &'a SyncSender<Job>,
    stop: &'a AtomicBool,
}

impl Desk<'_> {
    /// Puts the answer's place into the order first, then lets somebody search.
    fn hand_out(&self, ranges: impl IntoIterator<Item = (u64, u64)>) -> ControlFlow<()> {
        for range in ranges {
            let (answer, found) = sync_channel(1);
            let gone = self.stop.load(Ordering::Relaxed)
                || self.items.send(Item::Piece(found)).is_err()
                || self.jobs.send(Job { range, answer }).is_err();
            if gone {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

fn find_pieces(search: &Search, desk: &Desk<'_>) -> Result<ControlFlow<()>, Fault> {
    let size = search.shape.size;
    let mut ranges = Ranges::new(size, search.layout.period(), PIECE);
    let flow = match search.way {
        Way::Nowhere => ControlFlow::Continue(()),
        Way::Everywhere => desk.hand_out(Pieces { ranges: &ranges, at: 0 }.filter(|piece| meets(*piece, search.range))),
        Way::Maps => {
            let from = search.from.as_deref();
            let mut last = 0;
            let mut ascends = true;
            // Once over the whole image: librbd loads the maps of all snapshots in between anew for each call.
            let flow = search.image.diff(DiffRange { from, offset: 0, len: size, whole_objects: true }, |offset, len, _| {
                let period = offset / search.layout.period();
                ascends = period >= last;
                last = period;
                let mut pieces = ranges.add(offset, len);
                pieces.retain(|piece| meets(*piece, search.range));
                if ascends { desk.hand_out(pieces) } else { ControlFlow::Break(()) }
            })?;
            if !ascends {
                return Err(Fault::new(Class::Io, "librbd reported changed objects out of order")
                    .hint("--no-trust-map does without this report; please report the version of librbd"));
            }
            flow
        }
    };
    let last = ranges.finish().filter(|piece| meets(*piece, search.range));
    Ok(if flow.is_continue() { desk.hand_out(last) } else { flow })
}

fn meets(one: (u64, u64), other: (u64, u64)) -> bool {
    one.0 < other.1 && other.0 < one.1
}

/// Every piece of an image, one after the other.
struct Pieces<'a> {
    ranges: &'a Ranges,
    at: u64,
}

impl Iterator for Pieces<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let range = self.ranges.piece_at(self.at)?;
        self.at = range.1;
        Some(range)
    }
}

/// Searches pieces until there are no more.
fn answer_jobs(search: &Search, jobs: &Mutex<Receiver<Job>>, stop: &AtomicBool) {
    loop {
        // A panic elsewhere leaves the receiver whole.
        let Ok(job) = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return };
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Some(found) = search_piece(search, job.range, stop) {
            // Nobody there any more: then nobody asks.
            let _ = job.answer.send(found);
        }
    }
}

/// `None`: told to stop.
fn search_piece(search: &Search, (start, end): (u64, u64), stop: &AtomicBool) -> Option<Found> {
    let mut raws = Vec::new();
    let range = DiffRange { from: search.from.as_deref(), offset: start, len: end - start, whole_objects: false };
    let outcome = search.image.diff(range, |offset, len, exists| {
        raws.push(Raw { offset, len, exists });
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match outcome {
        Err(fault) => Some(Err(fault)),
        Ok(ControlFlow::Break(())) => None,
        Ok(ControlFlow::Continue(())) => Some(search.shape.extents(raws, start, end).map_or_else(
            || {
                Err(Fault::new(Class::Io, format!("librbd reported overlapping differences behind byte {start}"))
                    .hint("please report this with the version of librbd and the image's striping"))
            },
            |extents| Ok(extents.into_iter().filter_map(|extent| extent.within(search.range)).collect()),
        )),
    }
}
