//! Manifests: a digest of every block of an image. extent-manifest(5).

use std::io::{self, Read, Write};

use super::content::{Block, RootHasher, check_size};
use super::{Class, Fault};
use crate::format::wire::{BLOCK, LIMIT_IMAGE};
use crate::format::{Digest, Id, Leaf, all_zero};

/// What a manifest begins with, as a stream begins with its own.
const MAGIC: [u8; 16] = *b"\x89SIPHON-MAN\r\n\x1a\n\0";
/// The version of the layout.
const VERSION: u32 = 1;
/// Bytes before the first run.
const HEAD_LEN: usize = 56;
/// Bytes of a run before its entries.
const RUN_LEN: usize = 16;
/// Bytes behind the last run: state, root, seal.
const TAIL_LEN: usize = 80;
/// Entries of one run at most: what a reader holds at once.
const LIMIT_RUN: usize = 1024;
/// Bytes of content that one grain digest stands for, in a fine manifest.
pub const FINE_GRAIN: usize = GRAIN_TOLD as usize;
/// The same, as a fine manifest tells it.
const GRAIN_TOLD: u32 = 4096;
/// Grain digests of a block.
const GRAINS: usize = BLOCK / FINE_GRAIN;

/// Kinds of runs.
mod kind {
    pub const END: u32 = 0;
    pub const FULL: u32 = 1;
    pub const ZEROS: u32 = 2;
}

/// The first 16 bytes of a grain's BLAKE3; zeros where all its bytes are.
pub type GrainDigest = [u8; 16];

/// What a manifest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestHeader {
    /// Exact size of the image in bytes.
    pub size: u64,
    /// The thing that the state is a state of.
    pub source: Id,
    /// Every block has digests of its grains of 4 KiB, too.
    pub fine: bool,
}

/// What the end of a manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestEnd {
    /// The state that it describes; `None`: it has no identity.
    pub state: Option<Id>,
    /// Content root of the image.
    pub root: Digest,
}

/// The next entry of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// So many blocks of zeros.
    Zeros(u64),
    /// One block.
    Full(BlockDigest),
}

/// A block with content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDigest {
    /// Its leaf.
    pub leaf: Leaf,
    /// One for each grain; empty where the manifest is not fine.
    pub grains: Vec<GrainDigest>,
}

impl BlockDigest {
    /// Of a block.
    pub fn of(leaf: Leaf, bytes: &[u8], fine: bool) -> BlockDigest {
        let grains = if fine { bytes.chunks(FINE_GRAIN).map(grain_digest).collect() } else { Vec::new() };
        BlockDigest { leaf, grains }
    }
}

/// The digest of one grain.
pub fn grain_digest(bytes: &[u8]) -> GrainDigest {
    let mut digest = [0; 16];
    if !all_zero(bytes) {
        digest.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    }
    digest
}

/// Writes a manifest.
pub struct ManifestWriter<W: Write> {
    output: W,
    seal: blake3::Hasher,
    header: ManifestHeader,
    root: RootHasher,
    /// Entries that wait to be written together.
    full: Vec<u8>,
    zeros: u64,
    blocks: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Writes the head.
    pub fn begin(output: W, header: ManifestHeader) -> io::Result<ManifestWriter<W>> {
        let ManifestHeader { size, source, fine } = header;
        let mut head = MAGIC.to_vec();
        head.extend(VERSION.to_le_bytes());
        head.extend(if fine { GRAIN_TOLD } else { 0 }.to_le_bytes());
        head.extend(size.to_le_bytes());
        head.extend(Id::to_wire(Some(source)));
        head.extend([0; 4]);
        head.extend(crc32fast::hash(&head).to_le_bytes());
        let (seal, root) = (blake3::Hasher::new(), RootHasher::new(size));
        let mut writer = ManifestWriter { output, seal, header, root, full: Vec::new(), zeros: 0, blocks: 0 };
        writer.put(&head)?;
        Ok(writer)
    }

    /// The next block, or blocks of zeros.
    pub fn block(&mut self, block: &Block<'_>) -> io::Result<()> {
        match *block {
            Block::Zeros(count) => self.entry(&Entry::Zeros(count)),
            Block::Full { leaf, bytes } => self.entry(&Entry::Full(BlockDigest::of(leaf, bytes, self.header.fine))),
        }
    }

    /// The same as another manifest told it, which must be as fine as this one.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match entry {
            Entry::Zeros(count) => {
                self.root.block(&Block::Zeros(*count));
                self.close_full()?;
                self.zeros += count;
                self.blocks += count;
            }
            Entry::Full(digest) => {
                self.root.block(&Block::Full { leaf: digest.leaf, bytes: &[] });
                self.close_zeros()?;
                self.full.extend(digest.leaf.0);
                self.full.extend(digest.grains.as_flattened());
                let short = if self.header.fine { GRAINS - digest.grains.len() } else { 0 };
                self.full.resize(self.full.len() + short * size_of::<GrainDigest>(), 0);
                self.blocks += 1;
                if self.full.len() == LIMIT_RUN * entry_len(self.header.fine) {
                    self.close_full()?;
                }
            }
        }
        Ok(())
    }

    /// Seals the manifest and flushes it; the image's content root.
    pub fn finish(mut self, state: Option<Id>) -> io::Result<Digest> {
        self.close_full()?;
        self.close_zeros()?;
        let root = self.root.finish();
        let mut tail = run_head(kind::END, self.blocks);
        tail.extend(Id::to_wire(state));
        tail.extend(root.0);
        self.put(&tail)?;
        let seal = *self.seal.finalize().as_bytes();
        self.output.write_all(&seal)?;
        self.output.flush()?;
        Ok(root)
    }

    fn close_full(&mut self) -> io::Result<()> {
        let full = std::mem::take(&mut self.full);
        let count = (full.len() / entry_len(self.header.fine)) as u64;
        if count > 0 {
            self.put(&run_head(kind::FULL, count))?;
            self.put(&full)?;
        }
        Ok(())
    }

    fn close_zeros(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.zeros) {
            0 => Ok(()),
            count => self.put(&run_head(kind::ZEROS, count)),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.seal.update(bytes);
        self.output.write_all(bytes)
    }
}

fn run_head(kind: u32, count: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &count.to_le_bytes()].concat()
}

/// Bytes of an entry.
fn entry_len(fine: bool) -> usize {
    let grains = if fine { GRAINS } else { 0 };
    size_of::<Leaf>() + grains * size_of::<GrainDigest>()
}

/// Whether a file that begins with these bytes is a manifest.
pub fn is_manifest(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Whether what is read is a manifest, and all of it to be read again.
pub fn tell_manifest<R: Read>(mut input: R) -> io::Result<(bool, impl Read)> {
    let mut begin = Vec::new();
    input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    Ok((is_manifest(&begin), io::Cursor::new(begin).chain(input)))
}

/// Reads a manifest. Nothing of it may be relied on before [`ManifestReader::entry`] gave `None`: only then its seal fits.
pub struct ManifestReader<R: Read> {
    input: R,
    seal: blake3::Hasher,
    header: ManifestHeader,
    root: RootHasher,
    /// What is left of the run that is being read.
    run: Vec<u8>,
    /// Bytes of it that were given out.
    at: usize,
    blocks: u64,
    end: Option<ManifestEnd>,
}

impl<R: Read> ManifestReader<R> {
    /// Reads the head.
    pub fn open(mut input: R) -> Result<ManifestReader<R>, Fault> {
        let head: [u8; HEAD_LEN] = read(&mut input)?;
        if !head.starts_with(&MAGIC) {
            return Err(damaged("this is not a manifest").hint("extent-digest writes manifests; streams and images are not ones"));
        }
        let (told, crc) = head.split_at(HEAD_LEN - 4);
        if crc32fast::hash(told).to_le_bytes() != *crc {
            return Err(damaged("the check sum of the manifest's head does not fit"));
        }
        let (version, grain, size) = (u32_at(&head, 16), u32_at(&head, 20), u64_at(&head, 24));
        let source = array_at(&head, 32).and_then(Id::from_wire);
        match (version, grain, source) {
            (VERSION, 0 | GRAIN_TOLD, Some(source)) if u32_at(&head, 48) == 0 && size <= LIMIT_IMAGE => {
                check_size(size)?;
                let header = ManifestHeader { size, source, fine: grain != 0 };
                let (mut seal, root) = (blake3::Hasher::new(), RootHasher::new(size));
                seal.update(&head);
                Ok(ManifestReader { input, seal, header, root, run: Vec::new(), at: 0, blocks: 0, end: None })
            }
            _ => Err(damaged("a manifest of another version").hint("this program knows version 1 of extent-manifest(5)")),
        }
    }

    /// What it is of.
    pub fn header(&self) -> ManifestHeader {
        self.header
    }

    /// The next entry; `None` once the manifest was whole and its seal fitted.
    pub fn entry(&mut self) -> Result<Option<Entry>, Fault> {
        loop {
            if self.end.is_some() {
                return Ok(None);
            }
            if self.at < self.run.len() {
                return self.full_entry().map(|entry| Some(Entry::Full(entry)));
            }
            let head: [u8; RUN_LEN] = self.read()?;
            let (kind, count) = (u32_at(&head, 0), u64_at(&head, 8));
            if u32_at(&head, 4) != 0 {
                return Err(damaged("a reserved field of a manifest is not zero"));
            }
            match kind {
                kind::ZEROS => {
                    self.count(count)?;
                    self.root.block(&Block::Zeros(count));
                    return Ok(Some(Entry::Zeros(count)));
                }
                kind::FULL => {
                    let entries = usize::try_from(count).ok().filter(|count| (1..=LIMIT_RUN).contains(count));
                    let entries = entries.ok_or_else(|| damaged("a run of a manifest is empty or too long"))?;
                    self.count(count)?;
                    self.run.resize(entries * entry_len(self.header.fine), 0);
                    self.at = 0;
                    self.input.read_exact(&mut self.run).map_err(|error| failed(&error))?;
                    self.seal.update(&self.run);
                }
                kind::END => self.finish(count)?,
                _ => return Err(damaged("a manifest has a run of an unknown kind")),
            }
        }
    }

    /// Reads what is left, and verifies all of it: what it is of, and what its end says.
    pub fn verify(mut self) -> Result<(ManifestHeader, ManifestEnd), Fault> {
        while self.entry()?.is_some() {}
        let end = self.end.ok_or_else(|| damaged("the manifest has no end"))?;
        Ok((self.header, end))
    }

    /// What the end said, after [`ManifestReader::entry`] gave `None`.
    pub fn end(&self) -> Option<ManifestEnd> {
        self.end
    }

    fn full_entry(&mut self) -> Result<BlockDigest, Fault> {
        let entry = &self.run[self.at..self.at + entry_len(self.header.fine)];
        self.at += entry.len();
        let (leaf, grains) = entry.split_at(size_of::<Leaf>());
        let leaf = Leaf(array_at(leaf, 0).unwrap_or_default());
        if leaf == Leaf::ZERO {
            return Err(damaged("a block of zeros stands among full ones"));
        }
        self.root.block(&Block::Full { leaf, bytes: &[] });
        Ok(BlockDigest { leaf, grains: grains.as_chunks().0.to_vec() })
    }

    fn count(&mut self, more: u64) -> Result<(), Fault> {
        let total = self.blocks.checked_add(more).filter(|total| *total <= self.header.size.div_ceil(BLOCK as u64));
        self.blocks = total.filter(|_| more > 0).ok_or_else(|| damaged("a manifest has more blocks than its image"))?;
        Ok(())
    }

    fn finish(&mut self, told: u64) -> Result<(), Fault> {
        if (told, self.blocks) != (self.blocks, self.header.size.div_ceil(BLOCK as u64)) {
            return Err(damaged("a manifest has fewer blocks than its image"));
        }
        let tail: [u8; TAIL_LEN - 32] = self.read()?;
        let seal = *self.seal.finalize().as_bytes();
        if read::<32>(&mut self.input)? != seal {
            return Err(damaged("the manifest's seal does not agree with what was read"));
        }
        let root = Digest(array_at(&tail, 16).unwrap_or_default());
        if root != self.root.finish() {
            return Err(damaged("the manifest's root does not agree with its leaves"));
        }
        match self.input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(damaged("bytes follow the end of the manifest")),
            Err(error) => return Err(failed(&error)),
        }
        self.end = Some(ManifestEnd { state: array_at(&tail, 0).and_then(Id::from_wire), root });
        Ok(())
    }

    /// Reads bytes that the seal covers.
    fn read<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = read(&mut self.input)?;
        self.seal.update(&bytes);
        Ok(bytes)
    }
}

fn read<const N: usize>(input: &mut impl Read) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(|error| failed(&error))?;
    Ok(bytes)
}

fn failed(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("the manifest ends too early"),
        _ => Fault::io("reading the manifest", error),
    }
}

fn damaged(what: &str) -> Fault {
    Fault::new(Class::Manifest, what)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at).unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Data;
    use crate::state::{Blocks, ContentRoot, file_source, file_state};

    fn image() -> Vec<u8> {
        let mut image: Vec<u8> = (0..5 * BLOCK + 5000).map(|n| u8::try_from(n / 777 % 251).unwrap()).collect();
        image[BLOCK..3 * BLOCK].fill(0);
        image[4 * BLOCK + 4096..5 * BLOCK].fill(0);
        image
    }

    fn written(image: &[u8], fine: bool) -> Vec<u8> {
        let header = ManifestHeader { size: image.len() as u64, source: file_source(), fine };
        let mut out = Vec::new();
        let mut writer = ManifestWriter::begin(&mut out, header).unwrap();
        let mut blocks = Blocks::new(header.size);
        blocks.data(&Data::new(0, image.to_vec()), &mut |block| writer.block(&block)).unwrap();
        blocks.finish(&mut |block| writer.block(&block)).unwrap();
        writer.finish(Some(file_state(root(image)))).unwrap();
        out
    }

    fn root(image: &[u8]) -> Digest {
        let mut root = ContentRoot::new(image.len() as u64);
        root.data(&Data::new(0, image.to_vec()));
        root.finish()
    }

    fn read_all(bytes: &[u8]) -> Result<(Vec<Entry>, ManifestEnd), Fault> {
        let mut reader = ManifestReader::open(bytes)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.entry()? {
            entries.push(entry);
        }
        Ok((entries, reader.end().unwrap()))
    }

    #[test]
    fn a_manifest_reads_back_and_has_the_content_root() {
        let image = image();
        for fine in [false, true] {
            let (entries, end) = read_all(&written(&image, fine)).unwrap();
            assert_eq!(end, ManifestEnd { state: Some(file_state(root(&image))), root: root(&image) });
            assert_eq!(entries[1], Entry::Zeros(2));
            assert_eq!(entries.len(), 5);
            let Entry::Full(last) = &entries[4] else { panic!() };
            assert_eq!(last.leaf, Leaf::of(&image[5 * BLOCK..]));
            assert_eq!(last.grains.len(), if fine { GRAINS } else { 0 });
            if fine {
                assert_eq!(last.grains[1], grain_digest(&image[5 * BLOCK + FINE_GRAIN..]));
                assert_eq!(last.grains[2], [0; 16]);
            }
        }
        assert_eq!(read_all(&written(&[], true)).unwrap().0, []);
    }

    #[test]
    fn a_manifest_cut_or_changed_anywhere_is_refused() {
        let good = written(&image(), true);
        for cut in 0..good.len() {
            assert!(read_all(&good[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read_all(&bad).is_err(), "bit {bit}");
        }
        assert!(read_all(&[good.as_slice(), b"\0"].concat()).is_err());
    }
}
