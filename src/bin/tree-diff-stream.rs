//! tree-diff-stream(1): a directory tree as an extent stream.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, Meter, ProgressOption, Tool};
use siphon::filter::{Normal, Tally};
use siphon::flow::{Source, copy};
use siphon::format::Tree;
use siphon::host::stdio;
use siphon::sink::Encoder;
use siphon::source::{DatasetTree, DatasetWish, FilledList, TreeFiles, TreeIdentity, TreeOptions};
use siphon::state::{Class, Fault, StateList};

const NAME: &str = env!("CARGO_BIN_NAME");
/// Bytes of small frames that are written together.
const TOGETHER: usize = 256 << 10;

/// Send a directory tree as an extent stream
///
/// Writes what is in DIR to standard output: all of it, or with --base only what differs from OLDDIR. Names, kinds, owners, modes,
/// times, extended attributes, ACLs, hard links and holes are part of it. A tree that changes while it is read is refused.
/// With --dataset it is a snapshot of a ZFS file system, whole or since another one.
#[derive(Parser)]
#[command(name = NAME, version, after_help = "Examples:
  tree-diff-stream /home | ssh nas tree-apply --all /backup/home
  tree-diff-stream --base /mnt/cephfs/.snap/mon /mnt/cephfs/.snap/tue | ssh nas tree-apply --all /backup/cephfs
  tree-diff-stream --base old new | extent-inspect
  cephfs-changed --from mon /mnt/cephfs/home@tue | tree-diff-stream --changes - | ssh nas tree-apply --all /backup/home
  tree-diff-stream --from mon --dataset tank/home@tue | tree-apply --all /mnt/cephfs/home
  tree-diff-stream -- zfs diff -FH tank/home@mon tank/home@tue | tree-apply --all /mnt/cephfs/home
  tree-diff-stream --states /mnt/cephfs/.snap/mon")]
struct Args {
    /// Send only what differs from this tree; it is read to its end first, to learn its state
    #[arg(long, value_name = "OLDDIR")]
    base: Option<PathBuf>,
    /// Send DIR though it may change; the stream then leads to no state and cannot be marked
    #[arg(long)]
    live: bool,
    /// Do not read files that have the same inode, size and times in two snapshots of one file system; the stream then leads to
    /// no state
    #[arg(long, requires = "base")]
    trust_times: bool,
    /// Leave out what is mounted below DIR; without this it is refused
    #[arg(long)]
    one_file_system: bool,
    /// Show on standard error how far it is: a bar on a terminal, or JSON lines
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    progress: Option<ProgressOption>,
    /// Write a line of JSON about the whole stream into this file
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Print the state that this tree can be sent in, or with --dataset those of all snapshots, and send nothing
    #[arg(long, value_name = "THING", num_args = 0..=1, conflicts_with_all = ["base", "live", "progress", "receipt", "dir", "from"])]
    states: Option<Option<PathBuf>>,
    /// Fill in the content of what a list of changes names, from where it says that its trees are; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["base", "live", "trust_times", "one_file_system", "dir", "states"])]
    changes: Option<PathBuf>,
    /// Send a snapshot of a ZFS file system, POOL/NAME@SNAPSHOT; its state is that snapshot
    #[arg(long, value_name = "DATASET", conflicts_with_all = ["base", "live", "trust_times", "one_file_system", "dir", "changes"])]
    dataset: Option<String>,
    /// Send only what changed since this snapshot of the same file system
    #[arg(long, value_name = "SNAP", requires = "dataset", conflicts_with_all = ["dir", "changes"])]
    from: Option<String>,
    /// The tree: a directory
    #[arg(required_unless_present_any = ["states", "changes", "dataset", "command"])]
    dir: Option<PathBuf>,
    /// What prints the lines of `zfs diff -FH` between two snapshots: only what they lead to is looked at
    #[arg(last = true, conflicts_with_all = ["base", "live", "trust_times", "one_file_system", "dir", "changes", "states"])]
    command: Vec<OsString>,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        let states = self.states.as_ref().and_then(Option::as_ref);
        let path = self.dir.as_ref().or(states).or(self.changes.as_ref());
        path.map(|path| path.display().to_string()).or_else(|| self.dataset.clone())
    }

    fn run(self) -> Result<(), Fault> {
        let Args { live, trust_times, one_file_system, .. } = self;
        let options = TreeOptions { live, trust_times, one_file_system, identity: TreeIdentity::Guess };
        match (&self.states, &self.dataset) {
            (Some(None), Some(dataset)) => return cli::print(&DatasetTree::states(dataset)?.to_text()),
            (Some(Some(thing)), None) => {
                return cli::print(&StateList { states: vec![TreeFiles::state(thing, &options)?] }.to_text());
            }
            (Some(_), _) => return Err(Fault::new(Class::Usage, "--states needs a directory, or --dataset")),
            (None, _) => {}
        }
        // Before anything is read: a refusal should not take long.
        let output = BufWriter::with_capacity(TOGETHER, stdio::output()?);
        stdio::exit_when_reader_dies();
        if let Some(list) = &self.changes {
            return self.send(&mut FilledList::open(open(list)?)?, output, list);
        }
        if let Some(wish) = self.wish()? {
            let mut source = DatasetTree::open(&wish, (!self.command.is_empty()).then_some(&self.command))?;
            let what = format!("{}@{}", wish.dataset, wish.to);
            if let Some(note) = &source.note {
                cli::note(&what, note);
            }
            return self.send(&mut source, output, Path::new(&what));
        }
        let Some(dir) = &self.dir else { return Ok(()) };
        let mut source = match &self.base {
            None => TreeFiles::whole(dir, &options)?,
            Some(base) => TreeFiles::since(base, dir, options, || note_slow_base(base))?,
        };
        self.send(&mut source, output, dir)
    }
}

impl Args {
    /// Which snapshots of a file system, if any.
    fn wish(&self) -> Result<Option<DatasetWish>, Fault> {
        match (&self.dataset, &self.from) {
            (Some(_), None) if !self.command.is_empty() => Err(Fault::new(Class::Usage, "lines are for an increment: --from")),
            (Some(dataset), from) => DatasetWish::new(dataset, from.as_deref()).map(Some),
            (None, _) if self.command.is_empty() => Ok(None),
            (None, _) => DatasetWish::of_command(&self.command).map(Some),
        }
    }

    fn send(&self, source: &mut impl Source<Tree>, output: impl Write, what: &Path) -> Result<(), Fault> {
        let sink = Tally::new(Normal::new(Encoder::new(output)), Meter::of_source(self.progress));
        let sealed = copy(source, sink)?;
        stdio::all_was_written();
        cli::keep_receipt(self.receipt.as_deref(), &sealed.receipt(NAME, &what.display().to_string()))
    }
}

fn open(file: &Path) -> Result<Box<dyn Read>, Fault> {
    Ok(match file.as_os_str() == "-" {
        true => Box::new(stdio::input()?),
        false => Box::new(BufReader::new(File::open(file).map_err(|error| Fault::io("opening it", &error))?)),
    })
}

fn note_slow_base(base: &Path) {
    cli::note(&base.display().to_string(), "reading it to its end first, to learn the state that it is in");
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
