//! A raw image file or block device: whole, or what differs from a base image.

mod compare;
mod input;

use std::path::Path;
use std::time::{Duration, Instant};

use self::compare::Window;
use self::input::{Access, Input};
use crate::flow::{Ending, Source};
use crate::format::{Change, Digest, Header, Id, Image, Names, Pool, wire};
use crate::state::{Class, ContentRoot, Fault, State, file_source, file_state};

/// Bytes read at once, cut at multiples of it: what one DATA extent holds at most.
const CHUNK: usize = 1 << 20;

/// What may be taken for granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// The image may be in use and change while it is read: what comes out has no to-state.
    pub live: bool,
    /// Read what the file system calls holes.
    pub read_holes: bool,
    /// Do not look whether the content is of a format with an inside of its own, such as qcow2.
    pub raw: bool,
}

/// An image, and perhaps the base that it is compared with.
pub struct ImageFile {
    header: Header,
    image: Image,
    new: Input,
    base: Option<Input>,
    pool: Pool,
    /// Everything before this offset was looked at.
    at: u64,
    /// What was read and compared and may hold more changes.
    window: Option<Window>,
    root: ContentRoot,
}

impl ImageFile {
    /// The whole image.
    pub fn whole(path: &Path, options: ImageOptions) -> Result<ImageFile, Fault> {
        let new = open(path, options)?;
        let names = Names { source: name(path), from: Vec::new(), to: name(path) };
        Ok(ImageFile::new(Header::new(file_source(), None, None, names), new, None))
    }

    /// What differs from the image at `base`. Where the state of the base is not on record it is read to its end first;
    /// `slow` is called when that takes more than a second.
    pub fn since(base: &Path, path: &Path, options: ImageOptions, slow: impl FnOnce()) -> Result<ImageFile, Fault> {
        let new = open(path, options)?;
        // Its state is what the increment begins from: a base that changes cannot have one.
        let mut old = Input::open(base, Access { live: false, trust_holes: !options.read_holes })?;
        finished(&old)?;
        let from = match recorded_state(&old) {
            Some(id) => id,
            None => file_state(content_root(&mut old, slow)?),
        };
        let names = Names { source: name(path), from: name(base), to: name(path) };
        Ok(ImageFile::new(Header::new(file_source(), Some(from), None, names), new, Some(old)))
    }

    /// The one state that this image can be sent in, after reading all of it.
    pub fn state(path: &Path, options: ImageOptions) -> Result<State, Fault> {
        let mut input = open(path, options)?;
        let id = file_state(content_root(&mut input, || {})?);
        input.unchanged()?;
        Ok(State { id, seconds: input.modified()?, bytes: input.size(), name: name(path) })
    }

    fn new(header: Header, new: Input, base: Option<Input>) -> ImageFile {
        let (old_size, size) = (base.as_ref().map_or(0, Input::size), new.size());
        let root = ContentRoot::new(size);
        let (image, pool) = (Image::new(old_size, size), Pool::new(CHUNK));
        ImageFile { header, image, new, base, pool, at: 0, window: None, root }
    }

    /// Goes on to the next part that may hold changes; `None` at the end.
    fn next_window(&mut self) -> Result<Option<Window>, Fault> {
        let size = self.image.new_size;
        while self.at < size {
            let new = self.new.piece(self.at)?;
            let old = self.base.as_mut().map(|base| base.piece(self.at)).transpose()?;
            let end = old.map_or(new.end, |old| old.end.min(new.end)).min(size);
            // In a whole stream a gap is zero, in an increment it is unchanged.
            let old_reads_zero = old.is_none_or(|old| old.hole);
            if new.hole && old_reads_zero {
                self.root.zeros(end - self.at);
                self.at = end;
                continue;
            }
            let (offset, len) = (self.at, chunk(self.at, end));
            self.at += len as u64;
            let new = match new.hole {
                true => None,
                false => Some(self.new.read(&self.pool, offset, len)?),
            };
            match &new {
                Some(data) => self.root.data(data),
                None => self.root.zeros(len as u64),
            }
            let old = match &self.base {
                Some(base) if !old_reads_zero => Some(base.read(&self.pool, offset, len)?),
                _ => None,
            };
            return Ok(Some(Window::new(offset, len, new, old, self.base.is_some())));
        }
        Ok(None)
    }
}

impl Source for ImageFile {
    fn header(&self) -> &Header {
        &self.header
    }

    fn image(&self) -> &Image {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        loop {
            if let Some(change) = self.window.as_mut().and_then(Window::change) {
                return Ok(Some(change));
            }
            self.window = self.next_window()?;
            if self.window.is_none() {
                return Ok(None);
            }
        }
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        self.new.unchanged()?;
        self.base.as_ref().map_or(Ok(()), Input::unchanged)?;
        let root = std::mem::replace(&mut self.root, ContentRoot::new(0)).finish();
        Ok(Ending { to: (!self.new.is_live()).then(|| file_state(root)), digest: None })
    }
}

/// Opens the image that is to be sent.
fn open(path: &Path, options: ImageOptions) -> Result<Input, Fault> {
    let input = Input::open(path, Access { live: options.live, trust_holes: !options.read_holes })?;
    if !options.live {
        finished(&input)?;
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
fn finished(image: &Input) -> Result<(), Fault> {
    match image.record() {
        Some(record) if record.receiving.is_some() => {
            Err(Fault::new(Class::Unfinished, format!("an unfinished run left {} part old, part new", image.path().display()))
                .hint("run the transfer into it again"))
        }
        _ => Ok(()),
    }
}

/// The state of an image that is on record beside it, where the record still fits and speaks of content.
///
/// A state that came from elsewhere, such as a snapshot of a volume, has another id than its content.
fn recorded_state(image: &Input) -> Option<Id> {
    let record = image.record()?;
    let held = record.held.filter(|held| held.source == file_source() && held.size == image.size())?;
    (record.receiving.is_none() && image.fits(&record.seen)).then_some(held.id)
}

/// Reads all of an image.
fn content_root(input: &mut Input, slow: impl FnOnce()) -> Result<Digest, Fault> {
    const SLOW: Duration = Duration::from_secs(1);
    let (size, pool, begun) = (input.size(), Pool::new(CHUNK), Instant::now());
    let mut root = ContentRoot::new(size);
    let mut slow = Some(slow);
    let mut at = 0;
    while at < size {
        let piece = input.piece(at)?;
        let end = piece.end.min(size);
        if piece.hole {
            root.zeros(end - at);
            at = end;
            continue;
        }
        let len = chunk(at, end);
        root.data(&input.read(&pool, at, len)?);
        at += len as u64;
        if begun.elapsed() > SLOW
            && let Some(slow) = slow.take()
        {
            slow();
        }
    }
    Ok(root.finish())
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
