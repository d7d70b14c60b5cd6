//! Goes on where an unfinished run was cut: what the target is in parts, its sources send in stretches.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::flow::{Ending, Source};
use crate::format::{Change, Header, Id, Image};
use crate::state::{Checkpoint, Class, Content, Fault, RESUME};

/// A range of the image, in bytes, and what the target holds there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// Its first byte.
    start: u64,
    /// The first byte behind it.
    end: u64,
    /// Unknown: every byte is to be sent, zeros, too.
    content: Content,
}

/// What a target at a checkpoint is to be sent to reach an image of `size` bytes, ascending: its parts, with what grew. A grain
/// that lies across the end of a part holds both, so it counts as unknown.
fn stretches(checkpoint: &Checkpoint, size: u64, grain: u32) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut push = |end: u64, content| {
        let start = stretches.last().map_or(0, |last: &Stretch| last.end);
        if start < end.min(size) {
            stretches.push(Stretch { start, end: end.min(size), content });
        }
    };
    for (_, part) in checkpoint.resized(size).parts() {
        let behind = part.end % u64::from(grain.max(1));
        push(part.end - if part.end < size { behind } else { 0 }, part.content);
        if behind > 0 && part.end < size {
            push((part.end - behind).saturating_add(grain.into()), Content::Unknown);
        }
    }
    stretches
}

/// The states of one thing, and how to send from one to another: what [`open`] asks of a source.
pub trait History {
    /// A state to begin from.
    type Base;

    /// The state of this id, if it is still there.
    fn base(&self, id: Id) -> Option<Self::Base>;
    /// Its name.
    fn name(&self, base: &Self::Base) -> String;
    /// Where it lies to the state that is to be sent.
    fn order(&self, base: &Self::Base) -> Ordering;
    /// Of a stream that begins from a state of this id and size in bytes.
    fn begin(&self, from: Id, size: u64) -> Result<(Header, Image), Fault>;
    /// What changed since a state, or all that there is. It should end where the range, in bytes, does; what it says outside
    /// is left out.
    fn between(&self, from: Option<Self::Base>, range: (u64, u64)) -> Result<Box<dyn Source>, Fault>;
}

/// A source and what the user should know of it.
type Noted = (Box<dyn Source>, String);

/// Takes a token, which may come from anybody: it only chooses among the states that there are. Where one of them is gone, the
/// run is begun anew.
pub fn open<H: History + 'static>(history: H, token: &str) -> Result<Noted, Fault> {
    let checkpoint: Checkpoint = token.strip_prefix(RESUME).and_then(|text| text.parse().ok()).ok_or_else(|| {
        Fault::new(Class::Usage, "--from: this is no token of an unfinished run").hint("take it as `common` prints it")
    })?;
    let states: Option<Vec<H::Base>> = checkpoint.states().map(|state| history.base(state)).collect();
    let Some(states) = states else { return anew(&history, &checkpoint) };
    if let Some(newer) = states.iter().find(|base| history.order(base).is_gt()) {
        let what = format!("the unfinished run led to {}, which is newer", history.name(newer));
        return Err(Fault::new(Class::WrongBase, what).hint("an increment leads forward only"));
    }
    let (header, image) = history.begin(checkpoint.id(), checkpoint.size())?;
    let note = format!("going on from where an unfinished run was cut, at byte {}", cut_at(&checkpoint));
    let stretches = stretches(&checkpoint, image.new_size, image.grain);
    let open = move |stretch: &Stretch| {
        let from = match stretch.content {
            Content::Unknown | Content::Zero => None,
            Content::State(state) => match history.base(state) {
                Some(base) if history.order(&base).is_eq() => return Ok(None),
                Some(base) => Some(base),
                None => return Err(Fault::new(Class::Vanished, "a state of the unfinished run is gone")),
            },
        };
        history.between(from, (stretch.start, stretch.end)).map(Some)
    };
    Ok((Box::new(Resumed::new(header, image, stretches, Box::new(open))), note))
}

/// From what the unfinished run began from.
fn anew<H: History>(history: &H, checkpoint: &Checkpoint) -> Result<Noted, Fault> {
    const GONE: &str = "what the unfinished run led to is gone";
    let everything = (0, u64::MAX);
    match checkpoint.from.map(|state| history.base(state)) {
        None => Ok((history.between(None, everything)?, format!("{GONE}: it is begun anew"))),
        Some(Some(base)) => {
            let note = format!("{GONE}: it is begun anew, from {}", history.name(&base));
            Ok((history.between(Some(base), everything)?, note))
        }
        Some(None) => Err(Fault::new(Class::NotFound, format!("{GONE}, and so is what it began from"))
            .hint("--base-manifest sends what differs from what the target holds")),
    }
}

/// Where the first part of the target ends.
fn cut_at(checkpoint: &Checkpoint) -> u64 {
    checkpoint.parts().next().map_or(0, |(_, part)| part.end)
}

/// Opens the source that a stretch takes from; `None`: nothing differs there.
type Open = Box<dyn FnMut(&Stretch) -> Result<Option<Box<dyn Source>>, Fault>>;

/// Several sources, one after the other, each for its stretch.
struct Resumed {
    header: Header,
    image: Image,
    open: Open,
    stretches: VecDeque<Stretch>,
    current: Option<Current>,
    /// Sources that have had their turn. What they relied on must still be there when all was sent.
    finished: Vec<Box<dyn Source>>,
}

struct Current {
    stretch: Stretch,
    source: Box<dyn Source>,
    ended: bool,
    /// Everything before it was spoken of.
    at: u64,
    /// A change whose turn comes after a gap before it.
    held: Option<Change>,
}

impl Resumed {
    /// Sends these stretches under this header.
    fn new(header: Header, image: Image, stretches: Vec<Stretch>, open: Open) -> Resumed {
        Resumed { header, image, open, stretches: stretches.into(), current: None, finished: Vec::new() }
    }
}

impl Current {
    /// The next change of the stretch, cut to it; `None` at its end.
    fn change(&mut self) -> Result<Option<Change>, Fault> {
        loop {
            if let Some(change) = self.held.take() {
                let gap = self.gap_until(change.offset());
                if gap.is_some() {
                    self.held = Some(change);
                    return Ok(gap);
                }
                self.at = change.end();
                return Ok(Some(change));
            }
            if self.ended {
                return Ok(self.gap_until(self.stretch.end));
            }
            match self.source.change()? {
                Some(change) if change.offset() < self.stretch.end => {
                    self.held = cut(change, self.stretch.start, self.stretch.end)
                }
                Some(_) | None => self.ended = true,
            }
        }
    }

    /// Where every byte is to be sent, a gap is zeros.
    fn gap_until(&mut self, end: u64) -> Option<Change> {
        let start = std::mem::replace(&mut self.at, end);
        let say = self.stretch.content == Content::Unknown && start < end;
        say.then(|| Change::Zero { offset: start, len: end - start, may_deallocate: true })
    }
}

/// What of a change lies in a range.
fn cut(change: Change, start: u64, end: u64) -> Option<Change> {
    let (from, until) = (change.offset().max(start), change.end().min(end));
    if from >= until {
        return None;
    }
    Some(match change {
        Change::Data(data) => {
            let within = |offset: u64| usize::try_from(offset - data.offset()).unwrap_or(usize::MAX);
            Change::Data(data.slice(within(from)..within(until)))
        }
        Change::Zero { may_deallocate, .. } => Change::Zero { offset: from, len: until - from, may_deallocate },
    })
}

impl Source for Resumed {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Image {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(change) = current.change()? {
                    return Ok(Some(change));
                }
                self.finished.extend(self.current.take().map(|current| current.source));
            }
            let Some(stretch) = self.stretches.pop_front() else { return Ok(None) };
            if let Some(source) = (self.open)(&stretch)? {
                self.current = Some(Current { stretch, source, ended: false, at: stretch.start, held: None });
            }
        }
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        for source in &mut self.finished {
            source.finish()?;
        }
        Ok(Ending { to: self.header.to, digest: None })
    }
}
