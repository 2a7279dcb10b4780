//! `run`: creates, starts, and waits.

use std::os::fd::AsFd;

use accord_outcome::{Outcome, Result};
use bumpalo::Bump;

use crate::build::{Built, How, Terminal, build};
use crate::console::Receiver;
use crate::container::Container;
use crate::foreground::Foreground;
use crate::options::Run;
use crate::store::{Entry, START};
use crate::{Runtime, create, delete, sealed, start};

/// How a foreground `run` or `exec` ended; detached, there is nothing to say yet.
pub type Ended = Option<Outcome>;

/// Creates the container, lets its program go, and, unless detached, waits for
/// its end and deletes it.
///
/// # Errors
/// As `create` and `start`; nothing is left behind then either.
pub fn run(rt: &Runtime, run: &Run) -> Result<Ended> {
    sealed::protect()?;
    let arena = Bump::new();
    let how = How { foreground: !run.detach, start_socket: false };
    // Signals are held from before the child exists: none is lost.
    let foreground = match run.detach {
        true => None,
        false => Some(Foreground::new(!run.no_subreaper)?),
    };
    let pidfd = run.create.pidfd_socket.as_deref().map(Receiver::of_pidfd).transpose()?;
    let mut built = build(rt, &run.create, &how, &arena)?;
    if let Err(failure) = let_go(rt, run, pidfd.as_ref(), &mut built) {
        // What ran already is stopped; the record goes with it.
        built.child.kill();
        return Err(failure);
    }
    let Some(foreground) = foreground else {
        built.undo.keep();
        return Ok(None);
    };
    let master = match &mut built.handler.terminal {
        Terminal::Kept(master) => master.take(),
        _ => None,
    };
    let outcome = foreground.wait(built.child.pid, built.child.pidfd.as_fd(), master)?;
    built.undo.keep();
    if !run.keep {
        delete::after_end(rt, &built.handler.record, &built.handler.spec)?;
    }
    Ok(Some(outcome))
}

fn let_go(rt: &Runtime, run: &Run, pidfd: Option<&Receiver>, built: &mut Built<'_>) -> Result<()> {
    let plan = built.plan;
    built.child.run(&plan, &mut built.handler)?;
    // Of a microVM: until here, whoever asked was told that it is created, not running.
    Entry::of(&rt.root, &run.create.id)?.unmark(START);
    let hooks = built.handler.spec.hooks().as_ref();
    if hooks.is_some_and(|all| all.poststart().is_some()) {
        start::after_start(&Container::find(rt, &run.create.id)?)?;
    }
    create::tell(&run.create, pidfd, &built.child)
}
