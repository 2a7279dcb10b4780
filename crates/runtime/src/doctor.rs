//! `doctor`: what this machine can do, in plain words, with cures.
//!
//! Nothing is changed, and nothing of another program is executed: everything here is
//! read from the kernel's files and from configurations.

use std::fs;
use std::path::{Path, PathBuf};

use accord_cgroup::{Layout, Mode};
use accord_monitor::kernel::Kernel;
use serde::Serialize;

use crate::facts::is_unprivileged;
use crate::microvm;
use crate::options::Global;

/// How it is with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It is there.
    Good,
    /// It is not, and something cannot be done.
    Lacking,
    /// It is not, and nothing works.
    Broken,
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which thing.
    pub subject: &'static str,
    /// How it is.
    pub health: Health,
    /// What it is, or what is missing.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, health: Health::Good, text: text.into(), cure: None }
    }

    fn bad(
        subject: &'static str,
        health: Health,
        text: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { subject, health, text: text.into(), cure: Some(cure.into()) }
    }
}

/// Looks at the machine.
pub fn doctor(global: &Global) -> Vec<Finding> {
    let mut findings = vec![kernel(), cgroups(), systemd()];
    findings.extend(rootless());
    findings.push(guest_kernel(global));
    findings.push(kvm());
    findings.push(emulator());
    findings.push(tap());
    findings.extend(ENGINES.into_iter().filter_map(engine));
    findings
}

/// What a microVM on this machine would be made of, for programs: of each thing its path
/// or `yes`, else `no` and why.
pub fn microvm(global: &Global) -> [(&'static str, String); 3] {
    let said = |finding: Finding| match finding.health {
        Health::Good => finding.text,
        _ => format!("no: {}", finding.text),
    };
    let kvm =
        microvm::kvm::open().map_or_else(|failure| format!("no: {failure}"), |_| "yes".into());
    [
        ("accord.microvm.kvm", kvm),
        ("accord.microvm.emulator", said(emulator())),
        ("accord.microvm.kernel", said(guest_kernel(global))),
    ]
}

/// The oldest kernel with everything that docs/kernel-features.md calls needed.
const OLDEST: (u32, u32) = (5, 12);

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (
        numbers.next().and_then(Result::ok).unwrap_or(0),
        numbers.next().and_then(Result::ok).unwrap_or(0),
    );
    let text = format!("Linux {release}");
    if version >= OLDEST {
        return Finding::good("kernel", text);
    }
    let cure = format!("Linux {}.{} or newer is needed", OLDEST.0, OLDEST.1);
    Finding::bad("kernel", Health::Broken, text, cure)
}

fn cgroups() -> Finding {
    match Layout::detect().map(|layout| layout.mode()) {
        Ok(Mode::Unified) => Finding::good("cgroups", "version 2"),
        Ok(Mode::Hybrid) => Finding::good("cgroups", "version 1, with version 2 beside it"),
        Ok(Mode::Legacy) => Finding::good("cgroups", "version 1"),
        Ok(Mode::Absent) => Finding::bad(
            "cgroups",
            Health::Lacking,
            "none: containers have no limits, and cannot be paused",
            "mount -t cgroup2 none /sys/fs/cgroup",
        ),
        Err(failure) => Finding::bad(
            "cgroups",
            Health::Lacking,
            failure.to_string(),
            "mount /proc and /sys/fs/cgroup",
        ),
    }
}

fn systemd() -> Finding {
    match Path::new("/run/systemd/system").is_dir() {
        true => Finding::good("systemd", "runs: --systemd-cgroup can be used"),
        false => Finding::bad(
            "systemd",
            Health::Lacking,
            "does not run: --systemd-cgroup cannot be used",
            "engines use cgroupfs then (podman: --cgroup-manager cgroupfs)",
        ),
    }
}

fn rootless() -> Vec<Finding> {
    const SUBJECT: &str = "rootless";
    if !is_unprivileged() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    if read("/proc/sys/user/max_user_namespaces") == "0"
        || read("/proc/sys/kernel/unprivileged_userns_clone") == "0"
    {
        findings.push(Finding::bad(
            SUBJECT,
            Health::Broken,
            "ordinary users may not make user namespaces",
            "sysctl user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1",
        ));
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        findings.push(Finding::bad(
            SUBJECT,
            Health::Lacking,
            "AppArmor restricts user namespaces to programs that have a profile",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for accord",
        ));
    }
    for program in ["newuidmap", "newgidmap"] {
        if find(program).is_none() {
            findings.push(Finding::bad(
                SUBJECT,
                Health::Lacking,
                format!("there is no {program}: a container has one user"),
                "install uidmap (shadow-utils)",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good(SUBJECT, "user namespaces can be made"));
    }
    findings
}

fn guest_kernel(global: &Global) -> Finding {
    match Kernel::find(global.kernel.as_deref()) {
        Ok(kernel) => Finding::good("guest kernel", kernel.path.display().to_string()),
        Err(failure) => Finding::bad(
            "guest kernel",
            Health::Lacking,
            format!("no microVM can be run: {failure}"),
            "apt-get install linux-image-cloud-amd64, or make kernel",
        ),
    }
}

fn kvm() -> Finding {
    match microvm::kvm::open() {
        Ok(_) => Finding::good("KVM", "/dev/kvm runs a test guest"),
        Err(failure) => Finding::bad(
            "KVM",
            Health::Lacking,
            format!("microVMs are emulated: {failure}"),
            "a machine that can virtualise (nested, if it is virtual), the right to open /dev/kvm",
        ),
    }
}

fn emulator() -> Finding {
    match microvm::emulator() {
        Some(path) => Finding::good("emulator", path),
        None => Finding::bad(
            "emulator",
            Health::Lacking,
            "there is no qemu-system-x86_64: no microVM can be emulated",
            "apt-get install qemu-system-x86",
        ),
    }
}

fn tap() -> Finding {
    const PATH: &str = "/dev/net/tun";
    match fs::OpenOptions::new().read(true).write(true).open(PATH) {
        Ok(_) => Finding::good("network", format!("{PATH}: a microVM can have an interface")),
        Err(error) => Finding::bad(
            "network",
            Health::Lacking,
            format!("{PATH}: {}: a microVM has a loopback only", error.kind()),
            "modprobe tun, and the right to open the device",
        ),
    }
}

/// An engine, and where it is told of runtimes.
struct Engine {
    name: &'static str,
    configurations: &'static [&'static str],
    cure: &'static str,
}

const ENGINES: [Engine; 4] = [
    Engine {
        name: "podman",
        configurations: &[
            "/usr/share/containers/containers.conf",
            "/etc/containers/containers.conf",
            "/usr/share/containers/containers.conf.d",
            "/etc/containers/containers.conf.d",
        ],
        cure: "podman --runtime PATH, or a file in /etc/containers/containers.conf.d with \
               [engine.runtimes] accord = [\"PATH\"]",
    },
    Engine {
        name: "dockerd",
        configurations: &["/etc/docker/daemon.json"],
        cure: "/etc/docker/daemon.json: {\"runtimes\": {\"accord\": {\"path\": \"PATH\"}}}",
    },
    Engine {
        name: "containerd",
        configurations: &["/etc/containerd/config.toml", "/etc/containerd/conf.d"],
        cure: "/etc/containerd/config.toml: a runtime of type io.containerd.runc.v2 with \
               BinaryName = \"PATH\"",
    },
    Engine {
        name: "crio",
        configurations: &["/etc/crio/crio.conf", "/etc/crio/crio.conf.d"],
        cure: "/etc/crio/crio.conf.d: [crio.runtime.runtimes.accord] runtime_path = \"PATH\"",
    },
];

fn engine(engine: Engine) -> Option<Finding> {
    let path = find(engine.name)?;
    let named = engine.configurations.iter().find(|path| names_accord(Path::new(path)));
    Some(match named {
        Some(file) => {
            Finding::good(engine.name, format!("{}: knows accord by {file}", path.display()))
        }
        None => Finding::bad(
            engine.name,
            Health::Lacking,
            format!("{}: does not know accord", path.display()),
            engine.cure,
        ),
    })
}

/// Whether a configuration, or one in a directory of them, names this runtime.
fn names_accord(path: &Path) -> bool {
    if path.is_dir() {
        let files = fs::read_dir(path).into_iter().flatten().flatten();
        return files.into_iter().any(|file| !file.path().is_dir() && names_accord(&file.path()));
    }
    fs::read_to_string(path).is_ok_and(|text| text.contains("accord"))
}

/// A program in PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_looked_for_in_directories_too() {
        let dir = tempfile::TempDir::new().unwrap();
        assert!(!names_accord(dir.path()));
        fs::write(dir.path().join("a.conf"), "[engine.runtimes]\ncrun = []\n").unwrap();
        assert!(!names_accord(dir.path()));
        fs::write(dir.path().join("b.conf"), "[engine.runtimes]\naccord = []\n").unwrap();
        assert!(names_accord(dir.path()));
        assert!(!names_accord(&dir.path().join("none")));
    }
}
