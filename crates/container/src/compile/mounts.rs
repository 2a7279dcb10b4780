//! The mounts of a configuration, in their order.

use std::path::{Path, PathBuf};

use accord_bundle::mount_options::{self, Attrs, Bind, Idmap, MountOptions};
use accord_outcome::{Failure, Quoted, Result};
use accord_stage::{Attributes, Change, FsOption, Namespaces, Op, Str};
use linux_raw_sys::general::{
    MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME, MS_MANDLOCK, MS_SILENT, MS_SYNCHRONOUS,
};
use oci_spec::runtime::Mount;

use super::namespaces::Layout;
use super::{Compiler, Hierarchy, Need, bytes, rootfs};

/// Superblock flags by the names that `fsconfig(2)` knows them by.
const SUPERBLOCK_FLAGS: [(u32, &str); 5] = [
    (MS_SYNCHRONOUS, "sync"),
    (MS_DIRSYNC, "dirsync"),
    (MS_LAZYTIME, "lazytime"),
    (MS_MANDLOCK, "mand"),
    (MS_I_VERSION, "iversion"),
];

pub(super) fn change(options: &MountOptions) -> Change {
    let pair = |attrs: Attrs| (Attributes(attrs.set), Attributes(attrs.clear));
    let (set, clear) = pair(options.attrs);
    let (recursive_set, recursive_clear) = pair(options.rec_attrs);
    Change { set, clear, recursive_set, recursive_clear }
}

impl<'a> Compiler<'a, '_> {
    pub(crate) fn mounts(&mut self, layout: &Layout) -> Result<()> {
        let spec = self.spec;
        for (number, mount) in spec.mounts().iter().flatten().enumerate() {
            let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
            let kind = mount.typ().as_deref();
            match kind.unwrap_or_default() {
                _ if options.remount => {
                    let path = self.destination(mount)?;
                    self.push(Op::Remount { path, change: change(&options) });
                }
                _ if options.is_bind(kind) => self.bind(number, mount, &options)?,
                "cgroup" | "cgroup2" => self.cgroup(mount, &options, layout)?,
                kind => self.filesystem(mount, kind, &options)?,
            }
        }
        Ok(())
    }

    /// Where a mount goes; a relative destination counts from the root.
    pub(super) fn destination(&self, mount: &Mount) -> Result<Str<'a>> {
        let destination = Path::new("/").join(mount.destination());
        let clean: PathBuf = destination
            .components()
            .filter(|part| !matches!(part, std::path::Component::CurDir))
            .collect();
        self.pad.text(bytes(&clean))
    }

    pub(super) fn spreads(&self, options: &MountOptions) -> &'a [accord_stage::Spread] {
        let list: Vec<_> = options.propagation.iter().copied().map(rootfs::spread).collect();
        self.pad.slice(&list)
    }

    /// The source of a bind mount, and its path as the configuration means it.
    pub(super) fn source(&self, number: usize, mount: &Mount) -> Result<(PathBuf, Str<'a>)> {
        let Some(source) = mount.source() else { return Err(refused(mount, "has no source")) };
        // runc and crun take a relative source from the bundle.
        let source = self.settings.bundle.join(source);
        let from = self.pad.text(bytes(&source))?;
        match &self.settings.shared {
            Some(shared) => Ok((shared.join(number.to_string()), from)),
            None => Ok((source, from)),
        }
    }

    fn bind(&mut self, number: usize, mount: &Mount, options: &MountOptions) -> Result<()> {
        let (source, from) = self.source(number, mount)?;
        guard_proc(mount)?;
        let recursive = options.bind == Some(Bind::Rbind);
        let target = self.destination(mount)?;
        let idmap = self.idmap(mount, options)?;
        let source = self.bind_source(&source, recursive)?;
        let spread = self.spreads(options);
        self.push(Op::Bind {
            source,
            from,
            target,
            meant: None,
            recursive,
            change: change(options),
            spread,
            idmap,
            no_follow_source: options.src_nofollow || options.copy_symlink,
            no_follow_target: options.dest_nofollow,
            optional: false,
        });
        Ok(())
    }

    fn idmap(
        &mut self,
        mount: &Mount,
        options: &MountOptions,
    ) -> Result<Option<(accord_stage::Slot, bool)>> {
        let (uids, gids) = (mount.uid_mappings().as_ref(), mount.gid_mappings().as_ref());
        if options.idmap.is_none() && uids.is_none() && gids.is_none() {
            return Ok(None);
        }
        let linux = self.spec.linux().as_ref();
        // Without maps of its own, a mount takes those of the container.
        let uids = uids.or_else(|| linux.and_then(|linux| linux.uid_mappings().as_ref()));
        let gids = gids.or_else(|| linux.and_then(|linux| linux.gid_mappings().as_ref()));
        let (Some(uids), Some(gids)) = (uids, gids) else {
            return Err(refused(mount, "has an id map without uidMappings and gidMappings"));
        };
        let need = Need::UserNamespace { uids: uids.clone(), gids: gids.clone() };
        Ok(Some((self.need(need)?, options.idmap == Some(Idmap::Ridmap))))
    }

    fn filesystem(&mut self, mount: &Mount, kind: &str, options: &MountOptions) -> Result<()> {
        let strict = matches!(kind, "proc" | "sysfs");
        if !strict {
            guard_proc(mount)?;
        }
        let mut list = Vec::new();
        for (bit, name) in SUPERBLOCK_FLAGS {
            if options.sb_flags & bit != 0 {
                list.push(FsOption { key: self.pad.text(name)?, value: None });
            }
        }
        // MS_SILENT only quiets the kernel's log; the new mount API has no name for it.
        let _quiet = options.sb_flags & MS_SILENT;
        for (key, value) in &options.data {
            let value = value.as_ref().map(|value| self.pad.text(value)).transpose()?;
            list.push(FsOption { key: self.pad.text(key)?, value });
        }
        let source = mount.source().as_ref().map_or_else(|| kind.as_bytes(), |path| bytes(path));
        let (fs, source) = (self.pad.text(kind)?, self.pad.text(source)?);
        let target = self.destination(mount)?;
        let (list, spread) = (self.pad.slice(&list), self.spreads(options));
        self.push(Op::Mount {
            fs,
            source,
            target,
            options: list,
            attributes: Attributes(options.attrs.set | options.rec_attrs.set),
            spread,
            strict,
            copy_up: options.tmpcopyup,
        });
        Ok(())
    }

    /// A mount of type `cgroup`: the hierarchies as the host has them.
    fn cgroup(&mut self, mount: &Mount, options: &MountOptions, layout: &Layout) -> Result<()> {
        let target = self.destination(mount)?;
        let facts = self.facts;
        let own = layout.has(Namespaces::CGROUP);
        let attributes = Attributes(options.attrs.set);
        let Some(only) = facts.cgroups.hierarchies.first() else {
            return Err(refused(mount, "there is no cgroup hierarchy on this machine"));
        };
        if facts.cgroups.unified {
            return self.hierarchy(only, target, own, attributes);
        }
        // Version 1: a directory for each hierarchy, in a small file system of their own.
        let (fs, source) = (self.pad.text("tmpfs")?, self.pad.text("cgroup")?);
        let mode = FsOption { key: self.pad.text("mode")?, value: Some(self.pad.text("755")?) };
        let writable = Attributes(attributes.0 & !Attributes::READ_ONLY.0);
        let options = self.pad.slice(&[mode]);
        self.push(Op::Mount {
            fs,
            source,
            target,
            options,
            attributes: writable,
            spread: &[],
            strict: false,
            copy_up: false,
        });
        for hierarchy in &facts.cgroups.hierarchies {
            let place = format!("{target}/{}", hierarchy.name);
            let place = self.pad.text(place)?;
            self.hierarchy(hierarchy, place, own, attributes)?;
            // Controllers that share a hierarchy are found under each name.
            for name in hierarchy.options.split(',') {
                if hierarchy.options.contains(',') && name != hierarchy.name {
                    let path = self.pad.text(format!("{target}/{name}"))?;
                    let says = self.pad.text(&hierarchy.name)?;
                    self.push(Op::Symlink { path, target: says });
                }
            }
        }
        if attributes.0 & Attributes::READ_ONLY.0 != 0 {
            let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
            self.push(Op::Remount { path: target, change });
        }
        Ok(())
    }

    fn hierarchy(
        &mut self,
        hierarchy: &Hierarchy,
        target: Str<'a>,
        own: bool,
        attributes: Attributes,
    ) -> Result<()> {
        if !own || (self.facts.unprivileged && !self.facts.cgroups.unified) {
            // Without a cgroup namespace a mount would show the host's whole tree.
            let from = self.pad.text(bytes(&hierarchy.host))?;
            let source = accord_stage::Source::Path(from);
            self.push(Op::Bind {
                source,
                from,
                target,
                meant: None,
                recursive: false,
                change: Change { set: attributes, ..Change::default() },
                spread: &[],
                idmap: None,
                no_follow_source: false,
                no_follow_target: false,
                optional: false,
            });
            return Ok(());
        }
        let unified = hierarchy.options.is_empty();
        let fs = self.pad.text(if unified { "cgroup2" } else { "cgroup" })?;
        let source = self.pad.text("cgroup")?;
        let mut options = Vec::new();
        for word in hierarchy.options.split(',').filter(|word| !word.is_empty()) {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(self.pad.text(value)?)),
                None => (word, None),
            };
            options.push(FsOption { key: self.pad.text(key)?, value });
        }
        let options = self.pad.slice(&options);
        self.push(Op::Mount {
            fs,
            source,
            target,
            options,
            attributes,
            spread: &[],
            strict: false,
            copy_up: false,
        });
        Ok(())
    }
}

fn refused(mount: &Mount, cause: &'static str) -> Failure {
    Failure::text("mount on", bytes(mount.destination()), cause)
}

/// Nothing but procfs itself may be mounted on `/proc`, and below it only over
/// files that tell of the machine: else an image could prepare what the runtime
/// writes to (CVE-2019-16884).
fn guard_proc(mount: &Mount) -> Result<()> {
    const ALLOWED: [&str; 12] = [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
        "sys/kernel/hostname",
    ];
    let destination = Path::new("/").join(mount.destination());
    let Ok(below) = destination.strip_prefix("/proc") else { return Ok(()) };
    let whole = below.as_os_str().is_empty();
    let host_proc = mount.source().as_deref().is_some_and(|source| source == Path::new("/proc"));
    if (whole && host_proc) || ALLOWED.iter().any(|allowed| below == Path::new(allowed)) {
        return Ok(());
    }
    let cause = format!("{} is inside of /proc", Quoted(bytes(mount.destination())));
    Err(Failure::text("mount on", bytes(mount.destination()), cause))
}
