//! The features document: what `accord features` answers.

use std::collections::HashMap;

use oci_spec::runtime::{
    Apparmor, Arch, Cgroup, Features, IDMap, IntelRdt, LinuxFeature, LinuxNamespaceType,
    LinuxSeccompAction, MemoryPolicy, MountExtensions, NetDevices, Seccomp, Selinux,
};

use crate::default_spec::SPEC_VERSION;
use crate::mount_options;

/// The hooks, in the order in which they run.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The annotations that change what the runtime does, so that an engine does not
/// let an image or an ordinary user set them. A name that ends in `.` is a prefix.
const UNSAFE_ANNOTATIONS: [&str; 8] = [
    "accord.",
    "io.kubernetes.cri-o.ContainerType",
    "io.kubernetes.cri-o.SandboxID",
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri.sandbox-id",
    "krun.",
    "org.systemd.property.",
    "run.oci.",
];

/// Capabilities, in the kernel's order.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const NAMESPACES: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];

const ACTIONS: [LinuxSeccompAction; 9] = [
    LinuxSeccompAction::ScmpActAllow,
    LinuxSeccompAction::ScmpActErrno,
    LinuxSeccompAction::ScmpActKill,
    LinuxSeccompAction::ScmpActKillProcess,
    LinuxSeccompAction::ScmpActKillThread,
    LinuxSeccompAction::ScmpActLog,
    LinuxSeccompAction::ScmpActNotify,
    LinuxSeccompAction::ScmpActTrace,
    LinuxSeccompAction::ScmpActTrap,
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const SECCOMP_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [&str; 3] =
    ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// What is implemented: not what the host can do, which the document is not about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Implemented {
    /// The seccomp library's part.
    pub seccomp: Option<SeccompLibrary>,
    /// The systemd cgroup manager.
    pub systemd: bool,
    /// The systemd cgroup manager of an ordinary user.
    pub systemd_user: bool,
    /// The rdma controller.
    pub rdma: bool,
    /// AppArmor profiles.
    pub apparmor: bool,
    /// SELinux labels.
    pub selinux: bool,
    /// `linux.intelRdt`.
    pub intel_rdt: bool,
    /// `linux.memoryPolicy`.
    pub memory_policy: bool,
    /// `linux.netDevices`.
    pub net_devices: bool,
    /// Id-mapped mounts.
    pub idmap: bool,
}

/// What the seccomp library adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeccompLibrary {
    /// The architectures that it knows.
    pub archs: Vec<Arch>,
    /// The flags that it can set.
    pub supported_flags: Vec<String>,
    /// Its version.
    pub version: String,
}

/// The document.
pub fn features(implemented: Implemented, annotations: &[(&str, impl AsRef<str>)]) -> Features {
    let mut features = Features::default();
    let library = implemented.seccomp.as_ref();
    let version =
        library.map(|seccomp| ("io.github.seccomp.libseccomp.version", &*seccomp.version));
    let annotations: HashMap<_, _> = annotations
        .iter()
        .map(|(key, value)| (*key, value.as_ref()))
        .chain(version)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    features
        .set_oci_version_min("1.0.0".to_owned())
        .set_oci_version_max(SPEC_VERSION.to_owned())
        .set_hooks(owned(HOOKS))
        .set_mount_options(owned(mount_options::names()))
        .set_linux(Some(linux(implemented)))
        .set_annotations(Some(annotations))
        .set_potentially_unsafe_config_annotations(owned(UNSAFE_ANNOTATIONS));
    features
}

fn linux(implemented: Implemented) -> LinuxFeature {
    let mut cgroup = Cgroup::default();
    cgroup
        .set_v1(Some(true))
        .set_v2(Some(true))
        .set_systemd(Some(implemented.systemd))
        .set_systemd_user(Some(implemented.systemd_user))
        .set_rdma(Some(implemented.rdma));
    let mut apparmor = Apparmor::default();
    apparmor.set_enabled(Some(implemented.apparmor));
    let mut selinux = Selinux::default();
    selinux.set_enabled(Some(implemented.selinux));
    let mut intel_rdt = IntelRdt::default();
    intel_rdt
        .set_enabled(Some(implemented.intel_rdt))
        .set_schemata(Some(implemented.intel_rdt))
        .set_monitoring(Some(implemented.intel_rdt));
    let mut memory_policy = MemoryPolicy::default();
    let listed = |names| if implemented.memory_policy { owned(names) } else { Some(Vec::new()) };
    memory_policy.set_modes(listed(MEMORY_MODES.as_slice())).set_flags(listed(&MEMORY_FLAGS));
    let mut net_devices = NetDevices::default();
    net_devices.set_enabled(Some(implemented.net_devices));
    let mut idmap = IDMap::default();
    idmap.set_enabled(Some(implemented.idmap));
    let mut extensions = MountExtensions::default();
    extensions.set_idmap(Some(idmap));

    let mut linux = LinuxFeature::default();
    linux
        .set_namespaces(Some(NAMESPACES.to_vec()))
        .set_capabilities(owned(CAPABILITIES))
        .set_cgroup(Some(cgroup))
        .set_seccomp(Some(seccomp(implemented.seccomp)))
        .set_apparmor(Some(apparmor))
        .set_selinux(Some(selinux))
        .set_intel_rdt(Some(intel_rdt))
        .set_memory_policy(Some(memory_policy))
        .set_mount_extensions(Some(extensions))
        .set_net_devices(Some(net_devices));
    linux
}

fn seccomp(library: Option<SeccompLibrary>) -> Seccomp {
    let mut seccomp = Seccomp::default();
    seccomp
        .set_enabled(Some(library.is_some()))
        .set_actions(Some(ACTIONS.to_vec()))
        .set_operators(owned(OPERATORS))
        .set_known_flags(owned(SECCOMP_FLAGS));
    let SeccompLibrary { archs, supported_flags, .. } = library.unwrap_or_default();
    seccomp.set_archs(Some(archs)).set_supported_flags(Some(supported_flags));
    seccomp
}

fn owned<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Option<Vec<String>> {
    Some(names.into_iter().map(|name| name.as_ref().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn document(implemented: Implemented) -> Value {
        serde_json::to_value(features(implemented, &[("a", "b")])).unwrap()
    }

    #[test]
    fn every_member_of_the_specification_is_there() {
        let library = SeccompLibrary {
            archs: vec![Arch::ScmpArchX86_64],
            supported_flags: vec!["SECCOMP_FILTER_FLAG_LOG".into()],
            version: "2.5.4".into(),
        };
        let document =
            document(Implemented { seccomp: Some(library), idmap: true, ..Implemented::default() });
        let members = [
            ("/ociVersionMin", "1.0.0".into()),
            ("/ociVersionMax", "1.3.0".into()),
            ("/hooks/5", "poststop".into()),
            ("/annotations/a", "b".into()),
            ("/annotations/io.github.seccomp.libseccomp.version", "2.5.4".into()),
            ("/linux/namespaces/5", "time".into()),
            ("/linux/capabilities/40", "CAP_CHECKPOINT_RESTORE".into()),
            ("/linux/cgroup/v1", true.into()),
            ("/linux/cgroup/v2", true.into()),
            ("/linux/cgroup/systemd", false.into()),
            ("/linux/cgroup/systemdUser", false.into()),
            ("/linux/cgroup/rdma", false.into()),
            ("/linux/seccomp/enabled", true.into()),
            ("/linux/seccomp/actions/0", "SCMP_ACT_ALLOW".into()),
            ("/linux/seccomp/operators/6", "SCMP_CMP_NE".into()),
            ("/linux/seccomp/archs/0", "SCMP_ARCH_X86_64".into()),
            ("/linux/seccomp/knownFlags/3", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".into()),
            ("/linux/seccomp/supportedFlags/0", "SECCOMP_FILTER_FLAG_LOG".into()),
            ("/linux/apparmor/enabled", false.into()),
            ("/linux/selinux/enabled", false.into()),
            ("/linux/intelRdt/enabled", false.into()),
            ("/linux/intelRdt/schemata", false.into()),
            ("/linux/intelRdt/monitoring", false.into()),
            ("/linux/memoryPolicy/modes", Value::Array(Vec::new())),
            ("/linux/memoryPolicy/flags", Value::Array(Vec::new())),
            ("/linux/mountExtensions/idmap/enabled", true.into()),
            ("/linux/netDevices/enabled", false.into()),
        ];
        for (pointer, value) in members {
            assert_eq!(document.pointer(pointer), Some(&value), "{pointer}");
        }
        assert!(!document.to_string().contains("null"), "{document}");
        let options = document["mountOptions"].as_array().unwrap();
        assert!(options.contains(&"rro".into()) && options.contains(&"ridmap".into()));
    }

    #[test]
    fn every_annotation_that_changes_something_is_called_unsafe() {
        let document = document(Implemented::default());
        assert!(!document.to_string().contains("null"), "{document}");
        let listed = document["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
        let read = ["accord.isolation", "krun.cpus", "run.oci.handler", "org.systemd.property.X"];
        for name in read {
            let covers = |one: &Value| {
                let one = one.as_str().unwrap();
                name == one || one.ends_with('.') && name.starts_with(one)
            };
            assert!(listed.iter().any(covers), "{name}");
        }
    }

    #[test]
    fn capabilities_are_those_that_a_configuration_may_name() {
        for name in CAPABILITIES {
            let json = format!("\"{name}\"");
            assert!(serde_json::from_str::<oci_spec::runtime::Capability>(&json).is_ok(), "{name}");
        }
    }
}
