//! Names of directories that were listed, for a second walk over a tree that does not change.

use std::collections::HashMap;

use crate::format::{Name, TreePath};

/// So many names are kept, at most. Of two trees that is less than the 16,384 entries that ceph-fuse remembers if not told
/// otherwise: where there are more, listing again is cheaper than a question for each entry that it has forgotten.
const ROOM: usize = 6 << 10;

/// Each is kept until it is asked for. A client of CephFS asks the MDS for a directory that it lists, and once more for each one
/// in it when it lists it again.
#[derive(Default)]
pub(super) struct Listings {
    names: HashMap<TreePath, Vec<Name>>,
    /// Names that came in.
    count: usize,
}

impl Listings {
    pub fn keep(&mut self, path: &TreePath, names: &[Name]) {
        self.count = self.count.saturating_add(names.len()).saturating_add(1);
        if self.count > ROOM {
            self.names.clear();
        } else {
            self.names.insert(path.clone(), names.to_vec());
        }
    }

    pub fn take(&mut self, path: &TreePath) -> Option<Vec<Name>> {
        self.names.remove(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_until_they_are_too_many() {
        let names: Vec<Name> = (0..100).map(|n: u32| Name::new(n.to_string().as_bytes()).unwrap()).collect();
        let path = |n: usize| TreePath::ROOT.join(Name::new(n.to_string().as_bytes()).unwrap()).unwrap();
        let mut listings = Listings::default();
        for n in 0..ROOM / 101 {
            listings.keep(&path(n), &names);
        }
        assert_eq!(listings.take(&path(1)).as_ref(), Some(&names));
        assert_eq!(listings.take(&path(1)), None);
        assert!(listings.take(&path(2)).is_some());
        listings.keep(&path(ROOM), &names);
        assert_eq!((listings.take(&path(3)), listings.take(&path(ROOM))), (None, None), "all are to be listed again");
    }
}
