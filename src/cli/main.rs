//! From `main` to an exit code.
//!
//! Messages go to standard error: `TOOL: SUBJECT: error: WHAT [CLASS]`, then `hint:` lines; lower case, no full stop.

use std::process::ExitCode;

use clap::Parser;

use super::{print_bytes, say};
use crate::state::{Class, Fault};

/// A command-line tool.
pub trait Tool: Parser {
    /// What messages name: the target or the source.
    fn subject(&self) -> Option<String>;

    /// Does it.
    fn run(self) -> Result<(), Fault>;
}

/// The page of exit codes, the same for every tool.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 I/O or system error, 2 usage, 3 stream damaged or incomplete, \
4 refused, 5 the check ran and the answer is no, 6 busy.";

/// Parses the command line, runs the tool, reports.
pub fn main<T: Tool>() -> ExitCode {
    let command = T::command();
    // clap shows the long text instead of the short one, not after it.
    let examples = command.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
    let completions = clap::Arg::new("completions")
        .long("completions")
        .value_name("SHELL")
        .help("Print a completion script for bash, zsh, fish, elvish or powershell")
        .value_parser(clap::value_parser!(clap_complete::Shell))
        .exclusive(true)
        .hide_short_help(true);
    let mut full = command.after_long_help(examples + EXIT_CODES).arg(completions.clone());
    let name = full.get_name().to_owned();
    // An exclusive option does not excuse a required subcommand, nor a required group.
    let asked = std::env::args_os().nth(1).is_some_and(|first| first.to_string_lossy().starts_with("--completions"));
    let command = if asked { clap::Command::new("").bin_name(name.clone()).arg(completions) } else { full.clone() };
    let matches = match command.try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage(&name, &error),
    };
    if let Some(shell) = matches.get_one::<clap_complete::Shell>("completions") {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut full, name.clone(), &mut script);
        return end(&name, None, print_bytes(&script));
    }
    let tool = match T::from_arg_matches(&matches) {
        Ok(tool) => tool,
        Err(error) => return usage(&name, &error),
    };
    let subject = tool.subject();
    end(&name, subject.as_deref(), tool.run())
}

fn end(name: &str, subject: Option<&str>, done: Result<(), Fault>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            report(name, subject, &fault);
            ExitCode::from(fault.class.exit_code())
        }
    }
}

fn usage(name: &str, error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // --help and --version
        return ExitCode::from(error.print().map_or(Class::Io.exit_code(), |()| 0));
    }
    let text = error.render().to_string();
    say(&format!("{name}: {} [{}]", text.trim_end(), Class::Usage.word()));
    ExitCode::from(Class::Usage.exit_code())
}

/// Nobody is there to read why, when the reader went away.
fn report(name: &str, subject: Option<&str>, fault: &Fault) {
    if fault.class == Class::Pipe {
        return;
    }
    let subject = subject.map(|subject| format!("{subject}: ")).unwrap_or_default();
    say(&format!("{name}: {subject}error: {fault}"));
    fault.hints.iter().for_each(|hint| say(&format!("{name}: hint: {hint}")));
}
