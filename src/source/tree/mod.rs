//! A directory tree: whole, or what differs from another one.
//!
//! Whole, it is one [`walk`]. Since another tree, names come first: which thing is which ([`pairing`], [`things`]), and what is
//! therefore gone, taken or linked ([`plan`]). Then one walk over both says it, and compares all content on its way.

mod census;
mod content;
mod dataset;
mod filled;
mod list;
mod listings;
mod loose;
mod names;
mod pairing;
mod plan;
mod seen;
mod side;
mod since;
mod things;
mod told;
mod walk;

use std::path::Path;
use std::time::{Duration, Instant};

pub(super) use self::census::Census;
pub use self::dataset::{DatasetTree, DatasetWish};
pub use self::filled::FilledList;
pub(super) use self::list::{Doubt, Looked, TreeList};
pub(super) use self::pairing::Skip;
use self::plan::Plan;
use self::seen::Identity;
pub use self::seen::TreeIdentity;
use self::side::Side;
use self::since::{Compared, Since};
use self::walk::Walk;
use crate::flow::{Ending, Source};
use crate::format::{Header, Id, Names, Tree, TreeChange};
use crate::host::limits;
use crate::state::{Class, Fault, State, tree_source, tree_state};

/// What may be taken for granted.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// The tree may change while it is read: what comes out has no to-state.
    pub live: bool,
    /// Files of the same inode, size and times in two snapshots of one file system have the same content. What comes out has
    /// no to-state.
    pub trust_times: bool,
    /// Leave out what is mounted in the tree; else it is refused.
    pub one_file_system: bool,
    /// Which thing is which.
    pub identity: TreeIdentity,
}

/// A tree, and perhaps another one that it is compared with.
pub struct TreeFiles {
    header: Header,
    tree: Tree,
    walk: Walk,
}

impl TreeFiles {
    /// The whole tree.
    pub fn whole(path: &Path, options: &TreeOptions) -> Result<TreeFiles, Fault> {
        limits::many_open_files();
        let side = Side::open(path, options.live, options.one_file_system)?;
        let names = Names { source: name(path), from: Vec::new(), to: name(path) };
        TreeFiles::new(None, names, Walk::new(side, None, !options.live))
    }

    /// What differs from the tree at `base`, which is read to its end first, to learn its state; `slow` is called when that
    /// takes more than a second.
    pub fn since(base: &Path, path: &Path, options: TreeOptions, slow: impl FnOnce()) -> Result<TreeFiles, Fault> {
        let TreeOptions { live, trust_times, one_file_system, identity } = options;
        limits::many_open_files();
        let side = Side::open(path, live, one_file_system)?;
        // Its state is what the increment begins from: a base that changes cannot have one.
        let old = Side::open(base, false, one_file_system)?;
        let identity = Identity::new(identity, &old.root()?.meta, &side.root()?.meta);
        let mut walk = Walk::new(old, None, true);
        walk.census = Some(Census::default());
        let (from, walked) = state(walk, slow)?;
        let census = walked.census;
        let old = walked.into_side();
        let plan = Plan::new(&old, &side, &identity, &mut ())?;
        let names = Names { source: name(path), from: name(base), to: name(path) };
        let content = if trust_times { Compared::BytesUnlessAsOld(None) } else { Compared::Bytes };
        let since = Since { side: old, identity, plan, content, census };
        TreeFiles::new(Some(from), names, Walk::new(side, Some(since), !live && !trust_times))
    }

    /// The one state that this tree can be sent in, after reading all of it.
    pub fn state(path: &Path, options: &TreeOptions) -> Result<State, Fault> {
        limits::many_open_files();
        let (id, walked) = state(Walk::new(Side::open(path, false, options.one_file_system)?, None, true), || {})?;
        Ok(State { id, seconds: walked.seen.newest, bytes: walked.seen.bytes, name: name(path) })
    }

    fn new(from: Option<Id>, names: Names, mut walk: Walk) -> Result<TreeFiles, Fault> {
        walk.census = walk.may_change()?.then(Census::default);
        let mut header = Header::new(tree_source(), from, None, names);
        Tree::mark(&mut header);
        Ok(TreeFiles { header, tree: Tree::new(), walk })
    }
}

impl Source<Tree> for TreeFiles {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Tree {
        &self.tree
    }

    fn change(&mut self) -> Result<Option<TreeChange>, Fault> {
        self.walk.change()
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        let root = self.walk.finish()?;
        self.walk.stayed()?;
        Ok(Ending { to: root.map(|root| tree_state(root.finish())), digest: None })
    }
}

/// Walks to the end, and gives the state that was found.
fn state(mut walk: Walk, slow: impl FnOnce()) -> Result<(Id, Walk), Fault> {
    const SLOW: Duration = Duration::from_secs(1);
    let (begun, mut slow) = (Instant::now(), Some(slow));
    while walk.change()?.is_some() {
        if begun.elapsed() > SLOW
            && let Some(slow) = slow.take()
        {
            slow();
        }
    }
    let root = walk.finish()?.ok_or_else(|| Fault::new(Class::Io, "a tree was read without its root"))?;
    Ok((tree_state(root.finish()), walk))
}

/// The last part of a path: where a tree lies is nobody's business.
fn name(path: &Path) -> Vec<u8> {
    path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default()
}
