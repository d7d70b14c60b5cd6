//! Vocabulary → bytes.

use std::io::{self, IoSlice, Write};

use super::chain::Chain;
use super::frame::FrameHeader;
use super::object::{Object, Written};
use super::{Change, Damage, Data, Digest, Header, Id, Image, Totals, Trailer, wire};

/// Writes one stream. Nothing but [`Writer::finish`] seals it.
///
/// What a reader would refuse is refused here first, with [`io::ErrorKind::InvalidInput`].
pub struct Writer<W: Write, O: Object = Image> {
    output: W,
    header: Header,
    object: O,
    rules: O::Rules,
    chain: Chain,
    frames: u64,
    totals: Totals,
    written: u64,
}

impl<W: Write, O: Object> Writer<W, O> {
    /// Writes preamble, HEADER and OBJECT and flushes them, so that a reader can refuse at once.
    pub fn begin(output: W, header: &Header, object: &O) -> io::Result<Writer<W, O>> {
        let payload = header.encode();
        Header::decode(&payload, O::known_features()).and_then(|header| O::decode(&object.encode(), &header)).map_err(refused)?;
        let (header, object, rules) = (header.clone(), object.clone(), object.rules(header));
        let (chain, totals) = (Chain::new(), Totals::default());
        let mut writer = Writer { output, header, object, rules, chain, frames: 0, totals, written: 0 };
        let mut preamble = wire::MAGIC.to_vec();
        preamble.extend(wire::MAJOR.to_le_bytes());
        preamble.extend(O::MINOR.to_le_bytes());
        preamble.extend(crc32fast::hash(&preamble).to_le_bytes());
        writer.chain.update(&preamble);
        writer.put(&preamble, &[])?;
        writer.frame(wire::kind::HEADER, 0, 0, &payload)?;
        writer.chain.link();
        let object = writer.object.encode();
        writer.frame(wire::kind::OBJECT, 0, 0, &object)?;
        writer.output.flush()?;
        Ok(writer)
    }

    /// Writes one change, and the CHECKPOINT that may be due after it.
    pub fn change(&mut self, change: &O::Change) -> io::Result<()> {
        let written = O::written(change);
        let payload_len = match &written {
            Written::Extent(Change::Data(data)) => data.bytes().len(),
            Written::Extent(Change::Zero { .. }) => 0,
            Written::Frame(_, payload) => payload.len(),
        };
        if payload_len > self.header.max_payload as usize {
            return Err(refused((Damage::Length, format!("a payload of {payload_len} bytes is over the bound"))));
        }
        O::admit(&mut self.rules, change).map_err(refused)?;
        match written {
            Written::Extent(extent) => self.extent(extent)?,
            Written::Frame(kind, payload) => {
                // What a reader would refuse in the values themselves.
                O::read(kind, &payload).transpose().map_err(refused)?;
                self.frame(kind, 0, 0, &payload)?;
            }
        }
        if self.chain.checkpoint_due() { self.checkpoint() } else { Ok(()) }
    }

    fn extent(&mut self, extent: &Change) -> io::Result<()> {
        self.totals.count(extent);
        match extent {
            Change::Data(data) => self.data(data),
            Change::Zero { offset, len, may_deallocate } => {
                let flags = if *may_deallocate { wire::ZERO_MAY_DEALLOCATE } else { 0 };
                self.frame(wire::kind::ZERO, flags, *offset, &len.to_le_bytes())
            }
        }
    }

    /// Seals the stream with END, flushes it, and says what END said.
    pub fn finish(mut self, to: Option<Id>) -> io::Result<Trailer> {
        if self.header.to.is_some() && to != self.header.to || self.object.contradicts(self.header.from, to) {
            return Err(refused((Damage::Identity, "the state reached contradicts what HEADER and OBJECT said".to_owned())));
        }
        O::close(&self.rules).map_err(refused)?;
        let mut payload = Trailer::encode_undigested(to, self.frames, &self.totals);
        self.chain.update(&payload);
        let trailer = Trailer { to, frames: self.frames, totals: self.totals, digest: self.chain.link() };
        payload.extend(trailer.digest.0);
        self.frame(wire::kind::END, 0, 0, &payload)?;
        self.output.flush()?;
        Ok(trailer)
    }

    /// Whose state becomes whose.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What lies below, for a look at it.
    pub fn output(&self) -> &W {
        &self.output
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        let mut payload = Vec::with_capacity(wire::CHECKPOINT_LEN);
        for number in [self.frames, self.totals.data_bytes, self.totals.zero_bytes] {
            payload.extend(number.to_le_bytes());
        }
        let Digest(link) = self.chain.link();
        payload.extend(link);
        // A link stands for all before it; its own frame is no part of the next segment.
        let chain = std::mem::replace(&mut self.chain, Chain::new());
        let written = self.frame(wire::kind::CHECKPOINT, 0, 0, &payload);
        self.chain = chain;
        written
    }

    fn data(&mut self, data: &Data) -> io::Result<()> {
        let head = self.head(wire::kind::DATA, 0, data.offset(), data.bytes())?;
        self.chain.leaves(data);
        self.put(&head, data.bytes())
    }

    fn frame(&mut self, kind: u16, flags: u16, offset: u64, payload: &[u8]) -> io::Result<()> {
        let head = self.head(kind, flags, offset, payload)?;
        self.chain.update(payload);
        self.put(&head, payload)
    }

    /// The header of the next frame, counted and hashed.
    fn head(&mut self, kind: u16, flags: u16, offset: u64, payload: &[u8]) -> io::Result<Vec<u8>> {
        let len = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let payload_crc = crc32fast::hash(payload);
        let head = FrameHeader { kind, flags, len, number: self.frames, offset, payload_crc }.encode();
        self.chain.update(&head);
        self.chain.frame(len);
        self.frames = self.frames.saturating_add(1);
        Ok(head)
    }

    /// Writes two pieces as one.
    fn put(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        write_all_vectored(&mut self.output, head, body)?;
        self.written = self.written.saturating_add(head.len() as u64).saturating_add(body.len() as u64);
        Ok(())
    }
}

/// A caller's mistake, told before it becomes a reader's refusal.
fn refused((class, what): (Damage, String)) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("not a valid stream: {what} ({})", class.word()))
}

/// Both pieces with as few calls as the output takes them, without copying them together.
fn write_all_vectored(output: &mut impl Write, mut head: &[u8], mut body: &[u8]) -> io::Result<()> {
    while !head.is_empty() {
        match output.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => {
                let of_body = taken.saturating_sub(head.len());
                head = head.get(taken..).unwrap_or_default();
                body = body.get(of_body..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    output.write_all(body)
}
