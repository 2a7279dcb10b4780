//! docker: a dockerd of our own, and an image of each root file system.
//!
//! Its network is switched off as far as it goes: no bridge, no packet filter, no proxies.

use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::daemon::{Daemon, hide};
use super::{Client, Host, Job, Program, words};
use crate::observe::Ended;
use crate::session::Context;

/// The name of the runtime under test in the daemon's table.
const RUNTIME: &str = "conform";

/// Nothing of the host's network is touched, and layers are plain directories.
const PLAIN: [&str; 7] = [
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--ip-masq=false",
    "--userland-proxy=false",
    "--storage-driver=vfs",
];

struct Docker {
    socket: PathBuf,
}

pub(super) fn start(context: &Context, store: PathBuf) -> std::io::Result<Host> {
    // dockerd writes to both, whatever it is told.
    hide(Path::new("/run"))?;
    hide(Path::new("/etc/docker"))?;
    let config = serde_json::json!({ "runtimes": { RUNTIME: {
        "path": context.runtime.path, "runtimeArgs": context.runtime.args,
    } } });
    std::fs::write(store.join("daemon.json"), config.to_string())?;
    let socket = store.join("docker.sock");
    let mut command = Command::new("dockerd");
    command.arg("--config-file").arg(store.join("daemon.json"));
    command.arg("--data-root").arg(store.join("data")).arg("--exec-root").arg(store.join("exec"));
    command.arg("--pidfile").arg(store.join("pid")).args(PLAIN);
    // As the words of `run`: for what the daemon itself may not have.
    command.args(["--default-ulimit=nofile=1024:1024", "--default-ulimit=nproc=4096:4096"]);
    command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
    command.arg("--host").arg(unix(&socket));
    let client = Docker { socket };
    let daemon = Daemon::start(command, &store, context.patience, || client.command())?;
    Ok(Host { client: Box::new(client), daemon: Some(daemon) })
}

fn unix(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

impl Client for Docker {
    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(unix(&self.socket));
        command
    }

    fn prepare(&self, job: &Job<'_>) -> std::io::Result<()> {
        let (reader, writer) = std::io::pipe()?;
        let mut tar = Command::new("tar")
            .arg("--directory")
            .arg(&job.rootfs)
            .args(["--create", "."])
            .stdout(writer)
            .spawn()?;
        let args = ["import", "-", &job.name].map(str::to_owned);
        let (call, _) = job.call(self, &args, reader.into())?;
        if tar.wait()?.success() && call.ended == Ended::Exited(0) {
            return Ok(());
        }
        Err(Error::other(format!("docker import: {}: {}", call.ended, call.stderr.trim_end())))
    }

    fn run(&self, job: &Job<'_>, program: Program, detach: bool) -> std::io::Result<Vec<String>> {
        let mut args = words::run(job, program, detach);
        args.extend(["--runtime".to_owned(), RUNTIME.to_owned(), job.name.clone()]);
        args.extend(job.words(program));
        Ok(args)
    }

    fn remove(&self, job: &Job<'_>) -> Vec<Vec<String>> {
        vec![["rm", "--force", &job.name].map(str::to_owned).into()]
    }

    fn forget(&self, job: &Job<'_>) -> std::io::Result<()> {
        // A container that could not start is still there.
        let args = ["rm", "--force", &job.name].map(str::to_owned);
        job.call(self, &args, Stdio::null())?;
        let args = ["rmi", "--force", &job.name].map(str::to_owned);
        let (call, _) = job.call(self, &args, Stdio::null())?;
        match call.ended {
            Ended::Exited(0) => Ok(()),
            ended => Err(Error::other(format!("docker rmi: {ended}: {}", call.stderr.trim_end()))),
        }
    }
}
