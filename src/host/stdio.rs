//! Standard input and output as streams of bytes.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fstat, major, minor};

use super::leave;
use crate::state::{Class, Fault};

/// What our pipes hold, and what is read at once: 256 KiB was fastest; larger pipes fall out of the processor's cache.
const PIPE: usize = 256 << 10;
/// Small frames are read together; a payload of 1 MiB passes by the buffer but for its beginning.
const READ_AHEAD: usize = 64 << 10;

/// Standard input as a stream. A terminal is refused.
pub fn input() -> Result<BufReader<File>, Fault> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Fault::new(Class::Usage, "standard input is a terminal, not a stream")
            .hint("a stream comes through a pipe or a redirection: … | THIS, or THIS <FILE"));
    }
    Ok(BufReader::with_capacity(READ_AHEAD, own(stdin.as_fd(), "standard input")?))
}

/// Whether standard output is for people.
pub fn output_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Standard output as a stream. A terminal is refused.
pub fn output() -> Result<File, Fault> {
    refuse_closed_output()?;
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Fault::new(Class::Usage, "refusing to write a binary stream to a terminal")
            .hint("send it through a pipe or into a file; `… | extent-inspect` shows it as text"));
    }
    own(stdout.as_fd(), "standard output")
}

/// Refuses a standard output that was closed: in its place Rust's runtime has opened /dev/null, for reading and writing.
pub fn refuse_closed_output() -> Result<(), Fault> {
    const NULL: (u32, u32) = (1, 3); // Documentation/admin-guide/devices.txt
    let stdout = io::stdout();
    let is_null = fstat(&stdout).is_ok_and(|stat| (major(stat.st_rdev), minor(stat.st_rdev)) == NULL);
    if is_null && fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR) {
        return Err(Fault::new(Class::Usage, "standard output is closed"));
    }
    Ok(())
}

/// An own descriptor of the same open file, so that no line buffering of the library lies between.
fn own(fd: impl AsFd, name: &str) -> Result<File, Fault> {
    let fd = fd.as_fd().try_clone_to_owned().map_err(|error| Fault::io(name, &error))?;
    // Not a pipe, or not allowed to: then it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE);
    Ok(File::from(fd))
}

/// How long a writer may take from its last byte to [`all_was_written`].
const GRACE: Duration = Duration::from_millis(200);

/// Ends this process, silently and with failure, as soon as nobody reads standard output any more.
///
/// A source that searches a large, empty image would otherwise learn of a refusal only at its next write. Only for tools
/// that have nothing to put in order when they end; until [`all_was_written`].
pub fn exit_when_reader_dies() {
    std::thread::spawn(|| {
        let stdout = io::stdout();
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
        // Who has read END may go before our writer has even returned.
        std::thread::sleep(GRACE);
        if fds[0].revents().contains(PollFlags::ERR) && !WRITTEN.load(Ordering::Acquire) {
            leave::at_once(Class::Pipe.exit_code());
        }
    });
}

/// The stream is sealed and written: a reader that goes away now has what it wanted, even if this process takes a while
/// to end.
pub fn all_was_written() {
    WRITTEN.store(true, Ordering::Release);
}

static WRITTEN: AtomicBool = AtomicBool::new(false);
