//! What reads a mark whole.

use std::io::BufWriter;

use siphon::cli;
use siphon::filter::{Digester, Keeping};
use siphon::flow::copy;
use siphon::format::Digest;
use siphon::host::stdio;
use siphon::sink::dataset::marks;
use siphon::source::Zvol;
use siphon::state::{Fault, ManifestReader};

/// Its content root.
pub fn root(mark: &str) -> Result<Digest, Fault> {
    copy(&mut Zvol::open(mark, None)?.changes, Digester::new(())).map(|digested| digested.root)
}

/// Prints its manifest: what a stream may leave out whose source has no state in common with this volume. Of a dataset, that
/// of its newest mark.
pub fn manifest(target: &str, fine: bool) -> Result<(), Fault> {
    let mark = match target.split_once('@') {
        Some(_) => marks::names(target).map(|(of, name)| format!("{of}@{name}"))?,
        None => format!("{target}@{}", marks::newest(target)?.snapshot.name),
    };
    let keeping = Keeping::new(BufWriter::new(stdio::output()?), fine);
    let digested = copy(&mut Zvol::open(&mark, None)?.changes, Digester::new(keeping))?;
    digested.visitor.finish(digested.state).map(drop)
}

/// Lets it go by the id of a manifest's state, too: nothing but the content decides.
pub fn adopt(mark: &str) -> Result<(), Fault> {
    let other = ManifestReader::open(stdio::input()?)?.verify()?;
    marks::find(mark)?;
    let state = other.1.state.map(|id| id.to_string()).unwrap_or_default();
    let said = if marks::adopt(mark, root(mark)?, &other)? { "is" } else { "was already" };
    cli::print(&format!("{mark} {said} {state}, too\n"))
}
