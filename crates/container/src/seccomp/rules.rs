//! The rules of a profile, compiled by libseccomp.

use std::fs::File;
use std::io::{Read, Seek};

use accord_outcome::{Failure, Quoted, Result};
use accord_sys::security::Instruction;
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{bpf, knowledge};

const EPERM: i32 = 1;
/// From this number of rules on, libseccomp arranges the numbers as a tree, so that a
/// call is found after a few comparisons. It does not pay for a handful, and libseccomp
/// up to 2.5.4 makes a wrong program of an empty tree.
const TREE_FROM: usize = 32;
const TREE: u32 = 2;

/// The program, and what the profile asks for and will not get.
pub(super) fn compile(seccomp: &LinuxSeccomp) -> Result<(Vec<Instruction>, Vec<String>)> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut rules = Rules {
        filter: ScmpFilterContext::new(default)
            .map_err(|error| refused("make filter for", "linux.seccomp", &error))?,
        default,
        number: 0,
        warnings: Vec::new(),
    };
    // Before the rules, which are added to the architectures that are there. The native
    // one always is; for all others the program kills.
    for arch in seccomp.architectures().iter().flatten() {
        rules
            .filter
            .add_arch(knowledge::library_arch(*arch))
            .map_err(|error| refused("filter architecture", arch.to_string(), &error))?;
    }
    for rule in seccomp.syscalls().iter().flatten() {
        rules.add(rule)?;
    }
    if rules.number > TREE_FROM {
        rules
            .filter
            .set_ctl_optimize(TREE)
            .map_err(|error| refused("optimize", "linux.seccomp", &error))?;
    }
    Ok((export(&rules.filter)?, rules.warnings))
}

struct Rules {
    filter: ScmpFilterContext,
    default: ScmpAction,
    number: usize,
    warnings: Vec<String>,
}

impl Rules {
    fn add(&mut self, rule: &LinuxSyscall) -> Result<()> {
        let action = action(rule.action(), rule.errno_ret())?;
        if action == self.default {
            return Ok(());
        }
        let comparisons = comparisons(rule.args().as_deref().unwrap_or_default())?;
        for name in rule.names() {
            let Ok(call) = ScmpSyscall::from_name(name) else {
                self.unknown(name, action);
                continue;
            };
            for comparison in &comparisons {
                self.filter
                    .add_rule_conditional(action, call, comparison)
                    .map_err(|error| refused("filter system call", name, &error))?;
                self.number = self.number.saturating_add(1);
            }
        }
        Ok(())
    }

    /// A call that libseccomp does not know gets the default action. Profiles name calls
    /// of every age, so nothing is said of one that would have been let through; but one
    /// that should have been stopped and is not is worth a word.
    fn unknown(&mut self, name: &str, action: ScmpAction) {
        if permits(self.default) && !permits(action) {
            let name = Quoted(name);
            self.warnings
                .push(format!("linux.seccomp: unknown system call {name} is not restricted"));
        }
    }
}

fn permits(action: ScmpAction) -> bool {
    matches!(action, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_))
}

/// The conditions of a rule: sets of comparisons, any of which makes it apply.
///
/// All comparisons of a set must hold, and there libseccomp takes one for each argument.
/// A rule with two for the same argument therefore becomes one rule for each comparison,
/// as in runc, whose profiles are written with that in mind (`clone` with this flag or
/// with that).
fn comparisons(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<ScmpArgCompare>>> {
    let comparisons = args.iter().map(comparison).collect::<Result<Vec<_>>>()?;
    let mut indices: Vec<_> = args.iter().map(LinuxSeccompArg::index).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() == args.len() {
        return Ok(vec![comparisons]);
    }
    Ok(comparisons.into_iter().map(|comparison| vec![comparison]).collect())
}

fn comparison(arg: &LinuxSeccompArg) -> Result<ScmpArgCompare> {
    use LinuxSeccompOperator as Operator;
    let value_two = arg.value_two().unwrap_or_default();
    let (operator, value) = match arg.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        // The first value is the mask, the second what must come out.
        Operator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(arg.value()), value_two),
    };
    let index = u32::try_from(arg.index())
        .map_err(|_| Failure::text("filter argument", arg.index().to_string(), "no such one"))?;
    Ok(ScmpArgCompare::new(index, operator, value))
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    use LinuxSeccompAction as Action;
    let number = || match errno {
        None => Ok(EPERM),
        Some(errno) => u16::try_from(errno).map(i32::from).map_err(|_| {
            Failure::text("compile", "linux.seccomp", format!("errno {errno} is too large"))
        }),
    };
    Ok(match action {
        // Kill is the old name of killing the thread.
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno => ScmpAction::Errno(number()?),
        Action::ScmpActNotify => ScmpAction::Notify,
        Action::ScmpActTrace => ScmpAction::Trace(u16::try_from(number()?).unwrap_or_default()),
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
    })
}

/// libseccomp writes the program to a file descriptor (to memory only since 2.6).
fn export(filter: &ScmpFilterContext) -> Result<Vec<Instruction>> {
    const STEP: &str = "export";
    const OBJECT: &str = "seccomp filter";
    let memory = memfd_create(c"seccomp", MemfdFlags::CLOEXEC)
        .map_err(|errno| Failure::errno(STEP, OBJECT, errno.raw_os_error()))?;
    filter.export_bpf(&memory).map_err(|error| refused(STEP, OBJECT, &error))?;
    let mut file = File::from(memory);
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(|error| Failure::io(STEP, OBJECT, &error))?;
    bpf::from_bytes(&bytes).ok_or_else(|| Failure::text(STEP, OBJECT, "half an instruction"))
}

/// libseccomp's own words are `strerror`'s in part, which engines would take for the
/// program's: the symbol says as much.
fn refused(step: &'static str, object: impl AsRef<[u8]>, error: &SeccompError) -> Failure {
    match error.sysrawrc() {
        Some(code) => Failure::errno(step, object, code.saturating_abs()),
        None => Failure::text(step, object, "refused by libseccomp"),
    }
}
