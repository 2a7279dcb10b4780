//! The command line: what stands before the verb, the verb, and what is the verb's own.
//!
//! It is parsed in two steps, so that the parser of one verb is built and not that
//! of all, and so that the log is known when the arguments of a verb are wrong.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use accord_bundle::SPEC_VERSION;
use accord_bundle::state::Isolation;
use accord_conform::cli::COULD_NOT_RUN;
use accord_outcome::{Failure, Quoted, Result, Verb};
use accord_runtime::options::{self, CgroupManager};
use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::machine::Machine;
use crate::report::{Format, Settings, print};
use crate::usage;
use crate::verbs::{self, Entry};

/// An OCI container runtime: native containers and microVMs with the same exit status.
///
/// A container is described by a bundle: a directory with a config.json and a root
/// filesystem. "accord spec" writes a config.json to start from, and
/// "accord run --rootfs DIR -- COMMAND" needs none.
#[derive(Debug, Parser)]
#[command(
    name = "accord",
    disable_help_flag = true,
    disable_help_subcommand = true,
    disable_version_flag = true,
    args_override_self = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    verb: Option<Rest>,
}

#[derive(Debug, Subcommand)]
enum Rest {
    #[command(external_subcommand)]
    Verb(Vec<OsString>),
}

/// The flags before the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The directory of the containers' states [default: /run/accord, or below $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Write records of warnings and errors to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// The format of these records
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,

    /// Write debug records too
    #[arg(long)]
    debug: bool,

    /// Let systemd make the cgroups; cgroupsPath is then SLICE:PREFIX:NAME
    #[arg(long)]
    systemd_cgroup: bool,

    /// Who makes the cgroups
    #[arg(long, value_name = "MANAGER")]
    cgroup_manager: Option<Manager>,

    /// Tolerate missing rights on cgroups
    #[arg(long, value_name = "BOOL", default_value = "auto")]
    rootless: Tristate,

    #[command(flatten)]
    machine: Machine,

    /// Ignored: checkpoint and restore are not supported
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,

    /// Print help
    #[arg(short, long)]
    help: bool,

    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long)]
    version: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Manager {
    Cgroupfs,
    Systemd,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tristate {
    Auto,
    #[value(alias = "1")]
    True,
    #[value(alias = "0")]
    False,
}

/// What every verb may read of the command line.
pub(crate) struct Context {
    global: Global,
    /// The name by which the program was called selects a microVM.
    called_for_vm: bool,
}

impl Context {
    /// The options of every verb; `machine` stood behind the verb and counts first.
    pub(crate) fn global(&self, machine: &Machine) -> options::Global {
        let global = &self.global;
        let called_for = self.called_for_vm.then_some(Isolation::MicroVm);
        options::Global {
            root: global.root.clone(),
            cgroup_manager: match global.cgroup_manager {
                Some(Manager::Systemd) => CgroupManager::Systemd,
                Some(Manager::Disabled) => CgroupManager::Disabled,
                Some(Manager::Cgroupfs) => CgroupManager::Cgroupfs,
                None if global.systemd_cgroup => CgroupManager::Systemd,
                None => CgroupManager::Cgroupfs,
            },
            rootless: match global.rootless {
                Tristate::Auto => None,
                Tristate::True => Some(true),
                Tristate::False => Some(false),
            },
            isolation: machine.isolation().or(global.machine.isolation()).or(called_for),
            accel: machine.accel().or(global.machine.accel()),
            kernel: machine.kernel().or(global.machine.kernel()),
        }
    }
}

/// One call of the program.
pub(crate) struct Invocation {
    context: Context,
    log: Settings,
    action: Action,
}

enum Action {
    Help,
    Version,
    Verb(&'static Entry, Vec<OsString>),
    Unknown(OsString),
}

impl Invocation {
    /// Reads the program's name, the flags before the verb and the verb's name.
    pub(crate) fn of(argv: impl Iterator<Item = OsString>) -> Result<Self> {
        let argv: Vec<OsString> = argv.collect();
        let called = argv.first().map(Path::new).and_then(Path::file_name);
        let called_for_vm = matches!(called.and_then(OsStr::to_str), Some("krun" | "accord-vm"));
        let Cli { mut global, verb } =
            Cli::try_parse_from(argv).map_err(|error| usage::before_verb(&error))?;
        let log =
            Settings { file: global.log.take(), format: global.log_format, debug: global.debug };
        let action = match verb {
            _ if global.version => Action::Version,
            _ if global.help => Action::Help,
            None => Action::Help,
            Some(Rest::Verb(words)) => {
                let mut words = words.into_iter();
                let name = words.next().unwrap_or_default();
                match verbs::find(&name) {
                    Some(entry) => Action::Verb(entry, words.collect()),
                    None => Action::Unknown(name),
                }
            }
        };
        Ok(Self { context: Context { global, called_for_vm }, log, action })
    }

    pub(crate) fn log(&self) -> &Settings {
        &self.log
    }

    /// The exit status of this verb's own failure.
    pub(crate) fn code(&self) -> fn(&Failure) -> u8 {
        match &self.action {
            Action::Verb(entry, _) if entry.name == "exec" => |failure| failure.code(Verb::Exec),
            // 1 says that a runtime departs from the contract.
            Action::Verb(entry, _) if entry.name == "conform" => |_| COULD_NOT_RUN,
            _ => |failure| failure.code(Verb::Other),
        }
    }

    /// Does what was asked for; the exit status.
    pub(crate) fn run(self) -> Result<u8> {
        match self.action {
            Action::Help => print(full_command().render_long_help()).map(|()| 0),
            Action::Version => print(version()).map(|()| 0),
            Action::Verb(entry, words) => {
                let quoted = words.iter().map(|word| Quoted(word.as_encoded_bytes()).to_string());
                log::debug!("{} {}", entry.name, quoted.collect::<Vec<_>>().join(" "));
                entry.run(words, &self.context)
            }
            Action::Unknown(name) => {
                Err(Failure::plain(format!("unknown verb {}", Quoted(name.as_encoded_bytes()))))
            }
        }
    }
}

/// The command line as a whole: for help, man pages and completions.
pub(crate) fn full_command() -> clap::Command {
    Cli::command()
        .version(env!("CARGO_PKG_VERSION"))
        .mut_arg("help", |arg| arg.action(ArgAction::HelpLong))
        .subcommand_required(true)
        .subcommand_value_name("VERB")
        .subcommand_help_heading("Verbs")
        .subcommands(verbs::all().map(Entry::command))
}

/// What go-runc and people read: one fact a line.
fn version() -> String {
    format!(
        "accord version {}\ncommit: {}\nspec: {SPEC_VERSION}\nlibseccomp: {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("ACCORD_COMMIT"),
        accord_runtime::seccomp_version(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(words: &[&str]) -> Invocation {
        Invocation::of(words.iter().map(OsString::from)).unwrap()
    }

    fn global(words: &[&str]) -> options::Global {
        invocation(words).context.global(&Machine::default())
    }

    #[test]
    fn the_whole_command_line_is_well_formed() {
        full_command().debug_assert();
    }

    #[test]
    fn flags_before_the_verb_take_both_forms() {
        for words in [
            ["accord", "--root=/r", "--log=/l", "--log-format=json", "--rootless=true", "list"]
                .as_slice(),
            &[
                "accord",
                "--root",
                "/r",
                "--log",
                "/l",
                "--log-format",
                "json",
                "--rootless",
                "true",
                "list",
            ],
        ] {
            let invocation = invocation(words);
            assert_eq!(invocation.log().file.as_deref(), Some(Path::new("/l")));
            assert_eq!(invocation.log().format, Format::Json);
            let global = invocation.context.global(&Machine::default());
            assert_eq!(global.root.as_deref(), Some(Path::new("/r")));
            assert_eq!(global.rootless, Some(true));
        }
    }

    #[test]
    fn what_engines_put_before_the_verb_is_understood() {
        let cases = [
            (["accord", "--systemd-cgroup", "list"].as_slice(), CgroupManager::Systemd),
            (&["accord", "--cgroup-manager", "disabled", "list"], CgroupManager::Disabled),
            (&["accord", "--cgroup-manager=systemd", "list"], CgroupManager::Systemd),
            (&["accord", "--debug", "--criu", "/x", "list"], CgroupManager::Cgroupfs),
        ];
        for (words, manager) in cases {
            assert_eq!(global(words).cgroup_manager, manager, "{words:?}");
        }
        assert_eq!(global(&["accord", "list"]).rootless, None);
    }

    #[test]
    fn the_name_of_the_program_selects_a_microvm() {
        assert_eq!(global(&["/usr/bin/krun", "list"]).isolation, Some(Isolation::MicroVm));
        assert_eq!(global(&["accord-vm", "list"]).isolation, Some(Isolation::MicroVm));
        assert_eq!(global(&["accord", "list"]).isolation, None);
        let explicit = global(&["krun", "--isolation", "native", "list"]);
        assert_eq!(explicit.isolation, Some(Isolation::Native));
    }

    #[test]
    fn an_own_failure_of_some_verbs_has_its_own_code() {
        let code = |words| invocation(words).code()(&Failure::plain("x"));
        assert_eq!(code(&["accord", "exec", "--nonsense"]), 255);
        assert_eq!(code(&["accord", "run", "--nonsense"]), 1);
        assert_eq!(code(&["accord", "conform", "--nonsense"]), 2);
    }
}
