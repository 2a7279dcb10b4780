//! From a child's record to words: the parent has the plan that the numbers mean.

use std::fmt::Write as _;

use accord_outcome::{Cause, Failure, ProgramError, Quoted};
use accord_stage::{Call, Header, KIND_IS_DIRECTORY, Op, Plan, Request, Str};

fn quoted(name: Str<'_>) -> String {
    Quoted(name.0.to_bytes()).to_string()
}

/// The step and its object, in words.
fn words(op: &Op<'_>) -> (&'static str, String) {
    match op {
        Op::Ask { request: Request::IdMaps } => ("ask for", "id maps".into()),
        Op::Ask { request: Request::Setup } => ("ask for", "cgroup and limits".into()),
        Op::Ask { request: Request::Hooks } => ("ask for", "hooks".into()),
        Op::Join { namespace, path, .. } => {
            ("join namespace", format!("{namespace} {}", quoted(*path)))
        }
        Op::JoinProcess { namespaces, .. } => ("join namespaces", namespaces.to_string()),
        Op::EnterCgroup { path, .. } => ("enter cgroup", quoted(*path)),
        Op::Limit { name, soft, hard, .. } => ("set limit", format!("{name} to {soft}:{hard}")),
        Op::Unshare { namespaces } => ("make namespace", namespaces.to_string()),
        Op::TimeOffsets { offsets } => ("set clock offsets", quoted(*offsets)),
        Op::RootIds => ("become root of", "user namespace".into()),
        Op::NewSession => ("make", "session".into()),
        Op::Keyring { name } => ("join keyring", quoted(*name)),
        Op::Propagation { path, .. } => ("set propagation of", quoted(*path)),
        Op::BindRoot { path, .. } => ("mount rootfs", quoted(*path)),
        Op::OpenRoot { path } => ("open rootfs", quoted(*path)),
        Op::Mount { source, target, .. } => {
            ("mount", format!("{} on {}", quoted(*source), quoted(*target)))
        }
        Op::Bind { from, target, meant, .. } => {
            ("mount", format!("{} on {}", quoted(*from), quoted(meant.unwrap_or(*target))))
        }
        Op::MakeDirectory { path } => ("make directory", quoted(*path)),
        Op::MakeDevice { path, .. } => ("make device", quoted(*path)),
        Op::Symlink { path, .. } => ("make link", quoted(*path)),
        Op::Terminal { ptmx, .. } => ("open terminal", quoted(*ptmx)),
        Op::Mask { path } => ("mask path", quoted(*path)),
        Op::ReadOnlyPath { path } => ("make read-only", quoted(*path)),
        Op::Remount { path, .. } => ("remount", quoted(*path)),
        Op::ReadOnlyRoot => ("make read-only", "rootfs".into()),
        Op::Hook(hook) => ("run", hook.label.to_string()),
        Op::Pivot { .. } | Op::MoveRoot | Op::Chroot => ("change root to", "rootfs".into()),
        Op::PrivateProc => ("open", "procfs".into()),
        Op::Sysctl { path, value } => {
            ("write sysctl", format!("{} = {}", quoted(*path), quoted(*value)))
        }
        Op::Hostname { name } => ("set hostname", quoted(*name)),
        Op::Domainname { name } => ("set domainname", quoted(*name)),
        Op::Label { name, .. } => ("set label", quoted(*name)),
        Op::Personality { .. } => ("set", "personality".into()),
        Op::Scheduler { policy, .. } => ("set scheduler", format!("policy {policy}")),
        Op::IoPriority { value } => ("set I/O priority", value.to_string()),
        Op::Affinity { list, .. } => ("set CPU affinity", quoted(*list)),
        Op::MemoryPolicy { mode, .. } => ("set memory policy", mode.to_string()),
        Op::Umask { .. } => ("set", "umask".into()),
        Op::BoundingSet { .. } => ("set", "bounding capabilities".into()),
        Op::SetGroups { groups } => ("set groups", format!("{groups:?}")),
        Op::SetGid { gid } => ("set gid", gid.to_string()),
        Op::SetUid { uid } => ("set uid", uid.to_string()),
        Op::SetCapabilities { .. } => ("set", "capabilities".into()),
        Op::NoNewPrivileges => ("set", "no_new_privs".into()),
        Op::MakeWorkingDirectory { path } => ("make working directory", quoted(*path)),
        Op::WorkingDirectory { path } => ("enter working directory", quoted(*path)),
        Op::Resolve { name, .. } | Op::Exec { name, .. } => ("exec:", quoted(*name)),
        Op::CloseFds { .. } => ("close", "inherited descriptors".into()),
        Op::Ready { .. } => ("wait for", "start".into()),
        Op::Seccomp { filter, .. } => {
            ("load seccomp filter", format!("{} instructions", filter.0.len()))
        }
        Op::ExecSelf { .. } => ("execute", "monitor".into()),
    }
}

/// What inside the step it was, where the step alone does not say.
fn detail(op: &Op<'_>, call: Call, detail: u8) -> String {
    match (call, op) {
        (Call::Target, _) => ", target".into(),
        (Call::Kind, Op::Mount { .. } | Op::Bind { .. }) if detail == KIND_IS_DIRECTORY => {
            ", a directory on a file".into()
        }
        (Call::Kind, Op::Bind { .. }) => ", a file on a directory".into(),
        (Call::Change, _) => ", attributes".into(),
        (Call::Spread, _) => ", propagation".into(),
        (Call::Option, Op::Mount { options, .. }) => {
            let option = usize::from(detail).checked_sub(1).and_then(|number| options.get(number));
            let mut text = String::from(", option ");
            let _written = match option {
                Some(option) => write!(text, "{}", quoted(option.key)).is_ok(),
                None => write!(text, "source").is_ok(),
            };
            text
        }
        _ => String::new(),
    }
}

/// The failure of an operation of `plan`.
pub fn failure(plan: &Plan<'_>, header: &Header, text: &[u8]) -> Failure {
    if let Some(failure) = program(header, text) {
        return failure;
    }
    let op = plan.numbered().find(|(number, _)| *number == usize::from(header.index));
    let Some((_, op)) = op else { return unnamed(header) };
    let (step, object) = words(op);
    let call = Call::from_wire(header.call).unwrap_or(Call::Itself);
    let object = object + &detail(op, call, header.detail);
    match ending(call, header.errno) {
        Some(cause) => Failure::new(step, object, Cause::Text(cause.into())),
        None => Failure::errno_on(step, object, header.errno),
    }
}

/// The failure that a container reports after `start`, when nobody has the plan any more.
pub fn failure_after_start(header: &Header, text: &[u8]) -> Failure {
    if let Some(failure) = program(header, text) {
        return failure;
    }
    let call = Call::from_wire(header.call).unwrap_or(Call::Itself);
    // The label of a hook was quoted when the plan was made.
    let label = String::from_utf8_lossy(text).into_owned();
    match ending(call, header.errno) {
        Some(cause) => Failure::new("run", label, Cause::Text(cause.into())),
        None if label.is_empty() => unnamed(header),
        None => Failure::errno_on("run", label, header.errno),
    }
}

fn unnamed(header: &Header) -> Failure {
    Failure::errno_on("start", format!("step {}", header.index), header.errno)
}

/// How a hook, or the step itself, ended, where it is no errno.
fn ending(call: Call, value: i32) -> Option<String> {
    Some(match call {
        Call::HookStatus => format!("exit status {value}"),
        Call::HookSignal => format!("killed by signal {value}"),
        Call::HookTimeout => "timed out and was killed".into(),
        Call::Outside => "leads out of the container".into(),
        _ => return None,
    })
}

fn program(header: &Header, text: &[u8]) -> Option<Failure> {
    let (name, interpreter) =
        text.split_at_checked(usize::from(header.split)).unwrap_or((text, b""));
    let error = match Call::from_wire(header.call)? {
        Call::NotInPath => ProgramError::NotInPath,
        Call::Directory => ProgramError::Directory,
        Call::Program => ProgramError::from_errno(header.errno),
        Call::Interpreter => {
            ProgramError::InterpreterMissing(String::from_utf8_lossy(interpreter).into_owned())
        }
        _ => return None,
    };
    Some(Failure::program(name, error))
}
