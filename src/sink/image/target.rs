//! A file or plain block device that may become an image: what it is, what it holds, and where that is written down.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{Data, Id, Pool};
use crate::host::device::{Device, Zeroing};
use crate::host::holes::is_blank;
use crate::host::lasting::{lasting_name, loop_over};
use crate::host::record::{Record, RecordFile, standing};
use crate::host::stamp::{Between, Birth, Evidence};
use crate::state::{Checkpoint, Class, ContentRoot, Fault, Head, Held, Resumable, Standing, file_state};

/// Bytes that are read at once.
const READ: usize = 1 << 20;
/// Reads of a device are multiples of this.
const SECTOR: usize = 4096;

/// A target that was looked at, and is held for us alone if it exists.
pub(super) struct Target {
    /// Free of links, as far as it exists.
    pub path: PathBuf,
    /// `None`: there is no such file yet.
    pub device: Option<Arc<Device>>,
    pub is_block: bool,
    /// The name of a block device that lasts, where it has one.
    pub lasting: Option<String>,
    /// `None`: it has no name that lasts, so nothing can be kept on record.
    pub records: Option<RecordFile>,
    pub record: Option<Record>,
    /// Nobody wrote to it since its record was made: the user knows.
    trust: bool,
}

impl Target {
    /// Looks at a target and claims it.
    pub fn open(path: &Path, state_dir: &Path, trust: bool) -> Result<Target, Fault> {
        let meta = match path.metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                return Ok(Target::absent(path));
            }
            Err(error) => return Err(Fault::io("looking at the target", &error)),
        };
        let path = path.canonicalize().map_err(|error| Fault::io("looking at the target", &error))?;
        let kind = meta.file_type();
        let is_block = kind.is_block_device();
        let device = match (kind.is_file(), is_block) {
            (true, _) => open_file(&path)?,
            (_, true) => open_block(&path)?,
            _ => return Err(Fault::new(Class::Unsupported, "the target is neither a regular file nor a block device")),
        };
        let held = look(&device)?;
        if (held.ino(), held.dev(), held.rdev()) != (meta.ino(), meta.dev(), meta.rdev()) {
            return Err(Fault::new(Class::Busy, "the target was replaced just now").hint("try again"));
        }
        if is_block {
            // What others wrote counts only once it has arrived there.
            device.sync()?;
        }
        let lasting = if is_block { lasting_name(meta.rdev()) } else { None };
        let records = match is_block {
            true => lasting.as_ref().map(|name| RecordFile::of_device(state_dir, name)),
            false => Some(RecordFile::beside(&path)),
        };
        let record = records.as_ref().map(RecordFile::read).transpose()?.flatten().filter(|record| record.device == lasting);
        Ok(Target { path, device: Some(Arc::new(device)), is_block, lasting, records, record, trust })
    }

    /// A file that is to be made. What a record says of one that is gone is over.
    fn absent(path: &Path) -> Target {
        let (path, records) = (path.to_owned(), Some(RecordFile::beside(path)));
        Target { path, device: None, is_block: false, lasting: None, records, record: None, trust: false }
    }

    /// Makes the file, and holds it.
    pub fn create(&mut self) -> Result<(), Fault> {
        let device = Device::open_file(&self.path, true)?;
        if device.size()? != 0 {
            return Err(Fault::new(Class::Busy, "another run made the target just now").hint("try again"));
        }
        self.device = Some(Arc::new(device));
        Ok(())
    }

    /// What decides about the next stream.
    pub fn standing(&self) -> Result<Standing, Fault> {
        Ok(standing(self.head()?, self.record.as_ref(), self.checkpoint()?))
    }

    /// Where an unfinished run was cut, if nobody touched the target since.
    fn checkpoint(&self) -> Result<Option<Resumable>, Fault> {
        let Some(record) = &self.record else { return Ok(None) };
        let cut: Option<Checkpoint> = record.receiving.as_ref().and_then(|run| run.checkpoint.as_ref()?.parse().ok());
        match cut {
            Some(checkpoint) if self.device.is_some() && self.between(record)? == Between::Untouched => {
                let held = Held { ids: vec![checkpoint.id()], name: "the place where it was cut".to_owned() };
                Ok(Some(Resumable { checkpoint, held, above: Vec::new() }))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The same, after reading all of it: what it holds is the state of its content, whoever wrote it. Nothing is
    /// none, and neither is what an unfinished run left.
    pub fn standing_by_content(&self) -> Result<Standing, Fault> {
        let by_record = self.standing()?;
        let content = match (&by_record.head, &self.device) {
            (Head::AtMark | Head::WrittenSince | Head::Foreign, Some(device)) => content_state(device)?,
            (Head::Absent | Head::Blank | Head::Receiving(_), _) | (_, None) => return Ok(by_record),
        };
        // What is on record holds only where nobody wrote since.
        let known = by_record.marks.into_iter().next_back().filter(|_| by_record.head == Head::AtMark);
        let (ids, name) = known.map_or_else(|| (Vec::new(), "its content".to_owned()), |held| (held.ids, held.name));
        let held = Held { ids: ids.into_iter().chain([content]).collect(), name };
        Ok(Standing { head: Head::AtMark, marks: vec![held], above: Vec::new(), way_back: false, checkpoint: None })
    }

    fn head(&self) -> Result<Head, Fault> {
        let Some(device) = &self.device else { return Ok(Head::Absent) };
        let ours = match &self.record {
            Some(record) if !self.is_another(record)? => Some(record),
            _ => None,
        };
        let Some(record) = ours else {
            let blank = !self.is_block
                && is_blank(device.file(), device.size()?).map_err(|error| Fault::io("looking for holes", &error))?;
            return Ok(if blank { Head::Blank } else { Head::Foreign });
        };
        let between = self.between(record)?;
        let mut head = record.head(between);
        if let Head::Receiving(run) = &mut head
            && between == Between::Written
            && was_cut(record)
        {
            // It was known as the run left it, and somebody wrote since: the same increment once more would not undo that.
            run.to = None;
        }
        Ok(head)
    }

    /// It is not the file that the record was made for. The name of a device was compared before.
    fn is_another(&self, record: &Record) -> Result<bool, Fault> {
        match (&record.seen, self.evidence()?) {
            (Evidence::File(before), Evidence::File(now)) => {
                let birth = self.birth()?;
                let is_same = before.inode == now.inode && record.receiving.as_ref().is_none_or(|run| run.birth.fits(&birth));
                Ok(!is_same && !self.trusted(record)?)
            }
            (Evidence::Device { .. }, Evidence::Device { .. }) => Ok(false),
            _ => Ok(true),
        }
    }

    /// What happened since the record was made.
    pub fn between(&self, record: &Record) -> Result<Between, Fault> {
        let between = record.seen.between(&self.evidence()?);
        Ok(if between != Between::Untouched && self.trusted(record)? { Between::Untouched } else { between })
    }

    /// The user's word counts as far as the size does not give it the lie.
    fn trusted(&self, record: &Record) -> Result<bool, Fault> {
        let (Some(device), Some(held)) = (&self.device, &record.held) else { return Ok(false) };
        let size = device.size()?;
        Ok(self.trust && if self.is_block { size >= held.size } else { size == held.size })
    }

    /// What is to be written down of it after the last byte, as far as it can be believed: it looked like `before` when the run
    /// began, and is to have `size` bytes. That it is still there, and has them.
    pub fn looked_at_last(&self, before: &Evidence, has_written: bool, size: u64) -> Result<Evidence, Fault> {
        let seen = self.evidence()?;
        self.still_there(size)?;
        seen.let_clock_tick();
        Ok(if has_written { seen.after_writing(before) } else { seen })
    }

    /// The path still leads to what was written, nobody put another file there, and its size is what it was made.
    fn still_there(&self, size: u64) -> Result<(), Fault> {
        let Some(device) = &self.device else { return Ok(()) };
        let held = look(device)?;
        if !self.path.metadata().is_ok_and(|meta| (meta.ino(), meta.dev()) == (held.ino(), held.dev())) {
            return Err(Fault::new(Class::Vanished, "the target was removed or replaced while it was written"));
        }
        let is = device.size()?;
        let fits = if self.is_block { is >= size } else { is == size };
        if !fits {
            let what = format!("somebody changed the target's size while it was written, to {is} bytes");
            return Err(Fault::new(Class::Changed, what).hint("send it again"));
        }
        Ok(())
    }

    /// What tells a file from another one of the same number. Its record lies on the same file system; and a device has a name.
    pub fn birth(&self) -> Result<Birth, Fault> {
        let file = self.device.as_ref().filter(|_| !self.is_block);
        file.map_or(Ok(Birth::default()), |file| Ok(Birth::of(&look(file)?, 0)))
    }

    /// A fresh look at it.
    pub fn evidence(&self) -> Result<Evidence, Fault> {
        let device = self.device.as_ref().ok_or_else(|| Fault::new(Class::NotFound, "the target is gone"))?;
        Ok(Evidence::of(&look(device)?))
    }
}

/// A run was cut, and what the target was then is on record.
fn was_cut(record: &Record) -> bool {
    record.receiving.as_ref().is_some_and(|run| run.checkpoint.is_some())
}

/// The state that a file or device of this content is in.
fn content_state(device: &Device) -> Result<Id, Fault> {
    let (size, pool) = (device.size()?, Pool::new(READ));
    let mut root = ContentRoot::new(size);
    let mut at = 0;
    while at < size {
        let len = usize::try_from((size - at).min(READ as u64)).unwrap_or(READ);
        // A device is read in whole sectors.
        let mut bytes = device.read(&pool, at, len.next_multiple_of(SECTOR))?;
        bytes.truncate(len);
        root.data(&Data::new(at, bytes.freeze()));
        at += len as u64;
    }
    Ok(file_state(root.finish()))
}

fn look(device: &Device) -> Result<Metadata, Fault> {
    device.file().metadata().map_err(|error| Fault::io("looking at the target", &error))
}

fn open_file(path: &Path) -> Result<Device, Fault> {
    if let Some(loop_device) = loop_over(path) {
        return Err(Fault::new(Class::Claimed, format!("the loop device {loop_device} stands on the target"))
            .hint(format!("losetup --detach /dev/{loop_device}")));
    }
    Device::open_file(path, false)
}

fn open_block(path: &Path) -> Result<Device, Fault> {
    let device = Device::open_block(path, Zeroing::Punch)?;
    match device.zvol_name() {
        Some(name) => {
            Err(Fault::new(Class::Unsupported, format!("the target is the ZFS volume {name}, which keeps its own states"))
                .hint(format!("zvol-apply {name}")))
        }
        None => Ok(device),
    }
}
