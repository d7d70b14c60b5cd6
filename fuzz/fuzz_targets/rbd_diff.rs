//! Diffs of `rbd export-diff` and of exports of format 2: no panic; ranges lie inside the image and ascend; what is accepted
//! is written and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siphon::foreign::rbd_diff::{About, DiffWriter, Error, Record, Records, Version, open_container};

fn all(data: &[u8], version: Version) -> Result<(About, Vec<Record>), Error> {
    let mut records = Records::open(data, version)?;
    let mut out = Vec::new();
    while let Some(record) = records.record()? {
        out.push(record);
    }
    let about = records.about().clone();
    records.close(0)?;
    Ok((about, out))
}

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    if open_container(&mut rest).is_ok() {
        let _ = all(rest, Version::V2);
    }
    let _ = all(data, Version::V2);
    let Ok((about, records)) = all(data, Version::V1) else { return };
    let mut written = Vec::new();
    let mut writer = DiffWriter::begin(&mut written, Version::V1, &about).expect("into memory");
    let mut floor = 0;
    for record in &records {
        let (offset, len) = match record {
            Record::Data { offset, bytes } => (*offset, bytes.len() as u64),
            Record::Zero { offset, len } => (*offset, *len),
        };
        assert!(offset >= floor && len > 0 && offset + len <= about.size);
        floor = offset + len;
        match record {
            Record::Data { offset, bytes } => writer.data(*offset, bytes),
            Record::Zero { offset, len } => writer.zero(*offset, *len),
        }
        .expect("into memory");
    }
    writer.finish().expect("into memory");
    assert_eq!(all(&written, Version::V1).expect("its own diff"), (about, records));
});
