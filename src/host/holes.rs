//! Where a file has holes, as far as its file system can be believed.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{SeekFrom, fstatfs, seek};
use rustix::io::Errno;

/// A part of a file that is either all hole or to be read. Offsets are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first byte behind it: a multiple of the grain, or the file's size.
    pub end: u64,
    /// It reads as zero and takes no room.
    pub hole: bool,
}

/// Finds the holes of one open file, in whole grains.
#[derive(Debug)]
pub struct Holes {
    trusted: bool,
    size: u64,
    grain: u64,
    known: Option<(u64, Piece)>,
}

impl Holes {
    /// The holes of a file of `size` bytes, rounded inwards to multiples of `grain` bytes. Not `trusted`: it has none.
    pub fn new(trusted: bool, size: u64, grain: u64) -> Holes {
        Holes { trusted, size, grain, known: None }
    }

    /// The piece from `offset` on, which is a multiple of the grain and lies inside the file.
    pub fn at(&mut self, file: &File, offset: u64) -> io::Result<Piece> {
        if let Some((start, piece)) = self.known
            && (start..piece.end).contains(&offset)
        {
            return Ok(piece);
        }
        let piece = self.find(file, offset)?;
        self.known = Some((offset, piece));
        Ok(piece)
    }

    fn find(&mut self, file: &File, offset: u64) -> io::Result<Piece> {
        let rest = Piece { end: self.size, hole: false };
        if !self.trusted {
            return Ok(rest);
        }
        let data = match seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(Piece { end: self.size, hole: true }),
            // A file system, or a block device, that does not say: read everything.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.trusted = false;
                return Ok(rest);
            }
            Err(error) => return Err(error.into()),
        };
        // A grain that is partly hole is read as a whole.
        let hole_end = if data >= self.size { self.size } else { data - data % self.grain };
        if hole_end > offset {
            return Ok(Piece { end: hole_end, hole: true });
        }
        let data_end = seek(file, SeekFrom::Hole(data))?.max(offset + 1).next_multiple_of(self.grain);
        Ok(Piece { end: data_end.min(self.size), hole: false })
    }
}

/// Whether a file of `size` bytes is known to hold nothing but zeros, without reading it.
pub fn is_blank(file: &File, size: u64) -> io::Result<bool> {
    if size == 0 {
        return Ok(true);
    }
    file.sync_all()?;
    Ok(Holes::new(trustworthy(file)?, size, 1).at(file, 0)? == Piece { end: size, hole: true })
}

/// What statfs(2) says of ZFS.
const ZFS_MAGIC: i128 = 0x2fc1_2fc1;
/// And of file systems of this machine that tell of holes themselves, as linux/magic.h has them.
const TRUTHFUL: [(i128, &str); 6] = [
    (0xef53, "ext2, ext3, ext4"),
    (0x5846_5342, "XFS"),
    (0x9123_683e, "Btrfs"),
    (0xf2f5_2010, "F2FS"),
    (0xca45_1a4e, "bcachefs"),
    (0x0102_1994, "tmpfs, and device nodes"),
];

/// Whether the file system tells the truth about holes once the file is synced.
///
/// ZFS before 2.1.14 and 2.2.2 told of holes where there was data (openzfs#15526). A network file system, FUSE or overlayfs
/// passes on what one says that may be such a one.
pub fn trustworthy(file: &File) -> io::Result<bool> {
    Ok(match i128::from(fstatfs(file)?.f_type) {
        ZFS_MAGIC => std::fs::read_to_string(Path::new("/sys/module/zfs/version")).is_ok_and(|text| zfs_tells_holes(&text)),
        kind => TRUTHFUL.iter().any(|(magic, _)| *magic == kind),
    })
}

/// A version such as `2.1.14-1` or `2.2.2-0ubuntu9`.
fn zfs_tells_holes(version: &str) -> bool {
    let mut numbers = version.trim().split(['.', '-', '_']).map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten()) {
        (Some(2), Some(1), Some(patch)) => patch >= 14,
        (Some(2), Some(2), Some(patch)) => patch >= 2,
        (Some(major), Some(minor), _) => (major, minor) > (2, 2),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn zfs_that_lied_about_holes_is_known() {
        for good in ["2.1.14-1\n", "2.1.15", "2.2.2-0ubuntu9", "2.2.10-1", "2.3.0-rc1", "3.0.0"] {
            assert!(zfs_tells_holes(good), "{good}");
        }
        for bad in ["2.1.13-1", "2.2.0", "2.2.1-1", "2.0.7", "0.8.3-1ubuntu12", "", "unknown"] {
            assert!(!zfs_tells_holes(bad), "{bad}");
        }
    }

    #[test]
    fn pieces_are_whole_grains_and_cover_the_file() {
        let file = tempfile::tempfile().unwrap();
        let size = (1 << 20) + 5;
        file.set_len(size).unwrap();
        file.write_all_at(b"x", 100_000).unwrap();
        for trusted in [true, false] {
            let mut holes = Holes::new(trusted, size, 4096);
            let (mut at, mut data) = (0, 0);
            while at < size {
                let piece = holes.at(&file, at).unwrap();
                assert!(piece.end > at && (piece.end.is_multiple_of(4096) || piece.end == size));
                data += if piece.hole { 0 } else { piece.end - at };
                assert!(!piece.hole || !(at..piece.end).contains(&100_000));
                at = piece.end;
            }
            assert!(if trusted { data < size / 2 } else { data == size });
        }
    }
}
