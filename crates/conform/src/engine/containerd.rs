//! containerd: a daemon of our own, its shim for runc, and ctr with the case's configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::daemon::{Daemon, hide};
use super::{Client, Host, Job, Program};
use crate::bundle::{self, Setting};
use crate::runtime::Runtime;
use crate::session::Context;

/// The shim that calls a runtime by runc's command line.
const SHIM: &str = "io.containerd.runc.v2";

struct Containerd {
    socket: PathBuf,
    /// The runtime, as one word.
    runtime: PathBuf,
}

pub(super) fn start(context: &Context, store: PathBuf) -> std::io::Result<Host> {
    // The sockets of shims are there, whatever the daemon is told.
    hide(Path::new("/run"))?;
    let socket = store.join("socket");
    let path = |name: &str| json!(store.join(name)).to_string();
    // A string of JSON is one of TOML.
    let config = format!(
        "version = 2\nroot = {}\nstate = {}\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {}\n",
        path("root"),
        path("state"),
        path("socket")
    );
    std::fs::write(store.join("config.toml"), config)?;
    let runtime = program(&context.runtime, &store)?;
    let client = Containerd { socket, runtime };
    let mut command = Command::new("containerd");
    command.arg("--config").arg(store.join("config.toml"));
    let daemon = Daemon::start(command, &store, context.patience, || client.command())?;
    Ok(Host { client: Box::new(client), daemon: Some(daemon) })
}

/// The shim knows a path only: a runtime with arguments becomes a script.
fn program(runtime: &Runtime, store: &Path) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    if runtime.args.is_empty() {
        return Ok(runtime.path.clone());
    }
    let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let words = std::iter::once(runtime.path.to_string_lossy().into_owned());
    let words: Vec<String> = words.chain(runtime.args.clone()).map(|word| quoted(&word)).collect();
    let script = store.join("runtime");
    std::fs::write(&script, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    Ok(script)
}

impl Client for Containerd {
    fn command(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", "conform"]);
        command
    }

    fn run(&self, job: &Job<'_>, program: Program, detach: bool) -> std::io::Result<Vec<String>> {
        let parent = job.context.cgroup.as_deref().unwrap_or_default();
        let setting = Setting {
            cgroup: Some(format!("{parent}/{}", job.name)),
            annotations: job.context.runtime.annotations.clone(),
            rootless: None,
        };
        let mut config = bundle::documents(&job.case.bundle, false, &setting, &job.names).config;
        config["root"]["path"] = json!(job.rootfs);
        config["process"]["args"] = json!(job.words(program));
        let path = job.directory.join("config.json");
        std::fs::write(&path, config.to_string())?;
        let mut args = vec!["run".to_owned()];
        args.push(if detach { "--detach" } else { "--rm" }.to_owned());
        args.extend(["--runtime", SHIM, "--runc-binary"].map(str::to_owned));
        args.push(self.runtime.to_string_lossy().into_owned());
        args.extend(["--config".to_owned(), path.to_string_lossy().into_owned()]);
        args.push(job.name.clone());
        Ok(args)
    }

    fn exec(&self, job: &Job<'_>) -> Vec<String> {
        let mut args = ["task", "exec", "--exec-id", "conform"].map(str::to_owned).to_vec();
        args.push(job.name.clone());
        args.extend(job.words(Program::Case));
        args
    }

    fn wait(&self, job: &Job<'_>) -> Vec<String> {
        ["task", "attach", &job.name].map(str::to_owned).into()
    }

    fn remove(&self, job: &Job<'_>) -> Vec<Vec<String>> {
        vec![
            ["task", "delete", "--force", &job.name].map(str::to_owned).into(),
            ["container", "delete", &job.name].map(str::to_owned).into(),
        ]
    }
}
