//! The root file system: everything between the first mount and `pivot_root(2)`.

use std::path::{Path, PathBuf};

use accord_bundle::mount_options;
use accord_outcome::{Failure, Result};
use accord_stage::{DeviceKind, Namespaces, Op, Propagation, Source, Spread};
use linux_raw_sys::general::{MS_PRIVATE, MS_SHARED, MS_SLAVE};
use oci_spec::runtime::{LinuxDeviceType, LinuxNamespaceType, Process};

use super::namespaces::Layout;
use super::{Compiler, Need, bytes};

/// The devices that every container has (config-linux.md, "Default Devices").
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links that every container has (config-linux.md, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// A propagation of `mount_options` in the plan's terms.
pub(crate) fn spread(of: mount_options::Propagation) -> Spread {
    let propagation = match of.kind {
        MS_PRIVATE => Propagation::Private,
        MS_SHARED => Propagation::Shared,
        MS_SLAVE => Propagation::Slave,
        _ => Propagation::Unbindable,
    };
    Spread { propagation, recursive: of.recursive }
}

impl<'a> Compiler<'a, '_> {
    pub(crate) fn root_file_system(&mut self, layout: &Layout, process: &Process) -> Result<()> {
        let path = self.pad.text(bytes(&self.settings.rootfs))?;
        if !layout.has(Namespaces::MOUNT) {
            return self.bare_root(path);
        }
        let asked =
            self.spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_ref());
        let asked = asked.and_then(|name| mount_options::Propagation::from_name(name)).map(spread);
        self.cut_propagation(asked)?;
        let private = Spread { propagation: Propagation::Private, recursive: true };
        let keep = asked.filter(|spread| spread.propagation == Propagation::Shared);
        self.push(Op::BindRoot { path, spread: keep.unwrap_or(private), idmap: None });
        self.mounts(layout)?;
        if !self.is_bound("/dev") {
            self.devices(layout)?;
            self.links()?;
        }
        if process.terminal().unwrap_or(false) {
            self.terminal(process, true)?;
        }
        self.hooks_of_create()?;
        self.covers()?;
        if self.spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)) {
            self.push(Op::ReadOnlyRoot);
        }
        self.push(match self.settings.no_pivot {
            true => Op::MoveRoot,
            false => Op::Pivot { spread: asked },
        });
        Ok(())
    }

    /// Without a mount namespace there is nothing to mount on but the host.
    fn bare_root(&mut self, path: accord_stage::Str<'a>) -> Result<()> {
        let linux = self.spec.linux().as_ref();
        let covers = linux.is_some_and(|linux| {
            linux.masked_paths().iter().flatten().next().is_some()
                || linux.readonly_paths().iter().flatten().next().is_some()
        });
        let read_only =
            self.spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false));
        if self.spec.mounts().iter().flatten().next().is_some() || covers || read_only {
            let cause = "mounts, masked and read-only paths need a mount namespace";
            return Err(Failure::text("config.json", "/linux/namespaces", cause));
        }
        self.push(Op::OpenRoot { path });
        self.hooks_of_create()?;
        self.push(Op::Chroot);
        Ok(())
    }

    /// Nothing that is mounted from here on may appear on the host.
    fn cut_propagation(&mut self, asked: Option<Spread>) -> Result<()> {
        let slave = Spread { propagation: Propagation::Slave, recursive: true };
        let all = self.pad.text("/")?;
        let shared = asked.is_some_and(|spread| spread.propagation == Propagation::Shared);
        // A container that shares its mounts must stay in the peer groups of the
        // host; then only the mount below the root is cut off, on which the root is mounted.
        if shared {
            if let Some(mount) = &self.facts.rootfs_mount {
                let path = self.pad.text(bytes(mount))?;
                let private = Spread { propagation: Propagation::Private, recursive: false };
                self.push(Op::Propagation { path, spread: private });
            }
            return Ok(());
        }
        self.push(Op::Propagation { path: all, spread: asked.unwrap_or(slave) });
        Ok(())
    }

    /// Whether the configuration bind-mounts something of the host there.
    fn is_bound(&self, path: &str) -> bool {
        self.spec.mounts().iter().flatten().any(|mount| {
            let options = mount.options().as_deref().unwrap_or_default();
            mount.destination() == Path::new(path)
                && mount_options::parse(options).is_bind(mount.typ().as_deref())
        })
    }

    fn devices(&mut self, layout: &Layout) -> Result<()> {
        let by_bind = self.facts.unprivileged || layout.has(Namespaces::USER);
        let linux = self.spec.linux().as_ref();
        let asked = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        for (path, major, minor) in DEVICES {
            if asked.iter().any(|device| device.path() == Path::new(path)) {
                continue;
            }
            if by_bind {
                self.bind_device(Path::new(path))?;
                continue;
            }
            let (path, kind) = (self.pad.text(path)?, DeviceKind::Char);
            self.push(Op::MakeDevice { path, kind, major, minor, mode: 0o666, uid: 0, gid: 0 });
        }
        for device in asked {
            let kind = match device.typ() {
                LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
                LinuxDeviceType::B => DeviceKind::Block,
                LinuxDeviceType::P => DeviceKind::Fifo,
                LinuxDeviceType::A => {
                    let cause = "type must be c, u, b or p";
                    return Err(Failure::text("make device", bytes(device.path()), cause));
                }
            };
            if by_bind && kind != DeviceKind::Fifo {
                self.bind_device(device.path())?;
                continue;
            }
            let number = |value: i64| {
                u32::try_from(value).map_err(|_| {
                    Failure::text("make device", bytes(device.path()), "bad device number")
                })
            };
            let path = self.pad.text(bytes(device.path()))?;
            self.push(Op::MakeDevice {
                path,
                kind,
                major: number(device.major())?,
                minor: number(device.minor())?,
                mode: device.file_mode().unwrap_or(0o666) & 0o7777,
                uid: device.uid().unwrap_or(0),
                gid: device.gid().unwrap_or(0),
            });
        }
        Ok(())
    }

    /// In a user namespace no device can be made: the host's is bind-mounted.
    fn bind_device(&mut self, path: &Path) -> Result<()> {
        let source = self.bind_source(path, false)?;
        let target = self.pad.text(bytes(path))?;
        self.push(Op::Bind {
            source,
            from: target,
            target,
            meant: None,
            recursive: false,
            change: accord_stage::Change::default(),
            spread: &[],
            idmap: None,
            no_follow_source: false,
            no_follow_target: false,
            optional: false,
        });
        Ok(())
    }

    /// Where a bind mount's source is opened: by the child, or before it has
    /// given up the rights that the path may need.
    pub(crate) fn bind_source(&mut self, path: &Path, recursive: bool) -> Result<Source<'a>> {
        let linux = self.spec.linux().as_ref();
        let own_user = linux.is_some_and(|linux| {
            linux.namespaces().iter().flatten().any(|ns| ns.typ() == LinuxNamespaceType::User)
        });
        if own_user && !self.facts.unprivileged {
            let need = Need::Tree { path: PathBuf::from(path), recursive };
            return Ok(Source::Tree(self.need(need)?));
        }
        Ok(Source::Path(self.pad.text(bytes(path))?))
    }

    fn links(&mut self) -> Result<()> {
        for (path, target) in LINKS {
            let (path, target) = (self.pad.text(path)?, self.pad.text(target)?);
            self.push(Op::Symlink { path, target });
        }
        Ok(())
    }

    fn covers(&mut self) -> Result<()> {
        let Some(linux) = self.spec.linux() else { return Ok(()) };
        for path in linux.readonly_paths().iter().flatten() {
            let path = self.pad.text(path)?;
            self.push(Op::ReadOnlyPath { path });
        }
        for path in linux.masked_paths().iter().flatten() {
            let path = self.pad.text(path)?;
            self.push(Op::Mask { path });
        }
        Ok(())
    }
}
