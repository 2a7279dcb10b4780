//! The process: from the kernel's settings for it to its execution.

use std::collections::HashSet;

use accord_bundle::sysctl_path;
use accord_outcome::{Failure, ProgramError, Result};
use accord_stage::{Filter, Format, Namespaces, Op, Str};
use accord_sys::security::Scheduler;
use oci_spec::runtime::{
    IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Process,
};

use super::identity::SYS_ADMIN;
use super::namespaces::Layout;
use super::{Compiler, ForeignFormat, Need, bytes};

/// Which process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The container's first.
    Init,
    /// One more.
    Exec,
}

/// crun's annotation that keeps the caller's supplementary groups.
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

impl<'a> Compiler<'a, '_> {
    pub(crate) fn terminal(&mut self, process: &Process, console: bool) -> Result<()> {
        let ptmx = self.pad.text("/dev/pts/ptmx")?;
        self.terminal_at(ptmx, process, console);
        Ok(())
    }

    /// A terminal of the pseudo-terminals that `ptmx` belongs to.
    pub(crate) fn terminal_at(&mut self, ptmx: Str<'a>, process: &Process, console: bool) {
        let size = process.console_size().map(|size| {
            let cells = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
            (cells(size.height()), cells(size.width()))
        });
        let uid = process.user().uid();
        self.push(Op::Terminal { size, uid, console, ptmx });
    }

    pub(crate) fn exec_terminal(&mut self, process: &Process) -> Result<()> {
        match process.terminal() {
            Some(true) => self.terminal(process, false),
            _ => Ok(()),
        }
    }

    /// What is set for the container once, and the label of its first process.
    pub(crate) fn kernel_settings(&mut self, layout: &Layout, process: &Process) -> Result<()> {
        let spec = self.spec;
        if let Some(hostname) = spec.hostname()
            && layout.has(Namespaces::UTS)
        {
            let name = self.pad.text(hostname)?;
            self.push(Op::Hostname { name });
        }
        if let Some(domainname) = spec.domainname()
            && layout.has(Namespaces::UTS)
        {
            let name = self.pad.text(domainname)?;
            self.push(Op::Domainname { name });
        }
        let sysctl = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
        let mut sysctl: Vec<_> = sysctl.into_iter().flatten().collect();
        sysctl.sort();
        if !sysctl.is_empty() || labelled(process) {
            self.push(Op::PrivateProc);
        }
        for (name, value) in sysctl {
            let Some(path) = sysctl_path(name) else {
                return Err(Failure::text(
                    "write sysctl",
                    name,
                    "not a name of a kernel parameter",
                ));
            };
            let path = self.pad.text(format!("sys/{path}"))?;
            let value = self.pad.text(value)?;
            self.push(Op::Sysctl { path, value });
        }
        if let Some(personality) =
            spec.linux().as_ref().and_then(|linux| linux.personality().as_ref())
        {
            const PER_LINUX32: u32 = 8;
            let persona = match personality.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
            };
            self.push(Op::Personality { persona });
        }
        self.memory_policy()?;
        self.labels(process)
    }

    pub(crate) fn exec_settings(&mut self, process: &Process) -> Result<()> {
        if labelled(process) {
            self.push(Op::PrivateProc);
        }
        self.labels(process)
    }

    fn labels(&mut self, process: &Process) -> Result<()> {
        if let Some(profile) = process.apparmor_profile().as_deref().filter(|name| !name.is_empty())
        {
            let attribute = self.pad.text("thread-self/attr/apparmor/exec")?;
            let value = self.pad.text(format!("exec {profile}"))?;
            let name = self.pad.text(profile)?;
            self.push(Op::Label { attribute, value, name });
        }
        if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
            let attribute = self.pad.text("thread-self/attr/exec")?;
            let value = self.pad.text(label)?;
            self.push(Op::Label { attribute, value, name: value });
        }
        Ok(())
    }

    fn memory_policy(&mut self) -> Result<()> {
        let linux = self.spec.linux().as_ref();
        let Some(policy) = linux.and_then(|linux| linux.memory_policy().as_ref()) else {
            return Ok(());
        };
        let mode = match policy.mode() {
            MemoryPolicyModeType::MpolDefault => 0,
            MemoryPolicyModeType::MpolPreferred => 1,
            MemoryPolicyModeType::MpolBind => 2,
            MemoryPolicyModeType::MpolInterleave => 3,
            MemoryPolicyModeType::MpolLocal => 4,
            MemoryPolicyModeType::MpolPreferredMany => 5,
            MemoryPolicyModeType::MpolWeightedInterleave => 6,
        };
        let flags = policy.flags().iter().flatten().fold(0, |bits, flag| {
            bits | match flag {
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            }
        });
        let nodes = policy.nodes().as_deref().unwrap_or_default();
        let nodes = mask(nodes, "/linux/memoryPolicy/nodes")?;
        let nodes = self.pad.slice(&nodes);
        self.push(Op::MemoryPolicy { mode: mode | flags, nodes });
        Ok(())
    }

    /// The processors that `exec` runs on, before and after it enters the cgroup.
    pub(super) fn affinity(&mut self, list: Option<&str>, pointer: &'static str) -> Result<()> {
        let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(()) };
        let mask = self.pad.slice(&mask(list, pointer)?);
        let list = self.pad.text(list)?;
        self.push(Op::Affinity { list, mask });
        Ok(())
    }

    fn scheduling(&mut self, process: &Process) -> Result<()> {
        if let Some(scheduler) = process.scheduler() {
            let policy = match scheduler.policy() {
                LinuxSchedulerPolicy::SchedOther => 0,
                LinuxSchedulerPolicy::SchedFifo => 1,
                LinuxSchedulerPolicy::SchedRr => 2,
                LinuxSchedulerPolicy::SchedBatch => 3,
                LinuxSchedulerPolicy::SchedIso => 4,
                LinuxSchedulerPolicy::SchedIdle => 5,
                LinuxSchedulerPolicy::SchedDeadline => 6,
            };
            let flags = scheduler.flags().iter().flatten().fold(0, |bits, flag| {
                bits | match flag {
                    LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                    LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                    LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                    LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                    LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                    LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                    LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
                }
            });
            let scheduler = Scheduler {
                size: 48,
                policy,
                flags,
                nice: scheduler.nice().unwrap_or(0),
                priority: scheduler.priority().unwrap_or(0).cast_unsigned(),
                runtime: scheduler.runtime().unwrap_or(0),
                deadline: scheduler.deadline().unwrap_or(0),
                period: scheduler.period().unwrap_or(0),
            };
            self.push(Op::Scheduler { policy, scheduler });
        }
        if let Some(priority) = process.io_priority() {
            let class: u16 = match priority.class() {
                IOPriorityClass::IoprioClassRt => 1,
                IOPriorityClass::IoprioClassBe => 2,
                IOPriorityClass::IoprioClassIdle => 3,
            };
            let level = u16::try_from(priority.priority()).unwrap_or(u16::MAX) & 0x1fff;
            self.push(Op::IoPriority { value: (class << 13) | level });
        }
        Ok(())
    }

    /// From the working directory to the execution.
    pub(crate) fn process(&mut self, process: &Process, place: Place) -> Result<()> {
        self.scheduling(process)?;
        let path = self.pad.text(bytes(process.cwd()))?;
        self.push(Op::MakeWorkingDirectory { path });
        let sets = self.capabilities(process.capabilities().as_ref());
        let no_new_privileges = process.no_new_privileges().unwrap_or(false);
        let filter = self.settings.filter.as_ref();
        // Without no_new_privs only CAP_SYS_ADMIN may load a filter (seccomp(2)).
        let privileged = filter.is_some() && !no_new_privileges;
        self.push(Op::BoundingSet { keep: sets.bounding });
        self.user(process)?;
        let spare = if privileged { SYS_ADMIN } else { 0 };
        let ambient = if privileged { accord_stage::Capabilities(0) } else { sets.ambient };
        self.push(Op::SetCapabilities {
            effective: sets.effective,
            permitted: accord_stage::Capabilities(sets.permitted.0 | spare),
            inheritable: sets.inheritable,
            ambient,
        });
        if no_new_privileges {
            self.push(Op::NoNewPrivileges);
        }
        let user = process.user();
        self.push(Op::Umask { mask: user.umask().unwrap_or(0o022) });
        self.push(Op::WorkingDirectory { path });
        let name = self.resolve(process)?;
        self.push(Op::CloseFds { first: self.settings.preserve_fds.saturating_add(3) });
        let socket = match self.settings.start_socket {
            true => Some(self.need(Need::StartSocket)?),
            false => None,
        };
        self.push(Op::Ready { socket });
        if place == Place::Init {
            let hooks = self.spec.hooks().as_ref();
            self.hooks("startContainer", hooks.and_then(|hooks| hooks.start_container().as_ref()))?;
        }
        if let Some((program, flags)) = filter {
            let filter = Filter(self.pad.slice(program));
            self.push(Op::Seccomp { filter, flags: *flags, privileged });
            if privileged {
                self.push(Op::SetCapabilities {
                    effective: sets.effective,
                    permitted: sets.permitted,
                    inheritable: sets.inheritable,
                    ambient: sets.ambient,
                });
            }
        }
        let args = self.pad.strings(process.args().as_deref().unwrap_or_default())?;
        let env = self.environment(process, place);
        let env = self.pad.strings(&env)?;
        self.push(Op::Exec { name, args, env });
        Ok(())
    }

    fn user(&mut self, process: &Process) -> Result<()> {
        let user = process.user();
        let annotations = self.spec.annotations().as_ref();
        let keep = annotations
            .and_then(|all| all.get(KEEP_GROUPS))
            .is_some_and(|value| value != "0" && value != "false");
        let groups = user.additional_gids().as_deref().unwrap_or_default();
        // An unprivileged user namespace may not drop groups (user_namespaces(7)).
        let denied = self.facts.unprivileged && groups.is_empty();
        if !keep && !denied {
            let groups = self.pad.slice(groups);
            self.push(Op::SetGroups { groups });
        }
        self.push(Op::SetGid { gid: user.gid() });
        self.push(Op::SetUid { uid: user.uid() });
        Ok(())
    }

    fn resolve(&mut self, process: &Process) -> Result<Str<'a>> {
        let Some(command) = process.args().as_deref().and_then(<[String]>::first) else {
            return Err(Failure::text("config.json", "/process/args", "must not be empty"));
        };
        let name = self.pad.text(command)?;
        if command.is_empty() {
            return Err(Failure::program(command, ProgramError::NotInPath));
        }
        let search = !command.contains('/');
        let mut candidates = Vec::new();
        if search {
            let env = process.env().as_deref().unwrap_or_default();
            // The container's PATH, never ours; unset, there is nothing to search.
            // Of two, the last counts.
            let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
            for directory in path.into_iter().flat_map(|path| path.split(':')) {
                // An empty element is the working directory (environ(7)).
                let directory = if directory.is_empty() { "." } else { directory };
                candidates.push(self.pad.text(format!("{directory}/{command}"))?);
            }
        } else {
            candidates.push(name);
        }
        let candidates = self.pad.slice(&candidates);
        let foreign = self.foreign_formats();
        self.push(Op::Resolve { name, candidates, search, foreign });
        Ok(name)
    }

    fn foreign_formats(&self) -> &'a [Format<'a>] {
        let format = |format: &ForeignFormat| match format {
            ForeignFormat::Magic { offset, magic, mask } => Format::Magic {
                offset: *offset,
                magic: self.pad.slice(magic),
                mask: self.pad.slice(mask),
            },
            ForeignFormat::Extension(name) => Format::Extension(self.pad.slice(name)),
        };
        let formats: Vec<Format<'a>> = self.facts.foreign_formats.iter().map(format).collect();
        self.pad.slice(&formats)
    }

    fn environment(&self, process: &Process, place: Place) -> Vec<String> {
        let mut env = process.env().clone().unwrap_or_default();
        // A program takes the first of two, engines mean the last (`podman exec --env`).
        let mut seen = HashSet::new();
        env.reverse();
        env.retain(|entry| seen.insert(entry.split('=').next().unwrap_or(entry).to_owned()));
        env.reverse();
        let names_home = env.iter().any(|entry| entry.starts_with("HOME="));
        if let (false, Some(home)) = (names_home, &self.settings.home) {
            env.push(format!("HOME={home}"));
        }
        let listen = self.settings.listen_fds;
        if listen > 0 && place == Place::Init {
            // sd_listen_fds(3): the program is process 1 of its namespace.
            env.push(format!("LISTEN_FDS={listen}"));
            env.push("LISTEN_PID=1".into());
        }
        env
    }
}

fn labelled(process: &Process) -> bool {
    let set = |label: &Option<String>| label.as_deref().is_some_and(|label| !label.is_empty());
    set(process.apparmor_profile()) || set(process.selinux_label())
}

/// A list of numbers and ranges (`0-3,7`), which stands at `pointer`, as a bit mask.
fn mask(list: &str, pointer: &'static str) -> Result<Vec<u64>> {
    let bad = || Failure::text("config.json", pointer, "not a list of numbers");
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.parse().map_err(|_| bad())?;
        let last: usize = last.parse().map_err(|_| bad())?;
        if last < first || last > 1023 {
            return Err(bad());
        }
        for number in first..=last {
            let word = number / 64;
            if mask.len() <= word {
                mask.resize(word.saturating_add(1), 0u64);
            }
            if let Some(bits) = mask.get_mut(word) {
                *bits |= 1 << (number % 64);
            }
        }
    }
    Ok(mask)
}
