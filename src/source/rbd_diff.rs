//! A file of `rbd export-diff`, or one diff of an `rbd export --export-format 2`.

use std::io::Read;

use crate::flow::{Ending, Source};
use crate::foreign::rbd_diff::{Error, Record, Records, Version, open_container};
use crate::format::{Change, Data, Header, Id, Image, Names, wire};
use crate::state::{Class, Fault, State, StateList, escape};

/// Ranges of such a file may begin and end at any byte.
const GRAIN: u32 = 1;

/// What such a file does not say: it has names of snapshots, and no ids.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The image that the snapshots are of.
    pub source: Id,
    /// Its states, by whose names those of the diff are found.
    pub states: StateList,
}

impl Identity {
    /// The newest state of this name.
    fn find(&self, name: Option<&[u8]>) -> Option<&State> {
        self.states.states.iter().rev().find(|state| Some(state.name.as_slice()) == name)
    }
}

/// The diff as a source.
pub struct RbdDiff<R: Read> {
    header: Header,
    image: Image,
    records: Option<Records<R>>,
    /// Diffs that follow in its container.
    behind: u64,
}

impl<R: Read> RbdDiff<R> {
    /// A file of `rbd export-diff`.
    pub fn v1(input: R, identity: &Identity) -> Result<RbdDiff<R>, Fault> {
        RbdDiff::new(Records::open(input, Version::V1).map_err(failed)?, 0, identity)
    }

    /// The diff of a container that leads to this snapshot; `None`: to the image itself.
    pub fn v2(mut input: R, snapshot: Option<&str>, identity: &Identity) -> Result<RbdDiff<R>, Fault> {
        let mut names = Vec::new();
        for behind in (0..open_container(&mut input).map_err(failed)?).rev() {
            let records = Records::open(input, Version::V2).map_err(failed)?;
            if records.about().to.as_deref() == snapshot.map(str::as_bytes) {
                return RbdDiff::new(records, behind, identity);
            }
            names.extend(records.about().to.as_deref().map(escape));
            input = records.skip().map_err(failed)?;
        }
        Err(Fault::new(Class::NotFound, "the export does not lead there").hint(format!("it holds: {}", names.join(", "))))
    }

    fn new(records: Records<R>, behind: u64, identity: &Identity) -> Result<RbdDiff<R>, Fault> {
        let about = records.about();
        let (from, to) = (identity.find(about.from.as_deref()), identity.find(about.to.as_deref()));
        if let (Some(name), None) = (&about.from, from) {
            let name = escape(name);
            return Err(Fault::new(Class::NotFound, format!("this diff begins from the snapshot {name}, whose id is not known"))
                .hint("--states FILE tells ids: a list that `rbd-diff-stream --states` printed"));
        }
        if let Some(state) = to.filter(|state| state.bytes != about.size) {
            let (told, size) = (state.bytes, about.size);
            return Err(Fault::new(
                Class::WrongBase,
                format!("the diff leads to {size} bytes, and the snapshot of that name in the list has {told}"),
            )
            .hint("the list has to be as old as the diff: it was taken anew since"));
        }
        if about.size > wire::LIMIT_IMAGE {
            return Err(failed(Error::Damaged(format!("{} bytes are more than an image has", about.size))));
        }
        let name = |name: &Option<Vec<u8>>| name.clone().unwrap_or_default();
        let names = Names { source: Vec::new(), from: name(&about.from), to: name(&about.to) };
        let header = Header::new(identity.source, from.map(|state| state.id), to.map(|state| state.id), names);
        let image = Image { grain: GRAIN, ..Image::new(from.map_or(0, |state| state.bytes), about.size) };
        Ok(RbdDiff { header, image, records: Some(records), behind })
    }
}

impl<R: Read> Source for RbdDiff<R> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Image {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        let Some(records) = &mut self.records else { return Ok(None) };
        Ok(records.record().map_err(failed)?.map(|record| match record {
            Record::Data { offset, bytes } => Change::Data(Data::new(offset, bytes)),
            Record::Zero { offset, len } => Change::Zero { offset, len, may_deallocate: true },
        }))
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        if let Some(records) = self.records.take() {
            records.close(self.behind).map_err(failed)?;
        }
        Ok(Ending { to: self.header.to, digest: None })
    }
}

fn failed(error: Error) -> Fault {
    match error {
        Error::Io(error) => Fault::io("reading the diff", &error),
        error => Fault::new(Class::ForeignStream, error.to_string()),
    }
}
