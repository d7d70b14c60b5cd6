//! Lists the records of a `zfs send` stream of a volume, one a line, as the decoder of `zvol-diff-stream` understands them.
//!
//! Used by `tests/real/interop.py`, which compares them with what OpenZFS' own `zstream dump -v` says of the same stream.
//!
//! usage: zfs-send-records <STREAM
//!
//! ```text
//! begin TO-GUID FROM-GUID NAME
//! write OBJECT OFFSET BYTES COMPRESSION PACKED-BYTES
//! free OBJECT OFFSET BYTES
//! other
//! end
//! ```

use std::io::{self, BufReader, BufWriter, Write};
use std::process::ExitCode;

use siphon::foreign::zfs_send::{Error, Record, Records};

fn list(output: &mut impl Write) -> Result<(), Error> {
    let mut records = Records::open(BufReader::new(io::stdin().lock()))?;
    let begin = records.begin();
    let name = String::from_utf8_lossy(&begin.to_name).into_owned();
    writeln!(output, "begin {} {} {name}", begin.to_guid, begin.from_guid.unwrap_or(0))?;
    while let Some(record) = records.record()? {
        match record {
            Record::Write { object, offset, block } => {
                let (compression, packed) = block.packed();
                writeln!(output, "write {object} {offset} {} {compression} {packed}", block.len())?;
            }
            Record::Free { object, offset, len } => writeln!(output, "free {object} {offset} {len}")?,
            Record::Other => writeln!(output, "other")?,
        }
    }
    writeln!(output, "end")?;
    Ok(output.flush()?)
}

fn main() -> ExitCode {
    match list(&mut BufWriter::new(io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zfs-send-records: {error}");
            ExitCode::FAILURE
        }
    }
}
