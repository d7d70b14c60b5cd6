//! The manifest that a target keeps beside it: extent-manifest(5), always of a state that was committed.
//!
//! While changes go by, the blocks that they touch are noted. Before the commit the manifest's successor is written: blocks
//! that nobody touched out of the manifest of the from-state, if there is one, and all others as they are read back from
//! the target. After the commit it takes the manifest's place. So a run that fails leaves the old one, and a run that dies
//! between both leaves one of an older state, which the next run knows by its id.

mod touched;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::touched::Touched;
use crate::format::wire::BLOCK;
use crate::format::{Buffer, Data, Digest, Header, Id, Image, Pool};
use crate::host::device::Device;
use crate::host::successor::Successor;
use crate::state::{
    Blocks, Class, Entry, Fault, ManifestCursor, ManifestEnd, ManifestHeader, ManifestReader, ManifestWriter, is_manifest,
};

/// Bytes that are read back at once: a whole number of blocks.
const READ: usize = 4 << 20;
/// What a device's reads are multiples of, in bytes.
const SECTOR: usize = 4096;

/// What can be read back.
pub(super) trait Content {
    /// `len` bytes from `offset` on, which is a multiple of 64 KiB.
    fn read(&self, pool: &Pool, offset: u64, len: usize) -> Result<Buffer, Fault>;
}

impl Content for Device {
    fn read(&self, pool: &Pool, offset: u64, len: usize) -> Result<Buffer, Fault> {
        let mut bytes = Device::read(self, pool, offset, len.next_multiple_of(SECTOR))?;
        bytes.truncate(len);
        Ok(bytes)
    }
}

/// The manifest of a target, or nothing where none is kept.
pub(super) struct Manifest(Option<Box<Keeping>>);

/// A successor that is written and durable, or nothing.
pub(super) struct Written(Option<(Option<Successor>, Digest)>);

struct Keeping {
    path: PathBuf,
    /// What the stream leads from and to.
    header: Header,
    image: Image,
    before: Before,
    touched: Touched,
}

/// The manifest that is there.
struct Before {
    /// It is whole: what it is of.
    whole: Option<(BufReader<File>, ManifestHeader, ManifestEnd)>,
    /// Why it is of no use, where it is not whole.
    why: String,
    fine: bool,
}

impl Manifest {
    /// The manifest in this file, for a stream that begins so. To be called before anything is touched: what can be refused is
    /// refused here.
    pub fn open(path: Option<&Path>, header: &Header, image: &Image) -> Result<Manifest, Fault> {
        let Some(path) = path else { return Ok(Manifest(None)) };
        Successor::check(path)?;
        let mut touched = Touched::none(image.new_size)?;
        if !header.is_whole() && image.old_size != image.new_size {
            // A block that got longer or shorter has another leaf; and what grew is zero only if all went well.
            touched.bytes(image.old_size.min(image.new_size), image.new_size);
        }
        let before = Before::look(path)?;
        let keeping = Keeping { path: path.to_owned(), header: header.clone(), image: *image, before, touched };
        Ok(Manifest(Some(Box::new(keeping))))
    }

    /// The target is written to from `offset` to `end`: bytes.
    pub fn touched(&mut self, offset: u64, end: u64) {
        if let Some(keeping) = &mut self.0 {
            keeping.touched.bytes(offset, end);
        }
    }

    /// Writes the successor, of the target as it is now, in the state `to`: everything is durable there and nothing committed.
    /// `note` hears why the whole target is read, where it is.
    pub fn write(self, target: &impl Content, to: Option<Id>, note: impl Fn(&str)) -> Result<Written, Fault> {
        self.0.map_or(Ok(Written(None)), |keeping| keeping.write(target, to, note))
    }

    /// The same for a target that was in the state `to` already: a manifest of that is left as it is.
    pub fn write_unless_there(self, target: &impl Content, to: Option<Id>, note: impl Fn(&str)) -> Result<Written, Fault> {
        let Some(mut keeping) = self.0 else { return Ok(Written(None)) };
        match keeping.before.of(to, keeping.image.new_size) {
            Ok((_, end)) => Ok(Written(Some((None, end.root)))),
            Err(why) => {
                // The stream says what it is that was written once, but nothing was written now.
                keeping.header.from = None;
                keeping.touched.bytes(0, keeping.image.new_size);
                note(&reading(&why));
                keeping.write(target, to, note)
            }
        }
    }
}

impl Written {
    /// Content root of the target.
    pub fn root(&self) -> Option<Digest> {
        self.0.as_ref().map(|(_, root)| *root)
    }

    /// After the commit: the successor takes its place.
    pub fn keep(self) -> Result<(), Fault> {
        let Some((Some(successor), _)) = self.0 else { return Ok(()) };
        successor.take_place().map_err(|fault| {
            fault.hint("the target itself is committed; the next run with --manifest reads it whole and makes the manifest anew")
        })
    }
}

impl Before {
    /// Looks at the manifest that is there, and verifies it. A file that is none, and not empty, is somebody's and stays.
    fn look(path: &Path) -> Result<Before, Fault> {
        let failed = |error: &io::Error| Fault::io(format!("reading {}", path.display()), error);
        let none = |why: String, fine| Before { whole: None, why, fine };
        let mut file = match File::open(path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(none("there is none yet".to_owned(), false)),
            Err(error) => return Err(failed(&error)),
        };
        let mut begin = Vec::new();
        file.by_ref().take(16).read_to_end(&mut begin).and_then(|_| file.rewind()).map_err(|error| failed(&error))?;
        if !begin.is_empty() && !is_manifest(&begin) {
            return Err(Fault::new(Class::Exists, format!("{} is there already, and is not a manifest", path.display()))
                .hint("--manifest names the file to keep it in, not the target"));
        }
        let mut fine = false;
        let verified = ManifestReader::open(&mut file).and_then(|reader| {
            fine = reader.header().fine;
            reader.verify()
        });
        match verified {
            Ok((header, end)) => {
                file.rewind().map_err(|error| failed(&error))?;
                Ok(Before { whole: Some((file, header, end)), why: String::new(), fine })
            }
            Err(fault) if fault.class == Class::Manifest => Ok(none(fault.what, fine)),
            Err(fault) => Err(fault),
        }
    }

    /// It describes exactly this state and size; or why not.
    fn of(&mut self, state: Option<Id>, size: u64) -> Result<(&mut BufReader<File>, ManifestEnd), String> {
        match &mut self.whole {
            None => Err(self.why.clone()),
            Some((_, header, _)) if header.size != size => Err(format!("it is of an image of {} bytes, not {size}", header.size)),
            Some((file, _, end)) if state.is_some() && end.state == state => Ok((file, *end)),
            Some(_) => Err("it is of another state".to_owned()),
        }
    }
}

impl Keeping {
    fn write(mut self, target: &impl Content, to: Option<Id>, note: impl Fn(&str)) -> Result<Written, Fault> {
        let successor = Successor::create(&self.path)?;
        let root = self.write_into(BufWriter::new(successor.file()), target, to, note)?;
        successor.sync()?;
        Ok(Written(Some((Some(successor), root))))
    }

    /// Writes the whole manifest; the content root of the target.
    fn write_into(
        &mut self,
        output: impl io::Write,
        target: &impl Content,
        to: Option<Id>,
        note: impl Fn(&str),
    ) -> Result<Digest, Fault> {
        let head = ManifestHeader { size: self.image.new_size, source: self.header.source, fine: self.before.fine };
        let writer = ManifestWriter::begin(output, head).map_err(|error| unwritten(&error))?;
        let mut walk = Walk { writer, target, size: head.size, pool: Pool::new(READ) };
        let Keeping { before, header, image, touched, .. } = self;
        match header.from {
            // Where a whole stream says nothing, the target was made zero.
            None => walk.all(touched, None::<&mut ManifestCursor<File>>)?,
            Some(from) => match before.of(Some(from), image.old_size) {
                Ok((file, end)) => {
                    let mut old = ManifestCursor::new(ManifestReader::open(file)?);
                    walk.all(touched, Some(&mut old))?;
                    if old.finish()? != end {
                        return Err(Fault::new(Class::Changed, "the manifest changed while it was read"));
                    }
                }
                Err(why) => {
                    note(&reading(&why));
                    touched.bytes(0, image.new_size);
                    walk.all(touched, None::<&mut ManifestCursor<File>>)?;
                }
            },
        }
        walk.writer.finish(to).map_err(|error| unwritten(&error))
    }
}

/// The way through the blocks of the successor, as they are written.
struct Walk<'a, W: io::Write, C> {
    writer: ManifestWriter<W>,
    target: &'a C,
    /// Size of the image in bytes.
    size: u64,
    pool: Pool,
}

impl<W: io::Write, C: Content> Walk<'_, W, C> {
    /// All blocks: touched ones as they are on the target, others as in `old`, or zeros without one.
    fn all<R: Read>(&mut self, touched: &Touched, mut old: Option<&mut ManifestCursor<R>>) -> Result<(), Fault> {
        let mut at = 0;
        while let Some((run, is_touched)) = touched.run(at) {
            at = run.end;
            if is_touched {
                self.read_back(run.clone())?;
            }
            let mut left = run.end - run.start;
            while left > 0 {
                let entry = match &mut old {
                    Some(old) => old.next(left)?,
                    None => Entry::Zeros(left),
                };
                left -= if let Entry::Zeros(count) = entry { count } else { 1 };
                if !is_touched {
                    self.writer.entry(&entry).map_err(|error| unwritten(&error))?;
                }
            }
        }
        Ok(())
    }

    /// A run of blocks, as they are on the target.
    fn read_back(&mut self, blocks: Range<u64>) -> Result<(), Fault> {
        let (mut at, end) = (blocks.start * BLOCK as u64, (blocks.end * BLOCK as u64).min(self.size));
        while at < end {
            let len = usize::try_from((end - at).min(READ as u64)).unwrap_or(READ);
            let data = Data::new(at, self.target.read(&self.pool, at, len)?.freeze());
            // Pieces that begin and end with blocks leave nothing to wait for.
            Blocks::new(self.size).data(&data, &mut |block| self.writer.block(&block)).map_err(|error| unwritten(&error))?;
            at += len as u64;
        }
        Ok(())
    }
}

fn reading(why: &str) -> String {
    format!("reading the whole target for its manifest: {why}")
}

fn unwritten(error: &io::Error) -> Fault {
    Fault::io("writing the manifest", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Change, Names};

    /// A target that holds this, whatever it was told.
    struct Held(Vec<u8>);

    impl Content for Held {
        fn read(&self, pool: &Pool, offset: u64, len: usize) -> Result<Buffer, Fault> {
            let mut buffer = pool.take(len);
            buffer.copy_from_slice(&self.0[usize::try_from(offset).unwrap()..][..len]);
            Ok(buffer)
        }
    }

    fn id(n: u8) -> Id {
        Id::derive("t", &[&[n]])
    }

    fn kept(
        file: &Path,
        states: (Option<u8>, u8),
        sizes: (u64, u64),
        changes: &[Change],
        target: &Held,
    ) -> (Digest, Vec<String>) {
        let header = Header::new(id(200), states.0.map(id), Some(id(states.1)), Names::default());
        let mut manifest = Manifest::open(Some(file), &header, &Image::new(sizes.0, sizes.1)).unwrap();
        changes.iter().for_each(|change| manifest.touched(change.offset(), change.end()));
        let notes = std::cell::RefCell::new(Vec::new());
        let written = manifest.write(target, header.to, |text| notes.borrow_mut().push(text.to_owned())).unwrap();
        let root = written.root().unwrap();
        written.keep().unwrap();
        (root, notes.into_inner())
    }

    fn root(content: &[u8]) -> Digest {
        let mut root = crate::state::ContentRoot::new(content.len() as u64);
        root.data(&Data::new(0, content.to_vec()));
        root.finish()
    }

    #[test]
    fn what_was_touched_is_read_back_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("manifest");
        let first: Vec<u8> = (0..5 * BLOCK + 77).map(|n| u8::try_from(n / BLOCK + 1).unwrap()).collect();
        let size = first.len() as u64;
        let whole = [Change::Data(Data::new(0, first.clone()))];
        assert_eq!(kept(&file, (None, 1), (0, size), &whole, &Held(first.clone())), (root(&first), vec![]));
        // The target holds other bytes than were sent, in a block that was written and in one that was not.
        let mut other = first.clone();
        other[BLOCK] = 99;
        other[3 * BLOCK] = 99;
        let change = [Change::Data(Data::new(3 * BLOCK as u64 + 4096, vec![8; 4096]))];
        let (found, notes) = kept(&file, (Some(1), 2), (size, size), &change, &Held(other.clone()));
        let mut wanted = first.clone();
        wanted[3 * BLOCK] = 99;
        assert_eq!((found, notes), (root(&wanted), vec![]));
        // From another state than the manifest is of, all is read.
        let (found, notes) = kept(&file, (Some(1), 3), (size, size), &change, &Held(other.clone()));
        assert_eq!((found, notes.len()), (root(&other), 1), "{notes:?}");
        // And so from the same state in another size: one of both is wrong.
        let cut = Held(first[..4 * BLOCK].to_vec());
        let (found, notes) = kept(&file, (Some(3), 4), (4 * BLOCK as u64, 4 * BLOCK as u64), &[], &cut);
        assert_eq!((found, notes.len()), (root(&cut.0), 1), "{notes:?}");
    }

    #[test]
    fn a_successor_that_is_not_kept_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("manifest");
        let header = Header::new(id(200), None, Some(id(1)), Names::default());
        let manifest = Manifest::open(Some(&file), &header, &Image::new(0, 9)).unwrap();
        let written = manifest.write(&Held(vec![5; 9]), header.to, |_| {}).unwrap();
        assert!(dir.path().join(".manifest.siphon-new").exists() && !file.exists());
        drop(written);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
