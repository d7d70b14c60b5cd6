//! Bytes → vocabulary.
//!
//! Every byte is hostile until its check sum fits, and every value until it was compared with its bound; only then is
//! memory taken or a change handed on.

use std::io::{self, Read};

use bytes::Bytes;

use super::chain::Chain;
use super::extents::Extents;
use super::fields::Fields;
use super::frame::FrameHeader;
use super::{Change, Damage, DamagedStream, Data, Header, Image, Pool, Totals, Trailer, wire};

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

/// Reads one image stream: [`Reader::open`], then [`Reader::change`] until `None`, which says that END was right and EOF followed.
pub struct Reader<R: Read> {
    input: R,
    header: Header,
    image: Image,
    extents: Extents,
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
    trailer: Option<Trailer>,
}

impl<R: Read> Reader<R> {
    /// Reads preamble, HEADER and OBJECT: all that a sink needs to refuse.
    pub fn open(mut input: R) -> Result<Reader<R>, ReadError> {
        let mut state = State {
            chain: Chain::new(),
            pool: Pool::new(wire::LIMIT_HEADER as usize),
            max_payload: wire::LIMIT_HEADER,
            frames: 0,
            position: 0,
            item: 0,
            item_number: 0,
            totals: Totals::default(),
            trailer: None,
        };
        state.preamble(&mut input)?;
        let (frame, payload) = state.frame(&mut input)?;
        state.expect(&frame, wire::kind::HEADER, "HEADER")?;
        let header = Header::decode(&payload).map_err(|(class, what)| state.damaged(class, what))?;
        state.chain.link();
        let (frame, payload) = state.frame(&mut input)?;
        state.expect(&frame, wire::kind::OBJECT, "OBJECT")?;
        let image = Image::decode(&payload, &header).map_err(|(class, what)| state.damaged(class, what))?;
        state.max_payload = header.max_payload;
        state.pool = Pool::new(header.max_payload as usize);
        Ok(Reader { input, header, image, extents: Extents::new(&image), state, damage: None })
    }

    /// Whose state becomes whose.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the changes are about.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The next change; `None` once END was read, agreed with everything before it, and nothing followed.
    ///
    /// After damage it only ever says so again.
    pub fn change(&mut self) -> Result<Option<Change>, ReadError> {
        if let Some(damage) = &self.damage {
            return Err(ReadError::Damaged(damage.clone()));
        }
        let result = self.next();
        if let Err(ReadError::Damaged(damage)) = &result {
            self.damage = Some(damage.clone());
        }
        result
    }

    fn next(&mut self) -> Result<Option<Change>, ReadError> {
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

    /// Frames read whole so far.
    pub fn frames(&self) -> u64 {
        self.state.frames
    }

    fn data(&mut self, frame: &FrameHeader, payload: Bytes) -> Result<Change, ReadError> {
        self.state.no_flags(frame, 0)?;
        let data = Data::new(frame.offset, payload);
        self.state.chain.leaves(&data);
        self.extent(Change::Data(data))
    }

    fn zero(&mut self, frame: &FrameHeader, payload: &[u8]) -> Result<Change, ReadError> {
        self.state.no_flags(frame, wire::ZERO_MAY_DEALLOCATE)?;
        let mut fields = Fields(payload);
        let Some((len, true)) = fields.u64().map(|len| (len, fields.0.is_empty())) else {
            return Err(self.state.damaged(Damage::Length, "ZERO has a wrong length"));
        };
        let may_deallocate = frame.flags & wire::ZERO_MAY_DEALLOCATE != 0;
        self.extent(Change::Zero { offset: frame.offset, len, may_deallocate })
    }

    /// The rules that every extent obeys.
    fn extent(&mut self, change: Change) -> Result<Change, ReadError> {
        self.extents.admit(&change).map_err(|(class, what)| self.state.damaged(class, what))?;
        self.state.totals.count(&change);
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
        if self.header.to.is_some() && trailer.to != self.header.to {
            return Err(state.damaged(Damage::Identity, "END names another to-state than HEADER"));
        }
        if self.image.contradicts(self.header.from, trailer.to) {
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
