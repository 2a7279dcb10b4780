//! `accord run`: of a bundle, or of a root filesystem and a command.

use std::path::PathBuf;
use std::time::SystemTime;

use accord_bundle::state::Isolation;
use accord_outcome::Result;
use accord_runtime::Runtime;
use accord_runtime::options::{self, Source, User};
use clap::{ArgGroup, Parser};

use super::Verb;
use super::create::Common;
use super::exec::user;
use crate::cli::Context;
use crate::rootfs::{BindMount, Rootfs, bind_mount};
use crate::usage::Parsed;

/// Create a container, run its program to its end and delete it
///
/// The exit status is the program's; 128+N if signal N killed it, 127 if there is
/// no such program, 126 if it cannot be executed, 1 if the container cannot be built.
#[derive(Debug, Parser)]
#[command(
    name = "run",
    override_usage = "accord run [FLAGS] CONTAINER-ID\n       \
                      accord run [FLAGS] --rootfs DIR [CONTAINER-ID] -- COMMAND [ARGUMENT...]",
    group(ArgGroup::new("what").args(["id", "rootfs"]).required(true).multiple(true)),
)]
pub(super) struct Args {
    /// The container's name, unique on this host
    #[arg(value_name = "CONTAINER-ID")]
    id: Option<String>,

    /// The directory of the config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,

    /// Return as soon as the program runs
    #[arg(short, long)]
    detach: bool,

    /// Do not delete the container after its end
    #[arg(long)]
    keep: bool,

    /// Do not become the reaper of the container's orphans
    #[arg(long)]
    no_subreaper: bool,

    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    plain: Plain,
}

/// What takes the place of a config.json.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Without a config.json")]
struct Plain {
    /// Run in this root filesystem, with the configuration that "spec" writes
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    rootfs: Option<PathBuf>,

    /// Give it a terminal
    #[arg(short, long, requires = "rootfs")]
    tty: bool,

    /// Add a variable to its environment
    #[arg(short, long, value_name = "NAME=VALUE", requires = "rootfs", value_parser = variable)]
    env: Vec<String>,

    /// The directory that it starts in
    #[arg(long, value_name = "DIR", requires = "rootfs", default_value = "/")]
    cwd: PathBuf,

    /// Its user and group by number
    #[arg(short, long, value_name = "UID[:GID]", requires = "rootfs", value_parser = user)]
    user: Option<User>,

    /// Its hostname
    #[arg(long, value_name = "NAME", requires = "rootfs")]
    hostname: Option<String>,

    /// Bind a path of the host: src=PATH,dst=PATH[,ro][,OPTION...]
    #[arg(long, value_name = "MOUNT", requires = "rootfs", value_parser = bind_mount)]
    mount: Vec<BindMount>,

    /// Make the root filesystem read-only
    #[arg(long, requires = "rootfs")]
    read_only: bool,

    /// The command [default: sh]
    #[arg(last = true, value_name = "COMMAND", requires = "rootfs")]
    command: Vec<String>,
}

impl Args {
    fn options(self, isolation: Option<Isolation>) -> Result<options::Run> {
        let plain = self.plain;
        let source = match plain.rootfs {
            None => Source::Bundle(self.bundle),
            Some(dir) => Source::Memory(Box::new(
                Rootfs {
                    dir,
                    tty: plain.tty,
                    env: plain.env,
                    cwd: plain.cwd,
                    user: plain.user,
                    hostname: plain.hostname,
                    mounts: plain.mount,
                    read_only: plain.read_only,
                    own_network: isolation == Some(Isolation::MicroVm),
                    command: plain.command,
                }
                .bundle()?,
            )),
        };
        let id = self.id.unwrap_or_else(unique_id);
        Ok(options::Run {
            create: self.common.options(id, source)?,
            detach: self.detach,
            keep: self.keep,
            no_subreaper: self.no_subreaper,
        })
    }
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let global = context.global(&self.common.machine);
        let isolation = global.isolation;
        let runtime = Runtime::new(global)?;
        let outcome = accord_runtime::run(&runtime, &self.options(isolation)?)?;
        Ok(outcome.map_or(0, |outcome| outcome.code()))
    }
}

/// A name for who does not care: no other process has this pid at this time.
fn unique_id() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("run-{:x}-{:x}", std::process::id(), now.as_nanos())
}

fn variable(text: &str) -> Parsed<String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("must be NAME=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn options(words: &[&str]) -> options::Run {
        Args::try_parse_from(words).unwrap().options(None).unwrap()
    }

    #[test]
    fn a_bundle() {
        let run = options(&["run", "-b", "/b", "-d", "--keep", "--pid-file=/p", "a"]);
        assert!(run.detach && run.keep && !run.no_subreaper);
        assert_eq!(run.create.id, "a");
        assert_eq!(run.create.pid_file.as_deref(), Some(Path::new("/p")));
        assert!(matches!(run.create.source, Source::Bundle(dir) if dir == Path::new("/b")));
        assert!(options(&["run", "a", "--detach"]).detach);
    }

    #[test]
    fn a_root_filesystem_and_a_command_whose_flags_are_its_own() {
        let run = options(&[
            "run",
            "--rootfs",
            "/r",
            "-t",
            "-e",
            "A=b",
            "--cwd",
            "/tmp",
            "-u",
            "1000:5",
            "--hostname=h",
            "--mount",
            "src=/s,dst=/d,ro",
            "name",
            "--",
            "ls",
            "--tty",
            "-e",
        ]);
        assert_eq!(run.create.id, "name");
        let Source::Memory(bundle) = run.create.source else { panic!("not in memory") };
        let process = bundle.process().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["ls", "--tty", "-e"]);
        assert_eq!(process.terminal(), Some(true));
        assert_eq!((process.user().uid(), process.user().gid()), (1000, 5));
        assert_eq!(process.cwd(), Path::new("/tmp"));
        assert_eq!(process.env().as_ref().unwrap().last().unwrap(), "A=b");
        assert_eq!(bundle.spec.hostname().as_deref(), Some("h"));
        assert_eq!(bundle.rootfs(), Path::new("/r"));
        let mount = bundle.spec.mounts().as_ref().unwrap().last().unwrap();
        assert_eq!(mount.destination(), Path::new("/d"));
        assert_eq!(mount.options().as_ref().unwrap(), &["rbind", "ro"]);
    }

    #[test]
    fn a_name_is_made_up_and_the_command_is_a_shell() {
        let one = options(&["run", "--rootfs", "/r"]).create;
        let other = options(&["run", "--rootfs", "/r"]).create;
        assert_ne!(one.id, other.id);
        accord_bundle::valid_id(&one.id).unwrap();
        let Source::Memory(bundle) = one.source else { panic!("not in memory") };
        assert_eq!(bundle.process().unwrap().args().as_ref().unwrap(), &["sh"]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for words in [
            ["run"].as_slice(),
            &["run", "a", "--", "ls"],
            &["run", "a", "--tty"],
            &["run", "--rootfs", "/r", "-b", "/b"],
            &["run", "--rootfs", "/r", "-e", "A"],
            &["run", "a", "b"],
        ] {
            assert!(Args::try_parse_from(words).is_err(), "{words:?}");
        }
    }
}
