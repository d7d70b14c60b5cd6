//! What a process gives up for good before it reads what others wrote.
//!
//! The wall is a list of the system calls that are left (seccomp): none of them names a file, a program, a process or an
//! address. Behind it stand no new privileges, no capabilities, limits on memory and descriptors, and Landlock, where the kernel
//! has it: to it, no file may be opened and no connection be made. What cannot be put up is an error, never a note.

use std::collections::BTreeMap;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use rustix::process::{Resource, Rlimit, getpid, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

use super::device::BLKDISCARD;
use crate::state::{Class, Fault};

/// Bytes of memory: many times what a stream can make a reader use.
const MEMORY: u64 = 1 << 30;
/// Descriptors: standard ones, the channel, the stream, the target.
const DESCRIPTORS: u64 = 16;

/// Leaves this process nothing but its memory, its threads and the descriptors that it holds. To be called before there is a
/// second thread.
pub fn enter() -> Result<(), Fault> {
    limit(Resource::Nofile, DESCRIPTORS)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Data, MEMORY)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_no_new_privs(true).map_err(|error| lacking("no_new_privs", &error))?;
    set_capabilities(None, none).map_err(|error| lacking("giving up capabilities", &error))?;
    landlock()?;
    apply_filter(&filter()?).map_err(|error| lacking("seccomp", &error))
}

fn limit(resource: Resource, most: u64) -> Result<(), Fault> {
    let most = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(resource, most).map_err(|error| lacking("a limit on resources", &error))
}

/// No path at all, as far as this kernel knows how to forbid one (since Linux 5.13, where it is switched on).
fn landlock() -> Result<(), Fault> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(ABI::V5));
    let ruleset = ruleset.and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V5)));
    let ruleset = ruleset.and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)));
    let locked = ruleset.and_then(Ruleset::create).and_then(|created| created.restrict_self());
    locked.map(|_| ()).map_err(|error| lacking("Landlock", &error))
}

fn lacking(what: &str, why: &impl std::fmt::Display) -> Fault {
    Fault::new(Class::Unsupported, format!("the stream's reader cannot be locked in: {what}: {why}"))
        .hint("--no-sandbox does without, where every sender is trusted")
}

/// Calls that a reader and its writing threads make. None of them names a path, a process or an address.
const PLAIN: [i64; 28] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Everything else does not exist: as an error, so that a library that asks for more than it needs goes on without it.
fn filter() -> Result<BpfProgram, Fault> {
    let broken = |error: &dyn std::fmt::Display| lacking("seccomp", &error.to_string());
    let is = |argument, op, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value);
    let flag = |bits: i32| u64::from(bits.unsigned_abs());
    let conditional = [
        (libc::SYS_ioctl, is(1, SeccompCmpOp::Eq, u64::from(BLKDISCARD))),
        // The width of a terminal, for the progress bar; and whether it is one.
        (libc::SYS_ioctl, is(1, SeccompCmpOp::Eq, libc::TIOCGWINSZ)),
        (libc::SYS_ioctl, is(1, SeccompCmpOp::Eq, libc::TCGETS)),
        // Memory, but never code.
        (libc::SYS_mmap, is(2, SeccompCmpOp::MaskedEq(flag(libc::PROT_EXEC)), 0)),
        (libc::SYS_mprotect, is(2, SeccompCmpOp::MaskedEq(flag(libc::PROT_EXEC)), 0)),
        // Threads, but no process. (clone3 hides its flags in memory; the library goes back to clone.)
        (libc::SYS_clone, is(0, SeccompCmpOp::MaskedEq(flag(libc::CLONE_THREAD)), flag(libc::CLONE_THREAD))),
        // A panic ends this process by a signal to itself.
        (libc::SYS_tgkill, is(0, SeccompCmpOp::Eq, u64::from(getpid().as_raw_nonzero().get().unsigned_abs()))),
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    for (call, condition) in conditional {
        let rule = condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(|error| broken(&error))?;
        rules.entry(call).or_default().push(rule);
    }
    let arch = std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| broken(&error))?;
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(rules, absent, SeccompAction::Allow, arch).map_err(|error| broken(&error))?;
    filter.try_into().map_err(|error: seccompiler::BackendError| broken(&error))
}
