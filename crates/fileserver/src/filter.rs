//! The seccomp filter: what a file server of one thread does once it is in its jail. Any other
//! call kills the process.

use accord_outcome::{Failure, Result};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

const CALLS: &[&str] = &[
    // Files by descriptor.
    "close",
    "copy_file_range",
    "fallocate",
    "fcntl",
    "fdatasync",
    "fstatfs",
    "fsync",
    "ftruncate",
    "getdents64",
    "lseek",
    "preadv",
    "preadv2",
    "pwritev",
    "pwritev2",
    "read",
    "syncfs",
    "write",
    // Files by name, below a descriptor or the working directory.
    "fchmodat",
    "fchownat",
    "getxattr",
    "linkat",
    "listxattr",
    "mkdirat",
    "mknodat",
    "openat",
    "openat2",
    "readlinkat",
    "removexattr",
    "renameat2",
    "setxattr",
    "statx",
    "symlinkat",
    "unlinkat",
    "utimensat",
    // The user, umask and CAP_FSETID of single requests.
    "capset",
    "setfsgid",
    "setfsuid",
    "umask",
    // The connection and the notifications.
    "ppoll",
    "recvmsg",
    "sendmsg",
    // Memory, the C library, the end.
    "brk",
    "clock_gettime",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "madvise",
    "mremap",
    "munmap",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
];

/// Memory that is executable may not be asked for.
const NOT_EXECUTABLE: [&str; 2] = ["mmap", "mprotect"];
const PROT_EXEC: u64 = 4;

/// Loads the filter into this process, for good.
pub(crate) fn load() -> Result<()> {
    let mut filter = ScmpFilterContext::new(ScmpAction::KillProcess).map_err(refused("make"))?;
    for name in CALLS {
        let call = ScmpSyscall::from_name(name).map_err(refused(name))?;
        filter.add_rule(ScmpAction::Allow, call).map_err(refused(name))?;
    }
    let plain = ScmpArgCompare::new(2, ScmpCompareOp::MaskedEqual(PROT_EXEC), 0);
    for name in NOT_EXECUTABLE {
        let call = ScmpSyscall::from_name(name).map_err(refused(name))?;
        filter.add_rule_conditional(ScmpAction::Allow, call, &[plain]).map_err(refused(name))?;
    }
    let own = ScmpArgCompare::new(0, ScmpCompareOp::Equal, u64::from(std::process::id()));
    let abort = ScmpSyscall::from_name("tgkill").map_err(refused("tgkill"))?;
    filter.add_rule_conditional(ScmpAction::Allow, abort, &[own]).map_err(refused("tgkill"))?;
    filter.set_ctl_optimize(2).map_err(refused("optimize"))?;
    filter.load().map_err(refused("load"))
}

fn refused(what: &str) -> impl Fn(SeccompError) -> Failure {
    move |error| Failure::text("filter system call", what, error.to_string())
}
