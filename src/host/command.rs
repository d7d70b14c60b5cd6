//! Running other programs: arguments as vectors, never a shell; standard input from nowhere.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::state::{Class, Fault};

/// Searched after PATH: a session over ssh often lacks them.
const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Bytes of a message that are shown. A pipe holds more, so a program can say this much while nobody reads.
const LIMIT_MESSAGE: u64 = 16 << 10;

/// A command that reads nothing (a `zfs create` that asked for a passphrase would take the stream for it) and speaks English.
fn command(program: &str) -> Result<Command, Fault> {
    let path = find(program).ok_or_else(|| {
        Fault::new(
            Class::Usage,
            format!("{program} is not installed, or in none of the directories of PATH and {}", SBIN.join(", ")),
        )
    })?;
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("LC_ALL", "C");
    Ok(command)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(SBIN.map(PathBuf::from)).map(|dir| dir.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
}

/// What a program said on failure.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its standard error, trimmed; or its status where it said nothing.
    pub message: String,
}

/// Runs a program to its end. `Ok(Err)` when it says no: what that means depends on what was asked.
pub fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Result<String, Failed>, Fault> {
    let output = command(program)?.args(arguments).output().map_err(|error| Fault::io(format!("running {program}"), &error))?;
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    let message = if said.is_empty() { output.status.to_string() } else { said };
    Ok(Err(Failed { message }))
}

/// A program whose output is read while it runs. Nothing it said may be believed before [`Running::finish`] agrees.
pub struct Running {
    program: String,
    child: Child,
}

/// Starts a program and gives its standard output.
pub fn start(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<(Running, ChildStdout), Fault> {
    let tried = |error: &std::io::Error| Fault::io(format!("running {program}"), error);
    let mut child =
        command(program)?.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| tried(&e))?;
    let output = child.stdout.take().ok_or_else(|| tried(&std::io::ErrorKind::BrokenPipe.into()))?;
    Ok((Running { program: program.to_owned(), child }, output))
}

impl Running {
    /// Waits for the end and its exit status 0.
    pub fn finish(mut self) -> Result<(), Fault> {
        let status = self.child.wait().map_err(|error| Fault::io(format!("waiting for {}", self.program), &error))?;
        if status.success() {
            return Ok(());
        }
        let mut said = String::new();
        if let Some(errors) = self.child.stderr.take() {
            // What cannot be read is not said.
            let _ = std::io::Read::read_to_string(&mut std::io::Read::take(errors, LIMIT_MESSAGE), &mut said);
        }
        Err(Fault::new(Class::Io, format!("{} failed ({status}): {}", self.program, said.trim().replace('\n', "; "))))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `finish` both do nothing; before it, nobody wants the rest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
