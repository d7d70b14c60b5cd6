//! From where an unfinished run was cut.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Base, Between, Chosen};
use crate::flow::Source;
use crate::format::{Header, Id, Image};
use crate::source::resumed::History;
use crate::state::Fault;

impl History for Arc<Chosen> {
    type Base = Base;

    fn base(&self, id: Id) -> Option<Base> {
        self.of_state(id)
    }

    fn name(&self, base: &Base) -> String {
        base.snapshot.name.to_string_lossy().into_owned()
    }

    fn order(&self, base: &Base) -> Ordering {
        base.snapshot.id.cmp(&self.to.id)
    }

    fn begin(&self, from: Id, size: u64) -> Result<(Header, Image), Fault> {
        Ok((self.header(Some(from), b"unfinished"), Image::new(size, self.to.size)))
    }

    fn between(&self, from: Option<Base>, (start, end): (u64, u64)) -> Result<Box<dyn Source>, Fault> {
        Ok(Box::new(Between::open(self, from, (start, end.min(self.to.size)))?.0))
    }
}
