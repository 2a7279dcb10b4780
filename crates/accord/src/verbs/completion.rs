//! `accord completion`: for packagers and shells.

use accord_outcome::Result;
use clap::Parser;
use clap_complete::{Shell, generate};

use super::Verb;
use crate::cli::{Context, full_command};
use crate::report::print;

/// Print the completion of a shell
#[derive(Debug, Parser)]
#[command(name = "completion", hide = true)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

impl Verb for Args {
    fn run(self, _context: &Context) -> Result<u8> {
        let mut text = Vec::new();
        generate(self.shell, &mut full_command(), "accord", &mut text);
        print(String::from_utf8_lossy(&text)).map(|()| 0)
    }
}
