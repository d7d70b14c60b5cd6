//! The beginning of a stream: whose state becomes whose, and what it is about.

use serde::{Deserialize, Serialize};

use super::fields::{Fields, PutFields};
use super::{Damage, Id, wire};

/// A feature word's bit with the text that names it to a reader that lacks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Whether a reader without it must refuse the stream.
    pub incompatible: bool,
    /// Bit number, 0 to 63.
    pub bit: u8,
    /// What it is and which option of the sender avoids it.
    pub text: Vec<u8>,
}

impl Feature {
    /// Where its entry stands in the table: incompatible ones first, each by its bit.
    fn place(&self) -> (bool, u8) {
        (!self.incompatible, self.bit)
    }
}

/// Names for people. They identify nothing; bytes as the source system has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The thing, such as `rbd/vm1`.
    pub source: Vec<u8>,
    /// The from-state, such as `mon`; empty in a whole stream.
    pub from: Vec<u8>,
    /// The to-state, such as `tue`.
    pub to: Vec<u8>,
}

/// Whose state becomes whose. The first frame of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The thing that the states are states of.
    pub source: Id,
    /// The state the increment begins from; `None` for a whole stream, which defines every byte.
    pub from: Option<Id>,
    /// The state it leads to; `None` where only the content will tell (then END has it) or nothing can.
    pub to: Option<Id>,
    /// Names beside the ids.
    pub names: Names,
    /// Payload bound of this stream in bytes.
    pub max_payload: u32,
    /// Feature bits that are set, with their texts.
    pub features: Vec<Feature>,
}

impl Header {
    /// A version 1.0 header without features.
    pub fn new(source: Id, from: Option<Id>, to: Option<Id>, names: Names) -> Header {
        Header { source, from, to, names, max_payload: wire::DEFAULT_MAX_PAYLOAD, features: Vec::new() }
    }

    /// The id of this very transfer, derived from the source, both states and the incompatible features; no clock, no chance.
    pub fn stream(&self) -> Id {
        Id::derive(
            "siphon-stream",
            &[self.source.as_bytes(), &Id::to_wire(self.from), &Id::to_wire(self.to), &self.feature_word(true).to_le_bytes()],
        )
    }

    /// It defines every byte of the image.
    pub fn is_whole(&self) -> bool {
        self.from.is_none()
    }

    /// The incompatible feature of this bit is set.
    pub fn has(&self, bit: u8) -> bool {
        self.feature_word(true).checked_shr(bit.into()).unwrap_or(0) & 1 == 1
    }

    fn feature_word(&self, incompatible: bool) -> u64 {
        self.features
            .iter()
            .filter(|feature| feature.incompatible == incompatible)
            .fold(0, |word, feature| word | 1_u64.checked_shl(feature.bit.into()).unwrap_or(0))
    }

    /// The payload of a HEADER frame. Names longer than the limit are cut: they identify nothing.
    pub(super) fn encode(&self) -> Vec<u8> {
        let names = [&self.names.source, &self.names.from, &self.names.to].map(|name| clip(name, wire::LIMIT_NAME));
        let mut features: Vec<&Feature> = self.features.iter().collect();
        features.sort_by_key(|feature| feature.place());
        features.dedup_by_key(|feature| feature.place());
        let table: Vec<u8> = features
            .into_iter()
            .flat_map(|feature| {
                let text = clip(&feature.text, usize::from(u8::MAX));
                [&[u8::from(!feature.incompatible), feature.bit, u8::try_from(text.len()).unwrap_or(0), 0], text].concat()
            })
            .collect();
        let mut out = Vec::new();
        out.put_u64(self.feature_word(true));
        out.put_u64(self.feature_word(false));
        out.put_id(Some(self.source));
        out.put_id(self.from);
        out.put_id(self.to);
        out.put_id(Some(self.stream()));
        out.put_u32(self.max_payload);
        for part in names.into_iter().chain([table.as_slice()]) {
            out.put_u16(u16::try_from(part.len()).unwrap_or(0));
        }
        out.put_u32(0);
        out.extend(names.concat());
        out.extend(table);
        out
    }

    /// Reads a HEADER payload; what is wrong with it otherwise. `known`: the incompatible features that the reader knows.
    ///
    /// An unknown incompatible feature is found before anything that such a feature may have changed.
    pub(super) fn decode(payload: &[u8], known: u64) -> Result<Header, (Damage, String)> {
        let short = || (Damage::Length, "HEADER is shorter than its fields".to_owned());
        let mut fields = Fields(payload);
        let (incompatible, compatible) = fields.u64().zip(fields.u64()).ok_or_else(short)?;
        let mut id = || fields.id().ok_or_else(short);
        let (source, from, to, stream) = (id()?, id()?, id()?, id()?);
        let max_payload = fields.u32().ok_or_else(short)?;
        let mut len = || fields.u16().map(usize::from).ok_or_else(short);
        let lens = [len()?, len()?, len()?, len()?];
        let reserved = fields.u32().ok_or_else(short)?;
        let [source_len, from_len, to_len, table_len] = lens;
        if incompatible & !known != 0 {
            // The names and the table, should they still be where this version has them.
            let table = fields.0.get(lens.iter().take(3).sum()..).and_then(|rest| rest.get(..table_len)).unwrap_or_default();
            return Err((Damage::Feature, lacking(incompatible & !known, &decode_features(table).unwrap_or_default())));
        }
        let mut part = |len| fields.bytes(len).map(<[u8]>::to_vec).ok_or_else(short);
        let names = Names { source: part(source_len)?, from: part(from_len)?, to: part(to_len)? };
        let table = part(table_len)?;
        if !fields.0.is_empty() {
            return Err((Damage::Length, "HEADER is longer than its fields".to_owned()));
        }
        if reserved != 0 {
            return Err((Damage::Reserved, "a reserved field of HEADER is not zero".to_owned()));
        }
        let mut features = decode_features(&table)?;
        if lens.iter().take(3).any(|len| *len > wire::LIMIT_NAME) {
            return Err((Damage::Value, format!("a name has more than {} bytes", wire::LIMIT_NAME)));
        }
        if !(wire::LIMIT_MIN_PAYLOAD..=wire::LIMIT_MAX_PAYLOAD).contains(&max_payload) {
            return Err((Damage::Value, format!("a payload bound of {max_payload} bytes is outside the limits")));
        }
        let source = source.ok_or((Damage::Identity, "the source id is nil".to_owned()))?;
        // One that is set and known is kept, also without a text.
        for bit in (0..64).filter(|bit| incompatible >> bit & 1 == 1) {
            if !features.iter().any(|feature| feature.incompatible && feature.bit == bit) {
                features.push(Feature { incompatible: true, bit, text: Vec::new() });
            }
        }
        let header = Header { source, from, to, names, max_payload, features };
        if header.feature_word(true) & !incompatible != 0 || header.feature_word(false) & !compatible != 0 {
            return Err((Damage::Value, "the feature table names a bit that is not set".to_owned()));
        }
        if Some(header.stream()) != stream {
            return Err((Damage::Identity, "the stream id does not follow from the ids beside it".to_owned()));
        }
        Ok(header)
    }
}

fn clip(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

fn decode_features(table: &[u8]) -> Result<Vec<Feature>, (Damage, String)> {
    let broken = || (Damage::Length, "the feature table does not end where it should".to_owned());
    let mut fields = Fields(table);
    let mut features = Vec::new();
    while !fields.0.is_empty() {
        let [word, bit, len, reserved] = fields.array().ok_or_else(broken)?;
        let text = fields.bytes(len.into()).ok_or_else(broken)?.to_vec();
        if word > 1 || bit > 63 {
            return Err((Damage::Value, "the feature table names a word or bit that does not exist".to_owned()));
        }
        if reserved != 0 {
            return Err((Damage::Reserved, "a reserved byte of the feature table is not zero".to_owned()));
        }
        let feature = Feature { incompatible: word == 0, bit, text };
        if features.last().is_some_and(|last: &Feature| last.place() >= feature.place()) {
            return Err((Damage::Value, "the entries of the feature table do not ascend".to_owned()));
        }
        features.push(feature);
    }
    Ok(features)
}

/// Names every feature that this reader lacks: by the sender's own text, else by our table, else by number.
fn lacking(word: u64, features: &[Feature]) -> String {
    let name = |bit: u8| {
        let told = features.iter().find(|feature| feature.incompatible && feature.bit == bit);
        let known = wire::RESERVED_INCOMPATIBLE.iter().find(|(reserved, _)| *reserved == bit);
        match (told, known) {
            (Some(feature), _) => feature.text.escape_ascii().to_string(),
            (None, Some((_, text))) => (*text).to_owned(),
            (None, None) => format!("incompatible feature {bit}"),
        }
    };
    let names: Vec<String> = (0..64).filter(|bit| word >> bit & 1 == 1).map(name).collect();
    format!("the stream needs what this version does not know: {}", names.join(", "))
}

/// What the extents belong to: one image, its size before and after, in bytes. The second frame of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Every extent begins at a multiple of this and ends at one or at the image's end; zero runs are found at this grain.
    pub grain: u32,
    /// Exact size of the from-state; 0 in a whole stream.
    pub old_size: u64,
    /// Exact size of the to-state.
    pub new_size: u64,
}

impl Image {
    /// An image at the grain that our sources declare.
    pub fn new(old_size: u64, new_size: u64) -> Image {
        Image { grain: wire::DEFAULT_GRAIN, old_size, new_size }
    }

    /// One state cannot have two sizes.
    pub(super) fn one_state_of_two_sizes(&self, from: Option<Id>, to: Option<Id>) -> bool {
        from.is_some() && from == to && self.old_size != self.new_size
    }

    pub(super) fn encode_payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(wire::OBJECT_LEN);
        out.put_u16(wire::OBJECT_IMAGE);
        out.put_u16(0);
        out.put_u32(self.grain);
        out.put_u64(self.old_size);
        out.put_u64(self.new_size);
        out.put_u64(0);
        out
    }

    pub(super) fn decode_payload(payload: &[u8], header: &Header) -> Result<Image, (Damage, String)> {
        let wrong = |class, what: &str| Err((class, what.to_owned()));
        let mut fields = Fields(payload);
        let parsed = (|| {
            let (kind, reserved) = (fields.u16()?, fields.u16()?);
            let image = Image { grain: fields.u32()?, old_size: fields.u64()?, new_size: fields.u64()? };
            let tail = fields.u64()?;
            fields.0.is_empty().then_some((kind, u64::from(reserved) | tail, image))
        })();
        let Some((kind, reserved, image)) = parsed else {
            return wrong(Damage::Length, "OBJECT has a wrong length");
        };
        if kind != wire::OBJECT_IMAGE {
            return wrong(Damage::Value, "OBJECT is of an unknown kind");
        }
        if reserved != 0 {
            return wrong(Damage::Reserved, "a reserved field of OBJECT is not zero");
        }
        if !image.grain.is_power_of_two() || image.grain > wire::LIMIT_GRAIN {
            return wrong(Damage::Value, "the grain is not a power of two up to 64 KiB");
        }
        if image.old_size.max(image.new_size) > wire::LIMIT_IMAGE {
            return wrong(Damage::Value, "an image size is beyond 2^63 - 1 bytes");
        }
        if header.is_whole() && image.old_size != 0 {
            return wrong(Damage::Value, "a whole stream has an old size");
        }
        if image.one_state_of_two_sizes(header.from, header.to) {
            return wrong(Damage::Identity, "from-state and to-state are one, but their sizes differ");
        }
        Ok(image)
    }
}
