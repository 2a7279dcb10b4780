//! Namespaces: which are new, which are joined, in what order.

use std::fmt::Write as _;
use std::path::PathBuf;

use accord_outcome::Result;
use accord_stage::{Namespaces, Op, Request};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{Compiler, Need, bytes};

/// The namespaces of a configuration.
pub(crate) struct Layout {
    /// Those that are made.
    pub(crate) new: Namespaces,
    /// Those that exist, the user namespace first.
    pub(crate) joined: Vec<(Namespaces, PathBuf)>,
    /// Lines for `timens_offsets`.
    offsets: Option<String>,
}

fn flag(kind: LinuxNamespaceType) -> Namespaces {
    match kind {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NET,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

impl Layout {
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let mut layout = Self { new: Namespaces::default(), joined: Vec::new(), offsets: None };
        let Some(linux) = spec.linux() else { return Ok(layout) };
        for namespace in linux.namespaces().iter().flatten() {
            let kind = flag(namespace.typ());
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    layout.joined.push((kind, path.clone()));
                }
                _ => layout.new = layout.new.with(kind),
            }
        }
        // The owner of a namespace must be entered before what it owns.
        layout.joined.sort_by_key(|(kind, _)| *kind != Namespaces::USER);
        if let Some(offsets) = linux.time_offsets() {
            let mut clocks: Vec<_> = offsets.iter().collect();
            clocks.sort_by_key(|(name, _)| name.as_str());
            let mut lines = String::new();
            for (name, offset) in clocks {
                let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
                let _written = writeln!(lines, "{name} {secs} {nanos}").is_ok();
            }
            layout.offsets = (!lines.is_empty()).then_some(lines);
        }
        Ok(layout)
    }

    /// Those that the monitor of a microVM is in. The guest has the others: its kernel
    /// numbers processes, and maps ids, on one side only, or ownership would shift twice.
    /// Ordinary users have to be root of their own namespace here to make a machine.
    pub(crate) fn on_host(mut self, unprivileged: bool) -> Self {
        let mut guest = Namespaces::PID.with(Namespaces::TIME);
        if !unprivileged {
            guest = guest.with(Namespaces::USER);
        }
        self.new = self.new.without(guest).with(Namespaces::MOUNT);
        self.joined.retain(|(kind, _)| *kind == Namespaces::NET);
        self.offsets = None;
        self
    }

    /// All namespaces that the container does not share with the runtime.
    pub(crate) fn all(&self) -> Namespaces {
        self.joined.iter().fold(self.new, |all, (kind, _)| all.with(*kind))
    }

    pub(crate) fn has(&self, kind: Namespaces) -> bool {
        self.all().contains(kind)
    }

    /// Whether a second clone is needed: a pid namespace and clock offsets hold
    /// only for the next child, and what is joined beside a user namespace must
    /// be joined by who still has (or just got) the rights to.
    fn two_steps(&self) -> bool {
        let joins_pid = self.joined.iter().any(|(kind, _)| *kind == Namespaces::PID);
        joins_pid
            || self.offsets.is_some()
            || (self.has(Namespaces::USER) && !self.joined.is_empty())
    }

    /// Whether the intermediate process makes the user namespace.
    fn user_first(&self) -> bool {
        self.offsets.is_some() && self.new.contains(Namespaces::USER)
    }

    /// The flags of the clone that makes the container's process.
    pub(crate) fn clone_flags(&self) -> Namespaces {
        // The root of a cgroup namespace is where the process is when it makes
        // it: it must have been moved to its cgroup before.
        let mut flags = self.new.without(Namespaces::CGROUP);
        if self.offsets.is_some() {
            flags = flags.without(Namespaces::TIME);
        }
        if self.user_first() {
            flags = flags.without(Namespaces::USER);
        }
        flags
    }
}

impl<'a> Compiler<'a, '_> {
    fn join(&mut self, layout: &Layout) -> Result<()> {
        for (namespace, path) in &layout.joined {
            let fd = self.need(Need::Namespace(path.clone()))?;
            let path = self.pad.text(bytes(path))?;
            self.push(Op::Join { namespace: *namespace, path, fd });
        }
        Ok(())
    }

    /// What the intermediate process does, if there must be one.
    pub(crate) fn bootstrap(&mut self, layout: &Layout) -> Result<&'a [Op<'a>]> {
        if !layout.two_steps() {
            return Ok(&[]);
        }
        self.join(layout)?;
        if layout.user_first() {
            self.push(Op::Unshare { namespaces: Namespaces::USER });
            self.push(Op::Ask { request: Request::IdMaps });
            self.push(Op::RootIds);
        }
        if let Some(offsets) = &layout.offsets {
            self.push(Op::Unshare { namespaces: Namespaces::TIME });
            let offsets = self.pad.text(offsets)?;
            self.push(Op::TimeOffsets { offsets });
        }
        let ops = std::mem::take(&mut self.ops);
        Ok(self.pad.slice(&ops))
    }

    /// What the process itself does first to be in its namespaces.
    pub(crate) fn enter(&mut self, layout: &Layout) -> Result<()> {
        if !layout.two_steps() {
            self.join(layout)?;
        }
        if layout.clone_flags().contains(Namespaces::USER) {
            self.push(Op::Ask { request: Request::IdMaps });
        }
        if layout.has(Namespaces::USER) && !layout.user_first() {
            self.push(Op::RootIds);
        }
        Ok(())
    }
}
