//! One image, read from its first byte to its last, ahead of who asks.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::input::{Content, Input};
use super::{CHUNK, chunk};
use crate::format::{Data, Pool};
use crate::state::{Class, Fault};

/// Reads under way or waiting to be asked for, for each thread.
const PER_THREAD: usize = 3;

/// The next part of an image.
pub(super) enum Part {
    /// So many bytes that read as zero and were not read.
    Hole(u64),
    /// Bytes, their leaves computed.
    Data(Data),
}

/// Gives an image's parts in order, while other threads read and hash what follows.
pub(super) struct InOrder {
    input: Input,
    /// Everything before this was asked for.
    at: u64,
    asked: VecDeque<Asked>,
    readers: Readers,
}

/// The threads that read. They end when nobody has jobs for them any more.
struct Readers {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

enum Asked {
    Hole(u64),
    Data(Receiver<Result<Data, Fault>>),
}

/// A part to be read, and where the answer goes.
struct Job {
    offset: u64,
    len: usize,
    answer: SyncSender<Result<Data, Fault>>,
}

impl InOrder {
    /// Begins to read, on so many threads.
    pub fn new(input: Input, threads: usize) -> Result<InOrder, Fault> {
        let readers = Readers::start(&input, threads)?;
        Ok(InOrder { input, at: 0, asked: VecDeque::new(), readers })
    }

    /// The image itself.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Gives the image back.
    pub fn into_input(self) -> Input {
        self.input
    }

    /// The next part; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Part>, Fault> {
        self.ask()?;
        match self.asked.pop_front() {
            None => Ok(None),
            Some(Asked::Hole(len)) => Ok(Some(Part::Hole(len))),
            Some(Asked::Data(answer)) => Ok(Some(Part::Data(answer.recv().map_err(|_| died())??))),
        }
    }

    fn ask(&mut self) -> Result<(), Fault> {
        let size = self.input.size();
        while self.asked.len() < self.readers.threads.len() * PER_THREAD && self.at < size {
            let piece = self.input.piece(self.at)?;
            let end = piece.end.min(size);
            let asked = if piece.hole {
                Asked::Hole(end - std::mem::replace(&mut self.at, end))
            } else {
                let (offset, len) = (self.at, chunk(self.at, end));
                let (answer, answered) = sync_channel(1);
                let jobs = self.readers.jobs.as_ref().ok_or_else(died)?;
                jobs.send(Job { offset, len, answer }).map_err(|_| died())?;
                self.at += len as u64;
                Asked::Data(answered)
            };
            self.asked.push_back(asked);
        }
        Ok(())
    }
}

impl Readers {
    fn start(input: &Input, threads: usize) -> Result<Readers, Fault> {
        let (job_in, jobs) = sync_channel(threads * PER_THREAD);
        let (jobs, pool) = (Arc::new(Mutex::new(jobs)), Pool::new(CHUNK));
        let mut readers = Readers { jobs: Some(job_in), threads: Vec::new() };
        for _ in 0..threads {
            let (content, pool, jobs) = (input.content(), pool.clone(), Arc::clone(&jobs));
            let thread = Builder::new().name("image-read".to_owned()).spawn(move || answer(&content, &pool, &jobs));
            readers.threads.push(thread.map_err(|error| Fault::io("starting a thread", &error))?);
        }
        Ok(readers)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has answered nothing, and that was an error.
            let _ = thread.join();
        }
    }
}

/// One thread: reads and hashes until there are no jobs any more.
fn answer(content: &Content, pool: &Pool, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { offset, len, answer }) = job else { return };
        let read = content.read(pool, offset, len);
        if let Ok(data) = &read {
            data.hash();
        }
        // Nobody there any more: then nobody asks.
        let _ = answer.send(read);
    }
}

fn died() -> Fault {
    Fault::new(Class::Io, "a thread that reads the image died")
}
