//! cephfs-changed(1): what changed below a CephFS directory between two snapshots of it.

use std::fs::read;
use std::io::{BufWriter, ErrorKind, Write, stdout};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use siphon::cli::{self, Tool};
use siphon::flow::copy;
use siphon::host::stdio;
use siphon::host::successor::Successor;
use siphon::sink::{ChangeLines, Encoder};
use siphon::source::{CephfsChanged, CephfsOptions, CephfsPlace, split_cephfs};
use siphon::state::{Class, Fault, Memory};

const NAME: &str = env!("CARGO_BIN_NAME");
/// Bytes of small frames that are written together.
const TOGETHER: usize = 256 << 10;

/// List what changed below a CephFS directory between two snapshots
///
/// Writes a framed list of changes to standard output, for tree-diff-stream --changes; on a terminal, lines for people. Work is in
/// proportion to what changed: where rctime says that nothing below a directory did, it is not looked at.
#[derive(Parser)]
#[command(name = NAME, version, after_help = "Examples:
  cephfs-changed --from mon --memory /var/lib/siphon/home /mnt/cephfs/home@tue | tree-diff-stream --changes - | ssh nas tree-apply /backup/home
  cephfs-changed --list --from mon /mnt/cephfs/home@tue
  cephfs-changed --states /mnt/cephfs/home
  cephfs-changed --memory /var/lib/siphon/home --needs")]
struct Args {
    /// Begin from this snapshot; without it all that there is is listed
    #[arg(long, value_name = "SNAP")]
    from: Option<std::ffi::OsString>,
    /// Print lines as zfs diff -FH does
    #[arg(long)]
    list: bool,
    /// Print paths as they are, and NUL behind each line
    #[arg(short = '0', long = "null")]
    nul: bool,
    /// Remember in FILE what the next run needs: names of hard links, and what was said since all was walked over
    #[arg(long, value_name = "FILE")]
    memory: Option<PathBuf>,
    /// Print the names of the snapshots that the next run with this memory needs, and nothing else
    #[arg(long, requires = "memory", conflicts_with_all = ["from", "list", "no_trust_rctime", "cross_check", "states", "dir"])]
    needs: bool,
    /// Walk over all, whatever rctime says
    #[arg(long, conflicts_with = "cross_check")]
    no_trust_rctime: bool,
    /// Walk over all, and exit with 5 if rctime says of a directory that nothing below it was changed, and something was
    #[arg(long, requires = "memory")]
    cross_check: bool,
    /// The same, but only after so many runs
    #[arg(long, value_name = "RUNS", default_value_t = 7)]
    full_every: u32,
    /// How much clocks may differ: what was changed so long before the old snapshot is looked at, too
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    rctime_margin: u64,
    /// Wait until the new snapshot is so old: rctimes, and what clients had buffered, come into it later
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    settle: u64,
    /// Print the snapshots of a directory as a state list, and nothing else
    #[arg(long, value_name = "THING", conflicts_with_all = ["from", "list", "nul", "memory", "no_trust_rctime", "dir"])]
    states: Option<PathBuf>,
    /// DIR@SNAP, or DIR/.snap/SNAP
    #[arg(value_name = "DIR@SNAP", required_unless_present_any = ["states", "needs"])]
    dir: Option<PathBuf>,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        self.dir.as_ref().or(self.states.as_ref()).map(|path| path.display().to_string())
    }

    fn run(self) -> Result<(), Fault> {
        if let Some(thing) = &self.states {
            return cli::print(&CephfsPlace::open(thing)?.states()?.to_text());
        }
        let Some(given) = &self.dir else { return self.print_needs() };
        let shown = given.display();
        let (dir, snapshot) = split_cephfs(given).ok_or_else(|| {
            Fault::new(Class::Usage, "a directory without a snapshot changes while it is read")
                .hint(format!("{shown}@SNAP; `mkdir {shown}/.snap/SNAP` takes one"))
        })?;
        self.memory.as_deref().map(Successor::check).transpose()?;
        stdio::refuse_closed_output()?;
        let as_text = self.list || stdio::output_is_terminal();
        let output: Box<dyn Write> = if as_text { Box::new(stdout()) } else { Box::new(stdio::output()?) };
        let output = BufWriter::with_capacity(TOGETHER, output);
        stdio::exit_when_reader_dies();
        let mut changed = CephfsChanged::open(&dir, &snapshot, self.options()?)?;
        if as_text {
            copy(&mut changed, ChangeLines::new(output, self.nul))?;
        } else {
            copy(&mut changed, Encoder::new(output)).map(drop)?;
        }
        stdio::all_was_written();
        if let (Some(file), Some(memory)) = (&self.memory, changed.memory()) {
            remember(file, &memory)?;
        }
        changed.agreed()
    }
}

impl Args {
    fn print_needs(&self) -> Result<(), Fault> {
        let end = if self.nul { b"\0" } else { b"\n" };
        let names: Vec<u8> = self.read_memory()?.iter().flat_map(Memory::needs).flat_map(|name| [name, end].concat()).collect();
        cli::print_bytes(&names)
    }

    fn read_memory(&self) -> Result<Option<Memory>, Fault> {
        let Some(file) = &self.memory else { return Ok(None) };
        match read(file) {
            Ok(bytes) if Memory::was_one(&bytes) => Ok(String::from_utf8(bytes).ok().and_then(|text| Memory::parse(&text))),
            Ok(_) => Err(Fault::new(Class::Exists, format!("{} is no memory of cephfs-changed", file.display()))
                .hint("it would be written over: give --memory a file of its own")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Fault::io(format!("reading {}", file.display()), &error)),
        }
    }

    fn options(&self) -> Result<CephfsOptions, Fault> {
        Ok(CephfsOptions {
            from: self.from.as_ref().map(|from| from.clone().into_vec()),
            memory: self.read_memory()?,
            trust_rctime: !self.no_trust_rctime,
            full_every: self.full_every,
            cross_check: self.cross_check,
            margin: Duration::from_secs(self.rctime_margin),
            settle: Duration::from_secs(self.settle),
            notes: cli::note,
        })
    }
}

fn remember(file: &Path, memory: &Memory) -> Result<(), Fault> {
    let next = Successor::create(file)?;
    next.file().write_all(memory.to_text().as_bytes()).map_err(|error| Fault::io(file.display(), &error))?;
    next.sync()?;
    next.take_place()
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
