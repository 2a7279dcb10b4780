//! `accord exec`.

use std::path::PathBuf;

use accord_outcome::{Failure, Result};
use accord_runtime::Runtime;
use accord_runtime::options::{self, ExecProcess, ProcessChanges, User};
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::usage::Parsed;

/// Run another program in a running container
///
/// The exit status is the program's; 128+N if signal N killed it, 127 if there is
/// no such program, 126 if it cannot be executed, 255 if the runtime fails.
#[derive(Debug, Parser)]
#[command(
    name = "exec",
    override_usage = "accord exec [FLAGS] CONTAINER-ID COMMAND [ARGUMENT...]\n       \
                      accord exec [FLAGS] --process FILE CONTAINER-ID"
)]
pub(super) struct Args {
    /// The container, then the command; flags behind the container are the command's
    //
    // One argument, not two: the first word ends the flags.
    #[arg(value_name = "CONTAINER-ID COMMAND", required = true, trailing_var_arg = true)]
    words: Vec<String>,

    /// The socket that receives the terminal's master end
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,

    /// The socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,

    /// The directory that it starts in
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,

    /// Add a variable to its environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,

    /// Its user and group by number
    #[arg(short, long, value_name = "UID[:GID]", value_parser = user)]
    user: Option<User>,

    /// Add a group
    #[arg(short = 'g', long, value_name = "GID", value_parser = group)]
    additional_gids: Vec<u32>,

    /// The file that describes the process, instead of a command
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,

    /// Return as soon as the program runs
    #[arg(short, long)]
    detach: bool,

    /// Where to write its pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Its SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,

    /// Its AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,

    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,

    /// Add a capability
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,

    /// Pass N more descriptors than stdio and $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,

    /// Run in this sub-cgroup of the container's, which must exist
    #[arg(long, value_name = "[CONTROLLER,...:]PATH", value_parser = sub_cgroup)]
    cgroup: Vec<String>,

    /// Run even in a paused container
    #[arg(long)]
    ignore_paused: bool,
}

impl Args {
    fn options(self) -> Result<options::Exec> {
        let mut words = self.words.into_iter();
        let id = words.next().unwrap_or_default();
        let args: Vec<String> = words.collect();
        let process = match (self.process, args.is_empty()) {
            (Some(file), true) => ExecProcess::File(file),
            (Some(_), false) => {
                return Err(Failure::plain("exec: --process and a command exclude each other"));
            }
            (None, true) => return Err(Failure::plain("exec: the command is missing")),
            (None, false) => ExecProcess::Changed(Box::new(ProcessChanges {
                args,
                cwd: self.cwd,
                env: self.env,
                tty: self.tty,
                user: self.user,
                additional_gids: self.additional_gids,
                process_label: self.process_label,
                apparmor: self.apparmor,
                no_new_privs: self.no_new_privs,
                caps: self.cap,
            })),
        };
        Ok(options::Exec {
            id,
            process,
            detach: self.detach,
            console_socket: self.console_socket,
            pidfd_socket: self.pidfd_socket,
            pid_file: self.pid_file,
            preserve_fds: self.preserve_fds,
            cgroups: self.cgroup,
            ignore_paused: self.ignore_paused,
        })
    }
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        let outcome = accord_runtime::exec(&runtime, &self.options()?)?;
        Ok(outcome.map_or(0, |outcome| outcome.code()))
    }
}

/// `UID[:GID]`, nothing else: whatever is not understood must not become root.
pub(super) fn user(text: &str) -> Parsed<User> {
    match text.split_once(':') {
        None => Ok(User { uid: group(text)?, gid: None }),
        Some((uid, gid)) => Ok(User { uid: group(uid)?, gid: Some(group(gid)?) }),
    }
}

/// A number that is a user's or a group's; 4294967295 means "none" to the kernel.
fn group(text: &str) -> Parsed<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number != u32::MAX);
    number.ok_or("must be a number, UID[:GID]")
}

fn sub_cgroup(text: &str) -> Parsed<String> {
    let (_, path) = text.split_once(':').unwrap_or(("", text));
    if path.is_empty() { Err("the path is missing") } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn options(words: &[&str]) -> options::Exec {
        Args::try_parse_from(words).unwrap().options().unwrap()
    }

    fn changes(exec: options::Exec) -> ProcessChanges {
        match exec.process {
            ExecProcess::Changed(changes) => *changes,
            other => panic!("not changes: {other:?}"),
        }
    }

    #[test]
    fn flags_behind_the_container_are_the_commands() {
        let exec = options(&["exec", "-t", "a", "ls", "-d", "--pid-file=x", "--", "-e", "--help"]);
        assert_eq!(exec.id, "a");
        assert!(!exec.detach && exec.pid_file.is_none());
        let changes = changes(exec);
        assert_eq!(changes.args, ["ls", "-d", "--pid-file=x", "--", "-e", "--help"]);
        assert!(changes.tty);
        let flag_as_command = options(&["exec", "a", "-t"]);
        assert_eq!(self::changes(flag_as_command).args, ["-t"]);
    }

    #[test]
    fn every_flag_arrives() {
        let exec = options(&[
            "exec",
            "--console-socket",
            "/c",
            "--pidfd-socket=/f",
            "--cwd",
            "/w",
            "-e",
            "A=b",
            "--env=C",
            "-u",
            "7:8",
            "-g",
            "1",
            "--additional-gids=2",
            "-d",
            "--pid-file",
            "/p",
            "--process-label",
            "l",
            "--apparmor",
            "p",
            "--no-new-privs",
            "-c",
            "CAP_KILL",
            "--cap=x",
            "--preserve-fds",
            "3",
            "--cgroup",
            "cpu,memory:a/b",
            "--cgroup=/c",
            "--ignore-paused",
            "id",
            "cmd",
        ]);
        assert!(exec.detach && exec.ignore_paused);
        assert_eq!(exec.preserve_fds, 3);
        assert_eq!(exec.console_socket.as_deref(), Some(Path::new("/c")));
        assert_eq!(exec.pidfd_socket.as_deref(), Some(Path::new("/f")));
        assert_eq!(exec.pid_file.as_deref(), Some(Path::new("/p")));
        assert_eq!(exec.cgroups, ["cpu,memory:a/b", "/c"]);
        let changes = changes(exec);
        assert_eq!(changes.cwd.as_deref(), Some("/w"));
        assert_eq!(changes.env, ["A=b", "C"]);
        assert_eq!(changes.user, Some(User { uid: 7, gid: Some(8) }));
        assert_eq!(changes.additional_gids, [1, 2]);
        assert_eq!(changes.process_label.as_deref(), Some("l"));
        assert_eq!(changes.apparmor.as_deref(), Some("p"));
        assert_eq!(changes.caps, ["CAP_KILL", "x"]);
        assert!(changes.no_new_privs && !changes.tty);
    }

    #[test]
    fn a_file_or_a_command() {
        // conmon has passed --tty together with --process.
        let exec =
            options(&["exec", "--pid-file", "/p", "--process", "/f", "--detach", "--tty", "a"]);
        assert!(matches!(exec.process, ExecProcess::File(file) if file == Path::new("/f")));
        for words in [["exec", "a"].as_slice(), &["exec", "-p", "/f", "a", "ls"]] {
            assert!(Args::try_parse_from(words).unwrap().options().is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_user_is_a_number_or_an_error_and_never_root_by_accident() {
        let right = [
            ("0", 0, None),
            ("1", 1, None),
            ("1000", 1000, None),
            ("65534", 65534, None),
            ("4294967294", 4_294_967_294, None),
            ("1:2", 1, Some(2)),
        ];
        for (text, uid, gid) in right {
            assert_eq!(user(text), Ok(User { uid, gid }), "{text}");
        }
        for text in [
            "-1",
            "",
            "1:",
            ":1",
            "1:2:3",
            "0x1",
            " 1",
            "1 ",
            "+1",
            "4294967295",
            "4294967296",
            "root",
            "1.0",
            "1:-1",
        ] {
            assert!(user(text).is_err(), "{text:?}");
        }
    }
}
