//! Hooks that run on the host: prestart, createRuntime, poststart, poststop.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use accord_bundle::state::OciState;
use accord_outcome::{Cause, Failure, Quoted, Result};
use accord_sys::process::reset_signals;
use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How much of what a hook printed is shown when it fails.
const SHOWN: u64 = 300;

/// An empty file in memory.
pub(crate) fn memory_file(name: &str) -> Result<OwnedFd> {
    memfd_create(name, MemfdFlags::CLOEXEC)
        .map_err(|errno| Failure::errno("make file in memory for", name, errno.raw_os_error()))
}

/// Writes the state that a hook reads into a file in memory.
pub(crate) fn write_state(file: &OwnedFd, state: &OciState) -> Result<()> {
    let json = serde_json::to_vec(state)
        .map_err(|error| Failure::text("write state for hooks of", &state.id, error.to_string()))?;
    let failed = |error: &std::io::Error| Failure::io("write state for hooks of", &state.id, error);
    let mut file = File::from(file.try_clone().map_err(|error| failed(&error))?);
    file.set_len(0).map_err(|error| failed(&error))?;
    file.rewind().map_err(|error| failed(&error))?;
    file.write_all(&json).map_err(|error| failed(&error))
}

/// The end of what was printed to a file in memory.
pub(crate) fn last_words(file: &OwnedFd) -> Option<String> {
    let mut file = File::from(file.try_clone().ok()?);
    let length = file.metadata().ok()?.len();
    let _position = file.seek(SeekFrom::Start(length.saturating_sub(SHOWN))).ok()?;
    let mut text = Vec::new();
    let _length = file.take(SHOWN).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Runs the hooks of one kind, in order; the first that fails ends it.
pub(crate) fn run(kind: &str, hooks: Option<&Vec<Hook>>, state: &OciState) -> Result<()> {
    for (number, hook) in hooks.into_iter().flatten().enumerate() {
        run_one(&format!("{kind} hook {number}"), hook, state)?;
    }
    Ok(())
}

fn run_one(label: &str, hook: &Hook, state: &OciState) -> Result<()> {
    let path = Quoted(hook.path().as_os_str().as_encoded_bytes()).to_string();
    let failed = |cause: Cause| Failure::new("run", format!("{label} {path}"), cause);
    let io = |error: std::io::Error| match error.raw_os_error() {
        Some(errno) => failed(Cause::Errno(errno)),
        None => failed(Cause::Text(error.kind().to_string().into())),
    };
    let input = memory_file("state")?;
    write_state(&input, state)?;
    let mut input = File::from(input);
    input.rewind().map_err(io)?;
    let output = memory_file("hook output")?;
    let (out, err) = (output.try_clone().map_err(io)?, output.try_clone().map_err(io)?);
    let mut command = Command::new(hook.path());
    if let Some([name, args @ ..]) = hook.args().as_deref() {
        let _command = command.arg0(name).args(args);
    }
    let env = hook.env().as_deref().unwrap_or_default();
    let _command = command
        .env_clear()
        .envs(env.iter().filter_map(|entry| entry.split_once('=')))
        .stdin(input)
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(err));
    reset_signals_of(&mut command);
    let mut child = command.spawn().map_err(io)?;
    let timeout = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    if let Some(timeout) = timeout.map(Duration::from_secs)
        && !ends_within(child.id(), timeout)
    {
        let _killed = child.kill().is_ok();
        let _reaped = child.wait().is_ok();
        return Err(failed(Cause::Text("timed out and was killed".into())));
    }
    let status = child.wait().map_err(io)?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended in an unknown way".into(),
    };
    let failure = failed(Cause::Text(how.into()));
    Err(match last_words(&output).filter(|words| !words.is_empty()) {
        Some(words) => failure.with_note(format!("it printed {}", Quoted(words))),
        None => failure,
    })
}

/// A hook begins with the ordinary signals, not with those that a verb in the foreground
/// holds back.
#[expect(unsafe_code, reason = "code between fork and execve")]
fn reset_signals_of(command: &mut Command) {
    let reset = || {
        reset_signals();
        Ok(())
    };
    // SAFETY: it makes system calls only.
    let _command = unsafe { command.pre_exec(reset) };
}

/// Whether the process ends in time. One that cannot be watched is waited for.
fn ends_within(pid: u32, timeout: Duration) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return true };
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return false,
            _ => return true,
        }
    }
}
