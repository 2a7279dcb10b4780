//! A worker: a process of its own that runs cases one after the other.
//!
//! It is the subreaper of everything that a case starts and has a private mount
//! namespace, so that processes and mounts that are left over are surely the
//! case's own; as root it has a pid namespace, too, so that nothing outlives it if
//! it is killed. Orders come as JSON lines on standard input, answers go as JSON
//! lines to standard output, the first of them when it is ready: `null`, or why
//! it is not. At the end of the input it goes away.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use accord_outcome::Failure;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::apart;
use crate::case::{Case, Form};
use crate::engine::{self, Host};
use crate::leftovers::hierarchies;
use crate::observe::Observed;
use crate::runtime::Runtime;
use crate::session::{self, Context};
use crate::table;
use crate::workplace::Workplace;

/// The first line: what all orders share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The runtime.
    pub runtime: Runtime,
    /// The directory of the whole run.
    pub work: PathBuf,
    /// The worker's number.
    pub worker: usize,
    /// The parent of every container's cgroup.
    pub cgroup: Option<String>,
    /// Uid and gid, where the suite is not root.
    pub rootless: Option<(u32, u32)>,
    /// What deadlines are multiplied by.
    pub patience: u32,
}

impl Hello {
    /// Whether the worker has a pid namespace: systemd could not tell whom it is asked to adopt.
    pub fn is_apart(&self) -> bool {
        self.rootless.is_none() && !self.runtime.is_by_systemd()
    }
}

/// Run this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The case.
    pub id: String,
    /// The form.
    pub form: Form,
    /// A number that no other order has.
    pub number: u64,
}

/// What was seen.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Every run of the case, in the order of time.
    pub runs: Vec<Observed>,
}

/// Works until the input ends.
pub fn work() -> Result<(), Failure> {
    let mut lines = std::io::stdin().lock().lines();
    let mut next = move || -> Option<String> { lines.next()?.ok() };
    let Some(first) = next() else { return Ok(()) };
    let hello: Hello = serde_json::from_str(&first).map_err(broken)?;
    let cases = table::cases().map_err(|e| Failure::text("read cases", "", e.to_string()))?;
    isolate(&hello)?;
    let _place = Workplace::enter(&hello.work, hello.cgroup.clone())
        .map_err(|error| Failure::io("enter", hello.work.display().to_string(), &error))?;
    let context = Context {
        runtime: hello.runtime,
        work: hello.work,
        worker: hello.worker,
        cgroup: hello.cgroup,
        rootless: hello.rootless,
        patience: hello.patience,
    };
    let engine = context.runtime.engine.map(|engine| Host::start(engine, &context));
    let fault = engine.as_ref().and_then(|engine| engine.as_ref().err());
    let heard = say(&fault.map(Failure::to_string));
    let engine = engine.transpose()?;
    let result = heard.and_then(|()| serve(next, &context, engine.as_ref(), &cases));
    if let Some(engine) = engine {
        engine.end();
    }
    result
}

/// Answers orders until there are no more, or nobody hears.
fn serve(
    mut next: impl FnMut() -> Option<String>,
    context: &Context,
    engine: Option<&Host>,
    cases: &[Case],
) -> Result<(), Failure> {
    while let Some(line) = next() {
        let order: Order = serde_json::from_str(&line).map_err(broken)?;
        let case = cases.iter().find(|case| case.id == order.id);
        let case = case.ok_or_else(|| Failure::text("find case", &order.id, "unknown"))?;
        let times = u64::from(case.manner.times.unwrap_or(1));
        let mut runs = Vec::new();
        for time in 0..times {
            // Numbers of repeated runs must not meet those of other orders.
            let number = order.number.saturating_mul(10_000).saturating_add(time);
            let seen = match engine {
                Some(engine) => engine::run(context, engine, case, order.form, number),
                None => session::run(context, case, order.form, number),
            };
            let hangs = seen.hangs();
            runs.push(seen);
            // Nobody wants to wait for that a hundred times.
            if hangs {
                break;
            }
        }
        say(&Answer { runs })?;
    }
    Ok(())
}

fn say(message: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(message).map_err(broken)?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    let written = output.write_all(&line).and_then(|()| output.flush());
    written.map_err(|error| Failure::io("answer", "", &error))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err calls")]
fn broken(error: serde_json::Error) -> Failure {
    Failure::text("read order", "", error.to_string())
}

fn isolate(hello: &Hello) -> Result<(), Failure> {
    let errno = |step| move |e: rustix::io::Errno| Failure::errno(step, "", e.raw_os_error());
    let own = Some(rustix::process::getpid());
    rustix::process::set_child_subreaper(own).map_err(errno("become subreaper"))?;
    if hello.rootless.is_some() {
        return Ok(());
    }
    let mounts = u64::from(UnshareFlags::NEWNS.bits());
    accord_sys::process::unshare(mounts).map_err(errno("unshare mounts"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(errno("make mounts private"))?;
    apart::show_processes().map_err(errno("show processes"))?;
    if hello.runtime.refuses_hybrid {
        let all = hierarchies();
        if all.iter().any(|hierarchy| !hierarchy.unified) {
            for hierarchy in all.iter().filter(|hierarchy| hierarchy.unified) {
                unmount(&hierarchy.path, UnmountFlags::DETACH)
                    .map_err(errno("hide the unified hierarchy"))?;
            }
        }
    }
    Ok(())
}
