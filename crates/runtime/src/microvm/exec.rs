//! `exec` in a microVM: a process on the host that stands for one in the guest.
//!
//! Engines wait on its pid and signal it. It is made by a plan, as every process
//! is, whose last step executes this binary again, as `accord_monitor::proxy`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_channel::{ExecOptions, Request};
use accord_container::compile::{Facts, Pad, Settings, compile_proxy};
use accord_container::needs::{self, Given, Opened};
use accord_container::spawn::{Child, Parent, spawn};
use accord_monitor::proxy::{NAME, Orders, PASSED};
use accord_outcome::{Failure, Result};
use bumpalo::Bump;
use oci_spec::runtime::Process;

use super::{guest, labels, memory, refuse, verbs};
use crate::build::Terminal;
use crate::container::Container;
use crate::options::Exec;

struct Handler<'t> {
    terminal: &'t mut Terminal,
}

impl Parent for Handler<'_> {
    fn id_maps(&mut self, _pid: i32) -> Result<()> {
        Ok(())
    }

    fn set_up(&mut self, _pid: i32) -> Result<()> {
        Ok(())
    }

    fn hooks(&mut self, _pid: i32) -> Result<()> {
        Ok(())
    }

    fn terminal(&mut self, master: OwnedFd) -> Result<()> {
        self.terminal.take(master)
    }

    fn listener(&mut self, _listener: OwnedFd, _pid: i32) -> Result<()> {
        Ok(())
    }
}

/// Starts the process; what is returned ends as it does.
///
/// # Errors
/// As `exec` natively; nothing is left then.
pub(crate) fn exec(
    container: &Container,
    exec: &Exec,
    mut process: Process,
    terminal: &mut Terminal,
) -> Result<Child> {
    refuse::refuse_affinity(&process, "process", "/execCPUAffinity")?;
    labels::check(&process)?;
    let mut limits = process.rlimits().clone().unwrap_or_default();
    guest::inherit(&mut limits)?;
    let _process =
        process.set_rlimits(Some(limits)).set_apparmor_profile(None).set_selinux_label(None);
    let config = serde_json::to_vec(&process)
        .map_err(|error| Failure::text("write", "process", error.to_string()))?;
    guest::fits(config.len(), Some(&process))?;
    let request = Request::Exec {
        process: 0,
        config: config.into(),
        options: ExecOptions { cgroups: exec.cgroups.clone(), ignore_paused: exec.ignore_paused },
    };
    let orders =
        Orders { id: exec.id.clone(), request, terminal: process.terminal().unwrap_or(false) };
    let (orders, control) = (memory("orders", &orders)?, verbs::reach(container)?);
    let [first, second] = PASSED;
    let passed = [(first, orders.as_fd()), (second, control.as_fd())];
    let given = Given { passed: &passed, ..Given::default() };
    let arena = Bump::new();
    let settings = Settings { id: exec.id.clone(), ..Settings::default() };
    let spec = container.entry.load_config()?;
    let facts = Facts::default();
    let args = [NAME.to_owned(), exec.id.clone()];
    let compiled = compile_proxy(Pad(&arena), &spec, &process, &facts, &settings, &args, &PASSED)?;
    let opened = needs::open(&compiled.needs, &given)?;
    let fds: Vec<BorrowedFd<'_>> = opened.iter().map(Opened::as_fd).collect();
    let mut child = spawn(&compiled.plan, &fds, None)?;
    let mut handler = Handler { terminal };
    child.build(&compiled.plan, &mut handler)?;
    if let Err(failure) = child.run(&compiled.plan, &mut handler) {
        child.kill();
        return Err(failure);
    }
    Ok(child)
}
