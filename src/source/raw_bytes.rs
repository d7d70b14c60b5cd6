//! The plain bytes of an image, from an input that is read once.

use std::io::Read;

use crate::flow::{Ending, Source};
use crate::format::{Change, Data, Header, Image, Names, Pool, wire};
use crate::state::{Class, ContentRoot, Fault, file_source, file_state};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// An image's bytes as a source. Like any image file it is the state that its content says.
pub struct RawBytes<R: Read> {
    header: Header,
    image: Image,
    input: R,
    pool: Pool,
    at: u64,
    root: ContentRoot,
}

impl<R: Read> RawBytes<R> {
    /// An image of exactly `size` bytes.
    pub fn new(input: R, size: u64) -> RawBytes<R> {
        let header = Header::new(file_source(), None, None, Names::default());
        RawBytes { header, image: Image::new(0, size), input, pool: Pool::new(CHUNK), at: 0, root: ContentRoot::new(size) }
    }
}

impl<R: Read> Source for RawBytes<R> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn object(&self) -> &Image {
        &self.image
    }

    fn change(&mut self) -> Result<Option<Change>, Fault> {
        let left = self.image.new_size - self.at;
        if left == 0 {
            return Ok(None);
        }
        let mut buffer = self.pool.take(usize::try_from(left.min(wire::CUT)).unwrap_or(CHUNK));
        self.input.read_exact(&mut buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Fault::new(Class::ForeignStream, format!("the image ends before byte {}", self.image.new_size))
            }
            _ => Fault::io("reading the image", &error),
        })?;
        let data = Data::new(self.at, buffer.freeze());
        self.root.data(&data);
        self.at += data.bytes().len() as u64;
        Ok(Some(Change::Data(data)))
    }

    fn finish(&mut self) -> Result<Ending, Fault> {
        match self.input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => {
                return Err(Fault::new(Class::ForeignStream, format!("the image goes on behind byte {}", self.image.new_size)));
            }
            Err(error) => return Err(Fault::io("reading the image", &error)),
        }
        let root = std::mem::replace(&mut self.root, ContentRoot::new(0)).finish();
        Ok(Ending { to: Some(file_state(root)), digest: None })
    }
}
