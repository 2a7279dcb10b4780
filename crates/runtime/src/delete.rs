//! `delete`: removes what is left of a container.

use accord_bundle::state::Status;
use accord_cgroup::{Cgroup, Layout};
use accord_outcome::{Failure, Quoted, Result};
use oci_spec::runtime::Spec;

use crate::container::Container;
use crate::options::Delete;
use crate::store::{ContainerRecord, Entry};
use crate::{Runtime, build, facts, hooks, microvm};

const SIGKILL: i32 = 9;
/// A killed process that does not end hangs in the kernel; nobody waits for ever.
const PATIENCE_SECONDS: i64 = 10;

/// Deletes a container that is not running; with `force`, any, and it is no
/// failure if there is none.
///
/// # Errors
/// The texts of `docs/exit-status.md`; an own failure for what cannot be removed.
pub fn delete(rt: &Runtime, delete: &Delete) -> Result<()> {
    let entry = Entry::of(&rt.root, &delete.id)?;
    let record = match entry.load() {
        Ok(record) => record,
        Err(_) if delete.force && !entry.dir.exists() => return Ok(()),
        Err(failure) if delete.force => return remove_damaged(rt, &entry, failure),
        Err(failure) => return Err(failure),
    };
    let Some(record) = record else {
        // `create` died before it made anything.
        return if delete.force { entry.remove() } else { Err(entry.unknown()) };
    };
    let container = Container::of(entry, record);
    match container.status {
        Status::Stopped => {}
        // The program has not run: nothing is lost.
        Status::Created => kill(&container)?,
        _ if delete.force => kill(&container)?,
        status => {
            let id = Quoted(&container.entry.id);
            let text = format!("cannot delete container {id} that is not stopped: {status}");
            return Err(Failure::plain(text));
        }
    }
    let spec = container.entry.load_config().ok();
    remove(&container, spec.as_ref())
}

/// Removes a container whose record cannot be read, if nothing of it runs any more: what its
/// processes are, only the record could have told for sure.
fn remove_damaged(rt: &Runtime, entry: &Entry, failure: Failure) -> Result<()> {
    let Ok(spec) = entry.load_config() else { return Err(failure) };
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    let path = path.map(|path| path.to_string_lossy());
    let rootless = rt.global.rootless.unwrap_or_else(facts::is_unprivileged);
    let layout = Layout::detect()?;
    let cgroup = Cgroup::plan(&layout, path.as_deref(), &entry.id, build::driver(rt), rootless)?;
    let note = match (cgroup.absent(), cgroup.pids(true).as_deref()) {
        (None, Ok([])) => None,
        (None, Ok(_)) => Some("its cgroup has processes"),
        _ => Some("nothing tells whether it runs"),
    };
    if let Some(note) = note {
        return Err(failure.with_note(format_args!("and it is not removed: {note}")));
    }
    if let Err(failure) = cgroup.remove() {
        log::warn!("{failure}");
    }
    entry.remove()
}

/// Kills every process of the container and waits until its init has ended.
pub(crate) fn kill(container: &Container) -> Result<()> {
    let init = container.init();
    if let Ok(pidfd) = &init {
        let _gone =
            accord_sys::process::pidfd_send_signal(std::os::fd::AsFd::as_fd(pidfd), SIGKILL)
                .is_err();
    }
    // Of one that is being created nothing has been killed yet.
    if container.is_microvm() && init.is_ok() {
        microvm::await_machine(container)?;
    }
    // Also thaws: a frozen process cannot die on cgroup v1.
    if container.record.cgroup_made {
        container.record.cgroup.kill_all(SIGKILL)?;
    }
    match init {
        Ok(pidfd) => container.await_end(&pidfd, PATIENCE_SECONDS),
        Err(_) => Ok(()),
    }
}

/// Deletes the container of a `run` that has seen its end. Somebody else may have been
/// faster, and the name may be another container's by now.
pub(crate) fn after_end(rt: &Runtime, ours: &ContainerRecord, spec: &Spec) -> Result<()> {
    let entry = Entry::of(&rt.root, &ours.id)?;
    match entry.load() {
        Ok(Some(record)) if record.init == ours.init => {
            remove(&Container { entry, record, status: Status::Stopped }, Some(spec))
        }
        Err(failure) if entry.dir.exists() => Err(failure),
        _ => Ok(()),
    }
}

/// Removes a stopped container. Its poststop hooks are in `spec`.
pub(crate) fn remove(container: &Container, spec: Option<&Spec>) -> Result<()> {
    let cgroup = &container.record.cgroup;
    // Without a pid namespace, processes may have outlived their init.
    if container.record.cgroup_made {
        cgroup.destroy()?;
    } else if cgroup.remove().is_err() {
        // `create` died before it had one: it is in use, so it is another's.
        log::debug!("the cgroup of {} is not its own", accord_outcome::Quoted(&container.entry.id));
    }
    container.entry.remove()?;
    let poststop = spec.and_then(|spec| spec.hooks().as_ref()?.poststop().clone());
    let mut state = container.state();
    state.status = Status::Stopped;
    state.pid = 0;
    // The container is gone whatever they do (runtime-spec, Lifecycle 13).
    for hook in poststop.into_iter().flatten() {
        if let Err(failure) = hooks::run("poststop", Some(&vec![hook]), &state) {
            log::warn!("{failure}");
        }
    }
    Ok(())
}
