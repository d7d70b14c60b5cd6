//! What all tools say and take alike: messages, exit codes, sizes, progress, completions.

mod ceph;
mod main;
mod progress;
mod retention;
mod sample;
mod size;

pub use ceph::CephOptions;
pub use main::{Tool, main};
pub use progress::{Meter, ProgressOption};
pub use retention::{PruneOptions, RetentionOptions};
pub use sample::{SampleOptions, parse_root};
pub use size::parse_size;

use std::io::Write;
use std::path::Path;

use crate::host::stdio;
use crate::state::{Class, Common, Fault, Receipt, Standing, StateList};

/// Prints a line of result on standard output.
pub fn print(text: &str) -> Result<(), Fault> {
    print_bytes(text.as_bytes())
}

/// Prints a line of result: as text, or where the user asked for it as JSON.
pub fn print_line(text: &str, json: Option<serde_json::Value>) -> Result<(), Fault> {
    print(&json.map_or_else(|| format!("{text}\n"), |json| format!("{json}\n")))
}

/// The same of bytes that need not be text, such as names.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Fault> {
    stdio::refuse_closed_output()?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Fault::io("standard output", &error))
}

/// Writes a source's receipt into a file, or does nothing without one.
pub fn keep_receipt(file: Option<&Path>, receipt: &Receipt) -> Result<(), Fault> {
    file.map_or(Ok(()), |path| std::fs::write(path, receipt.to_line()).map_err(|error| Fault::io(path.display(), &error)))
}

/// Refuses options that have no use beside the others: whoever gave one expects something of it. Each: whether it was given, its
/// name, and why not.
pub fn refuse_unused<'a>(options: impl IntoIterator<Item = (bool, &'a str, &'a str)>) -> Result<(), Fault> {
    match options.into_iter().find(|(given, ..)| *given) {
        Some((_, option, why)) => Err(Fault::new(Class::Usage, format!("{option} has no use here: {why}"))),
        None => Ok(()),
    }
}

/// Says a line on standard error. Where nobody can hear it, the work goes on: it must not end for a full disk of logs.
fn say(line: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Tells the user something about a source or target that is no error.
pub fn note(subject: &str, text: &str) {
    say(&format!("{}: {subject}: note: {text}", env_name()));
}

/// The `common` of every target: a state list on standard input, the base of the next increment on standard output.
pub fn common(standing: &Standing) -> Result<(), Fault> {
    let offered = StateList::parse(stdio::input()?)?;
    let found = crate::state::common(standing, &offered)?;
    if standing.checkpoint.is_some() && !matches!(found, Common::Resume(_)) {
        let text = "the unfinished run cannot go on: what it led to is not offered; it is begun anew";
        say(&format!("{}: note: {text}", env_name()));
    }
    match found {
        // As it is, not escaped: the source is asked for it by --from.
        Common::State(state) => print_bytes(&[state.name.as_slice(), b"\n"].concat()),
        Common::Resume(checkpoint) => print(&format!("{}\n", checkpoint.token())),
        Common::New => Ok(()),
    }
}

/// What this program was called as.
fn env_name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
