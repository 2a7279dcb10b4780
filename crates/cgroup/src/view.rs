//! A container's cgroup as a mount of type `cgroup` in the container shows it.

use std::path::{Path, PathBuf};

use crate::{Cgroup, Layout};

/// A hierarchy as a mount of type `cgroup` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HierarchyView {
    /// The name of its directory in `/sys/fs/cgroup`.
    pub name: String,
    /// Its controllers or its name, as `mount(8)` takes them; empty for v2.
    pub options: String,
    /// The container's directory in it.
    pub dir: PathBuf,
}

impl HierarchyView {
    fn new(mount: &Path, options: String, dir: PathBuf) -> Self {
        let name = mount.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, options, dir }
    }
}

impl Cgroup {
    /// Every hierarchy that the container has a directory in, v1 before v2.
    pub fn hierarchies(&self) -> impl Iterator<Item = HierarchyView> {
        let view = HierarchyView::new;
        let v1 = self.v1.iter();
        let v1 = v1.map(move |v1| view(&v1.mount, v1.controllers.join(","), v1.dir.clone()));
        let v2 = self.v2.iter().map(move |v2| view(&v2.mount, String::new(), v2.dir.clone()));
        v1.chain(v2)
    }
}

impl Layout {
    /// Every hierarchy with the directory that this process is in, v1 before v2: what a
    /// container shows that has no cgroup of its own.
    pub fn hierarchies(&self) -> impl Iterator<Item = HierarchyView> {
        let dir = |mount: &Path, own: &str| mount.join(own.trim_start_matches('/'));
        let view = HierarchyView::new;
        let v1 = self.v1.iter();
        let v1 =
            v1.map(move |v1| view(&v1.mount, v1.controllers.join(","), dir(&v1.mount, &v1.own)));
        let v2 = self.v2.iter();
        let v2 = v2.map(move |v2| view(&v2.mount, String::new(), dir(&v2.mount, &v2.own)));
        v1.chain(v2)
    }
}
