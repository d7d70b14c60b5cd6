//! What all tools say and take alike: messages, exit codes, sizes, progress, completions.

mod main;
mod progress;
mod size;

pub use main::{Tool, main};
pub use progress::{Meter, ProgressOption};
pub use size::parse_size;

use std::io::Write;
use std::path::Path;

use crate::state::{Fault, Receipt, Standing, StateList};

/// Prints a line of result on standard output.
pub fn print(text: &str) -> Result<(), Fault> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<(), Fault> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Fault::io("standard output", &error))
}

/// Writes a source's receipt into a file, or does nothing without one.
pub fn keep_receipt(file: Option<&Path>, receipt: &Receipt) -> Result<(), Fault> {
    file.map_or(Ok(()), |path| std::fs::write(path, receipt.to_line()).map_err(|error| Fault::io(path.display(), &error)))
}

/// Tells the user something about a source or target that is no error.
pub fn note(subject: &str, text: &str) {
    eprintln!("{}: {subject}: note: {text}", env_name());
}

/// The `common` of every target: a state list on standard input, the base of the next increment on standard output.
pub fn common(standing: &Standing) -> Result<(), Fault> {
    let offered = StateList::parse(std::io::stdin().lock())?;
    match crate::state::common(standing, &offered)? {
        // As it is, not escaped: the source is asked for it by --from.
        Some(state) => print_bytes(&[state.name.as_slice(), b"\n"].concat()),
        None => Ok(()),
    }
}

/// What this program was called as.
fn env_name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
