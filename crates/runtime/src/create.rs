//! `create`: builds a container whose program waits for `start`.

use std::os::fd::AsFd;

use accord_container::spawn::Child;
use accord_outcome::Result;
use bumpalo::Bump;

use crate::build::{How, build};
use crate::console::Receiver;
use crate::options::Create;
use crate::pid_file::PidFile;
use crate::{Runtime, sealed};

/// Builds the container. The program has been found and can be executed as far
/// as that can be known; its process waits.
///
/// # Errors
/// Everything that `docs/exit-status.md` lists for `create`; nothing is left behind.
pub fn create(rt: &Runtime, create: &Create) -> Result<()> {
    sealed::protect()?;
    let arena = Bump::new();
    let how = How { foreground: false, start_socket: true };
    let pidfd = create.pidfd_socket.as_deref().map(Receiver::of_pidfd).transpose()?;
    let mut built = build(rt, create, &how, &arena)?;
    let told = tell(create, pidfd.as_ref(), &built.child);
    if told.is_err() {
        built.child.kill();
        return told;
    }
    built.undo.keep();
    Ok(())
}

/// Tells who asked for it which process it is.
pub(crate) fn tell(create: &Create, pidfd: Option<&Receiver>, child: &Child) -> Result<()> {
    if let Some(receiver) = pidfd {
        receiver.send_pidfd(child.pidfd.as_fd())?;
    }
    match &create.pid_file {
        Some(path) => PidFile::prepare(path)?.write(child.pid),
        None => Ok(()),
    }
}
