//! Many writes in flight on one image.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::Change;
use crate::host::ceph::{Claimed, Writing};
use crate::sink::Durable;
use crate::state::Fault;

/// Writes in flight, at most: 64 were a third slower (1024 writes of 4 KiB, also with 2 ms of network), 512 no faster.
const MOST: usize = 256;
/// Bytes that they hold on to, at most.
const MOST_BYTES: usize = 24 << 20;
/// Bytes that one call zeroes: librbd makes a request of each object in it at once, and 64 usual objects are enough of them.
const ZERO_AT_ONCE: u64 = 256 << 20;

/// Applies changes to an image. The first error is final: nothing is tried again, and nothing is called durable any more.
pub struct Queue {
    target: Arc<Claimed>,
    in_flight: VecDeque<Writing>,
    bytes: usize,
    failed: Option<Fault>,
}

impl Queue {
    /// A queue onto this image.
    pub fn new(target: Arc<Claimed>) -> Queue {
        Queue { target, in_flight: VecDeque::new(), bytes: 0, failed: None }
    }

    /// Starts to apply a change.
    pub fn push(&mut self, change: &Change) -> Result<(), Fault> {
        match change {
            Change::Data(data) => self.start(Writing::data(&self.target, data.offset(), data.bytes().clone())?),
            Change::Zero { offset, len, .. } => {
                let end = offset.saturating_add(*len);
                let mut at = *offset;
                while at < end {
                    // Up to the next multiple, so that no object is zeroed in two halves.
                    let next = (at - at % ZERO_AT_ONCE).saturating_add(ZERO_AT_ONCE).min(end);
                    self.start(Writing::zeros(&self.target, at, next - at)?)?;
                    at = next;
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, writing: Writing) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(writing.size());
        self.in_flight.push_back(writing);
        while self.in_flight.len() > MOST || self.bytes > MOST_BYTES {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    fn wait_for_oldest(&mut self) -> Result<(), Fault> {
        let Some(oldest) = self.in_flight.pop_front() else { return Ok(()) };
        self.bytes = self.bytes.saturating_sub(oldest.size());
        oldest.wait().inspect_err(|fault| self.failed = Some(fault.clone()))
    }

    /// Waits until everything was applied, and makes it durable.
    pub fn settle(&mut self) -> Result<Durable, Fault> {
        while !self.in_flight.is_empty() {
            self.wait_for_oldest()?;
        }
        if let Some(fault) = &self.failed {
            return Err(fault.clone());
        }
        self.target.flush().inspect_err(|fault| self.failed = Some(fault.clone()))?;
        Ok(Durable::after_flush())
    }
}
