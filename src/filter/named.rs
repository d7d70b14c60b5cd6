//! Says which of several sources failed.

use crate::flow::{Ending, Source};
use crate::format::{Change, Header, Image};
use crate::state::Fault;

/// A source that puts its name before what it complains of.
pub struct Named<S> {
    name: String,
    source: S,
}

impl<S: Source> Named<S> {
    /// Opens a source by this name.
    pub fn open(name: String, open: impl FnOnce() -> Result<S, Fault>) -> Result<Named<S>, Fault> {
        match open() {
            Ok(source) => Ok(Named { name, source }),
            Err(fault) => Err(by(&name, fault)),
        }
    }
}

fn by(name: &str, fault: Fault) -> Fault {
    Fault { what: format!("{name}: {}", fault.what), ..fault }
}

impl<S: Source> Source for Named<S> {
    fn header(&self) -> &Header {
        self.source.header()
    }

    fn object(&self) -> &Image {
        self.source.object()
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        self.source.change().map_err(|fault| by(&self.name, fault))
    }

    fn passed_checkpoint(&mut self) -> bool {
        self.source.passed_checkpoint()
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        self.source.finish().map_err(|fault| by(&self.name, fault))
    }
}
