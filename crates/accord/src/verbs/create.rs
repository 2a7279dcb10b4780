//! `accord create`, and the flags that `run` shares with it.

use std::path::PathBuf;

use accord_outcome::{Failure, Result};
use accord_runtime::Runtime;
use accord_runtime::options::{self, Source};
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;

/// Build a container from a bundle; "start" lets its program run
#[derive(Debug, Parser)]
#[command(name = "create")]
pub(super) struct Args {
    /// The container's name, unique on this host
    #[arg(value_name = "CONTAINER-ID")]
    id: String,

    /// The directory of the config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,

    #[command(flatten)]
    common: Common,

    /// Accepted for crun's sake: create has no reaper
    #[arg(long, hide = true)]
    no_subreaper: bool,

    /// Accepted for engines that have one set of flags: create always detaches
    #[arg(short, long, hide = true)]
    detach: bool,
}

/// What `create` and `run` have in common.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// The socket that receives the terminal's master end
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,

    /// The socket that receives a pidfd of the init process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,

    /// Where to write the init process's pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Do not use pivot_root: for a root filesystem on a ramdisk
    #[arg(long)]
    no_pivot: bool,

    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,

    /// Pass N more descriptors than stdio and $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,

    #[command(flatten)]
    pub(super) machine: Machine,

    /// crun's other name for a configuration; a bundle has its config.json
    #[arg(short = 'f', long, value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
}

impl Common {
    pub(super) fn options(self, id: String, source: Source) -> Result<options::Create> {
        if self.config.is_some() {
            return Err(Failure::plain("--config is not supported: a bundle has a config.json"));
        }
        Ok(options::Create {
            id,
            source,
            console_socket: self.console_socket,
            pidfd_socket: self.pidfd_socket,
            pid_file: self.pid_file,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            shared: None,
        })
    }
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&self.common.machine))?;
        let options = self.common.options(self.id, Source::Bundle(self.bundle))?;
        accord_runtime::create(&runtime, &options).map(|()| 0)
    }
}
