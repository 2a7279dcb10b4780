//! Why the program of a container cannot run: the words that engines classify.

use std::fmt::{Display, Formatter, Result};

use serde::{Deserialize, Serialize};
use syscalls::Errno;

use crate::{Class, Quoted, errno_symbol};

/// What stands between a command and its execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramError {
    /// No directory of `PATH` holds the name.
    NotInPath,
    /// The path does not exist.
    Missing,
    /// The file exists, the interpreter that its first bytes name does not.
    InterpreterMissing(
        /// The interpreter's path: of a `#!` line or of an ELF header.
        String,
    ),
    /// The path is a directory.
    Directory,
    /// Anything else that `execve(2)` says.
    Errno(
        /// The errno.
        i32,
    ),
}

impl ProgramError {
    /// What `execve(2)` of a path that exists or not says.
    pub fn from_errno(errno: i32) -> Self {
        match Errno::new(errno) {
            Errno::ENOENT => Self::Missing,
            Errno::EISDIR => Self::Directory,
            _ => Self::Errno(errno),
        }
    }

    /// 127 or 126.
    pub fn class(&self) -> Class {
        match self {
            Self::NotInPath | Self::Missing | Self::InterpreterMissing(_) => Class::NotFound,
            Self::Directory | Self::Errno(_) => Class::NotExecutable,
        }
    }
}

/// The words behind `exec: "NAME": `. The last ones are the class that every engine understands.
impl Display for ProgramError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let cause = match self {
            Self::NotInPath => {
                return f
                    .write_str("executable file not found in $PATH: no such file or directory");
            }
            Self::Missing => {
                return f.write_str("executable file not found: no such file or directory");
            }
            Self::InterpreterMissing(path) => {
                let path = Quoted(path);
                return write!(f, "interpreter {path} not found: no such file or directory");
            }
            Self::Directory => "is a directory",
            Self::Errno(errno) => match Errno::new(*errno) {
                Errno::EACCES => return f.write_str("permission denied"),
                Errno::EPERM => "EPERM",
                Errno::ENOEXEC => "exec format error",
                Errno::ELOOP => "too many levels of symbolic links",
                Errno::ENOTDIR => "not a directory",
                Errno::ETXTBSY => "text file busy",
                Errno::ENAMETOOLONG => "file name too long",
                Errno::E2BIG => "argument list too long",
                _ => return write!(f, "{}: permission denied", errno_symbol(*errno)),
            },
        };
        write!(f, "{cause}: permission denied")
    }
}
