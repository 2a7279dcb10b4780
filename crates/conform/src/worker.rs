//! A worker: a process of its own that runs cases one after the other.
//!
//! It is the subreaper of everything that a case starts and has a private mount
//! namespace, so that processes and mounts that are left over are surely the
//! case's own. Orders come as JSON lines on standard input, answers go as JSON
//! lines to standard output, the first of them when it is ready: `null`, or why
//! it is not. At the end of the input it goes away.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use accord_outcome::Failure;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use serde::{Deserialize, Serialize};

use crate::case::Form;
use crate::engine::{self, Host};
use crate::leftovers::hierarchies;
use crate::observe::Observed;
use crate::runtime::Runtime;
use crate::session::{self, Context};
use crate::table;

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
    let broken = |error: serde_json::Error| Failure::text("read order", "", error.to_string());
    let Some(first) = next() else { return Ok(()) };
    let hello: Hello = serde_json::from_str(&first).map_err(broken)?;
    let cases = table::cases().map_err(|e| Failure::text("read cases", "", e.to_string()))?;
    isolate(&hello)?;
    let context = Context {
        runtime: hello.runtime,
        work: hello.work,
        worker: hello.worker,
        cgroup: hello.cgroup,
        rootless: hello.rootless,
        patience: hello.patience,
    };
    let engine = context.runtime.engine.map(|engine| Host::start(engine, &context));
    let mut output = std::io::stdout().lock();
    let mut say = |message: Vec<u8>| {
        let written = output.write_all(&[&*message, b"\n"].concat()).and_then(|()| output.flush());
        written.map_err(|error| Failure::io("answer", "", &error))
    };
    let fault = engine.as_ref().and_then(|engine| engine.as_ref().err());
    say(serde_json::to_vec(&fault.map(Failure::to_string)).map_err(broken)?)?;
    let engine = engine.transpose()?;
    while let Some(line) = next() {
        let order: Order = serde_json::from_str(&line).map_err(broken)?;
        let case = cases.iter().find(|case| case.id == order.id);
        let case = case.ok_or_else(|| Failure::text("find case", &order.id, "unknown"))?;
        let times = u64::from(case.manner.times.unwrap_or(1));
        let mut runs = Vec::new();
        for time in 0..times {
            // Numbers of repeated runs must not meet those of other orders.
            let number = order.number.saturating_mul(10_000).saturating_add(time);
            runs.push(match &engine {
                Some(engine) => engine::run(&context, engine, case, order.form, number),
                None => session::run(&context, case, order.form, number),
            });
        }
        say(serde_json::to_vec(&Answer { runs }).map_err(broken)?)?;
    }
    if let Some(engine) = engine {
        engine.end();
    }
    Ok(())
}

fn isolate(hello: &Hello) -> Result<(), Failure> {
    let errno = |step| move |e: rustix::io::Errno| Failure::errno(step, "", e.raw_os_error());
    let own = Some(rustix::process::getpid());
    rustix::process::set_child_subreaper(own).map_err(errno("become subreaper"))?;
    if hello.rootless.is_some() {
        return Ok(());
    }
    unshare_mounts().map_err(errno("unshare mounts"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(errno("make mounts private"))?;
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

fn unshare_mounts() -> rustix::io::Result<()> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: only sharing of descriptor tables between threads makes it unsafe, and this leaves
    // them shared.
    #[expect(unsafe_code, reason = "unshare of a mount namespace touches no descriptor table")]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)
    }
}
