//! Input that has to be read twice.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::Path;

use crate::state::Fault;

/// Opens a file, or with `-` standard input: what comes from there, or from any pipe, is kept in a file without a name in
/// TMPDIR until it was read.
pub fn open(path: &Path) -> Result<BufReader<File>, Fault> {
    let failed = |error: &io::Error| Fault::io(format!("reading {}", path.display()), error);
    let mut input: Box<dyn io::Read> = if path.as_os_str() == "-" {
        Box::new(super::stdio::input()?)
    } else {
        let mut file = File::open(path).map_err(|error| failed(&error))?;
        if file.rewind().is_ok() {
            return Ok(BufReader::new(file));
        }
        Box::new(file)
    };
    let mut kept =
        tempfile::tempfile().map_err(|error| Fault::io(format!("a file in {}", std::env::temp_dir().display()), &error))?;
    io::copy(&mut input, &mut kept).and_then(|_| kept.rewind()).map_err(|error| failed(&error))?;
    Ok(BufReader::new(kept))
}
