//! `start`: lets the program of a created container go.

use std::fs;

use accord_bundle::state::Status;
use accord_channel::{Json, Request};
use accord_container::explain;
use accord_outcome::{Failure, Result};
use accord_stage::{HEADER, Header, Kind, MAX_TEXT};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};

use crate::container::Container;
use crate::store::START;
use crate::{Runtime, delete, hooks, microvm};

/// Lets the program go, and runs the poststart hooks.
///
/// # Errors
/// The failure of `execve(2)`, which could not be known before; the texts for a
/// container in another state. If a poststart hook fails, the container is stopped.
pub fn start(rt: &Runtime, id: &str) -> Result<()> {
    let container = Container::find(rt, id)?;
    match container.status {
        Status::Created => {}
        Status::Stopped => return Err(Failure::plain("cannot start a container that has stopped")),
        Status::Creating => {
            return Err(Failure::plain("cannot start a container that is being created"));
        }
        Status::Running | Status::Paused => {
            return Err(Failure::plain("cannot start an already running container"));
        }
    }
    if container.is_microvm() {
        let started = microvm::verbs::call(&container, Request::Start { network: Json::new() });
        container.entry.unmark(START);
        let _nothing = started?;
    } else {
        let_go(&container)?;
    }
    let container = Container::find(rt, id)?;
    after_start(&container)
}

/// Runs the poststart hooks; one that fails stops the container (runtime-spec 1.3).
pub(crate) fn after_start(container: &Container) -> Result<()> {
    let annotated = container.entry.load_config()?;
    let Some(poststart) = annotated.hooks().as_ref().and_then(|all| all.poststart().as_ref())
    else {
        return Ok(());
    };
    let ran = hooks::run("poststart", Some(poststart), &container.state());
    if ran.is_err() {
        delete::kill(container)?;
    }
    ran
}

fn let_go(container: &Container) -> Result<()> {
    let id = &container.entry.id;
    let failed =
        |errno: Errno| Failure::errno("connect to start socket of", id, errno.raw_os_error());
    let (dir, path) = container.entry.short_path(START)?;
    let kind = SocketType::SEQPACKET;
    let socket =
        socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let address = SocketAddrUnix::new(path.as_path()).map_err(failed)?;
    match connect(&socket, &address) {
        // Somebody else's `start` was first, or the process has ended just now.
        Err(Errno::NOENT | Errno::CONNREFUSED) => {
            return Err(Failure::plain("cannot start an already running container"));
        }
        other => other.map_err(failed)?,
    }
    drop(dir);
    let _unlinked = fs::remove_file(container.entry.dir.join(START)).is_ok();
    let mut message = vec![0u8; HEADER + MAX_TEXT];
    let length = loop {
        match recv(&socket, message.as_mut_slice(), RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            // It was killed while it waited: it has been started, and has ended.
            Err(Errno::CONNRESET) => break 0,
            other => break other.map_err(failed)?.0,
        }
    };
    // The connection is close-on-exec: the end of file is the program's start.
    match message.get(..length).and_then(Header::parse) {
        None => Ok(()),
        Some((header, text)) if header.kind == Kind::Failed as u8 => {
            Err(explain::failure_after_start(&header, text))
        }
        Some(_) => Err(Failure::text("start", id, "its process says what nobody understands")),
    }
}
