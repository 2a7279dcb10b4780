//! The words that podman and docker have in common.

use super::{Job, Program};

/// `run` of a container that is the case's.
pub(super) fn run(job: &Job<'_>, program: Program, detach: bool) -> Vec<String> {
    let mut args = vec!["run".to_owned(), "--name".into(), job.name.clone()];
    args.extend(["--network".into(), "none".into()]);
    // The engine's own limits may be above what the suite itself may have.
    args.extend(["--ulimit".into(), "nofile=1024:1024".into()]);
    args.extend(["--ulimit".into(), "nproc=4096:4096".into()]);
    if let Some(parent) = &job.context.cgroup {
        args.extend(["--cgroup-parent".into(), parent.clone()]);
    }
    let bundle = &job.case.bundle;
    if !bundle.without_namespaces.is_empty() {
        args.extend(["--pid".into(), "host".into()]);
    }
    let resource = |pointer| bundle.resources.as_ref()?.pointer(pointer)?.as_i64();
    if let Some(limit) = resource("/memory/limit") {
        args.extend(["--memory".into(), format!("{limit}b")]);
    }
    if let Some(limit) = resource("/pids/limit") {
        args.extend(["--pids-limit".into(), limit.to_string()]);
    }
    if let Some(capabilities) = &bundle.capabilities {
        args.extend(["--cap-drop".into(), "all".into()]);
        args.extend(capabilities.iter().flat_map(|name| ["--cap-add".to_owned(), name.clone()]));
    }
    if program == Program::Case {
        args.extend(process(job));
    }
    args.extend(if detach {
        vec!["--detach".into()]
    } else {
        vec!["--rm".into(), "--interactive".into()]
    });
    args
}

/// `exec` of the case's program in the container.
pub(super) fn exec(job: &Job<'_>) -> Vec<String> {
    let mut args = vec!["exec".to_owned(), "--interactive".into()];
    args.extend(process(job));
    args.push(job.name.clone());
    args.extend(job.words(Program::Case));
    args
}

/// What `run` and `exec` say of the process.
fn process(job: &Job<'_>) -> Vec<String> {
    let bundle = &job.case.bundle;
    let mut args = Vec::new();
    if let Some(cwd) = &bundle.cwd {
        args.extend(["--workdir".to_owned(), cwd.clone()]);
    }
    let id = |key| bundle.user.as_ref()?.get(key)?.as_u64();
    if let (Some(uid), Some(gid)) = (id("uid"), id("gid")) {
        args.extend(["--user".to_owned(), format!("{uid}:{gid}")]);
    }
    let env = bundle.env.iter().flatten();
    args.extend(env.flat_map(|entry| ["--env".to_owned(), entry.clone()]));
    args
}
