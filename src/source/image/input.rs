//! A file or block device that is being read, and what shows that it stayed as it was.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, OFlags, SeekFrom, fadvise, seek};

use crate::format::{Data, Pool, wire};
use crate::host::device;
use crate::host::holes::{Holes, Piece, trustworthy};
use crate::host::lasting::lasting_name;
use crate::host::record::{Record, RecordFile};
use crate::host::stamp::{Between, Birth, Evidence};
use crate::state::{Class, Fault};

/// What it looked like: which device it lies on or is, and what the kernel knows of its content.
type Seen = (u64, Evidence);

/// How to open an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// It may be in use and change: do not claim it, do not look whether it changed.
    pub live: bool,
    /// Its file system may be asked for holes.
    pub trust_holes: bool,
}

/// An open image.
pub(super) struct Input {
    content: Arc<Content>,
    seen: Seen,
    holes: Holes,
}

/// What can be read of an image, from any thread.
pub(super) struct Content {
    file: File,
    path: PathBuf,
    size: u64,
    live: bool,
}

impl Input {
    pub fn open(path: &Path, access: Access) -> Result<Input, Fault> {
        let failed = |error: &io::Error| Fault::io(format!("opening {}", path.display()), error);
        let kind = path.metadata().map_err(|error| failed(&error))?.file_type();
        // Looked at before it is opened: opening a FIFO would wait for a writer.
        readable(path, kind)?;
        let file = match kind.is_block_device() && !access.live {
            true => device::open_unclaimed(path).map_err(|fault| match fault.class {
                Class::Mounted | Class::Claimed | Class::Busy => {
                    fault.hint("--live reads it as it is; what comes out has no state to go on from")
                }
                _ => fault,
            })?,
            false => File::open(path).map_err(|error| failed(&error))?,
        };
        readable(path, file.metadata().map_err(|error| failed(&error))?.file_type())?;
        let trusted = sync(&file).map_err(|error| failed(&error))?
            && access.trust_holes
            && trustworthy(&file).map_err(|error| failed(&error))?;
        let seen = look(&file.metadata().map_err(|error| failed(&error))?);
        if !access.live {
            counted(path, &seen.1)?;
            seen.1.let_clock_tick();
        }
        // A block device has the size of its end, a file that of its inode.
        let size = seek(&file, SeekFrom::End(0)).map_err(|error| failed(&error.into()))?;
        // Only a hint; a file system without it reads as well.
        let _ = fadvise(&file, 0, None, Advice::Sequential);
        let holes = Holes::new(trusted, size, wire::DEFAULT_GRAIN.into());
        let content = Content { file, path: path.to_owned(), size, live: access.live };
        Ok(Input { content: Arc::new(content), seen, holes })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// As it was given.
    pub fn path(&self) -> &Path {
        &self.content.path
    }

    /// What can be read, for other threads.
    pub fn content(&self) -> Arc<Content> {
        Arc::clone(&self.content)
    }

    /// What image-apply wrote down of this very file or device. `state_dir`: where the records of devices lie.
    pub fn record(&self, state_dir: &Path) -> Result<Option<Record>, Fault> {
        let unread = |fault: Fault| fault.hint("--live reads the image as it is; what comes out has no state to go on from");
        if let Evidence::Device { .. } = self.seen.1 {
            let Some(lasting) = lasting_name(self.seen.0) else { return Ok(None) };
            let record = RecordFile::of_device(state_dir, &lasting).read().map_err(unread)?;
            return Ok(record.filter(|record| record.device == Some(lasting)));
        }
        let failed = |error| Fault::io(format!("looking at {}", self.path().display()), &error);
        let record = RecordFile::beside(&self.path().canonicalize().map_err(failed)?).read().map_err(unread)?;
        let birth = Birth::of(&self.content.metadata()?, 0);
        Ok(record.filter(|record| {
            let is_same =
                matches!((&record.seen, &self.seen.1), (Evidence::File(then), Evidence::File(now)) if then.inode == now.inode);
            is_same && record.receiving.as_ref().is_none_or(|run| run.birth.fits(&birth))
        }))
    }

    /// Nobody wrote to it since it looked like this.
    pub fn fits(&self, before: &Evidence) -> bool {
        before.between(&self.seen.1) == Between::Untouched
    }

    /// It may change while it is read.
    pub fn is_live(&self) -> bool {
        self.content.live
    }

    /// When its content was last changed, in seconds since 1970.
    pub fn modified(&self) -> Result<i64, Fault> {
        Ok(self.content.metadata()?.mtime())
    }

    /// The piece from `offset` on. It ends at a multiple of the grain, perhaps behind the image's end, where all is zero.
    pub fn piece(&mut self, offset: u64) -> Result<Piece, Fault> {
        if offset >= self.size() {
            return Ok(Piece { end: u64::MAX, hole: true });
        }
        let piece = self.holes.at(&self.content.file, offset);
        let piece = piece.map_err(|error| self.content.failed("looking for holes of", &error))?;
        Ok(Piece { end: piece.end.next_multiple_of(wire::DEFAULT_GRAIN.into()), ..piece })
    }

    /// [`Content::read`].
    pub fn read(&self, pool: &Pool, offset: u64, len: usize) -> Result<Data, Fault> {
        self.content.read(pool, offset, len)
    }

    /// Looks once more whether the image and its name are what they were. One that is live may have changed.
    pub fn unchanged(&self) -> Result<(), Fault> {
        let content = &self.content;
        if content.live {
            return Ok(());
        }
        // Of a device only what arrives there is counted, and not what waits in the page cache.
        if matches!(self.seen.1, Evidence::Device { .. }) {
            sync(&content.file).map_err(|error| content.failed("synchronizing", &error))?;
        }
        if look(&content.metadata()?) != self.seen {
            return Err(content.changed("was written to"));
        }
        if seek(&content.file, SeekFrom::End(0)).map_err(|error| content.failed("looking at", &error.into()))? != content.size {
            return Err(content.changed("changed its size"));
        }
        match content.named() {
            Ok(named) if look(&named) == self.seen => Ok(()),
            Ok(_) => Err(content.changed("was replaced")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Fault::new(Class::Vanished, format!("{} was removed while it was read", content.path.display())))
            }
            Err(error) => Err(content.failed("looking at", &error)),
        }
    }

    /// It begins as a qcow2 file does.
    pub fn is_qcow2(&self) -> Result<bool, Fault> {
        Ok(self.read(&Pool::new(4), 0, 4)?.bytes().as_ref() == b"QFI\xfb")
    }
}

impl Content {
    /// Reads `len` bytes from `offset`. What lies behind the end is zero.
    pub fn read(&self, pool: &Pool, offset: u64, len: usize) -> Result<Data, Fault> {
        let mut buffer = pool.take(len);
        let inside = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
        let mut filled = 0;
        while filled < inside {
            match self.file.read_at(&mut buffer[filled..inside], offset + filled as u64) {
                Ok(0) if self.live => break,
                Ok(0) => return Err(self.changed("became shorter")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&format!("reading at byte {}", offset + filled as u64), &error)),
            }
        }
        buffer[filled..].fill(0);
        Ok(Data::new(offset, buffer.freeze()))
    }

    /// A fresh look at what stands at the path. Opened anew: NFS asks the server then, and may tell from memory else.
    fn named(&self) -> io::Result<Metadata> {
        if !self.path.metadata()?.is_file() {
            return self.path.metadata();
        }
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?.metadata()
    }

    fn metadata(&self) -> Result<Metadata, Fault> {
        self.file.metadata().map_err(|error| self.failed("looking at", &error))
    }

    fn changed(&self, how: &str) -> Fault {
        Fault::new(Class::Changed, format!("{} {how} while it was read", self.path.display()))
            .hint("send a snapshot or a copy that nobody writes to")
            .hint("--live sends it as it is; what comes out has no state to go on from")
    }

    fn failed(&self, tried: &str, error: &io::Error) -> Fault {
        Fault::io(format!("{tried} {}", self.path.display()), error)
    }
}

fn look(meta: &Metadata) -> Seen {
    (if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() }, Evidence::of(meta))
}

/// Brings what was written to where holes and times are looked up; whether that worked.
///
/// A page that is written through a mapping shows in the file's times when it becomes dirty, and only then. So what is
/// dirty now must become clean: a later write shows again.
fn sync(file: &File) -> io::Result<bool> {
    match file.sync_all() {
        Ok(()) => Ok(true),
        // A file system that is read-only, or knows no sync.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What would be written to it meanwhile shows.
fn counted(path: &Path, seen: &Evidence) -> Result<(), Fault> {
    if seen.is_counted() {
        return Ok(());
    }
    let what = format!("the kernel does not count what is written to {}", path.display());
    Err(Fault::new(Class::Unsupported, what)
        .hint("echo 1 > /sys/block/DISK/queue/iostats makes it count, where /sys is mounted")
        .hint("--live reads it as it is; what comes out has no state to go on from"))
}

fn readable(path: &Path, kind: FileType) -> Result<(), Fault> {
    let refused = |what: &str| Fault::new(Class::Unsupported, format!("{} is {what}, not an image", path.display()));
    match kind {
        kind if kind.is_file() || kind.is_block_device() => Ok(()),
        kind if kind.is_dir() => Err(refused("a directory").hint("give the image file in it")),
        kind if kind.is_fifo() => Err(refused("a FIFO").hint("an image is looked at twice: write it into a file first")),
        kind if kind.is_char_device() => Err(refused("a character device").hint("block devices and regular files are images")),
        _ => Err(refused("a socket")),
    }
}
