//! The two halves of a sink in two processes: plain questions and answers between them.
//!
//! The keeping process answers: it has not read a byte of the stream, and takes every question for hostile. At worst it
//! commits, as the state that it is told, what the writing process wrote to the device that it was given.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Cut, Keep};
use crate::flow::{Carried, Ending};
use crate::format::wire::{LIMIT_IMAGE, LIMIT_NAME};
use crate::format::{Header, Image, Totals};
use crate::host::channel::Channel;
use crate::host::device::{Device, Opened};
use crate::host::worker::Worker;
use crate::state::{Class, Fault};

/// Ranges that are told together.
const LIMIT_TOUCHED: usize = 1024;

/// What the writing half says. All but `Touched` and `Failed` wait for an answer.
#[derive(Serialize, Deserialize)]
enum Question {
    Begin(Header, Image),
    Touched(Vec<(u64, u64)>),
    Checkpoint(Cut),
    GiveUp(Cut),
    Explain(Fault),
    Commit(Ending, Totals),
    /// The run has ended with this. The last one.
    Failed(Fault),
}

/// The keeping half, as the writing process sees it.
#[derive(Clone)]
pub struct Remote(Rc<RefCell<Asking>>);

struct Asking {
    channel: Channel,
    /// Not told yet.
    touched: Vec<(u64, u64)>,
}

impl Remote {
    /// The other end of this channel.
    pub fn new(channel: Channel) -> Remote {
        Remote(Rc::new(RefCell::new(Asking { channel, touched: Vec::new() })))
    }

    /// Tells what the run has ended with. Whoever kept the target reports it.
    pub fn failed(&self, fault: Fault) -> Result<(), Fault> {
        self.0.borrow().channel.send(&Question::Failed(fault), None)
    }
}

impl Asking {
    fn ask<A: DeserializeOwned>(&mut self, question: &Question) -> Result<A, Fault> {
        self.tell_touched()?;
        self.channel.send(question, None)?;
        self.answer().map(|(answer, _)| answer)
    }

    fn answer<A: DeserializeOwned>(&self) -> Result<(A, Option<OwnedFd>), Fault> {
        let (answer, fd) = self.channel.receive::<Result<A, Fault>>()?.ok_or_else(gone)?;
        Ok((answer?, fd))
    }

    fn tell_touched(&mut self) -> Result<(), Fault> {
        if self.touched.is_empty() {
            return Ok(());
        }
        self.channel.send(&Question::Touched(std::mem::take(&mut self.touched)), None)
    }
}

impl Keep for Remote {
    /// What was done is reported by the other half.
    type Done = ();

    fn begin(&mut self, header: &Header, image: &Image) -> Result<Option<Arc<Device>>, Fault> {
        let asking = self.0.borrow();
        asking.channel.send(&Question::Begin(header.clone(), *image), None)?;
        let (opened, fd) = asking.answer::<Option<Opened>>()?;
        Ok(opened.zip(fd).map(|(opened, fd)| Arc::new(Device::received(fd, opened))))
    }

    fn touched(&mut self, offset: u64, end: u64) {
        let mut asking = self.0.borrow_mut();
        match asking.touched.last_mut() {
            Some(last) if last.1 == offset => last.1 = end,
            _ => asking.touched.push((offset, end)),
        }
        if asking.touched.len() >= LIMIT_TOUCHED {
            // Where it cannot be told, nothing else can, and the next question says so.
            let _ = asking.tell_touched();
        }
    }

    fn checkpoint(&mut self, cut: Cut) -> Result<(), Fault> {
        self.0.borrow_mut().ask(&Question::Checkpoint(cut))
    }

    fn give_up(&mut self, cut: Cut) {
        // The run has failed already, and says why.
        let _ = self.0.borrow_mut().ask::<()>(&Question::GiveUp(cut));
    }

    fn explain(&mut self, failed: Fault) -> Fault {
        self.0.borrow_mut().ask(&Question::Explain(failed.clone())).unwrap_or(failed)
    }

    fn commit(self, carried: Carried) -> Result<(), Fault> {
        self.0.borrow_mut().ask(&Question::Commit(carried.ending, carried.totals))
    }
}

/// Answers the writing process until the run has ended, and ends as it did.
pub fn answer<K: Keep>(mut worker: Worker, mut keeper: K) -> Result<K::Done, Fault> {
    let mut beginning = None;
    loop {
        let Some((question, _)) = worker.channel().receive()? else { return Err(worker.vanished()) };
        let answered = match question {
            Question::Begin(header, image) if beginning.is_none() => {
                let begun = sound(&header, &image).and_then(|()| keeper.begin(&header, &image));
                beginning = Some((header, image));
                let (opened, device) = match begun {
                    Ok(Some(device)) => (Ok(Some(device.opened())), Some(device)),
                    Ok(None) => (Ok(None), None),
                    Err(fault) => (Err(fault), None),
                };
                worker.channel().send(&opened, device.as_ref().map(|device| device.file().as_fd()))
            }
            Question::Touched(ranges) => {
                ranges.into_iter().for_each(|(offset, end)| keeper.touched(offset, end));
                Ok(())
            }
            Question::Checkpoint(cut) => worker.channel().send(&keeper.checkpoint(cut), None),
            Question::GiveUp(cut) => {
                keeper.give_up(cut);
                worker.channel().send(&Ok::<(), Fault>(()), None)
            }
            Question::Explain(fault) => worker.channel().send(&Ok::<Fault, Fault>(keeper.explain(fault)), None),
            Question::Commit(ending, totals) => {
                let (header, image) = beginning.ok_or_else(out_of_turn)?;
                let done = keeper.commit(Carried { header, object: image, ending, totals });
                // It is committed, or refused, whether that is heard or not.
                let _ = worker.channel().send(&done.as_ref().map(|_| ()).map_err(Clone::clone), None);
                worker.wait();
                return done;
            }
            Question::Failed(fault) => {
                drop(keeper);
                worker.wait();
                return Err(fault);
            }
            Question::Begin(..) => return Err(out_of_turn()),
        };
        // Who does not hear the answer is gone, and that is found out at the next question.
        let _ = answered;
    }
}

/// What the reader of a stream has checked. Here it is checked that it has.
fn sound(header: &Header, image: &Image) -> Result<(), Fault> {
    let names = [&header.names.source, &header.names.from, &header.names.to];
    let sizes = image.old_size.max(image.new_size) <= LIMIT_IMAGE && !(header.is_whole() && image.old_size > 0);
    match sizes && header.features.is_empty() && names.iter().all(|name| name.len() <= LIMIT_NAME) {
        true => Ok(()),
        false => Err(out_of_turn()),
    }
}

fn out_of_turn() -> Fault {
    Fault::new(Class::Io, "the process that reads the stream asks what it should not: it was taken over, or there is a bug in it")
}

fn gone() -> Fault {
    Fault::new(Class::Io, "the process that keeps the target is gone")
}
