//! The seccomp filter: what a file server of one thread does once it is in its jail, beside
//! what every process of ours does.

use accord_outcome::Result;

const CALLS: &[&str] = &[
    // Files by descriptor.
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
];

/// Loads the filter into this process, for good.
pub(crate) fn load() -> Result<()> {
    accord_jail::allow_only(CALLS)
}
