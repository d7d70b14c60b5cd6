//! A ZFS volume, committed as a snapshot.
//!
//! [`Zvol`] keeps it: the [`keeper`] runs `zfs` and never reads the stream. [`super::Writing`] takes the stream's changes and
//! writes them to the device that the keeper opened.

mod claim;
mod keeper;

use std::path::PathBuf;
use std::sync::Arc;

use crate::flow::Carried;
use crate::format::{Header, Image};
use crate::host::device::Device;
use crate::state::{Class, Fault, Overrides, Plan, Receipt};

use super::dataset::marks::on_receipt;
use super::manifest::Manifest;
use super::{Cut, Durable, KEPT, Keep, Request};
use keeper::{Keeper, Received, would};

/// What the user wants of a volume.
#[derive(Clone)]
pub struct Options {
    /// The dataset.
    pub name: String,
    /// Give the commit its name and hold.
    pub mark: bool,
    /// Hold the newest mark against destruction.
    pub hold: bool,
    /// What is allowed beyond the default.
    pub overrides: Overrides,
    /// Make the volume smaller when the image became smaller.
    pub shrink: bool,
    /// Say what would be done, and stop.
    pub dry_run: bool,
    /// Block size in bytes of a volume that is created.
    pub block_size: Option<u64>,
    /// Properties (`name=value`) of a volume that is created.
    pub properties: Vec<String>,
    /// Keep a manifest of what the volume holds in this file.
    pub manifest: Option<PathBuf>,
    /// Takes what the user should know: the target's name, and the text.
    pub notes: fn(&str, &str),
}

impl Options {
    fn note(&self, text: &str) {
        (self.notes)(&self.name, text);
    }
}

/// A volume as a target.
pub struct Zvol {
    options: Options,
    stage: Stage,
}

enum Stage {
    Waiting,
    Keeping(Box<Keeper>, Manifest),
    /// A plan that nothing comes of, and in words.
    DryRun(Plan, String),
}

impl Zvol {
    /// The volume of these options. Nothing is looked at before the stream begins.
    pub fn new(options: Options) -> Zvol {
        Zvol { options, stage: Stage::Waiting }
    }

    /// Everything that was written is durable: writes down where a run that is cut goes on; whether one can.
    fn pause(&mut self, cut: Cut) -> Result<bool, Fault> {
        let Stage::Keeping(keeper, _) = &mut self.stage else { return Ok(false) };
        if keeper.only_reads() {
            return Ok(false);
        }
        let durable = Durable::sync(&keeper.device()).map_err(|failed| keeper.explain(failed))?;
        Ok(keeper.pause(durable, cut))
    }
}

impl Keep for Zvol {
    /// `None` after a dry run.
    type Done = Option<Receipt>;

    fn begin(&mut self, header: &Header, image: &Image) -> Result<Option<Arc<Device>>, Fault> {
        let request = Request::new(header, image);
        if self.options.dry_run {
            let (plan, words) = would(&self.options, &request)?;
            self.stage = Stage::DryRun(plan, words);
            return Ok(None);
        }
        let manifest = Manifest::open(self.options.manifest.as_deref(), header, image)?;
        let keeper = Keeper::prepare(self.options.clone(), request)?;
        let device = (!keeper.only_reads()).then(|| keeper.device());
        self.stage = Stage::Keeping(Box::new(keeper), manifest);
        Ok(device)
    }

    fn touched(&mut self, offset: u64, end: u64) {
        if let Stage::Keeping(_, manifest) = &mut self.stage {
            manifest.touched(offset, end);
        }
    }

    fn checkpoint(&mut self, cut: Cut) -> Result<(), Fault> {
        self.pause(cut).map(|_| ())
    }

    fn give_up(&mut self, cut: Cut) {
        if self.pause(cut) == Ok(true) {
            self.options.note(KEPT);
        }
    }

    fn explain(&mut self, failed: Fault) -> Fault {
        match &self.stage {
            Stage::Keeping(keeper, _) => keeper.explain(failed),
            Stage::Waiting | Stage::DryRun(..) => failed,
        }
    }

    fn commit(self, carried: Carried) -> Result<Option<Receipt>, Fault> {
        let to = carried.ending.to;
        let (keeper, manifest) = match self.stage {
            Stage::Keeping(keeper, manifest) => (keeper, manifest),
            Stage::DryRun(plan, words) => {
                plan.check_end(to)?;
                self.options.note(&words);
                return Ok(None);
            }
            Stage::Waiting => return Err(Fault::new(Class::Io, "an end before the stream began")),
        };
        let (device, note) = (keeper.device(), |text: &str| self.options.note(text));
        let durable = Durable::sync(&device).map_err(|failed| keeper.explain(failed))?;
        let already = keeper.only_reads();
        let digest = carried.ending.digest.ok_or_else(|| Fault::new(Class::Io, "only a stream can be committed to a volume"))?;
        keeper.check_end(to)?;
        // What is read back is what lies on the disk.
        device.invalidate();
        let manifest = match already {
            true => manifest.write_unless_there(&*device, to, note)?,
            false => manifest.write(&*device, to, note)?,
        };
        // The keeper hides it once nobody has it open.
        drop(device);
        let marked = keeper.commit(durable, to, Received { digest, root: manifest.root() })?;
        manifest.keep()?;
        let receipt = carried.receipt("zvol-apply", &self.options.name);
        Ok(Some(on_receipt(marked, Receipt { already, ..receipt })))
    }
}
