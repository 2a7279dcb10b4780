//! The flags that choose where a container runs; they stand before or behind the verb.

use std::path::PathBuf;

use accord_bundle::state;
use accord_runtime::options;
use clap::{Args, ValueEnum};

/// `--isolation`, `--accel`, `--kernel`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Machine {
    /// Where the container runs [default: what the configuration says, else native]
    #[arg(long, value_name = "KIND")]
    isolation: Option<Isolation>,

    /// How a microVM is run: by KVM, emulated, or by KVM where that works [default: auto]
    #[arg(long, value_name = "HOW")]
    accel: Option<Accel>,

    /// The kernel of a microVM
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Isolation {
    Native,
    Microvm,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Accel {
    Auto,
    Kvm,
    Emulate,
}

impl Machine {
    pub(crate) fn isolation(&self) -> Option<state::Isolation> {
        self.isolation.map(|isolation| match isolation {
            Isolation::Native => state::Isolation::Native,
            Isolation::Microvm => state::Isolation::MicroVm,
        })
    }

    pub(crate) fn accel(&self) -> Option<options::Accel> {
        self.accel.map(|accel| match accel {
            Accel::Auto => options::Accel::Auto,
            Accel::Kvm => options::Accel::Kvm,
            Accel::Emulate => options::Accel::Emulate,
        })
    }

    pub(crate) fn kernel(&self) -> Option<PathBuf> {
        self.kernel.clone()
    }
}
