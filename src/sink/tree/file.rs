//! The file that the last ENTRY is about.

use std::path::PathBuf;

use super::differences::Differences;
use crate::format::{Attributes, Change, Entry, Name, TreePath};
use crate::host::device::Device;
use crate::host::tree::{Dir, set_file_attributes};
use crate::state::Fault;

/// A file that stands at its path, and lacks content and attributes.
pub(super) struct Unfinished {
    name: Name,
    path: TreePath,
    attributes: Attributes,
    /// Of one that was just made: the size that it is to have, and the end of what was written. What no extent speaks of reads as
    /// zero already.
    new: Option<Sizes>,
    /// Once it had to be opened: what has only other attributes is not.
    device: Option<Device>,
}

/// Bytes of a new file.
struct Sizes {
    wanted: u64,
    is: u64,
}

impl Unfinished {
    /// One that was just made, and is to have this size.
    pub fn made(dir: &Dir, name: &Name, entry: &Entry, size: u64) -> Result<Unfinished, Fault> {
        let device = Device::of_file(dir.make_file(name)?, shown(&entry.path));
        let new = Some(Sizes { wanted: size, is: 0 });
        Ok(Unfinished { new, device: Some(device), ..Unfinished::of(name, entry) })
    }

    /// One that was there, of a size and with another one to come.
    pub fn kept(dir: &Dir, name: &Name, entry: &Entry, sizes: (u64, u64)) -> Result<Unfinished, Fault> {
        let mut file = Unfinished::of(name, entry);
        let (is, wanted) = sizes;
        if is != wanted {
            file.open(dir)?.resize(wanted)?;
        }
        Ok(file)
    }

    fn of(name: &Name, Entry { path, attributes, .. }: &Entry) -> Unfinished {
        let (name, path, attributes) = (name.clone(), path.clone(), attributes.clone());
        Unfinished { name, path, attributes, new: None, device: None }
    }

    fn open(&mut self, dir: &Dir) -> Result<&Device, Fault> {
        let device = match self.device.take() {
            Some(device) => device,
            None => Device::of_file(dir.open_to_write(&self.name)?, shown(&self.path)),
        };
        Ok(self.device.insert(device))
    }

    /// Content of it.
    pub fn extent(&mut self, dir: &Dir, extent: &Change) -> Result<(), Fault> {
        match extent {
            Change::Data(data) => {
                self.open(dir)?.write(data.offset(), data.bytes())?;
                // They ascend.
                self.new.iter_mut().for_each(|sizes| sizes.is = extent.end());
                Ok(())
            }
            Change::Zero { .. } if self.new.is_some() => Ok(()),
            Change::Zero { offset, len, .. } => self.open(dir)?.zero(*offset, *len),
        }
    }

    /// All of its content is there. `durably`: it does not wait for the end of the run.
    pub fn finish(mut self, dir: &Dir, differences: &mut Differences, durably: bool) -> Result<(), Fault> {
        if durably {
            self.open(dir)?;
        }
        if let Some(Sizes { wanted, is }) = self.new
            && is < wanted
        {
            self.open(dir)?.resize(wanted)?;
        }
        let unset = match self.device {
            Some(device) => {
                let unset = set_file_attributes(device.file(), &self.attributes, differences.all())?;
                if durably {
                    device.sync()?;
                }
                unset
            }
            None => dir.set_attributes(&self.name, &self.attributes, differences.all())?,
        };
        differences.take(&self.path, unset)
    }
}

/// For messages.
fn shown(path: &TreePath) -> PathBuf {
    path.to_string().into()
}
