//! Compiled filters, kept by content hash.
//!
//! A file holds a program and, behind it, the SHA-256 of the key and the program: so it
//! is whole, undamaged, and the answer to this very profile. Nothing is read from a file
//! that somebody else could have written. Whatever is wrong with a cache or an entry, the
//! answer is to compile again.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use accord_sys::security::Instruction;
use oci_spec::runtime::LinuxSeccomp;
use rustix::fs::{AtFlags, CWD, OFlags, linkat, unlink};
use rustix::process::geteuid;
use sha2::{Digest, Sha256};

use super::{MAX_INSTRUCTIONS, bpf, knowledge};

/// To be counted up whenever the same profile gives another program.
const REVISION: u32 = 1;
/// Length of a hash.
const HASH: usize = 32;
type Hash = [u8; HASH];

/// The place of one profile's program.
#[derive(Debug)]
pub(super) struct Entry {
    directory: PathBuf,
    path: PathBuf,
    key: Hash,
}

impl Entry {
    /// The place in a directory, which need not exist.
    pub(super) fn of(seccomp: &LinuxSeccomp, directory: &Path) -> Option<Self> {
        let header = format!(
            "accord {} {REVISION} libseccomp {} {}\n",
            env!("CARGO_PKG_VERSION"),
            knowledge::version(),
            std::env::consts::ARCH,
        );
        // The parsed form, written out again: white space and order of members do not count.
        let profile = serde_json::to_vec(seccomp).ok()?;
        let key = hash(&[header.as_bytes(), &profile]);
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { directory: directory.to_owned(), path: directory.join(name + ".bpf"), key })
    }

    /// The program, if there is one that can be trusted.
    pub(super) fn load(&self) -> Option<Vec<Instruction>> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&self.path)
            .ok()?;
        if !trustworthy(&file.metadata().ok()?) {
            return None;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let (program, trailer) = bytes.split_last_chunk::<HASH>()?;
        if *trailer != self.trailer(program) {
            return None;
        }
        bpf::from_bytes(program).filter(|program| !program.is_empty())
    }

    /// Keeps a program. A failure costs the next container time, and nothing else.
    pub(super) fn store(&self, program: &[Instruction]) {
        let _kept = self.try_store(program);
    }

    fn try_store(&self, program: &[Instruction]) -> io::Result<()> {
        // It and the one it is in; what should be above that and is not means that it is
        // not wanted here.
        let make = |path: &Path| match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        self.directory.parent().map_or(Ok(()), make)?;
        make(&self.directory)?;
        let mut bytes = bpf::to_bytes(program);
        bytes.extend(self.trailer(&bytes));
        // The file has no name before it is whole, and none to clean up if we die.
        let mut file = OpenOptions::new()
            .write(true)
            .mode(0o600)
            .custom_flags(OFlags::TMPFILE.bits().cast_signed())
            .open(&self.directory)?;
        file.write_all(&bytes)?;
        match self.name(&file) {
            // Damaged, or another create was faster: ours is as good.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                unlink(&self.path)?;
                self.name(&file)
            }
            done => done,
        }
    }

    fn name(&self, file: &File) -> io::Result<()> {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(CWD, link, CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn trailer(&self, program: &[u8]) -> Hash {
        hash(&[&self.key, program])
    }
}

/// A plain file of ours that nobody else may write, of a length that makes sense.
fn trustworthy(file: &Metadata) -> bool {
    const OTHERS_WRITE: u32 = 0o022;
    // An instruction is 8 bytes.
    let longest = MAX_INSTRUCTIONS.saturating_mul(8).saturating_add(HASH);
    file.is_file()
        && file.uid() == geteuid().as_raw()
        && file.mode() & OTHERS_WRITE == 0
        && usize::try_from(file.len()).is_ok_and(|length| length <= longest)
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}
