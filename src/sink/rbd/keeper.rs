//! The half of the sink that holds the image: claims it, finds out what it is in, commits.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Options, evidence};
use crate::format::{Digest, Id};
use crate::host::ceph::marks::{self, Marked, Marks, PENDING, RECEIVING};
use crate::host::ceph::{Claimed, Cluster, Creation, Found, Image, Pool, find};
use crate::sink::{Durable, Reached, Request};
use crate::state::{
    Act, Checkpoint, Class, Fault, Head, Held, Mark, NextStream, Pause, Plan, Run, Standing, Unfinished, choose_name, decide,
    escape,
};

/// How long a run of ours that died is still seen as a client of the image (`osd_client_watch_timeout` is 30 s).
const DEAD_CLIENT: Duration = Duration::from_secs(45);
/// The longest name that a mark is given.
const LIMIT_NAME: usize = 255;

/// The image under our claim.
pub struct Keeper {
    request: Request,
    target: Arc<Claimed>,
    plan: Plan,
    /// What the image is before the first change, if a run that is cut can go on.
    beginning: Option<Checkpoint>,
}

/// What the image is in, by its records alone.
pub fn standing(options: &Options) -> Result<Standing, Fault> {
    let (pool, known) = look(options, Pool::open)?;
    let Some(image) = known else { return Ok(absent()) };
    let marks = Marks::load(&image)?;
    // Whoever offers one of the image's own snapshots can begin from it.
    let own = marks.own(&pool, &options.spec.namespace)?.into_iter().map(|own| {
        let received = marks.mark(&own.snapshot).map(|marked| marked.mark.ids()).unwrap_or_default();
        Held { ids: received.into_iter().chain([own.mark.state]).collect(), name: own.name() }
    });
    Ok(Standing { marks: own.collect(), ..recorded(&image, &marks)? })
}

/// What would be done.
pub fn would(options: &Options, request: &Request) -> Result<Plan, Fault> {
    let (pool, known) = look(options, Pool::open)?;
    let Some(image) = known else { return decide(&absent(), request.next, options.overrides) };
    let marks = Marks::load(&image)?.with_base(&pool, &options.spec.namespace, request.next)?;
    let image = Arc::new(image);
    let standing = proved(&image, &pool, &marks)?;
    let plan = decide(&standing, request.next, options.overrides)?;
    check_base(&marks, &plan, request)?;
    Ok(plan)
}

impl Keeper {
    /// Finds out what the image is in, decides, and prepares it: nothing is touched before the decision.
    pub fn prepare(options: &Options, request: Request) -> Result<Keeper, Fault> {
        let (pool, known) = look(options, Pool::open_to_write)?;
        let name = &options.spec.image;
        let with_base = |image: &Image| Marks::load(image)?.with_base(&pool, &options.spec.namespace, request.next);
        // What can be refused without opening the image for writing is refused before.
        let (early, is_under_way) = match &known {
            Some(image) => {
                let marks = with_base(image)?;
                (recorded(image, &marks)?, marks.is_under_way())
            }
            None => (absent(), false),
        };
        if let Err(refusal) = decide(&early, request.next, options.overrides) {
            // Only a refusal is worth the closer look here: somebody may have written since, and that is what has to be said.
            return Err(would(options, &request).err().unwrap_or(refusal));
        }
        if known.is_none() {
            create(options, &pool, request.new_size)?;
        }
        drop(known);
        let target = Arc::new(Claimed::open(&pool, name)?);
        wait_until_alone(&target, is_under_way, options)?;
        for marked in Marks::load(target.image())?.all().iter().filter(|marked| marked.is_pending) {
            target.mend(&pool, name, marked.snapshot.id)?;
        }
        target.lock()?;
        // Under the claim: look again, and closer.
        let marks = with_base(target.image())?;
        let standing = proved(target.image(), &pool, &marks)?;
        let plan = decide(&standing, request.next, options.overrides)?;
        check_base(&marks, &plan, &request)?;
        let beginning = Some(request.beginning(&standing));
        settle(&target)?;
        let marks = with_base(target.image())?;
        let keeper = Keeper { request, target, plan, beginning };
        keeper.begin(options, &pool, &marks)?;
        Ok(keeper)
    }

    /// The open image.
    pub fn target(&self) -> Arc<Claimed> {
        Arc::clone(&self.target)
    }

    /// Nothing is to be written.
    pub fn only_reads(&self) -> bool {
        self.plan.act == Act::Already
    }

    fn begin(&self, options: &Options, pool: &Arc<Pool>, marks: &Marks) -> Result<(), Fault> {
        if let Some(held) = &self.plan.roll_back {
            self.roll_back(held, options, pool, marks)?;
        }
        if self.only_reads() {
            return Ok(());
        }
        let NextStream { stream, from, to } = self.request.next;
        let newest_mark = Marks::load(self.target.image())?.all().last().map(|marked| marked.snapshot.id);
        let run = Run { home: marks.image_id.clone(), newest_mark, stream, from, to, check: None };
        // By itself and first: whatever is done to the image from here on is on record.
        self.target.set(RECEIVING, &run.to_text())?;
        // What cannot be removed costs space and nothing else: each says itself what it holds.
        let _ = self.forget_pauses(self.plan.roll_back.as_ref().map(|held| held.name.as_str()));
        if self.plan.act == Act::Clear {
            // Frees every object; and nothing of a parent shows any more, so that letting go of it copies nothing.
            self.target.resize(0)?;
            self.target.flatten()?;
        }
        match self.target.image().size()? {
            size if size == self.request.new_size => Ok(()),
            _ => self.target.resize(self.request.new_size),
        }
    }

    fn roll_back(&self, held: &Held, options: &Options, pool: &Arc<Pool>, marks: &Marks) -> Result<(), Fault> {
        if let Some((snapshot, _)) = marks.resumable().filter(|(_, resumable)| resumable.held == *held) {
            options.note("going on from where an unfinished run was cut");
            return evidence::go_back(&self.target, pool, &snapshot);
        }
        let states = marks.states();
        // By its id: it may just have got its name.
        let at = states.iter().rposition(|marked| held.is(Some(marked.mark.state)));
        let (base, newer) = at
            .and_then(|at| states.get(at..)?.split_first())
            .ok_or_else(|| Fault::new(Class::Vanished, format!("the mark {} is gone", held.name)))?;
        let lost: Vec<String> = newer.iter().map(Marked::name).collect();
        let given_up = match lost.as_slice() {
            [] if marks.unfinished().is_some() => "an unfinished run".to_owned(),
            [] => "what was written since".to_owned(),
            lost => lost.join(", "),
        };
        options.note(&format!("going back to {}: giving up {given_up}", base.name()));
        // Bound to the newest mark: broken off from here on, the next run brings the head back to that.
        let (stream, from) = (self.request.next.stream, Some(base.mark.state));
        let newest_mark = marks.all().last().map(|marked| marked.snapshot.id);
        let run = Run { home: marks.image_id.clone(), newest_mark, stream, from, to: None, check: None };
        self.target.set(RECEIVING, &run.to_text())?;
        evidence::go_back(&self.target, pool, &base.snapshot)?;
        // The newest one last: until then the record is bound to it.
        for marked in newer {
            // By what it is called now: names can have changed hands since.
            let now = self.target.image().snapshots()?.into_iter().find(|snapshot| snapshot.id == marked.snapshot.id);
            now.map_or(Ok(()), |now| self.target.remove_snapshot(&now.name))?;
            self.target.unset(&marks::key(marked.snapshot.id))?;
        }
        match self.only_reads() {
            true => self.target.unset(RECEIVING),
            false => Ok(()),
        }
    }

    /// Takes the snapshot that another run can go on from, in place of the last one; whether there is one now. Where it cannot
    /// be done, or undone, this run goes on without.
    pub fn pause(&mut self, options: &Options, _: Durable, reached: &Reached) -> bool {
        let begin = self.beginning.as_ref();
        let Some(checkpoint) = begin.and_then(|begin| reached.cut().checkpoint(begin, self.request.next.to)) else {
            return false;
        };
        let paused = self.take_pause(checkpoint);
        if let Err(fault) = &paused {
            self.beginning = None;
            options.note(&format!("no checkpoint is kept: {}", fault.what));
        }
        paused.is_ok()
    }

    fn take_pause(&self, checkpoint: Checkpoint) -> Result<(), Fault> {
        let (name, key) = marks::pause_names(&checkpoint);
        let home = self.target.image().id()?;
        self.target.set(&key, &Pause { home, checkpoint }.to_text())?;
        match self.target.create_snapshot(&name) {
            // Nothing was done since it was taken.
            Err(fault) if fault.class == Class::Exists => Ok(()),
            Err(fault) => Err(fault),
            Ok(()) => self.forget_pauses(Some(&name)),
        }
    }

    /// Removes what unfinished runs left to go on from, but for the snapshot of this name.
    fn forget_pauses(&self, but: Option<&str>) -> Result<(), Fault> {
        for (snapshot, checkpoint) in Marks::load(self.target.image())?.pauses() {
            if but.map(str::as_bytes) != Some(snapshot.name.as_bytes()) {
                self.target.remove_snapshot(&snapshot.name)?;
                self.target.unset(&marks::pause_names(&checkpoint).1)?;
            }
        }
        Ok(())
    }

    /// Refuses a stream that could not be refused before its end.
    pub fn check_end(&self, to: Option<Id>) -> Result<(), Fault> {
        self.plan.check_end(to)
    }

    /// Takes the snapshot that is the commit of what was written. `None`: the stream led to no state. The digest is that of the
    /// stream, the root that of the image as it was read back, if it was.
    pub fn commit(self, _: Durable, to: Option<Id>, digest: Digest, root: Option<Digest>) -> Result<Option<Marked>, Fault> {
        self.plan.check_end(to)?;
        let target = &self.target;
        let newest = |marks: Marks| marks.all().pop();
        if self.only_reads() {
            return settle(target).map(newest);
        }
        let Some(state) = to else {
            target.unset(RECEIVING)?;
            return Ok(None);
        };
        let marks = Marks::load(target.image())?;
        let Request { source, to_name, new_size: size, .. } = &self.request;
        let name = free_name(&marks, &snapshot_name(to_name), state);
        let (home, source, size, aliases) = (marks.image_id, *source, *size, Vec::new());
        let mark = Mark { home, source, state, aliases, size, digest, root, unset: false, name };
        // The lock does not keep that out: librbd asks its owner, us, to do it, and does not ask us.
        let is = target.image().size()?;
        if is != size {
            let what = format!("somebody resized the image while it was written, to {is} bytes");
            return Err(Fault::new(Class::Changed, what).hint("send it again"));
        }
        target.set(PENDING, &mark.to_text())?;
        target.create_snapshot(&marks::pending_name(state))?;
        // This ends the record of the run, too: a newer mark than the one that it is bound to is there.
        let committed = newest(settle(target)?).filter(|marked| marked.mark == mark);
        // It is committed, whatever becomes of these.
        let _ = self.forget_pauses(None);
        committed.map(Some).ok_or_else(|| Fault::new(Class::Io, "the snapshot is not there, or not as it was made"))
    }
}

/// How a pool is opened: to read or to write.
type Opening = fn(&Arc<Cluster>, &str, &str) -> Result<Arc<Pool>, Fault>;

fn look(options: &Options, open: Opening) -> Result<(Arc<Pool>, Option<Image>), Fault> {
    let cluster = Cluster::connect(&options.access)?;
    let pool = open(&cluster, &options.spec.pool, &options.spec.namespace)?;
    let image = find(&pool, &options.spec)?;
    Ok((pool, image))
}

fn create(options: &Options, pool: &Pool, size: u64) -> Result<(), Fault> {
    let like = options.like.as_ref().map(|like| Found::open(&options.access, like)).transpose()?;
    let like = like.map(|(_, image)| Creation::like(&image)).transpose()?.unwrap_or_default();
    let asked = &options.creation;
    let creation = Creation {
        features: asked.features.or(like.features),
        object_size: asked.object_size.or(like.object_size),
        // A stripe of another image's makes no sense in objects of another size.
        striping: if asked.object_size.is_none() { like.striping } else { None },
        data_pool: asked.data_pool.clone().or(like.data_pool),
    };
    let created = creation.create(pool, &options.spec.image, size);
    created.map_err(|fault| if fault.class == Class::Exists { just_created() } else { fault })
}

fn just_created() -> Fault {
    Fault::new(Class::Busy, "another run has just created the image").hint("try again when it has ended")
}

/// Sees to it that nobody else has the image open, or refuses.
fn wait_until_alone(target: &Claimed, is_under_way: bool, options: &Options) -> Result<(), Fault> {
    let begin = Instant::now();
    let mut others = target.others()?;
    if !others.is_empty() && is_under_way {
        options.note("waiting for the client of an unfinished run to be gone");
    }
    while !others.is_empty() && is_under_way && begin.elapsed() < DEAD_CLIENT {
        sleep(Duration::from_millis(500));
        others = target.others()?;
    }
    if !others.is_empty() {
        let who = others.join(", ");
        return Err(match is_under_way {
            true => Fault::new(Class::Busy, format!("another run has the image open: {who}")).hint("try again when it has ended"),
            false => Fault::new(Class::Claimed, format!("the image is in use: {who}"))
                .hint("stop the guest, unmap the device, or wait for the other run: `rbd status` shows who it is"),
        });
    }
    Ok(())
}

/// Binds and names what an earlier run, or this one, has committed; and says what the image's records are then. May be
/// broken off anywhere and done again.
fn settle(target: &Claimed) -> Result<Marks, Fault> {
    let marks = Marks::load(target.image())?;
    let mut changed = false;
    for marked in marks.all().iter().filter(|marked| marked.is_pending) {
        target.set(&marks::key(marked.snapshot.id), &marked.mark.to_text())?;
        target.rename_snapshot(&marked.snapshot.name, &free_name(&marks, &marked.mark.name, marked.mark.state))?;
        target.unset(PENDING)?;
        changed = true;
    }
    // What says nothing today might fit again one day: a run's record, if the marks above the one it is bound to go.
    for key in marks.stale_keys() {
        target.unset(&key)?;
        changed = true;
    }
    if changed { Marks::load(target.image()) } else { Ok(marks) }
}

fn absent() -> Standing {
    Standing { head: Head::Absent, marks: Vec::new(), above: Vec::new(), way_back: true, checkpoint: None }
}

/// By the records alone. Snapshots of others never stand in the way: going back leaves them as they are.
fn recorded(image: &Image, marks: &Marks) -> Result<Standing, Fault> {
    let states = marks.states();
    let head = match marks.unfinished() {
        Some(Run { stream, from, to, .. }) => Head::Receiving(Unfinished { stream, from, to }),
        None if !states.is_empty() => Head::AtMark,
        None if evidence::is_blank(image)? => Head::Blank,
        None => Head::Foreign,
    };
    let checkpoint = marks.resumable().map(|(_, resumable)| resumable);
    Ok(Standing { head, marks: states.iter().map(Marked::held).collect(), checkpoint, ..absent() })
}

/// With the head compared to the newest mark.
fn proved(image: &Arc<Image>, pool: &Arc<Pool>, marks: &Marks) -> Result<Standing, Fault> {
    let mut standing = recorded(image, marks)?;
    if let (Head::AtMark, Some(newest)) = (&standing.head, marks.states().last())
        && evidence::written_since(image, pool, &newest.snapshot)?
    {
        standing.head = Head::WrittenSince;
    }
    Ok(standing)
}

/// The mark that the stream is applied to has the size that the stream says.
fn check_base(marks: &Marks, plan: &Plan, request: &Request) -> Result<(), Fault> {
    let states = marks.states();
    let base = match &plan.roll_back {
        Some(held) => states.iter().find(|marked| marked.name() == held.name),
        None => states.last(),
    };
    let resumed = marks.resumable().filter(|(_, resumable)| plan.roll_back.as_ref() == Some(&resumable.held));
    let size = resumed.map(|(_, resumable)| resumable.checkpoint.size()).or(base.map(|base| base.mark.size));
    match size {
        Some(size) if plan.act == Act::Apply && size != request.old_size => Err(Fault::new(
            Class::WrongBase,
            format!("the stream says its base has {} bytes; the target says {size}", request.old_size),
        )),
        Some(_) | None => Ok(()),
    }
}

/// A source's name as the name of an RBD snapshot, which holds neither `@` nor `/`.
fn snapshot_name(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.contains(['@', '/']) && !text.chars().any(char::is_control) => text.to_owned(),
        _ => escape(name).replace('@', "%40").replace('/', "%2F"),
    }
}

fn free_name(marks: &Marks, plain: &str, state: Id) -> String {
    choose_name(plain, state, |name| {
        !name.is_empty()
            && !name.starts_with("siphon-pending-")
            && name.len() <= LIMIT_NAME
            && marks.snapshots.iter().all(|snapshot| snapshot.name.as_bytes() != name.as_bytes())
    })
}
