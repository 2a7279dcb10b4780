//! A container's cgroup as a mount of type `cgroup` in the container shows it.

use std::path::{Path, PathBuf};

use crate::Cgroup;

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

impl Cgroup {
    /// Every hierarchy that the container has a directory in, v1 before v2.
    pub fn hierarchies(&self) -> impl Iterator<Item = HierarchyView> {
        let view = |mount: &Path, options: String, dir: &Path| HierarchyView {
            name: mount.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            options,
            dir: dir.to_owned(),
        };
        let v1 = self.v1.iter().map(move |v1| view(&v1.mount, v1.controllers.join(","), &v1.dir));
        let v2 = self.v2.iter().map(move |v2| view(&v2.mount, String::new(), &v2.dir));
        v1.chain(v2)
    }
}
