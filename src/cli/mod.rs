//! What all tools say and take alike: messages, exit codes, sizes, progress, completions.

mod main;
mod progress;
mod size;

pub use main::{Tool, main};
pub use progress::{Meter, ProgressOption};
pub use size::parse_size;

use std::io::Write;
use std::path::Path;

use crate::state::{Fault, Receipt};

/// Prints a line of result on standard output.
pub fn print(text: &str) -> Result<(), Fault> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Fault::io("standard output", &error))
}

/// Writes a source's receipt into a file, or does nothing without one.
pub fn keep_receipt(file: Option<&Path>, receipt: &Receipt) -> Result<(), Fault> {
    file.map_or(Ok(()), |path| std::fs::write(path, receipt.to_line()).map_err(|error| Fault::io(path.display(), &error)))
}
