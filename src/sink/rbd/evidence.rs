//! What an image's head holds, by asking its objects: nothing that is written down about a head can be believed.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::queue::Queue;
use crate::format::{Buffer, Change, Data, Pool as Buffers, all_zero};
use crate::host::ceph::{Claimed, DiffRange, Image, Pool, Reading, Snapshot};
use crate::state::{Class, Fault};

/// Bytes that are compared or brought back at once.
const CHUNK: usize = 1 << 20;
/// Reads in flight while content is brought back.
const READS: usize = 16;
/// Bytes of the image whose differences are held in memory at once, in objects of the usual size: 16.
const PIECE: u64 = 64 << 20;

/// Whether nothing was ever written to the image: every byte reads as zero.
pub fn is_blank(image: &Image) -> Result<bool, Fault> {
    let size = image.size()?;
    Ok(image.diff(range(None, 0, size), |_, _, _| ControlFlow::Break(()))?.is_continue())
}

/// Whether the head holds something else than a snapshot of the image does.
///
/// What librbd calls a difference may hold the same bytes: after `rbd snap rollback`, for one. So those are compared.
pub fn written_since(head: &Arc<Image>, pool: &Arc<Pool>, snapshot: &Snapshot) -> Result<bool, Fault> {
    if head.size()? != snapshot.size {
        return Ok(true);
    }
    let since = Since::open(head, pool, snapshot)?;
    let buffers = Buffers::new(CHUNK);
    for piece in pieces(snapshot.size, period(head)?) {
        for (offset, len) in since.differences(piece)? {
            for (offset, len) in chunks(offset, len) {
                let [one, other] = [head, &since.then].map(|image| Reading::start(image, offset, buffers.take(len)));
                if one?.wait()?.as_ref() != other?.wait()?.as_ref() {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Makes the head what it was at a snapshot, by writing back what differs.
///
/// `rbd snap rollback` does it, too; but it touches every object, and leaves object maps behind that hide changes from
/// whoever believes them (librbd 16.2.15).
pub fn go_back(target: &Arc<Claimed>, pool: &Arc<Pool>, snapshot: &Snapshot) -> Result<(), Fault> {
    let head = target.image();
    if head.size()? != snapshot.size {
        target.resize(snapshot.size)?;
    }
    let since = Since::open(head, pool, snapshot)?;
    let buffers = Buffers::new(CHUNK);
    let mut queue = Queue::new(Arc::clone(target));
    let mut reads = VecDeque::new();
    for piece in pieces(snapshot.size, period(head)?) {
        for (offset, len) in since.differences(piece)? {
            for (offset, len) in chunks(offset, len) {
                if reads.len() == READS {
                    reads.pop_front().map_or(Ok(()), |oldest| write_back(oldest, &mut queue))?;
                }
                reads.push_back((offset, Reading::start(&since.then, offset, buffers.take(len))?));
            }
        }
    }
    reads.into_iter().try_for_each(|read| write_back(read, &mut queue))?;
    queue.settle().map(|_| ())
}

fn write_back((offset, read): (u64, Reading), queue: &mut Queue) -> Result<(), Fault> {
    let bytes: Buffer = read.wait()?;
    let change = match all_zero(&bytes) {
        true => Change::Zero { offset, len: bytes.len() as u64, may_deallocate: true },
        false => Change::Data(Data::new(offset, bytes.freeze())),
    };
    queue.push(&change)
}

/// An image at a snapshot, and what was written to it since.
struct Since {
    then: Arc<Image>,
    /// The head, for questions only: names of snapshots that change hands meanwhile do not reach a handle that cannot write.
    now: Image,
    /// What `now` calls the snapshot.
    name: CString,
}

impl Since {
    fn open(head: &Image, pool: &Arc<Pool>, snapshot: &Snapshot) -> Result<Since, Fault> {
        let id = head.id()?;
        let now = Image::open_by_id(pool, &id)?;
        let found = now.snapshots()?.into_iter().find(|found| found.id == snapshot.id);
        let gone = || Fault::new(Class::Vanished, format!("snapshot {} is gone", snapshot.name.to_string_lossy()));
        let name = found.ok_or_else(gone)?.name;
        Ok(Since { then: Arc::new(Image::open_by_id(pool, &id)?.at(snapshot.id)?), now, name })
    }

    /// Ranges that differ, by each object's own word.
    fn differences(&self, (offset, len): (u64, u64)) -> Result<Vec<(u64, u64)>, Fault> {
        let mut found = Vec::new();
        let _ = self.now.diff(range(Some(&self.name), offset, len), |offset, len, _| {
            found.push((offset, len));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

fn range(from: Option<&CStr>, offset: u64, len: u64) -> DiffRange<'_> {
    DiffRange { from, offset, len, whole_objects: false }
}

fn period(image: &Image) -> Result<u64, Fault> {
    image.layout().map(|layout| layout.period())
}

/// Consecutive ranges, each a multiple of the stripe period: librbd tells differences right only in whole periods.
fn pieces(size: u64, period: u64) -> impl Iterator<Item = (u64, u64)> {
    let piece = PIECE.next_multiple_of(period);
    (0..size.div_ceil(piece)).map(move |n| (n * piece, piece.min(size - n * piece)))
}

fn chunks(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize)> {
    let starts = (offset..offset.saturating_add(len)).step_by(CHUNK);
    starts.map(move |at| (at, usize::try_from(offset.saturating_add(len) - at).unwrap_or(CHUNK).min(CHUNK)))
}
