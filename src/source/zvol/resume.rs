//! From where an unfinished run was cut.

use std::cmp::Ordering;

use super::{Base, Between, base, described, itself, known};
use crate::flow::Source;
use crate::format::{Header, Id, Image, Names};
use crate::host::zfs::{Dataset, Snapshot};
use crate::source::resumed::History;
use crate::state::Fault;

/// A snapshot to be sent.
pub(super) struct Chosen {
    pub dataset: Dataset,
    pub to: Snapshot,
}

impl History for Chosen {
    type Base = Base;

    fn base(&self, id: Id) -> Option<Base> {
        let names = self.dataset.snapshots.iter().rev().filter_map(|snapshot| {
            if known(&self.dataset, snapshot).is_ok_and(|known| known.state == id) {
                return Some(snapshot.name.clone());
            }
            itself(&self.dataset, snapshot).is_ok_and(|known| known.state == id).then(|| format!("@{}", snapshot.name))
        });
        names.into_iter().next().and_then(|name| base(&self.dataset, &name).ok())
    }

    fn name(&self, base: &Base) -> String {
        base.name.clone()
    }

    fn order(&self, base: &Base) -> Ordering {
        base.createtxg.cmp(&self.to.createtxg)
    }

    fn begin(&self, from: Id, size: u64) -> Result<(Header, Image), Fault> {
        let to = known(&self.dataset, &self.to)?;
        let names = Names {
            source: self.dataset.name.as_bytes().to_vec(),
            from: b"unfinished".to_vec(),
            to: self.to.name.as_bytes().to_vec(),
        };
        Ok((Header::new(to.source, Some(from), Some(to.state), names), described(&self.dataset, size, to.size)))
    }

    fn between(&self, from: Option<Base>, (_, end): (u64, u64)) -> Result<Box<dyn Source>, Fault> {
        Ok(Box::new(Between::open(&self.dataset, &self.to, from, end)?))
    }
}
