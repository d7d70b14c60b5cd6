//! A raw image file or block device: whole, or what differs from a base image.

mod ahead;
mod parts;
mod compare;
mod input;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use self::ahead::{InOrder, Part};
use self::compare::Pair;
use self::input::{Access, Input};
pub use self::parts::ImageParts;
use crate::flow::{Ending, Source};
use crate::format::{Change, Digest, Header, Id, Image, Names, Pool, wire};
use crate::host::record::STATE_DIR;
use crate::state::{Class, ContentRoot, Fault, State, file_source, file_state};

/// Bytes read at once, cut at multiples of it: what one DATA extent holds at most.
const CHUNK: usize = 1 << 20;
/// Threads that read and hash a whole image while it is sent: the rest of the work does not keep more than one busy.
const SENDING_THREADS: usize = 1;

/// What may be taken for granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// The image may be in use and change while it is read: what comes out has no to-state.
    pub live: bool,
    /// Read what the file system calls holes.
    pub read_holes: bool,
    /// Do not look whether the content is of a format with an inside of its own, such as qcow2.
    pub raw: bool,
    /// Read and hash a whole image with all processors: nothing else keeps them busy.
    pub parallel: bool,
    /// Where image-apply keeps the records of devices.
    pub state_dir: PathBuf,
}

impl Default for ImageOptions {
    fn default() -> ImageOptions {
        let (live, read_holes, raw, parallel) = (false, false, false, false);
        ImageOptions { live, read_holes, raw, parallel, state_dir: STATE_DIR.into() }
    }
}

/// An image, and perhaps the base that it is compared with.
pub struct ImageFile {
    header: Header,
    image: Image,
    reading: Reading,
    root: ContentRoot,
}

enum Reading {
    Whole(InOrder),
    Since(Box<Pair>),
}

impl ImageFile {
    /// The whole image.
    pub fn whole(path: &Path, options: &ImageOptions) -> Result<ImageFile, Fault> {
        let new = open(path, options)?;
        let names = Names { source: name(path), from: Vec::new(), to: name(path) };
        let (header, image) = (Header::new(file_source(), None, None, names), Image::new(0, new.size()));
        let threads = if options.parallel { processors() } else { SENDING_THREADS };
        Ok(ImageFile::new(header, image, Reading::Whole(InOrder::new(new, threads)?)))
    }

    /// What differs from the image at `base`. Where the state of the base is not on record it is read to its end first;
    /// `slow` is called when that takes more than a second.
    pub fn since(base: &Path, path: &Path, options: &ImageOptions, slow: impl FnOnce()) -> Result<ImageFile, Fault> {
        let new = open(path, options)?;
        // Its state is what the increment begins from: a base that changes cannot have one.
        let old = Input::open(base, Access { live: false, trust_holes: !options.read_holes })?;
        finished(&old, &options.state_dir)?;
        let (from, base_input) = match recorded_state(&old, &options.state_dir)? {
            Some(id) => (id, old),
            None => content_root(old, slow).map(|(root, old)| (file_state(root), old))?,
        };
        let names = Names { source: name(path), from: name(base), to: name(path) };
        let (header, image) = (Header::new(file_source(), Some(from), None, names), Image::new(base_input.size(), new.size()));
        let pair = Pair { new, base: base_input, pool: Pool::new(CHUNK), at: 0, window: None };
        Ok(ImageFile::new(header, image, Reading::Since(Box::new(pair))))
    }

    /// The one state that this image can be sent in, after reading all of it.
    pub fn state(path: &Path, options: &ImageOptions) -> Result<State, Fault> {
        let (root, input) = content_root(open(path, options)?, || {})?;
        input.unchanged()?;
        Ok(State { id: file_state(root), seconds: input.modified()?, bytes: input.size(), name: name(path) })
    }

    fn new(header: Header, image: Image, reading: Reading) -> ImageFile {
        ImageFile { root: ContentRoot::new(image.new_size), header, image, reading }
    }
}

impl Source for ImageFile {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Image {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        let parts = match &mut self.reading {
            Reading::Whole(parts) => parts,
            Reading::Since(pair) => return pair.change(&mut self.root),
        };
        loop {
            match parts.next()? {
                None => return Ok(None),
                // In a whole stream a gap is zero.
                Some(Part::Hole(len)) => self.root.zeros(len),
                Some(Part::Data(data)) => {
                    self.root.data(&data);
                    return Ok(Some(Change::Data(data)));
                }
            }
        }
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        let new = match &self.reading {
            Reading::Whole(parts) => parts.input(),
            Reading::Since(pair) => {
                pair.base.unchanged()?;
                &pair.new
            }
        };
        new.unchanged()?;
        let to = (!new.is_live()).then(|| file_state(std::mem::replace(&mut self.root, ContentRoot::new(0)).finish()));
        Ok(Ending { to, digest: None })
    }
}

/// Opens the image that is to be sent.
fn open(path: &Path, options: &ImageOptions) -> Result<Input, Fault> {
    let input = Input::open(path, Access { live: options.live, trust_holes: !options.read_holes })?;
    if !options.live {
        finished(&input, &options.state_dir)?;
    }
    if !options.raw && input.is_qcow2()? {
        return Err(Fault::new(
            Class::Unsupported,
            format!("{} is a qcow2 file: its raw bytes are not the content of its image", path.display()),
        )
        .hint("--raw sends the file's bytes all the same")
        .hint("`qemu-img convert -O raw` makes a raw image of it"));
    }
    Ok(input)
}

/// Refuses an image that an unfinished run of ours left part old, part new.
fn finished(image: &Input, state_dir: &Path) -> Result<(), Fault> {
    match image.record(state_dir)? {
        Some(record) if record.receiving.is_some() => {
            Err(Fault::new(Class::Unfinished, format!("an unfinished run left {} part old, part new", image.path().display()))
                .hint("run the transfer into it again")
                .hint("if it was filled by other means since, remove its record, or pass --live"))
        }
        _ => Ok(()),
    }
}

/// The state of an image that is on record beside it, where the record still fits and speaks of content.
///
/// A state that came from elsewhere, such as a snapshot of a volume, has another id than its content.
fn recorded_state(image: &Input, state_dir: &Path) -> Result<Option<Id>, Fault> {
    let record = image.record(state_dir)?.filter(|record| record.device.is_none());
    let fitting = record.filter(|record| record.receiving.is_none() && image.fits(&record.seen));
    let held = fitting.and_then(|record| record.held);
    Ok(held.filter(|held| held.source == file_source() && held.size == image.size()).map(|held| held.id))
}

/// Reads all of an image, with all processors, and gives it back.
fn content_root(input: Input, slow: impl FnOnce()) -> Result<(Digest, Input), Fault> {
    const SLOW: Duration = Duration::from_secs(1);
    let mut root = ContentRoot::new(input.size());
    let (begun, mut slow) = (Instant::now(), Some(slow));
    let mut parts = InOrder::new(input, processors())?;
    while let Some(part) = parts.next()? {
        match part {
            Part::Hole(len) => root.zeros(len),
            Part::Data(data) => root.data(&data),
        }
        if begun.elapsed() > SLOW
            && let Some(slow) = slow.take()
        {
            slow();
        }
    }
    Ok((root.finish(), parts.into_input()))
}

fn processors() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Bytes to read from `offset`: to the next cut, and not over `end`.
fn chunk(offset: u64, end: u64) -> usize {
    let most = wire::CUT - offset % wire::CUT;
    usize::try_from(most.min(end - offset)).unwrap_or(CHUNK)
}

/// The last part of a path: where a file lies is nobody's business.
fn name(path: &Path) -> Vec<u8> {
    path.file_name().map(|name| name.as_encoded_bytes().to_vec()).unwrap_or_default()
}
