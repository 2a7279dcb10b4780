//! What can be said in a profile here: the architectures and flags of `features`.

use accord_bundle::features::SeccompLibrary;
use accord_sys::security::seccomp_flags_known;
use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpVersion};
use oci_spec::runtime::{Arch, LinuxSeccompFilterFlag};

use super::flag;

/// The specification's architectures and libseccomp's.
const ARCHITECTURES: [(Arch, ScmpArch); 24] = [
    (Arch::ScmpArchNative, ScmpArch::Native),
    (Arch::ScmpArchX86, ScmpArch::X86),
    (Arch::ScmpArchX86_64, ScmpArch::X8664),
    (Arch::ScmpArchX32, ScmpArch::X32),
    (Arch::ScmpArchArm, ScmpArch::Arm),
    (Arch::ScmpArchAarch64, ScmpArch::Aarch64),
    (Arch::ScmpArchMips, ScmpArch::Mips),
    (Arch::ScmpArchMips64, ScmpArch::Mips64),
    (Arch::ScmpArchMips64n32, ScmpArch::Mips64N32),
    (Arch::ScmpArchMipsel, ScmpArch::Mipsel),
    (Arch::ScmpArchMipsel64, ScmpArch::Mipsel64),
    (Arch::ScmpArchMipsel64n32, ScmpArch::Mipsel64N32),
    (Arch::ScmpArchPpc, ScmpArch::Ppc),
    (Arch::ScmpArchPpc64, ScmpArch::Ppc64),
    (Arch::ScmpArchPpc64le, ScmpArch::Ppc64Le),
    (Arch::ScmpArchS390, ScmpArch::S390),
    (Arch::ScmpArchS390x, ScmpArch::S390X),
    (Arch::ScmpArchParisc, ScmpArch::Parisc),
    (Arch::ScmpArchParisc64, ScmpArch::Parisc64),
    (Arch::ScmpArchRiscv64, ScmpArch::Riscv64),
    (Arch::ScmpArchLoongarch64, ScmpArch::Loongarch64),
    (Arch::ScmpArchM68k, ScmpArch::M68k),
    (Arch::ScmpArchSh, ScmpArch::Sh),
    (Arch::ScmpArchSheb, ScmpArch::Sheb),
];

/// libseccomp's name of an architecture.
pub(super) fn library_arch(arch: Arch) -> ScmpArch {
    let found = ARCHITECTURES.iter().find(|(ours, _)| *ours == arch);
    found.map_or(ScmpArch::Native, |(_, theirs)| *theirs)
}

/// The specification's name of an architecture.
pub(super) fn spec_arch(arch: ScmpArch) -> Arch {
    let found = ARCHITECTURES.iter().find(|(_, theirs)| *theirs == arch);
    found.map_or(Arch::ScmpArchNative, |(ours, _)| *ours)
}

/// libseccomp's part of `features`: its architectures and version, and the flags that
/// this kernel takes.
pub fn knowledge() -> SeccompLibrary {
    use LinuxSeccompFilterFlag as Flag;
    let filter = ScmpFilterContext::new(ScmpAction::Allow).ok();
    // The question is whether it can be asked about: a token that it does not know is an error.
    let known = |arch| filter.as_ref().is_some_and(|filter| filter.is_arch_present(arch).is_ok());
    let archs = ARCHITECTURES
        .iter()
        .filter(|(ours, theirs)| *ours != Arch::ScmpArchNative && known(*theirs))
        .map(|(ours, _)| *ours)
        .collect();
    let supported_flags = [
        (Flag::SeccompFilterFlagLog, flag::LOG),
        (Flag::SeccompFilterFlagSpecAllow, flag::SPEC_ALLOW),
        (Flag::SeccompFilterFlagTsync, flag::TSYNC),
        (Flag::SeccompFilterFlagWaitKillableRecv, flag::WAIT_KILLABLE_RECV | flag::NEW_LISTENER),
    ];
    SeccompLibrary {
        archs,
        supported_flags: supported_flags
            .into_iter()
            .filter(|(_, bits)| seccomp_flags_known(*bits))
            .map(|(name, _)| name.to_string())
            .collect(),
        version: version(),
    }
}

/// libseccomp's version.
pub(super) fn version() -> String {
    ScmpVersion::current().map_or_else(|_| "unknown".to_owned(), |version| version.to_string())
}
