//! The container's terminal.

use core::ffi::CStr;

use accord_sys::process::dup_onto_stdio;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::mounts::{At as _, Done, attach, clone_tree};
use crate::protocol::Call;
use crate::target::{self, Last, Make};

/// Opens a pair and returns its master. The slave becomes the standard streams
/// and the controlling terminal; it is opened by `TIOCGPTPEER`, so that no name
/// in the container's `/dev` is believed (CVE-2025-52565).
pub(crate) fn open(
    root: Option<BorrowedFd<'_>>,
    ptmx: &CStr,
    uid: u32,
    size: Option<(u16, u16)>,
    console: bool,
) -> Done<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = match root {
        Some(root) => target::open_with(root, ptmx, flags, false),
        None => openat(CWD, ptmx, flags, Mode::empty()),
    }
    .at(Call::Open)?;
    unlockpt(&master).at(Call::Create)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, peer).at(Call::Create)?;
    if let Some((rows, columns)) = size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).at(Call::Change)?;
    }
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>).at(Call::Change)?;
    if let (Some(root), true) = (root, console) {
        let target =
            target::open_or_make(root, c"/dev/console", Make::File, false, &mut Last::default())
                .at(Call::Target)?;
        let mount = clone_tree(slave.as_fd(), c"", false, false).at(Call::Attach)?;
        attach(mount.as_fd(), target.as_fd()).at(Call::Attach)?;
    }
    accord_sys::kernel::set_controlling_terminal(slave.as_fd()).at(Call::Change)?;
    for number in 0..=2 {
        dup_onto_stdio(slave.as_fd(), number).at(Call::Change)?;
    }
    Ok(master)
}
