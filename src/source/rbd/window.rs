//! Reads in flight, given out in order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::extents::{Extents, Next};
use super::shape::Extent;
use crate::format::{Change, Data, Pool, wire};
use crate::host::ceph::{Image, Reading};
use crate::state::Fault;

/// Bytes in flight for each read that may be: few large reads fill a link as well as many small ones, and cost memory twice
/// (librados holds an answer until it is copied).
const BYTES_PER_JOB: usize = 192 << 10;
/// Reads of a whole image are cut at multiples of this many bytes: it is mostly dense, and librados holds two copies of an
/// answer (1 GiB of random data: at most 92 MiB in all, with 2 MiB reads 115 MiB, with 4 MiB 180 MiB).
const WHOLE_CUT: u64 = wire::CUT;
/// … and of an increment: fresh sparse objects are told of as a whole, so larger reads save the OSDs questions (200 MiB
/// in scattered writes: at most 57 MiB in all).
const INCREMENT_CUT: u64 = 2 * wire::CUT;
/// What a buffer for small reads holds; 64 KiB is the usual unit of scattered writes at most.
const SMALL: usize = 64 << 10;

/// Turns extents into changes with many reads under way.
pub(super) struct Window {
    image: Arc<Image>,
    extents: Extents,
    /// What is left of the extent that is being cut.
    current: Option<Extent>,
    pieces: VecDeque<Piece>,
    jobs: usize,
    /// Reads are cut at multiples of this many bytes.
    cut: u64,
    /// Bytes of the reads in `pieces`.
    bytes: usize,
    small: Pool,
    large: Pool,
}

enum Piece {
    Read(u64, Reading),
    Zero(Extent),
}

impl Window {
    /// With at most `jobs` reads in flight, and at most 192 KiB for each in sum (one read of up to 2 MiB always).
    pub fn new(image: Arc<Image>, extents: Extents, jobs: usize, whole: bool) -> Window {
        let cut = if whole { WHOLE_CUT } else { INCREMENT_CUT };
        let largest = usize::try_from(cut).unwrap_or(usize::MAX);
        Window {
            image,
            extents,
            current: None,
            pieces: VecDeque::new(),
            jobs: jobs.max(1),
            cut,
            bytes: 0,
            small: Pool::new(SMALL),
            large: Pool::new(largest),
        }
    }

    /// The next change; `None` at the end.
    pub fn change(&mut self) -> Result<Option<Change>, Fault> {
        self.fill()?;
        match self.pieces.pop_front() {
            None => Ok(None),
            Some(Piece::Zero(Extent { offset, end, .. })) => {
                Ok(Some(Change::Zero { offset, len: end - offset, may_deallocate: true }))
            }
            Some(Piece::Read(offset, reading)) => {
                self.bytes = self.bytes.saturating_sub(reading.size());
                Ok(Some(Change::Data(Data::new(offset, reading.wait()?.freeze()))))
            }
        }
    }

    /// Starts as many reads as may be. Waits for the search only when there is nothing else to wait for.
    fn fill(&mut self) -> Result<(), Fault> {
        while self.pieces.len() < self.jobs {
            let extent = match self.current.take() {
                Some(extent) => extent,
                None => match self.extents.next(self.pieces.is_empty())? {
                    Next::Extent(extent) => extent,
                    Next::NotYet | Next::End => return Ok(()),
                },
            };
            if extent.zero {
                self.pieces.push_back(Piece::Zero(extent));
                continue;
            }
            let end = (extent.offset - extent.offset % self.cut).saturating_add(self.cut).min(extent.end);
            let len = usize::try_from(end - extent.offset).unwrap_or(usize::MAX);
            let budget = self.jobs.saturating_mul(BYTES_PER_JOB);
            if !self.pieces.is_empty() && self.bytes.saturating_add(len) > budget {
                self.current = Some(extent);
                return Ok(());
            }
            let pool = if len <= SMALL { &self.small } else { &self.large };
            let reading = Reading::start(&self.image, extent.offset, pool.take(len))?;
            self.bytes = self.bytes.saturating_add(len);
            self.pieces.push_back(Piece::Read(extent.offset, reading));
            self.current = (end < extent.end).then_some(Extent { offset: end, ..extent });
        }
        Ok(())
    }
}
