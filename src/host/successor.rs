//! A file that takes another's place once it is whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::state::{Class, Fault};

/// The next content of a file, written beside it as `.FILE.siphon-new`. Dropped before [`Successor::take_place`] it is removed,
/// and the file stays as it was.
pub struct Successor {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Successor {
    /// Whether there can be one, found out without leaving a trace: a refusal should come before anything else is done.
    pub fn check(path: &Path) -> Result<(), Fault> {
        let failed = |error: &io::Error| Fault::io(format!("{} cannot be written", path.display()), error);
        match path.metadata() {
            Ok(meta) if !meta.is_file() => {
                return Err(Fault::new(Class::Unsupported, format!("{} is not a regular file", path.display())));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&error)),
        }
        access(directory(&free_of_links(path)), Access::WRITE_OK | Access::EXEC_OK).map_err(|error| failed(&error.into()))
    }

    /// Begins it, with the permissions that the file has. The user gave the path: a link is followed, which a rename would
    /// replace.
    pub fn create(path: &Path) -> Result<Successor, Fault> {
        let successor = Successor::of(free_of_links(path))?;
        if let Ok(meta) = successor.path.metadata() {
            let kept = successor.file.set_permissions(meta.permissions());
            kept.map_err(|error| successor.failed("making", &error))?;
        }
        Ok(successor)
    }

    /// Begins that of a file which others may have put a link in the place of.
    pub fn of(path: PathBuf) -> Result<Successor, Fault> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".siphon-new");
        let temporary = directory(&path).join(name);
        // What an earlier run left, or somebody put there: it is not written through, and a FIFO is not waited for.
        let removed = fs::remove_file(&temporary).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        });
        match removed.and_then(|()| File::create_new(&temporary)) {
            Ok(file) => Ok(Successor { path, temporary, file }),
            Err(error) => Err(Fault::io(format!("making {}", temporary.display()), &error)),
        }
    }

    /// What is to be written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes what was written durable, so that nothing but the rename is left to do.
    pub fn sync(&self) -> Result<(), Fault> {
        self.file.sync_all().map_err(|error| self.failed("making it durable:", &error))
    }

    /// Takes the file's place, durably.
    pub fn take_place(self) -> Result<(), Fault> {
        fs::rename(&self.temporary, &self.path)
            .and_then(|()| File::open(directory(&self.path))?.sync_all())
            .map_err(|error| self.failed("putting it in its place:", &error))
    }

    fn failed(&self, tried: &str, error: &io::Error) -> Fault {
        Fault::io(format!("{tried} {}", self.temporary.display()), error)
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // Once it has taken its place there is nothing of this name any more.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Where a file is, or would be made.
pub fn free_of_links(path: &Path) -> PathBuf {
    const LINKS: usize = 40; // as the kernel follows at most
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match path.read_link() {
            Ok(target) => path = directory(&path).join(target),
            Err(_) => break,
        }
    }
    let (place, name) = (directory(&path).canonicalize(), path.file_name());
    path.canonicalize().ok().or_else(|| Some(place.ok()?.join(name?))).unwrap_or(path)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
