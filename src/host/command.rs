//! Running other programs: arguments as vectors, never a shell; standard input from nowhere.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

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
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|file| is_program(file));
    }
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

/// Directories of PATH for a program that runs on behalf of somebody elsewhere, whose environment is not taken over.
const PLAIN_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes another program, with an environment of its own: one of our own family beside this very file, or any other in the
/// usual directories. Comes back only to say why not.
pub fn become_program(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Fault {
    let beside = std::env::current_exe().ok().and_then(|this| Some(this.parent()?.join(program)));
    let places = std::env::split_paths(PLAIN_PATH).map(|dir| dir.join(program));
    let Some(file) = beside.into_iter().chain(places).find(|file| is_program(file)) else {
        return Fault::new(Class::Usage, format!("{program} is not installed beside siphon-serve, nor in {PLAIN_PATH}"));
    };
    let home = std::env::var_os("HOME").unwrap_or_default();
    let error = Command::new(file).args(arguments).env_clear().env("PATH", PLAIN_PATH).env("HOME", home).exec();
    Fault::io(format!("running {program}"), &error)
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
        let status = self.wait()?;
        if status.success() {
            return Ok(());
        }
        let said = self.child.stderr.take().map(beginning).unwrap_or_default();
        Err(self.failed(status, &said))
    }

    /// The same, for one whose output `read` takes to its end meanwhile; with what it said on standard error, however much it did.
    pub fn finish_heard<T>(mut self, read: impl FnOnce() -> Result<T, Fault>) -> Result<(T, String), Fault> {
        let errors = self.child.stderr.take();
        let hearing = std::thread::spawn(move || errors.map(beginning).unwrap_or_default());
        let result = read()?;
        let said = hearing.join().unwrap_or_default();
        let status = self.wait()?;
        if status.success() { Ok((result, said)) } else { Err(self.failed(status, &said)) }
    }

    fn wait(&mut self) -> Result<ExitStatus, Fault> {
        self.child.wait().map_err(|error| Fault::io(format!("waiting for {}", self.program), &error))
    }

    fn failed(&self, status: ExitStatus, said: &str) -> Fault {
        Fault::new(Class::Io, format!("{} failed ({status}): {}", self.program, said.replace('\n', "; ")))
    }
}

/// The beginning of what a program says, read to its end. What cannot be read is not said.
fn beginning(mut errors: ChildStderr) -> String {
    let mut said = Vec::new();
    let _ = errors.by_ref().take(LIMIT_MESSAGE).read_to_end(&mut said);
    let _ = std::io::copy(&mut errors, &mut std::io::sink());
    String::from_utf8_lossy(&said).trim().to_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `finish` both do nothing; before it, nobody wants the rest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
