//! snap-prune(1): which of these states a retention policy lets go. Prints, never deletes.

use std::process::ExitCode;

use clap::Parser;
use siphon::cli::{self, RetentionOptions, Tool};
use siphon::host::stdio;
use siphon::state::{Candidate, Class, Fault, NIGHTLY, Outcome, Reason, StateList};

/// Read a state list, print the names of the states that a retention policy lets go
///
/// Nothing is deleted here. A state goes only if no rule keeps it; the newest always stays. Names of another form than those
/// that the nightly lines give are not ours: they stay, and are not counted. Nothing is printed unless the list was whole.
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version, after_help = "Examples:
  rbd-diff-stream --states rbd/vm1 | snap-prune --keep-last 3 --keep \"$base\" | xargs -r -I{} rbd snap rm rbd/vm1@{}
  rbd-diff-stream --states rbd/vm1 | snap-prune --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run
  rbd-diff-stream --states rbd/vm1 | snap-prune --keep-grid '1x1h(keep=all) | 24x1h | 14x1d' --json")]
struct Args {
    #[command(flatten)]
    options: RetentionOptions,
}

impl Tool for Args {
    fn subject(&self) -> Option<String> {
        None
    }

    fn run(self) -> Result<(), Fault> {
        let Args { options } = self;
        let policy = options.policy(Some(NIGHTLY))?;
        if options.is_dry_run() && options.is_json() {
            return Err(Fault::new(Class::Usage, "--dry-run prints nothing on standard output, and --json does")
                .hint("--json alone deletes nothing"));
        }
        let list = StateList::parse(stdio::input()?)?;
        if list.states.is_empty() {
            return Err(
                Fault::new(Class::List, "the list has no states: there is nothing to judge").hint("is it the right image?")
            );
        }
        let mut verdicts = policy.judge(Candidate::of_list(&list)?)?;
        for verdict in verdicts.iter_mut().filter(|verdict| !verdict.keep() && !verdict.state.is_speakable()) {
            verdict.reasons.push(Reason::Unspeakable);
        }
        options.carry_out(None, verdicts, (!options.is_json()).then_some(|_: &_| Outcome::Gone))
    }
}

fn main() -> ExitCode {
    cli::main::<Args>()
}
