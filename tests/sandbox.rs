//! What is left to the process that reads a stream: its descriptors, and nothing else.
//!
//! Each attempt runs in a process of its own behind the walls: this very test, started once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code, reason = "tests")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "attempts at what must not work"
)]

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use siphon::host::sandbox;

const ATTEMPT: &str = "SIPHON_TEST_ATTEMPT";
const PLACE: &str = "SIPHON_TEST_PLACE";

/// One thing that planted code would try; whether it worked.
type Attempt = (&'static str, fn(&Path) -> bool);

fn call(number: i64, arguments: [usize; 6]) -> bool {
    let [a, b, c, d, e, f] = arguments;
    // What is asked of the kernel fails, or this test does.
    unsafe { libc::syscall(number, a, b, c, d, e, f) != -1 }
}

fn text(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn open_by(number: i64, path: &Path, flags: i32) -> bool {
    let path = text(path);
    let how = [u64::from(flags.unsigned_abs()), 0o600, 0];
    match number {
        libc::SYS_openat2 => call(number, [libc::AT_FDCWD as usize, path.as_ptr() as usize, how.as_ptr() as usize, 24, 0, 0]),
        libc::SYS_openat => call(number, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, 0o600, 0, 0]),
        _ => call(number, [path.as_ptr() as usize, flags as usize, 0o600, 0, 0, 0]),
    }
}

const NEW: i32 = libc::O_CREAT | libc::O_WRONLY;

/// What must not work. Outside of the walls each of them does, but for those that need more than this process has anyway.
const ATTEMPTS: [Attempt; 26] = [
    ("open", |place| open_by(libc::SYS_open, &place.join("there"), libc::O_RDONLY)),
    ("openat", |place| open_by(libc::SYS_openat, &place.join("there"), libc::O_RDONLY)),
    ("openat2", |place| open_by(libc::SYS_openat2, &place.join("there"), libc::O_RDONLY)),
    ("creat", |place| call(libc::SYS_creat, [text(&place.join("new")).as_ptr() as usize, 0o600, 0, 0, 0, 0])),
    ("openat-new", |place| open_by(libc::SYS_openat, &place.join("new"), NEW)),
    ("openat2-new", |place| open_by(libc::SYS_openat2, &place.join("new"), NEW)),
    ("proc-self-fd", |_| fs::OpenOptions::new().write(true).open("/proc/self/fd/2").is_ok()),
    ("truncate", |place| call(libc::SYS_truncate, [text(&place.join("there")).as_ptr() as usize, 0, 0, 0, 0, 0])),
    ("unlink", |place| fs::remove_file(place.join("there")).is_ok()),
    ("rename", |place| fs::rename(place.join("there"), place.join("gone")).is_ok()),
    ("link", |place| fs::hard_link(place.join("there"), place.join("second")).is_ok()),
    ("symlink", |place| std::os::unix::fs::symlink("there", place.join("link")).is_ok()),
    ("mkdir", |place| fs::create_dir(place.join("dir")).is_ok()),
    ("chmod", |place| call(libc::SYS_chmod, [text(&place.join("there")).as_ptr() as usize, 0o777, 0, 0, 0, 0])),
    ("chdir", |place| std::env::set_current_dir(place).is_ok()),
    ("stat", |place| place.join("there").metadata().is_ok()),
    ("execve", |_| Command::new("/bin/true").status().is_ok()),
    ("fork", |_| call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0])),
    ("socket", |_| call(libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0, 0, 0, 0])),
    ("socketpair", |_| std::os::unix::net::UnixStream::pair().is_ok()),
    ("pidfd", |_| call(libc::SYS_pidfd_open, [std::os::unix::process::parent_id() as usize, 0, 0, 0, 0, 0])),
    ("signal", |_| call(libc::SYS_kill, [std::os::unix::process::parent_id() as usize, 0, 0, 0, 0, 0])),
    ("code", |_| {
        let writable_code = (libc::PROT_EXEC | libc::PROT_WRITE | libc::PROT_READ) as usize;
        call(libc::SYS_mmap, [0, 4096, writable_code, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize, usize::MAX, 0])
    }),
    ("memfd", |_| call(libc::SYS_memfd_create, [c"x".as_ptr() as usize, 0, 0, 0, 0, 0])),
    ("io_uring", |_| {
        let parameters = [0_u8; 120];
        call(libc::SYS_io_uring_setup, [1, parameters.as_ptr() as usize, 0, 0, 0, 0])
    }),
    ("ioctl", |place| {
        let target = File::options().read(true).open(place.join("there"));
        // Without a file of its own it tries its standard error.
        let fd = target.as_ref().map_or(2, AsRawFd::as_raw_fd);
        let mut waiting = 0_i32;
        call(libc::SYS_ioctl, [fd as usize, libc::FIONREAD as usize, (&raw mut waiting) as usize, 0, 0, 0])
    }),
];

/// What a reader does all day: memory, threads, reading and writing what it holds. It ends well, or this test does not.
fn work(target: &File) {
    let shared = Arc::new(target.try_clone());
    assert!(shared.is_err(), "no new descriptors: a duplicate is one");
    let threads: Vec<_> = (0..4_u8)
        .map(|n| {
            std::thread::spawn(move || {
                let block = vec![n + 1; 1 << 20];
                block[4096]
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| assert_ne!(thread.join().unwrap(), 0));
    target.write_all_at(&vec![7; 3 << 20], 4096).unwrap();
    let mut back = vec![0; 10];
    target.read_exact_at(&mut back, 4096).unwrap();
    assert_eq!(back, [7; 10]);
    eprintln!("worked");
}

/// The process behind the walls, when it is one.
#[test]
fn behind_the_walls() {
    let (Ok(wanted), Ok(place)) = (std::env::var(ATTEMPT), std::env::var(PLACE)) else { return };
    let place = Path::new(&place);
    let (wanted, outside) = wanted.strip_prefix("outside:").map_or((wanted.as_str(), false), |wanted| (wanted, true));
    let attempt = ATTEMPTS.iter().find(|(name, _)| *name == wanted).map(|(_, attempt)| attempt);
    let target = File::options().read(true).write(true).open(place.join("target")).unwrap();
    if !outside {
        sandbox::enter().unwrap();
    }
    let Some(attempt) = attempt else { return work(&target) };
    eprintln!("{}", if attempt(place) { "it worked" } else { "it failed" });
}

fn attempt(name: &str) -> (String, bool, Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("there"), "secret").unwrap();
    fs::write(place.path().join("target"), "").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "behind_the_walls", "--nocapture", "--test-threads=1"])
        .env(ATTEMPT, name)
        .env(PLACE, place.path())
        .output()
        .unwrap();
    let mut files: Vec<String> =
        fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.success(), files)
}

#[test]
fn planted_code_has_nothing_but_its_descriptors() {
    for (name, _) in ATTEMPTS {
        let (said, _, files) = attempt(name);
        assert!(said.contains("it failed") && !said.contains("it worked"), "{name}: {said}");
        assert_eq!(files, ["target", "there"], "{name}");
    }
}

#[test]
fn outside_of_the_walls_the_attempts_work() {
    let worked = ATTEMPTS.iter().filter(|(name, _)| attempt(&format!("outside:{name}")).0.contains("it worked")).count();
    // A container may forbid some.
    assert!(worked > ATTEMPTS.len() - 4, "{worked} of {} attempts are attempts", ATTEMPTS.len());
}

#[test]
fn a_reader_works_behind_the_walls() {
    let (said, ended_well, _) = attempt("work");
    assert!(ended_well && said.contains("worked"), "{said}");
}
