//! Where things lie that were taken from one path and have not come to another yet.

use std::collections::BTreeSet;

use crate::format::{Digest, Name, TreePath};
use crate::host::tree::Dir;
use crate::state::{Class, Fault};

/// The sink's own directory in the root.
const NAME: &[u8] = b".siphon-taken";

/// Things that were taken, and the plan of what is gone.
///
/// What a run that was broken off has put here, only the very same plan can use. So a thing is called by its number and by where
/// it stood, and all GONE together have a digest.
pub(super) struct Aside {
    dir: Option<Dir>,
    /// What stands for the path of each number.
    paths: Vec<u64>,
    plan: blake3::Hasher,
    is_empty: bool,
}

/// Refuses a path of ours.
pub(super) fn check(path: &TreePath) -> Result<(), Fault> {
    match path.names().first() {
        Some(first) if first.as_bytes() == NAME => {
            Err(Fault::new(Class::Exists, "the stream has an entry .siphon-taken in its root, which is a name of ours"))
        }
        _ => Ok(()),
    }
}

/// What an unfinished run has begun, this stream does not go on with.
pub(super) fn another_way() -> Fault {
    let what = "an unfinished run left the target between two states, and this stream goes another way";
    Fault::new(Class::Unfinished, what).hint("run the same transfer with the same options, or send the whole tree")
}

/// Half of what an id has: two paths of one stream must not meet, and nobody gains by making them.
fn stands_for(path: &[u8]) -> u64 {
    blake3::hash(path).as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

fn name() -> Result<Name, Fault> {
    Name::new(NAME).ok_or_else(|| Fault::new(Class::Io, "a name of ours is none"))
}

impl Aside {
    /// As it lies in the root: after a run that was broken off, or not at all.
    pub fn open(root: &Dir, again: bool) -> Result<Aside, Fault> {
        let (name, new) = (name()?, Aside { dir: None, paths: Vec::new(), plan: blake3::Hasher::new(), is_empty: true });
        match root.look(&name)? {
            None => Ok(new),
            Some(_) if again => Ok(Aside { dir: Some(root.open_to_change(&name)?), ..new }),
            Some(_) => Err(Fault::new(Class::Exists, "something in the target is called .siphon-taken, which is a name of ours")
                .hint("what an unfinished run left there a whole stream removes; anything else please rename")),
        }
    }

    /// This is gone, by the stream.
    pub fn say(&mut self, path: &TreePath, number: Option<u64>) {
        let joined = path.joined();
        self.is_empty = false;
        self.plan.update(&number.unwrap_or(0).to_le_bytes());
        self.plan.update(&(joined.len() as u64).to_le_bytes());
        self.plan.update(&joined);
        if number.is_some() {
            self.paths.push(stands_for(&joined));
        }
    }

    /// What was said to be gone, in whole.
    pub fn plan(&self) -> Digest {
        Digest(*self.plan.finalize().as_bytes())
    }

    /// Nothing was said to be gone.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// The directory, which is made where there is none.
    pub fn make(&mut self, root: &Dir) -> Result<&Dir, Fault> {
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => root.make_dir(&name()?)?,
        };
        Ok(self.dir.insert(dir))
    }

    /// Makes the names here durable.
    pub fn sync(&self) -> Result<(), Fault> {
        self.dir.as_ref().map_or(Ok(()), Dir::sync)
    }

    /// What the thing of this number is called here.
    pub fn called(&self, number: u64) -> Result<Name, Fault> {
        let at = number.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let path = at.and_then(|at| self.paths.get(at));
        path.and_then(|path| Name::new(format!("{number}-{path:016x}").as_bytes()))
            .ok_or_else(|| Fault::new(Class::Io, format!("nothing was taken as number {number}")))
    }

    /// The thing of this number lies here.
    pub fn holds(&self, number: u64) -> Result<bool, Fault> {
        let Some(dir) = &self.dir else { return Ok(false) };
        Ok(dir.look(&self.called(number)?)?.is_some())
    }

    /// All that is gone was said: refuses what lies here and was not said. Another plan took it, which this one does not bring
    /// back.
    pub fn check_all(&mut self) -> Result<(), Fault> {
        let said: BTreeSet<Name> = (1..=self.paths.len() as u64).map(|number| self.called(number)).collect::<Result<_, _>>()?;
        let found = self.dir.as_mut().map_or(Ok(Vec::new()), Dir::names)?;
        if found.iter().all(|name| said.contains(name)) { Ok(()) } else { Err(another_way()) }
    }

    /// Everything has come back.
    pub fn remove(&mut self, root: &Dir) -> Result<(), Fault> {
        let Some(mut dir) = self.dir.take() else { return Ok(()) };
        if !dir.is_empty()? {
            let what = "something lies in .siphon-taken that this stream has not put there";
            return Err(Fault::new(Class::Foreign, what).hint("send the whole tree with --replace"));
        }
        root.remove_dir(&name()?)
    }
}
