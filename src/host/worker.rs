//! A second process of this program: for what must not have the rights of the first.

use std::ffi::{CString, OsStr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::set_name;

use super::channel::Channel;
use crate::state::{Class, Fault};

/// The option that tells the second process what it is.
pub const OPTION: &str = "--worker";

/// The second process. It has our standard input and standard error, and a channel to us as its standard output.
pub struct Worker {
    child: Child,
    channel: Channel,
}

impl Worker {
    /// Starts it, with our own arguments behind [`OPTION`].
    pub fn start() -> Result<Worker, Fault> {
        let (channel, theirs) = Channel::pair()?;
        let mut arguments = std::env::args_os();
        // The very file that runs now, even if another one has taken its place.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(arguments.next().unwrap_or_default()).arg(OPTION).args(arguments).stdout(Stdio::from(theirs));
        let child = command.spawn().map_err(|error| Fault::io("starting a second process", &error))?;
        Ok(Worker { child, channel })
    }

    /// In the second process: the channel to the first. It ends with that, and has its name in lists of processes.
    pub fn this() -> Result<Channel, Fault> {
        let name = std::env::args_os().next().and_then(|path| Path::new(&path).file_name().map(OsStr::to_owned));
        if let Some(name) = name.and_then(|name| CString::new(name.into_encoded_bytes()).ok()) {
            // For people only.
            let _ = set_name(&name);
        }
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Fault::io("prctl", &error.into()))?;
        Channel::of_stdout()
    }

    /// The channel to it.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        // It is our child, so there is an end to wait for.
        let _ = self.child.wait();
    }

    /// It has gone without a word: why.
    pub fn vanished(mut self) -> Fault {
        // One that ends by itself already is not disturbed by this.
        let _ = self.child.kill();
        let how = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        Fault::new(Class::Io, format!("the process that reads the stream has ended ({how})"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After its end both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
