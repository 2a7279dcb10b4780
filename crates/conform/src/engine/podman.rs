//! podman: no daemon, a root file system as it is.

use std::path::PathBuf;
use std::process::Command;

use super::{Client, Host, Job, Program, words};
use crate::runtime::Runtime;
use crate::session::Context;

struct Podman {
    store: PathBuf,
    runtime: Runtime,
}

pub(super) fn start(context: &Context, store: PathBuf) -> std::io::Result<Host> {
    let client = Box::new(Podman { store, runtime: context.runtime.clone() });
    Ok(Host { client, daemon: None })
}

impl Client for Podman {
    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.store.join("store"));
        command.arg("--runroot").arg(self.store.join("run"));
        command.args(["--events-backend", "none", "--cgroup-manager", "cgroupfs"]);
        command.arg("--runtime").arg(&self.runtime.path);
        for flag in &self.runtime.args {
            command.arg("--runtime-flag").arg(flag.trim_start_matches('-'));
        }
        command
    }

    fn run(&self, job: &Job<'_>, program: Program, detach: bool) -> std::io::Result<Vec<String>> {
        let mut args = words::run(job, program, detach);
        args.extend(["--rootfs".to_owned(), job.rootfs.to_string_lossy().into_owned()]);
        args.extend(job.words(program));
        Ok(args)
    }

    fn remove(&self, job: &Job<'_>) -> Vec<Vec<String>> {
        vec![["rm", "--force", "--time", "0", &job.name].map(str::to_owned).into()]
    }
}
