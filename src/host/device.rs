//! A block device or raw file that is being written: exclusive, exact in its zeros, honest about what is durable.

#![allow(unsafe_code, reason = "block device ioctls that no crate offers")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl, opcode};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use serde::{Deserialize, Serialize};

use crate::format::{Buffer, Pool};
use crate::state::{Class, Fault};

/// What O_DIRECT asks of offsets, lengths and memory, at most: bytes.
const SECTOR: u64 = 4096;
/// Zeros are written, where they must be, from a buffer of this many bytes.
const ZEROS: usize = 1 << 20;
/// Bytes written at once through the page cache. ext4 with large folios (Linux 6.18) takes 1 MiB at four times the cost.
const CACHED: usize = 256 << 10;
/// How long udev may look at a device.
const UDEV_PATIENCE: Duration = Duration::from_secs(10);
/// linux/fs.h: BLKDISCARD takes two u64, offset and length in bytes.
pub(super) const BLKDISCARD: Opcode = opcode::none(0x12, 119);
/// OpenZFS sys/fs/zfs.h: BLKZNAME gives the dataset's name, 256 bytes.
const BLKZNAME: Opcode = opcode::read::<[u8; 256]>(0x12, 125);

/// How a range comes to read as zero, for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Zeroing {
    /// fallocate: punch a hole, which on files and most devices is exact or fails; where it fails, write zeros.
    Punch,
    /// A zvol: its discard rounds inward to whole volume blocks of this many bytes *and reports success*; so discard whole
    /// blocks only and write zeros to the ragged edges. It knows no punch.
    DiscardBlocks(u64),
}

/// What another process must know of a device to use the descriptor that it is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opened {
    path: PathBuf,
    zeroing: Zeroing,
    direct: bool,
}

/// An open target.
pub struct Device {
    file: File,
    path: PathBuf,
    zeroing: Zeroing,
    /// Opened with O_DIRECT: what is not aligned is read, changed and written.
    direct: bool,
    /// Why something that was written may be lost.
    lost: OnceLock<Fault>,
}

impl Device {
    /// Opens a block device for us alone: O_EXCL against mounts, LVM, md and others of our kind; flock on the whole-disk node
    /// so that udev leaves it alone. A plain opener without a claim cannot be kept out.
    pub fn open_block(path: &Path, zeroing: Zeroing) -> Result<Device, Fault> {
        let flags = OFlags::EXCL | OFlags::DIRECT;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|error| open_failed(path, &error))?;
        let device = Device { file, path: path.to_owned(), zeroing, direct: true, lost: OnceLock::new() };
        device.lock(UDEV_PATIENCE)?;
        Ok(device)
    }

    /// Opens a regular file for us alone (flock), creating it where asked to.
    pub fn open_file(path: &Path, create: bool) -> Result<Device, Fault> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)
            .map_err(|error| Fault::io("opening the target", &error))?;
        let device = Device::of_file(file, path.to_owned());
        device.lock(Duration::ZERO)?;
        device.refuse_locked()?;
        Ok(device)
    }

    /// QEMU locks bytes of the images that its guests use. Such locks know nothing of flock.
    fn refuse_locked(&self) -> Result<(), Fault> {
        let all = Flock { length: 0, ..Flock::from(FlockType::WriteLock) };
        match fcntl_getlk(&self.file, &all) {
            Ok(Some(_)) => Err(Fault::new(Class::Claimed, "another program has locked parts of the target")
                .hint("does a virtual machine use it? lslocks(8) tells who it is")),
            // A file system without such locks.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// A regular file that somebody else opened and keeps others away from. The path is for people.
    pub fn of_file(file: File, path: PathBuf) -> Device {
        Device { file, path, zeroing: Zeroing::Punch, direct: false, lost: OnceLock::new() }
    }

    /// Another run is turned away at once by O_EXCL on a device, by this on a file. udev, too, locks a device: while it looks
    /// at one that has just appeared or was closed; so on devices we wait for a while.
    fn lock(&self, patience: Duration) -> Result<(), Fault> {
        let start = Instant::now();
        loop {
            match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(20)),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(busy()),
                Err(error) => return Err(Fault::io("locking the target", &error.into())),
            }
        }
    }

    /// The same open file in another process: it shares the claim.
    pub fn received(fd: OwnedFd, Opened { path, zeroing, direct }: Opened) -> Device {
        Device { file: File::from(fd), path, zeroing, direct, lost: OnceLock::new() }
    }

    /// What that other process must know.
    pub fn opened(&self) -> Opened {
        Opened { path: self.path.clone(), zeroing: self.zeroing, direct: self.direct }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Size in bytes. A block device's grows when its volume does.
    pub fn size(&self) -> Result<u64, Fault> {
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::End(0))
            .map_err(|error| self.failed("asking for the size", &error.into()))
    }

    /// Where the kernel lists a block device as long as it is there, whatever becomes of its node and links.
    pub fn in_sysfs(&self) -> Result<PathBuf, Fault> {
        let number = self.file.metadata().map_err(|error| self.failed("looking at", &error))?.rdev();
        Ok(format!("/sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number)).into())
    }

    /// The dataset behind a zvol's node: links lag behind, and node numbers are used again.
    pub fn zvol_name(&self) -> Option<String> {
        zvol_name(&self.file)
    }

    /// Writes all of `bytes` at `offset`. Aligned memory at an aligned place is handed to the device as it is.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let aligned = bytes.as_ptr().addr() as u64 | offset | bytes.len() as u64;
        if self.direct && !aligned.is_multiple_of(SECTOR) {
            return self.write_ragged(offset, bytes);
        }
        let mut at = offset;
        for piece in bytes.chunks(if self.direct { bytes.len().max(1) } else { CACHED }) {
            self.file.write_all_at(piece, at).map_err(|error| self.failed("writing", &error))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Reads `len` bytes at `offset`, both multiples of 4096; what lies behind the device's end reads as zero.
    pub fn read(&self, pool: &Pool, offset: u64, len: usize) -> Result<Buffer, Fault> {
        let mut buffer = pool.take(len);
        buffer.fill(0);
        let mut filled = 0;
        while filled < len {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("reading", &error)),
            }
        }
        Ok(buffer)
    }

    /// Reads whole sectors around the range, changes them, writes them. Nobody else may write to these sectors meanwhile.
    fn write_ragged(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let pool = Pool::new(ZEROS);
        let device_end = self.size()?;
        let (mut offset, mut bytes) = (offset, bytes);
        while !bytes.is_empty() {
            let start = offset - offset % SECTOR;
            let lead = to_usize(offset - start);
            let now = bytes.len().min(ZEROS - lead);
            // The device's own end may be no multiple of 4096, but is one of its sector.
            let span =
                to_usize(((offset + now as u64).next_multiple_of(SECTOR)).min(device_end.max(offset + now as u64)) - start);
            let whole = lead == 0 && now == span;
            let mut sectors =
                if whole { pool.take(span) } else { self.read(&pool, start, span.next_multiple_of(to_usize(SECTOR)))? };
            sectors.truncate(span);
            sectors[lead..lead + now].copy_from_slice(&bytes[..now]);
            self.file.write_all_at(&sectors, start).map_err(|error| self.failed("writing", &error))?;
            offset += now as u64;
            bytes = &bytes[now..];
        }
        Ok(())
    }

    /// Makes a range read as zero, and frees what it can of it.
    pub fn zero(&self, offset: u64, len: u64) -> Result<(), Fault> {
        let end = offset + len;
        let whole = match self.zeroing {
            // A device refuses to punch parts of a sector.
            Zeroing::Punch if self.direct => SECTOR,
            Zeroing::Punch => 1,
            Zeroing::DiscardBlocks(block) => block,
        };
        let (first, last) = (offset.next_multiple_of(whole), end - end % whole);
        if first >= last {
            return self.write_zeros(offset, len);
        }
        match self.zeroing {
            Zeroing::Punch => self.punch(first, last - first)?,
            Zeroing::DiscardBlocks(_) => self.discard(first, last - first)?,
        }
        self.write_zeros(offset, first - offset)?;
        self.write_zeros(last, end - last)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), Fault> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, len) {
            Ok(()) => Ok(()),
            Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::IO)) => Err(self.failed("zeroing", &error.into())),
            // Not supported here.
            Err(_) => self.write_zeros(offset, len),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), Fault> {
        // SAFETY: BLKDISCARD reads two u64 from the pointer, which the array is.
        let discarded = unsafe { ioctl(&self.file, Setter::<BLKDISCARD, [u64; 2]>::new([offset, len])) };
        discarded.map_err(|error| self.failed("discarding", &error.into()))
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), Fault> {
        let pool = Pool::new(ZEROS);
        let mut zeros = pool.take(ZEROS);
        zeros.fill(0);
        let mut done = 0;
        while done < len {
            let now = (len - done).min(ZEROS as u64);
            self.write(offset + done, &zeros[..to_usize(now)])?;
            done += now;
        }
        Ok(())
    }

    /// Forgets what the kernel keeps of the device in memory: after a roll-back it is of another time. Reports nothing.
    pub fn invalidate(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// Sets the size of a regular file in bytes; growth reads as zero.
    pub fn resize(&self, size: u64) -> Result<(), Fault> {
        self.file.set_len(size).map_err(|error| self.failed("setting the size", &error))
    }

    /// Makes everything written durable. An error is final: the kernel reports a lost write once, and a second call would lie.
    pub fn sync(&self) -> Result<(), Fault> {
        if let Some(fault) = self.lost.get() {
            return Err(fault.clone());
        }
        let synced = self.file.sync_all().map_err(|error| self.failed("making it durable", &error));
        synced.inspect_err(|fault| drop(self.lost.set(fault.clone())))
    }

    fn failed(&self, doing: &str, error: &io::Error) -> Fault {
        Fault::io(format!("{doing} {}", self.path.display()), error)
    }
}

/// A length that was bounded by a buffer's size before.
fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Opens a block device for reading while nobody has claimed it, and claims it as long as it is open.
pub fn open_unclaimed(path: &Path) -> Result<File, Fault> {
    let flags = OFlags::EXCL.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| open_failed(path, &error))
}

/// The same of a node that somebody else has claimed.
pub fn zvol_behind(node: &Path) -> Option<String> {
    zvol_name(&File::open(node).ok()?)
}

fn zvol_name(file: &File) -> Option<String> {
    // SAFETY: the opcode's size is that of the array it fills.
    let name = unsafe { ioctl(file, ZvolName([0; 256])) }.ok()?;
    std::ffi::CStr::from_bytes_until_nul(&name).ok()?.to_str().ok().map(str::to_owned)
}

struct ZvolName([u8; 256]);

// SAFETY: BLKZNAME writes at most the 256 bytes that its opcode declares.
unsafe impl Ioctl for ZvolName {
    type Output = [u8; 256];
    const IS_MUTATING: bool = true;
    fn opcode(&self) -> Opcode {
        BLKZNAME
    }
    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        self.0.as_mut_ptr().cast()
    }
    unsafe fn output_from_ptr(_: IoctlOutput, pointer: *mut rustix::ffi::c_void) -> rustix::io::Result<[u8; 256]> {
        // SAFETY: the pointer is the one that `as_ptr` gave.
        Ok(unsafe { *pointer.cast::<[u8; 256]>() })
    }
}

/// Another run is at it.
pub(super) fn busy() -> Fault {
    Fault::new(Class::Busy, "another run holds the target").hint("try again when it has ended")
}

/// Why an exclusive open failed: EBUSY alone does not tell a mount from another run of ours.
fn open_failed(path: &Path, error: &io::Error) -> Fault {
    if error.kind() != io::ErrorKind::ResourceBusy {
        return Fault::io(format!("opening {}", path.display()), error);
    }
    let Ok(meta) = path.metadata() else { return busy() };
    if !meta.file_type().is_block_device() {
        return busy();
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let parts = partitions(major, minor);
    if let Some(place) = parts.iter().find_map(|number| mounted_at(number)) {
        return Fault::new(Class::Mounted, format!("mounted at {place}")).hint(format!("umount {place}"));
    }
    match parts.iter().find_map(|number| holder(number)) {
        Some(name) => Fault::new(Class::Claimed, format!("claimed by {name}"))
            .hint("LVM or md of a guest woke up on this host? volmode=dev or none, and a filter in lvm.conf, keep them asleep"),
        None => busy(),
    }
}

/// The device itself and its partitions, as `major:minor`.
fn partitions(major: u32, minor: u32) -> Vec<String> {
    let whole = format!("{major}:{minor}");
    let entries = std::fs::read_dir(format!("/sys/dev/block/{whole}")).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("dev")).ok());
    std::iter::once(whole).chain(numbers.map(|number| number.trim().to_owned())).collect()
}

fn mounted_at(number: &str) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(number))?;
    line.split(' ').nth(4).map(str::to_owned)
}

fn holder(number: &str) -> Option<String> {
    let entry = std::fs::read_dir(format!("/sys/dev/block/{number}/holders")).ok()?.next()?.ok()?;
    Some(entry.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_lost_is_not_durable_at_a_second_call() {
        // It can be written to, but not be made durable.
        let mut device = Device::of_file(File::options().write(true).open("/dev/null").unwrap(), PathBuf::new());
        let first = device.sync().unwrap_err();
        device.file = tempfile::tempfile().unwrap();
        assert_eq!(device.sync().unwrap_err(), first);
    }
}
