//! Any bytes: no panic; and what is accepted is written back and read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon::format::{Reader, Writer};

fuzz_target!(|data: &[u8]| {
    let Ok(mut reader) = Reader::open(data) else { return };
    let (header, image) = (reader.header().clone(), *reader.object());
    let mut writer = Writer::begin(Vec::new(), &header, &image).expect("a header that was read can be written");
    while let Ok(Some(change)) = reader.change() {
        writer.change(&change).expect("a change that was read can be written");
    }
    if let Some(trailer) = reader.trailer() {
        let sealed = writer.finish(trailer.to).expect("an end that was read can be written");
        assert_eq!(sealed.totals, trailer.totals);
    }
});
