//! Many writes in flight on one device.
//!
//! The extents of one stream do not overlap, so their order does not matter. Two of them may still share a sector of the
//! device where they are not aligned; those are done alone.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::format::Change;
use crate::host::device::Device;
use crate::state::Fault;

/// Writes waiting or under way, at most, for each thread.
const PER_THREAD: usize = 2;
/// What an extent must be a multiple of, in bytes, to share no sector with its neighbours.
const APART: u64 = 4096;

/// Applies changes to a device from several threads. The first error is final: nothing is tried again, and
/// [`WriteQueue::finish`] reports it.
pub struct WriteQueue {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// That every change pushed to a queue is on the target for good: a sink records nothing without it.
#[derive(Debug)]
pub struct Durable(());

impl Durable {
    /// For a queue that has waited for all of its writes and flushed them.
    pub(super) fn after_flush() -> Durable {
        Durable(())
    }

    /// For a device whose writes have all ended: makes them so.
    pub(super) fn sync(device: &Device) -> Result<Durable, Fault> {
        device.sync().map(Durable)
    }
}

struct Shared {
    device: Arc<Device>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Change>,
    under_way: usize,
    failed: Option<Fault>,
    closing: bool,
}

impl WriteQueue {
    /// A queue of so many threads; with none, each change is applied at once.
    pub fn new(device: Arc<Device>, threads: usize) -> WriteQueue {
        let shared = Arc::new(Shared { device, state: Mutex::default(), changed: Condvar::new() });
        let threads = (0..threads)
            .map(|_| {
                std::thread::spawn({
                    let shared = Arc::clone(&shared);
                    move || shared.work()
                })
            })
            .collect();
        WriteQueue { shared, threads }
    }

    /// Applies a change, now or soon.
    pub fn push(&self, change: Change) -> Result<(), Fault> {
        let apart = (change.offset() | change.end()).is_multiple_of(APART);
        if self.threads.is_empty() || !apart {
            self.drain()?;
            return apply(&self.shared.device, &change).inspect_err(|fault| self.shared.lock().failed = Some(fault.clone()));
        }
        let most = self.threads.len() * PER_THREAD;
        let mut state = self.shared.wait_while(|state| state.failed.is_none() && state.waiting.len() + state.under_way >= most);
        if let Some(fault) = &state.failed {
            return Err(fault.clone());
        }
        state.waiting.push_back(change);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// The same as [`WriteQueue::settle`], and lets go of the device. A queue that is dropped instead gives up what waits.
    pub fn finish(self) -> Result<Durable, Fault> {
        self.settle()
    }

    /// Waits until everything was applied, and makes it durable.
    pub fn settle(&self) -> Result<Durable, Fault> {
        self.drain()?;
        Durable::sync(&self.shared.device)
    }

    /// Waits until everything was applied.
    pub fn drain(&self) -> Result<(), Fault> {
        let state = self.shared.wait_while(|state| state.failed.is_none() && (!state.waiting.is_empty() || state.under_way > 0));
        state.failed.clone().map_or(Ok(()), Err)
    }
}

impl Drop for WriteQueue {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closing = true;
            state.waiting.clear();
        }
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A worker does not panic; if one did, its change was never reported as applied.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), condition).unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.wait_while(|state| state.waiting.is_empty() && !state.closing);
            let Some(change) = state.waiting.pop_front() else { return };
            state.under_way += 1;
            drop(state);
            let applied = apply(&self.device, &change);
            drop(change);
            let mut state = self.lock();
            state.under_way -= 1;
            if let Err(fault) = applied {
                state.failed.get_or_insert(fault);
                state.waiting.clear();
            }
            drop(state);
            self.changed.notify_all();
        }
    }
}

fn apply(device: &Device, change: &Change) -> Result<(), Fault> {
    match change {
        Change::Data(data) => device.write(data.offset(), data.bytes()),
        Change::Zero { offset, len, .. } => device.zero(*offset, *len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Data;
    use crate::state::Class;

    #[test]
    fn what_could_not_be_written_is_never_called_durable() {
        // Every write to it fails: the disk is full.
        for threads in [0, 1, 4] {
            let device = Device::open_file(std::path::Path::new("/dev/full"), false).unwrap();
            let queue = WriteQueue::new(Arc::new(device), threads);
            // A thread that is quick has failed before the call returns, and then it says so.
            let _ = queue.push(Change::Data(Data::new(0, vec![7; 4096])));
            assert_eq!(queue.finish().unwrap_err().class, Class::NoSpace, "{threads} threads");
        }
    }
}
