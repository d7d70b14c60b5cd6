//! Every number of the wire, once. The source of each is `man/extent-stream.5`, section of the same name.

/// What a stream begins with: a byte with the high bit set, a name, CR LF, SUB, LF, NUL; each is damaged by another kind of careless transport.
pub const MAGIC: [u8; 16] = *b"\x89SIPHON-EXT\r\n\x1a\n\0";
/// The major version this code speaks. Another one is refused.
pub const MAJOR: u16 = 1;
/// The minor version this code writes. A newer one with the same major is read: what matters is said by feature bits.
pub const MINOR: u16 = 0;
/// Bytes of the preamble: magic, major, minor, CRC-32 of those.
pub const PREAMBLE_LEN: usize = 24;
/// Bytes of every frame header.
pub const FRAME_HEADER_LEN: usize = 32;

/// Bit of a frame type: a reader that does not know the type skips the frame.
pub const MAY_SKIP: u16 = 1 << 15;
/// Bit of a frame type: a filter that does not know the type passes the frame on.
pub const SAFE_TO_COPY: u16 = 1 << 14;

/// Frame types. 0x0001–0x000F structure, 0x0010–0x001F extents, 0x0020–0x003F trees, others reserved.
pub mod kind {
    /// Whose states, and which features: the first frame, once.
    pub const HEADER: u16 = 0x0001;
    /// What the extents that follow belong to: the second frame, once in a stream of one object.
    pub const OBJECT: u16 = 0x0002;
    /// A link of the digest chain, at fixed positions.
    pub const CHECKPOINT: u16 = 0x0003;
    /// Counts, the state reached and the last link; nothing follows.
    pub const END: u16 = 0x0004;
    /// Bytes of the to-state.
    pub const DATA: u16 = 0x0010;
    /// A range of the to-state that reads as zero.
    pub const ZERO: u16 = 0x0011;
    /// What stands at a path no more.
    pub const GONE: u16 = 0x0020;
    /// What stands at a path.
    pub const ENTRY: u16 = 0x0021;
    /// Another name of an entry.
    pub const LINK: u16 = 0x0022;
    /// Where the trees of a list can be read.
    pub const ROOTS: u16 = 0x0023;
}

/// Flag of a ZERO frame: the range may be deallocated (it was a hole at the source).
pub const ZERO_MAY_DEALLOCATE: u16 = 1;

/// Payload bytes of a HEADER before the names and the feature table.
pub const HEADER_FIXED_LEN: usize = 96;
/// Payload bytes of an OBJECT.
pub const OBJECT_LEN: usize = 32;
/// Payload bytes of a CHECKPOINT.
pub const CHECKPOINT_LEN: usize = 56;
/// Payload bytes of a ZERO.
pub const ZERO_LEN: usize = 8;
/// Payload bytes of an END.
pub const END_LEN: usize = 88;

/// OBJECT kind: an image, that is a run of bytes addressed by offset.
pub const OBJECT_IMAGE: u16 = 1;
/// OBJECT kind: a directory tree.
pub const OBJECT_TREE: u16 = 2;

/// A frame's payload, unless the header says otherwise: 1 MiB.
pub const DEFAULT_MAX_PAYLOAD: u32 = 1 << 20;
/// The largest payload a header may declare: 16 MiB.
pub const LIMIT_MAX_PAYLOAD: u32 = 16 << 20;
/// The smallest payload bound a header may declare: 4 KiB.
pub const LIMIT_MIN_PAYLOAD: u32 = 4 << 10;
/// The largest HEADER payload, names and feature table included: 64 KiB.
pub const LIMIT_HEADER: u32 = 64 << 10;
/// The longest human name: 4096 bytes.
pub const LIMIT_NAME: usize = 4096;
/// The largest image: 2^63 − 1 bytes, what a POSIX offset can say.
pub const LIMIT_IMAGE: u64 = i64::MAX as u64;
/// The largest grain: 64 KiB.
pub const LIMIT_GRAIN: u32 = 64 << 10;
/// The grain our sources declare: 4 KiB.
pub const DEFAULT_GRAIN: u32 = 4 << 10;

/// The longest name of an entry: 255 bytes, NAME_MAX of Linux. The same for the name of an extended attribute, XATTR_NAME_MAX.
pub const LIMIT_COMPONENT: usize = 255;
/// The most names in a path.
pub const LIMIT_DEPTH: usize = 1024;
/// The longest path: 64 KiB, a byte for each name's length included.
pub const LIMIT_PATH: usize = 64 << 10;
/// The longest target of a symbolic link: 4095 bytes, PATH_MAX of Linux without the NUL.
pub const LIMIT_LINK: usize = 4095;
/// The longest value of an extended attribute: 64 KiB, XATTR_SIZE_MAX of Linux.
pub const LIMIT_XATTR: usize = 64 << 10;
/// The largest mode: set-user-id, set-group-id, sticky, and three times read, write, execute.
pub const LIMIT_MODE: u16 = 0o7777;
/// Nanoseconds of a time are less than this.
pub const LIMIT_NANOSECONDS: u32 = 1_000_000_000;

/// A CHECKPOINT follows the frame with which the payload since the last one reaches this: 64 MiB.
pub const CHECKPOINT_PAYLOAD: u64 = 64 << 20;
/// … or with which the frames since the last one reach this.
pub const CHECKPOINT_FRAMES: u64 = 1 << 16;

/// What has a leaf of its own: a block of the image of 64 KiB.
pub const BLOCK: usize = 64 << 10;

/// DATA is cut where a multiple of this lies: 1 MiB.
pub const CUT: u64 = 1 << 20;

/// Incompatible feature: the object is a directory tree.
pub const FEATURE_TREE: u8 = 0;
/// Incompatible feature: entries have no content.
pub const FEATURE_LIST: u8 = 4;

/// Incompatible features: a reader that does not know a set bit refuses the stream.
///
/// Version 1.0 sets none and knows none; these bits are spoken for, so that a reader without them can refuse them by name.
pub const RESERVED_INCOMPATIBLE: [(u8, &str); 4] = [
    (FEATURE_TREE, "tree (a directory tree)"),
    (1, "resumed (goes on after a checkpoint)"),
    (2, "multi-object (several images)"),
    (FEATURE_LIST, "list (entries without content)"),
];
