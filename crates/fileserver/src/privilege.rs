//! Who the server is for the length of one call.
//!
//! It has one thread, and all of this is the thread's alone or undone before the next request.

use std::io;

use accord_sys::security::{CapabilitySets, capset, set_fs_group, set_fs_user};
use rustix::fs::Mode;
use rustix::process::umask;

const CAP_CHOWN: u8 = 0;
const CAP_DAC_OVERRIDE: u8 = 1;
const CAP_FOWNER: u8 = 3;
const CAP_FSETID: u8 = 4;
const CAP_SETGID: u8 = 6;
const CAP_SETUID: u8 = 7;
const CAP_MKNOD: u8 = 27;
const CAP_SETFCAP: u8 = 31;

/// What the server needs to make files as the guest's users and to change any of them.
pub(crate) const CAPABILITIES: u64 = 1 << CAP_CHOWN
    | 1 << CAP_DAC_OVERRIDE
    | 1 << CAP_FOWNER
    | 1 << CAP_FSETID
    | 1 << CAP_SETGID
    | 1 << CAP_SETUID
    | 1 << CAP_MKNOD
    | 1 << CAP_SETFCAP;

/// Does what makes a file as its owner and with the umask of its maker.
///
/// The capabilities stay (`SECBIT_NO_SETUID_FIXUP`): the guest has decided who may.
pub(crate) fn as_user<T>(
    uid: u32,
    gid: u32,
    mask: Option<u32>,
    make: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let user = (uid, gid) != (0, 0);
    let set = if user { set_fs_group(gid).and_then(|()| set_fs_user(uid)) } else { Ok(()) };
    let made = set.map_err(io::Error::from).and_then(|()| {
        let before = mask.map(|mask| umask(Mode::from_raw_mode(mask)));
        let made = make();
        before.map(umask);
        made
    });
    if user {
        set_fs_user(0).and_then(|()| set_fs_group(0))?;
    }
    made
}

/// Does what a user without CAP_FSETID does: the kernel clears set-user-ID and set-group-ID
/// of a file that is written to.
pub(crate) fn without_fsetid<T>(
    unprivileged: bool,
    write: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    if !unprivileged {
        return write();
    }
    let all = CapabilitySets { effective: CAPABILITIES, permitted: CAPABILITIES, inheritable: 0 };
    capset(CapabilitySets { effective: CAPABILITIES & !(1 << CAP_FSETID), ..all })?;
    let written = write();
    capset(all)?;
    written
}
