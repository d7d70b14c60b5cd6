//! Groups of images, and a snapshot of several images at one moment.

use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::claim::Claimed;
use super::cluster::{Pool, owned};
use super::error::{c_string, check, is};
use super::ffi::RawMember;
use super::image::feature;
use super::rest::{Come, Rest};
use crate::state::{Class, Fault};

/// An image of a group.
pub struct Member {
    /// Its pool, with the group's namespace set.
    pub pool: Arc<Pool>,
    /// Its name.
    pub name: String,
    /// All of it, as the `rbd` command writes it.
    pub path: String,
}

/// The images of a group, in an order that is the same for everyone: who locks several has to lock them in the same order.
pub fn members(pool: &Arc<Pool>, namespace: &str, group: &str) -> Result<Vec<Member>, Fault> {
    let (_, calls) = pool.cluster().ceph.writing()?;
    let c_group = c_string(group)?;
    let empty = RawMember { name: ptr::null_mut(), pool: 0, state: 0 };
    let mut room = 64_usize;
    let (mut raw, count) = loop {
        let mut raw = vec![empty.clone(); room];
        // SAFETY: the handle is live; `raw` has room for `room` entries of the size told; where they do not suffice nothing is
        // filled and `room` says how many do.
        let code = unsafe {
            (calls.rbd_group_image_list)(pool.raw, c_group.as_ptr(), raw.as_mut_ptr(), size_of::<RawMember>(), &mut room)
        };
        if !is(code, Errno::RANGE) {
            check(code, "listing the group's images")?;
            break (raw, room);
        }
    };
    let filled = raw.get(..count).unwrap_or_default();
    // SAFETY: the names of filled entries are NUL-terminated and live until the clean-up below.
    let mut named: Vec<(i64, Option<String>)> =
        filled.iter().map(|member| (member.pool, unsafe { owned(member.name) })).collect();
    // SAFETY: exactly the entries that the call above filled, freed once.
    unsafe { (calls.rbd_group_image_list_cleanup)(raw.as_mut_ptr(), size_of::<RawMember>(), count.min(raw.len())) };
    named.sort_unstable();
    named.dedup();
    let cluster = pool.cluster();
    let member = |(id, name): (i64, Option<String>)| {
        let name = name.ok_or_else(|| Fault::new(Class::Unsupported, "an image of the group has a name that is no text"))?;
        let within = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let path = format!("{}/{within}{name}", cluster.pool_name(id)?);
        Ok(Member { pool: Pool::open_by_id(cluster, id, namespace)?, name, path })
    };
    named.into_iter().map(member).collect()
}

/// For how long an image's lock is borrowed anew when its writers take it back before the snapshot has begun.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long after the lock is asked for the snapshot is begun. From none to 5 ms made no difference when it was measured.
const HEAD_START: Duration = Duration::from_millis(1);

/// Takes a snapshot of this name of all these images, as users take them, while nobody writes to any of them. All of them or
/// none. Gives the time for which writers had to wait.
///
/// Each image's exclusive lock is borrowed, and a snapshot is begun that waits for us while the lock stays here
/// ([`super::rest`]). When all of them wait, nobody writes to any image; then all are let go.
///
/// `said` hears of a snapshot that could not be removed again.
pub fn snapshot_together(members: &[Member], name: &str, said: fn(&str, &str)) -> Result<Duration, Fault> {
    // All that can be refused, before anybody is made to wait.
    let open = |member: &Member| {
        let image = Claimed::open(&member.pool, &member.name)?;
        if image.image().features()? & feature::EXCLUSIVE_LOCK == 0 {
            return Err(Fault::new(Class::Unsupported, "the image has no exclusive lock, so that its writers cannot be held")
                .hint(format!("rbd feature enable {} exclusive-lock", member.path)));
        }
        if image.image().snapshots()?.iter().any(|snapshot| snapshot.name.as_bytes() == name.as_bytes()) {
            return Err(Fault::new(Class::Exists, format!("there is a snapshot {name} already")));
        }
        Ok(image)
    };
    let named = |member: &Member, fault: Fault| Fault { what: format!("{}: {}", member.path, fault.what), ..fault };
    let images = members.iter().map(|member| open(member).map_err(|fault| named(member, fault)));
    let images = images.collect::<Result<Vec<Claimed>, _>>()?;
    let rests = images.iter().map(Rest::watch).collect::<Result<Vec<Rest<'_>>, _>>()?;

    let began = Instant::now();
    let (held, taken) = thread::scope(|scope| {
        let mut held = Ok(());
        let mut waiting = Vec::new();
        for ((member, image), rest) in members.iter().zip(&images).zip(&rests) {
            let begin = || drop(scope.spawn(|| rest.snapshot(name)));
            held = hold(image, rest, name, began, begin).map_err(|fault| named(member, fault));
            if held.is_err() {
                break;
            }
            waiting.push((member, image, rest));
        }
        // Only by force could one be lost meanwhile.
        for (member, image, _) in &waiting {
            held = held.and_then(|()| image.has_lock()?.then_some(()).ok_or_else(|| named(member, taken_back())));
        }
        for (_, _, rest) in &waiting {
            rest.answer(held.is_ok());
        }
        let taken: Vec<_> = waiting
            .into_iter()
            .map(|(member, image, rest)| (member, image, rest.end().map_err(|fault| named(member, fault))))
            .collect();
        (held, taken)
    });
    let waited = began.elapsed();
    let failed = held.err().or_else(|| taken.iter().find_map(|(_, _, outcome)| outcome.clone().err()));
    let Some(fault) = failed else { return Ok(waited) };
    for (member, image, _) in taken.iter().filter(|(_, _, outcome)| outcome.is_ok()) {
        if let Err(why) = image.remove_snapshot(&c_string(name)?) {
            said(&format!("{}@{name}", member.path), &format!("this snapshot stays: {why}"));
        }
    }
    Err(fault)
}

/// Begins a snapshot that waits for us while the image's lock is here.
///
/// The lock is asked for, and while its owner makes ready to give it away, the snapshot is begun, which waits for it, too. So
/// between the two nobody comes. Where the snapshot was too early it is the owner's to take, and is called off; and where it was
/// too late a writer may have the lock back, which comes to the same.
fn hold(image: &Claimed, rest: &Rest<'_>, name: &str, began: Instant, begin: impl Fn()) -> Result<(), Fault> {
    while began.elapsed() < PATIENCE {
        let called_off: Option<Result<(), Fault>> = thread::scope(|scope| -> Result<_, Fault> {
            let borrowing = scope.spawn(|| image.borrow_lock());
            let borrowed = || borrowing.join().unwrap_or_else(|_| Err(Fault::new(Class::Io, "borrowing the lock died")));
            thread::sleep(HEAD_START);
            begin();
            let here = match rest.come() {
                Come::Asks => image.has_lock(),
                // By a client that asks nobody; or it failed.
                Come::Ended(outcome) => {
                    let lent = borrowed();
                    if lent.is_err() && outcome.is_ok() {
                        image.remove_snapshot(&c_string(name)?)?;
                    }
                    return lent.and(outcome).map(|()| Some(Ok(())));
                }
            };
            if matches!(here, Ok(true)) {
                // However the other question was answered.
                return Ok(None);
            }
            // Before the lock is waited for: its owner gives it away when this snapshot has ended.
            rest.answer(false);
            let outcome = rest.end();
            here.and(borrowed()).map(|()| Some(outcome))
        })?;
        match called_off {
            None => return Ok(()),
            Some(Ok(())) => image.remove_snapshot(&c_string(name)?)?,
            Some(Err(_)) => {}
        }
    }
    Err(taken_back())
}

fn taken_back() -> Fault {
    Fault::new(Class::Busy, "the image's writers take its exclusive lock back at once")
        .hint("try again at an hour when less is written")
}
