//! Bytes → vocabulary.
//!
//! Every byte is hostile until its check sum fits, and every value until it was compared with its bound; only then is
//! memory taken or a change handed on.

use std::io::{self, Read};

use bytes::Bytes;

use super::chain::Chain;
use super::fields::Fields;
use super::frame::FrameHeader;
use super::object::{Object, Wrong};
use super::{Change, Damage, DamagedStream, Data, Header, Image, Pool, Totals, Trailer, Tree, wire};

/// Reading failed: the stream is damaged, or the system could not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream must not be believed.
    #[error("{0}")]
    Damaged(DamagedStream),
    /// The system says why.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads one stream: [`Reader::open`], then [`Reader::change`] until `None`, which says that END was right and EOF followed.
pub struct Reader<R: Read, O: Object = Image> {
    input: R,
    header: Header,
    object: O,
    rules: O::Rules,
    state: State,
    /// The first damage found. After it nothing is believed.
    damage: Option<DamagedStream>,
}

/// What is carried from frame to frame.
struct State {
    chain: Chain,
    pool: Pool,
    max_payload: u32,
    /// Frames read whole.
    frames: u64,
    /// Bytes read.
    position: u64,
    /// Where the item that is being read begins.
    item: u64,
    /// The number that this item has or should have.
    item_number: u64,
    totals: Totals,
    /// CHECKPOINT frames that were right.
    checkpoints: u64,
    trailer: Option<Trailer>,
}

/// A stream whose HEADER was read: enough to know what it is about.
pub struct Beginning<R: Read> {
    input: R,
    header: Header,
    state: State,
}

impl<R: Read> Beginning<R> {
    /// Reads preamble and HEADER. `known`: the incompatible features that are not refused, as bits.
    pub fn read(input: R, known: u64) -> Result<Beginning<R>, ReadError> {
        Beginning::read_knowing(input, |_| known)
    }

    /// The same for a reader of streams of all objects. The features of trees are known where the one that says so is set.
    pub fn read_any(input: R) -> Result<Beginning<R>, ReadError> {
        let of_tree = 1 << wire::FEATURE_TREE;
        Beginning::read_knowing(input, |set| if set & of_tree == 0 { Image::known_features() } else { Tree::known_features() })
    }

    fn read_knowing(mut input: R, known: impl FnOnce(u64) -> u64) -> Result<Beginning<R>, ReadError> {
        let mut state = State {
            chain: Chain::new(),
            pool: Pool::new(wire::LIMIT_HEADER as usize),
            max_payload: wire::LIMIT_HEADER,
            frames: 0,
            position: 0,
            item: 0,
            item_number: 0,
            totals: Totals::default(),
            checkpoints: 0,
            trailer: None,
        };
        state.preamble(&mut input)?;
        let (frame, payload) = state.frame(&mut input)?;
        state.expect(&frame, wire::kind::HEADER, "HEADER")?;
        let set = Fields(&payload).u64().unwrap_or_default();
        let header = Header::decode(&payload, known(set)).map_err(|wrong| state.wrong(wrong))?;
        state.chain.link();
        Ok(Beginning { input, header, state })
    }

    /// Whose state becomes whose.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads OBJECT, which has to be of this kind.
    pub fn of<O: Object>(self) -> Result<Reader<R, O>, ReadError> {
        let Beginning { mut input, header, mut state } = self;
        let (frame, payload) = state.frame(&mut input)?;
        state.expect(&frame, wire::kind::OBJECT, "OBJECT")?;
        let object = O::decode(&payload, &header).map_err(|wrong| state.wrong(wrong))?;
        state.max_payload = header.max_payload;
        state.pool = Pool::new(header.max_payload as usize);
        let rules = object.rules(&header);
        Ok(Reader { input, header, object, rules, state, damage: None })
    }
}

impl<R: Read> Reader<R> {
    /// Reads preamble, HEADER and OBJECT of an image's stream: all that a sink needs to refuse.
    pub fn open(input: R) -> Result<Reader<R>, ReadError> {
        Beginning::read(input, Image::known_features())?.of()
    }
}

impl<R: Read, O: Object> Reader<R, O> {
    /// Whose state becomes whose.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the changes are about.
    pub fn object(&self) -> &O {
        &self.object
    }

    /// The next change; `None` once END was read, agreed with everything before it, and nothing followed.
    ///
    /// After damage it only ever says so again.
    pub fn change(&mut self) -> Result<Option<O::Change>, ReadError> {
        if let Some(damage) = &self.damage {
            return Err(ReadError::Damaged(damage.clone()));
        }
        let result = self.next();
        if let Err(ReadError::Damaged(damage)) = &result {
            self.damage = Some(damage.clone());
        }
        result
    }

    fn next(&mut self) -> Result<Option<O::Change>, ReadError> {
        while self.state.trailer.is_none() {
            let checkpoint_due = self.state.chain.checkpoint_due();
            let before = self.state.frames;
            let (frame, payload) = self.state.frame(&mut self.input)?;
            if checkpoint_due != (frame.kind == wire::kind::CHECKPOINT) {
                let what = if checkpoint_due { "a CHECKPOINT is due and missing" } else { "a CHECKPOINT where none is due" };
                return Err(self.state.damaged(Damage::Checkpoint, what));
            }
            match frame.kind {
                wire::kind::DATA => return self.data(&frame, payload).map(Some),
                wire::kind::ZERO => return self.zero(&frame, &payload).map(Some),
                wire::kind::CHECKPOINT => self.state.checkpoint(&frame, &payload, before)?,
                wire::kind::END => self.end(&frame, &payload, before)?,
                wire::kind::HEADER | wire::kind::OBJECT => {
                    return Err(self.state.damaged(Damage::Order, "a second HEADER or OBJECT"));
                }
                kind if let Some(change) = O::read(kind, &payload) => return self.entry(&frame, change).map(Some),
                kind if kind & wire::MAY_SKIP != 0 => {}
                kind => return Err(self.state.damaged(Damage::UnknownFrame, format!("unknown frame type {kind:#06x}"))),
            }
        }
        Ok(None)
    }

    /// What END said, after [`Reader::change`] gave `None`.
    pub fn trailer(&self) -> Option<Trailer> {
        self.state.trailer
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.state.position
    }

    /// CHECKPOINT frames read so far: each has verified all that was before it.
    pub fn checkpoints(&self) -> u64 {
        self.state.checkpoints
    }

    /// Frames read whole so far.
    pub fn frames(&self) -> u64 {
        self.state.frames
    }

    fn data(&mut self, frame: &FrameHeader, payload: Bytes) -> Result<O::Change, ReadError> {
        self.state.no_flags(frame, 0)?;
        let data = Data::new(frame.offset, payload);
        self.state.chain.leaves(&data);
        self.extent(Change::Data(data))
    }

    fn zero(&mut self, frame: &FrameHeader, payload: &[u8]) -> Result<O::Change, ReadError> {
        self.state.no_flags(frame, wire::ZERO_MAY_DEALLOCATE)?;
        let mut fields = Fields(payload);
        let Some((len, true)) = fields.u64().map(|len| (len, fields.0.is_empty())) else {
            return Err(self.state.damaged(Damage::Length, "ZERO has a wrong length"));
        };
        let may_deallocate = frame.flags & wire::ZERO_MAY_DEALLOCATE != 0;
        self.extent(Change::Zero { offset: frame.offset, len, may_deallocate })
    }

    fn extent(&mut self, extent: Change) -> Result<O::Change, ReadError> {
        let mut totals = self.state.totals;
        totals.count(&extent);
        let change = self.admitted(O::Change::from(extent))?;
        self.state.totals = totals;
        Ok(change)
    }

    /// A frame that is no extent.
    fn entry(&mut self, frame: &FrameHeader, change: Result<O::Change, Wrong>) -> Result<O::Change, ReadError> {
        self.state.plain(frame)?;
        let change = change.map_err(|wrong| self.state.wrong(wrong))?;
        self.admitted(change)
    }

    /// The rules that every change obeys.
    fn admitted(&mut self, change: O::Change) -> Result<O::Change, ReadError> {
        O::admit(&mut self.rules, &change).map_err(|wrong| self.state.wrong(wrong))?;
        Ok(change)
    }

    fn end(&mut self, frame: &FrameHeader, payload: &[u8], frames_before: u64) -> Result<(), ReadError> {
        let state = &mut self.state;
        state.plain(frame)?;
        let Some(trailer) = Trailer::decode(payload) else {
            return Err(state.damaged(Damage::Length, "END has a wrong length"));
        };
        if state.chain.link() != trailer.digest {
            return Err(state.damaged(Damage::Digest, "END's digest does not agree with what was read"));
        }
        if (trailer.frames, trailer.totals) != (frames_before, state.totals) {
            return Err(state.damaged(Damage::Totals, "END's counts do not agree with what was read"));
        }
        O::close(&self.rules).map_err(|wrong| state.wrong(wrong))?;
        if self.header.to.is_some() && trailer.to != self.header.to {
            return Err(state.damaged(Damage::Identity, "END names another to-state than HEADER"));
        }
        if self.object.contradicts(self.header.from, trailer.to) {
            return Err(state.damaged(Damage::Identity, "from-state and to-state are one, but their sizes differ"));
        }
        state.item = state.position;
        state.item_number = state.frames;
        if !state.at_end(&mut self.input)? {
            return Err(state.damaged(Damage::Trailing, "bytes follow END"));
        }
        state.trailer = Some(trailer);
        Ok(())
    }
}

impl State {
    fn wrong(&self, (class, what): Wrong) -> ReadError {
        self.damaged(class, what)
    }

    fn damaged(&self, class: Damage, what: impl Into<String>) -> ReadError {
        ReadError::Damaged(DamagedStream { class, frame: self.item_number, byte: self.item, what: what.into() })
    }

    fn preamble(&mut self, input: &mut impl Read) -> Result<(), ReadError> {
        let mut bytes = [0; wire::PREAMBLE_LEN];
        let read = self.fill(input, &mut bytes)?;
        let got = bytes.get(..read).unwrap_or_default();
        let (magic, versions) = got.split_at(got.len().min(wire::MAGIC.len()));
        if got.is_empty() {
            return Err(self.damaged(Damage::Empty, ""));
        }
        if !wire::MAGIC.starts_with(magic) {
            return Err(self.damaged(Damage::NotAStream, "this is not an extent stream"));
        }
        if read < wire::PREAMBLE_LEN {
            return Err(self.cut());
        }
        let mut fields = Fields(versions);
        let (major, _minor, crc) = (fields.u16(), fields.u16(), fields.u32());
        if crc != got.get(..wire::PREAMBLE_LEN - 4).map(crc32fast::hash) {
            return Err(self.damaged(Damage::HeaderCrc, "the check sum of the preamble does not fit"));
        }
        if major != Some(wire::MAJOR) {
            let major = major.unwrap_or_default();
            return Err(self.damaged(Damage::Version, format!("version {major} of the format; this reader knows version 1")));
        }
        self.chain.update(&bytes);
        Ok(())
    }

    /// The next frame, with its check sums, number and length checked; counted and hashed, but for the leaves of DATA.
    fn frame(&mut self, input: &mut impl Read) -> Result<(FrameHeader, Bytes), ReadError> {
        self.item = self.position;
        self.item_number = self.frames;
        let mut bytes = [0; wire::FRAME_HEADER_LEN];
        if self.fill(input, &mut bytes)? < bytes.len() {
            return Err(self.cut());
        }
        let Some(frame) = FrameHeader::decode(&bytes) else {
            return Err(self.damaged(Damage::HeaderCrc, "the check sum of a frame header does not fit"));
        };
        if frame.number != self.frames {
            let what = format!("frame number {} where {} is due", frame.number, self.frames);
            return Err(self.damaged(Damage::Order, what));
        }
        if frame.len > self.max_payload {
            let what = format!("a payload of {} bytes; this stream allows {}", frame.len, self.max_payload);
            return Err(self.damaged(Damage::Length, what));
        }
        let mut payload = self.pool.take(frame.len as usize);
        if self.fill(input, &mut payload)? < payload.len() {
            return Err(self.cut());
        }
        if crc32fast::hash(&payload) != frame.payload_crc {
            return Err(self.damaged(Damage::PayloadCrc, "the check sum of a payload does not fit"));
        }
        match frame.kind {
            // A link stands for all before it; its own frame is no part of the next segment.
            wire::kind::CHECKPOINT => {}
            // END's digest covers END's other fields, not itself and not what is computed from it.
            wire::kind::END => self.chain.update(payload.split_last_chunk::<32>().map(|(fields, _)| fields).unwrap_or_default()),
            kind => {
                self.chain.update(&bytes);
                if kind != wire::kind::DATA {
                    self.chain.update(&payload);
                }
                self.chain.frame(frame.len);
            }
        }
        self.frames = self.frames.saturating_add(1);
        Ok((frame, payload.freeze()))
    }

    fn checkpoint(&mut self, frame: &FrameHeader, payload: &[u8], frames_before: u64) -> Result<(), ReadError> {
        self.plain(frame)?;
        let mut fields = Fields(payload);
        let told = (fields.u64(), fields.u64(), fields.u64(), fields.array::<32>());
        if !fields.0.is_empty() || told.3.is_none() {
            return Err(self.damaged(Damage::Length, "CHECKPOINT has a wrong length"));
        }
        let seen = (frames_before, self.totals.data_bytes, self.totals.zero_bytes, self.chain.link().0);
        if told != (Some(seen.0), Some(seen.1), Some(seen.2), Some(seen.3)) {
            return Err(self.damaged(Damage::Checkpoint, "a CHECKPOINT does not agree with what was read"));
        }
        self.checkpoints = self.checkpoints.saturating_add(1);
        Ok(())
    }

    fn expect(&self, frame: &FrameHeader, kind: u16, name: &str) -> Result<(), ReadError> {
        if frame.kind != kind {
            return Err(self.damaged(Damage::Order, format!("{name} is due, not frame type {:#06x}", frame.kind)));
        }
        self.plain(frame)
    }

    /// A frame whose flags and offset are reserved.
    fn plain(&self, frame: &FrameHeader) -> Result<(), ReadError> {
        if frame.offset != 0 {
            return Err(self.damaged(Damage::Reserved, "an offset in a frame that is no extent"));
        }
        self.no_flags(frame, 0)
    }

    fn no_flags(&self, frame: &FrameHeader, but: u16) -> Result<(), ReadError> {
        if frame.flags & !but != 0 {
            return Err(self.damaged(Damage::Reserved, format!("reserved flags {:#06x}", frame.flags & !but)));
        }
        Ok(())
    }

    fn cut(&self) -> ReadError {
        let what = String::new();
        ReadError::Damaged(DamagedStream { class: Damage::Truncated, frame: self.frames, byte: self.position, what })
    }

    /// Reads until `buffer` is full or the input ends; bytes read.
    fn fill(&mut self, input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0_usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match input.read(rest) {
                Ok(0) => break,
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position = self.position.saturating_add(filled as u64);
        Ok(filled)
    }

    fn at_end(&mut self, input: &mut impl Read) -> io::Result<bool> {
        Ok(self.fill(input, &mut [0])? == 0)
    }
}
