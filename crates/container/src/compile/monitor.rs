//! The plan of a microVM's monitor: what is built for it on the host.
//!
//! The monitor is the container's process on the host. It is in the container's
//! namespaces there (but for pid: process 1 of a pid namespace could not die of a
//! signal), in its cgroup, and in a root of its own:
//!
//! | path | holds | who sees it in the end |
//! |---|---|---|
//! | `/tree/rootfs` | the root file system | the file server |
//! | `/tree/mounts/N` | the source of the bind mount number N | the file server |
//! | `/tree/init` | our own binary, where the guest's kernel needs no modules | the file server |
//! | `/tree/dev/null` | for that binary until it has mounted `/dev` | the file server |
//! | `/machine` | what an emulator needs: its program, the kernel | the emulator |
//! | `/proc` | the kernel's | nobody: the monitor unmounts it when the machine runs |
//! | `/dev/net/tun` | makes the tap device | nobody: unmounted, too |
//! | `/dev/null` | | all of them |
//! | `/dev/pts` | the container's terminal, if it has one | the monitor |
//!
//! What the configuration says about the inside of the container is not in this
//! plan: the guest compiles its own, by [`compile`](super::compile).

use std::path::{Path, PathBuf};

use accord_bundle::mount_options::{self, Bind};
use accord_outcome::Result;
use accord_stage::{
    Attributes, Change, FsOption, Namespaces, Op, Propagation, Request, Source, Spread,
};
use oci_spec::runtime::{Process, Spec};

use super::mounts::change;
use super::namespaces::Layout;
use super::{Compiled, Compiler, Facts, Need, Pad, Settings, bytes};

/// The shared tree, in the monitor's root and in the guest.
pub const TREE: &str = "/tree";
/// The sources of bind mounts in it.
pub const SHARED: &str = "/tree/mounts";
/// What the guest executes first, in the tree.
const INIT: &str = "/tree/init";
/// The guest's kernel knows it by its number.
const GUESTS_NULL: &str = "/tree/dev/null";
const NULL: &str = "/dev/null";
/// Makes tap devices.
pub const TUN: &str = "/dev/net/tun";
/// The emulator's root.
pub const MACHINE: &str = "/machine";

/// What the monitor's plan needs besides the configuration.
#[derive(Debug, Clone, Default)]
pub struct Monitor {
    /// The empty directory that becomes its root.
    pub jail: PathBuf,
    /// Our own binary, if the guest starts it from the shared tree.
    pub init: Option<PathBuf>,
    /// Files and directories of the host that the emulator sees, read-only: from, and where.
    pub machine: Vec<(PathBuf, PathBuf)>,
    /// Symbolic links in the emulator's root: where, and what it says.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// What is handed to it as descriptors 4 and so on, by name.
    pub pass: Vec<&'static str>,
    /// Its arguments; the first is the name by which it knows that it is the monitor.
    pub args: Vec<String>,
}

/// Compiles the plan of the monitor of a container.
///
/// # Errors
/// As [`compile`](super::compile).
pub fn compile_monitor<'a>(
    pad: Pad<'a>,
    spec: &Spec,
    process: &Process,
    facts: &Facts,
    settings: &Settings,
    monitor: &Monitor,
) -> Result<Compiled<'a>> {
    let mut compiler = Compiler::new(pad, spec, facts, settings);
    let layout = Layout::of(spec)?.on_host(facts.unprivileged);
    let bootstrap = compiler.bootstrap(&layout)?;
    compiler.enter_cgroups()?;
    compiler.enter(&layout)?;
    compiler.push(Op::Ask { request: Request::Setup });
    if layout.new.contains(Namespaces::CGROUP) {
        compiler.push(Op::Unshare { namespaces: Namespaces::CGROUP });
    }
    compiler.push(Op::NewSession);
    compiler.jail(monitor)?;
    compiler.tree()?;
    compiler.init(monitor)?;
    compiler.machine(monitor)?;
    if process.terminal().unwrap_or(false) {
        compiler.pseudo_terminals()?;
        compiler.terminal(process, false)?;
    }
    compiler.hooks_of_create()?;
    compiler.push(Op::Pivot { spread: None });
    compiler.become_self(&monitor.args, &monitor.pass)?;
    let clone = layout.clone_flags();
    compiler.finish(bootstrap, clone)
}

/// Compiles the plan of the process that stands on the host for one in the guest.
///
/// # Errors
/// As [`compile`](super::compile).
pub fn compile_proxy<'a>(
    pad: Pad<'a>,
    spec: &Spec,
    process: &Process,
    facts: &Facts,
    settings: &Settings,
    args: &[String],
    pass: &[&'static str],
) -> Result<Compiled<'a>> {
    let mut compiler = Compiler::new(pad, spec, facts, settings);
    compiler.push(Op::NewSession);
    if process.terminal().unwrap_or(false) {
        let ptmx = compiler.pad.text("/dev/ptmx")?;
        compiler.terminal_at(ptmx, process, false);
    }
    compiler.become_self(args, pass)?;
    compiler.finish(&[], Namespaces::default())
}

/// Neither devices nor programs that gain rights: for what the machine only reads.
fn sealed() -> Change {
    const NOSUID_NODEV: u64 = 0x2 | 0x4;
    Change { set: Attributes(Attributes::READ_ONLY.0 | NOSUID_NODEV), ..Change::default() }
}

impl<'a> Compiler<'a, '_> {
    /// An empty root, and two file systems in it.
    fn jail(&mut self, monitor: &Monitor) -> Result<()> {
        let slave = Spread { propagation: Propagation::Slave, recursive: true };
        let private = Spread { propagation: Propagation::Private, recursive: true };
        let (all, jail) = (self.pad.text("/")?, self.pad.text(bytes(&monitor.jail))?);
        self.push(Op::Propagation { path: all, spread: slave });
        self.push(Op::BindRoot { path: jail, spread: private, idmap: None });
        for target in [TREE, MACHINE] {
            self.small(target, "tmpfs", &[("mode", "755")])?;
        }
        let null = self.pad.text(NULL)?;
        self.share(Path::new(NULL), null, null, None, false, Change::default(), false)?;
        self.tun()?;
        self.proc()
    }

    /// The caller's, where a new one is not to be had: only who owns the pid namespace
    /// may mount one.
    fn proc(&mut self) -> Result<()> {
        if !self.facts.unprivileged {
            return self.small("/proc", "proc", &[]);
        }
        let path = self.pad.text("/proc")?;
        self.share(Path::new("/proc"), path, path, None, true, Change::default(), false)
    }

    /// What makes the tap devices; a machine without it can have no network.
    fn tun(&mut self) -> Result<()> {
        let path = self.pad.text(TUN)?;
        self.push(Op::Bind {
            source: Source::Path(path),
            from: path,
            target: path,
            meant: None,
            recursive: false,
            change: Change::default(),
            spread: &[],
            idmap: None,
            no_follow_source: false,
            no_follow_target: false,
            optional: true,
        });
        Ok(())
    }

    fn small(&mut self, target: &str, fs: &str, options: &[(&str, &str)]) -> Result<()> {
        let mut list = Vec::new();
        for (key, value) in options {
            let value = match *value {
                "" => None,
                value => Some(self.pad.text(value)?),
            };
            list.push(FsOption { key: self.pad.text(key)?, value });
        }
        const NOSUID_NOEXEC: u64 = 0x2 | 0x8;
        let (fs, target) = (self.pad.text(fs)?, self.pad.text(target)?);
        self.push(Op::Mount {
            fs,
            source: fs,
            target,
            options: self.pad.slice(&list),
            attributes: Attributes(NOSUID_NOEXEC),
            spread: &[],
            strict: false,
            copy_up: false,
        });
        Ok(())
    }

    /// What the guest gets to see.
    fn tree(&mut self) -> Result<()> {
        let rootfs = self.settings.rootfs.clone();
        let (from, target) = (self.pad.text(bytes(&rootfs))?, self.pad.text("/tree/rootfs")?);
        self.share(&rootfs, from, target, None, true, Change::default(), false)?;
        let spec = self.spec;
        for (number, mount) in spec.mounts().iter().flatten().enumerate() {
            let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
            if !options.is_bind(mount.typ().as_deref()) {
                continue;
            }
            let (source, from) = self.source(number, mount)?;
            let target = self.pad.text(format!("{SHARED}/{number}"))?;
            let meant = Some(self.destination(mount)?);
            let recursive = options.bind == Some(Bind::Rbind);
            let unfollowed = options.src_nofollow || options.copy_symlink;
            self.share(&source, from, target, meant, recursive, change(&options), unfollowed)?;
        }
        Ok(())
    }

    /// What the guest executes first, read-only on both sides, and what that needs to begin:
    /// it may be there before the console is, and a program opens this in the place of
    /// standard streams that are not.
    fn init(&mut self, monitor: &Monitor) -> Result<()> {
        let Some(binary) = &monitor.init else { return Ok(()) };
        let (from, target) = (self.pad.text(bytes(binary))?, self.pad.text(INIT)?);
        self.share(binary, from, target, None, false, sealed(), false)?;
        let (null, target) = (self.pad.text(NULL)?, self.pad.text(GUESTS_NULL)?);
        self.share(Path::new(NULL), null, target, None, false, Change::default(), false)
    }

    #[expect(clippy::too_many_arguments, reason = "a bind mount has as many")]
    fn share(
        &mut self,
        source: &Path,
        from: accord_stage::Str<'a>,
        target: accord_stage::Str<'a>,
        meant: Option<accord_stage::Str<'a>>,
        recursive: bool,
        change: Change,
        no_follow_source: bool,
    ) -> Result<()> {
        let source = Source::Path(self.pad.text(bytes(source))?);
        self.push(Op::Bind {
            source,
            from,
            target,
            meant,
            recursive,
            change,
            spread: &[],
            idmap: None,
            no_follow_source,
            no_follow_target: false,
            optional: false,
        });
        Ok(())
    }

    /// What the emulator gets to see.
    fn machine(&mut self, monitor: &Monitor) -> Result<()> {
        for (from, to) in &monitor.machine {
            let target = self.pad.text(format!("{MACHINE}{}", to.display()))?;
            let name = self.pad.text(bytes(from))?;
            let device = from.starts_with("/dev");
            let change = if device { Change::default() } else { sealed() };
            self.share(from, name, target, None, false, change, false)?;
        }
        for (path, says) in &monitor.links {
            let path = self.pad.text(format!("{MACHINE}{}", path.display()))?;
            let target = self.pad.text(bytes(says))?;
            self.push(Op::Symlink { path, target });
        }
        Ok(())
    }

    fn pseudo_terminals(&mut self) -> Result<()> {
        self.small(
            "/dev/pts",
            "devpts",
            &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")],
        )
    }

    /// The last step: our own binary again, as `args` say.
    fn become_self(&mut self, args: &[String], names: &[&'static str]) -> Result<()> {
        let fd = self.need(Need::Binary)?;
        let mut pass = Vec::new();
        for name in names {
            pass.push(self.need(Need::Passed(name))?);
        }
        let pass = self.pad.slice(&pass);
        let (args, env) = (self.pad.strings(args)?, self.pad.strings::<&str>(&[])?);
        self.push(Op::ExecSelf { fd, pass, args, env });
        Ok(())
    }
}
