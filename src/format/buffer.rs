//! Payload buffers: aligned for O_DIRECT, shared without copying, used again.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Alignment in bytes of a buffer's first byte: what O_DIRECT asks for on any device of today.
const ALIGN: usize = 4096;
/// A freed buffer is kept for the next use while no more than this lie idle.
const KEEP: usize = 32;

type Idle = Arc<Mutex<Vec<Vec<u8>>>>;

/// A source of aligned buffers that come back when their last user lets go.
///
/// Without it each 1 MiB payload costs a fresh mapping and 256 page faults.
#[derive(Clone)]
pub struct Pool {
    idle: Idle,
    capacity: usize,
}

impl Pool {
    /// A pool of buffers that hold up to `capacity` bytes each.
    pub fn new(capacity: usize) -> Pool {
        Pool { idle: Idle::default(), capacity }
    }

    /// A buffer of `len` bytes, whose content is whatever the last user left. A `len` over the pool's capacity is served,
    /// but not from the pool.
    pub fn take(&self, len: usize) -> Buffer {
        let pooled = len <= self.capacity;
        let wanted = if pooled { self.capacity } else { len };
        let recycled = if pooled { lock(&self.idle).pop() } else { None };
        let memory = recycled.unwrap_or_else(|| vec![0; wanted.saturating_add(ALIGN)]);
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Buffer { memory, start, len, home: pooled.then(|| self.idle.clone()) }
    }
}

/// `len` bytes, the first of them aligned; becomes shareable by [`Buffer::freeze`].
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
    home: Option<Idle>,
}

impl Buffer {
    /// The bytes, shared from now on; the memory returns to its pool after the last share is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Keeps only the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.memory.get(self.start..self.start.saturating_add(self.len)).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start.saturating_add(self.len)).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut idle = lock(&home);
            if idle.len() < KEEP {
                idle.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

fn lock(idle: &Idle) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    // A panic elsewhere leaves this list whole: it only ever holds plain memory.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back() {
        let pool = Pool::new(1 << 16);
        let first = pool.take(1 << 16);
        let address = first.as_ptr() as usize;
        assert_eq!(address % ALIGN, 0);
        let shared = first.freeze();
        let part = shared.slice(100..200);
        drop(shared);
        assert_ne!(pool.take(8).as_ptr() as usize, address, "still in use by a part");
        drop(part);
        assert!((0..3).map(|_| pool.take(8)).collect::<Vec<_>>().iter().any(|b| b.as_ptr() as usize == address));
        assert_eq!(pool.take(1 << 20).len(), 1 << 20);
    }
}
