//! Keeping the runtime's own binary out of the container's reach (CVE-2019-5736).
//!
//! A process of ours enters the container, and its `/proc/PID/exe` leads to the
//! binary on the host: a container whose program is `/proc/self/exe` could open
//! it and write to it once it is not busy. So the verbs that enter a container
//! execute themselves again from where nobody can write: a detached read-only
//! mount of the same file, which costs four system calls and no copy; or,
//! without the right to mount, a sealed copy in memory. A binary that this user
//! cannot write to needs neither.
//!
//! Mostly that has been done before `main` (`accord_sys::entry`). Here it is made
//! sure of, whatever the command line was.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use accord_outcome::{Failure, Result};
use accord_sys::exec::{CStrArray, execve_fd};
use accord_sys::mount::{Attributes, mount_setattr};
use rustix::fs::{
    Access, AtFlags, CWD, MemfdFlags, SealFlags, StatVfsMountFlags, accessat, fcntl_add_seals,
    fcntl_get_seals, memfd_create, statvfs,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

const SELF: &str = "/proc/self/exe";

/// Makes sure that this process runs from where nobody can write; returns only if it does.
///
/// # Errors
/// An own failure if it does not and cannot.
pub(crate) fn protect() -> Result<()> {
    let failed = |errno: Errno| Failure::errno("protect", SELF, errno.raw_os_error());
    if is_protected().map_err(failed)? {
        return Ok(());
    }
    let binary = match read_only_mount() {
        Err(Errno::PERM | Errno::ACCESS) => sealed_copy()?,
        other => other.map_err(failed)?,
    };
    let args = strings(std::env::args_os().map(OsStringExt::into_vec))?;
    let env = strings(
        std::env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'=')),
    )?;
    let (args, env) = (borrowed(&args), borrowed(&env));
    let mut arg_pointers = vec![std::ptr::null(); args.len().saturating_add(1)];
    let mut env_pointers = vec![std::ptr::null(); env.len().saturating_add(1)];
    let args = CStrArray::new(&args, &mut arg_pointers).map_err(failed)?;
    let env = CStrArray::new(&env, &mut env_pointers).map_err(failed)?;
    Err(failed(execve_fd(binary.as_fd(), &args, &env)))
}

fn is_protected() -> rustix::io::Result<bool> {
    // A read-only mount: ours, or that of an immutable system.
    if statvfs(SELF)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    if accessat(CWD, SELF, Access::WRITE_OK, AtFlags::EACCESS) == Err(Errno::ACCESS) {
        return Ok(true);
    }
    // A file in memory has seals; on any other the question is an error.
    let file = rustix::fs::open(
        SELF,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    Ok(fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

fn read_only_mount() -> rustix::io::Result<OwnedFd> {
    const AT_EMPTY_PATH: u32 = 0x1000;
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, SELF, flags)?;
    let read_only = Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() };
    mount_setattr(mount.as_fd(), c"", AT_EMPTY_PATH, &read_only)?;
    Ok(mount)
}

fn sealed_copy() -> Result<OwnedFd> {
    let failed = |error: &std::io::Error| Failure::io("copy", SELF, error);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let errno = |errno: Errno| Failure::errno("copy", SELF, errno.raw_os_error());
    let mut copy = File::from(memfd_create("accord", flags).map_err(errno)?);
    let mut binary = File::open(SELF).map_err(|error| failed(&error))?;
    let _length = std::io::copy(&mut binary, &mut copy).map_err(|error| failed(&error))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&copy, seals).map_err(errno)?;
    Ok(copy.into())
}

fn strings(list: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>> {
    list.map(CString::new)
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Failure::text("protect", SELF, "an argument holds a NUL"))
}

fn borrowed(list: &[CString]) -> Vec<&CStr> {
    list.iter().map(CString::as_c_str).collect()
}
