//! The names of a container's scope.

use std::path::PathBuf;

use accord_outcome::{Failure, Result};
use serde::{Deserialize, Serialize};

/// A transient scope of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// The scope's name.
    pub(crate) scope: String,
    /// The slice that it is in.
    pub(crate) slice: String,
    /// Whether it belongs to the user's manager, not to the system's.
    pub(crate) user: bool,
}

impl Unit {
    /// `linux.cgroupsPath` is `SLICE:PREFIX:NAME` here; an empty slice, and an
    /// absent path, is the manager's default.
    pub(crate) fn new(cgroups_path: Option<&str>, id: &str, user: bool) -> Result<Self> {
        let (slice, prefix, name) = match cgroups_path {
            None | Some("") => ("", "accord", id),
            Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
                [slice, prefix, name] if !name.is_empty() => (slice, prefix, name),
                _ => {
                    let cause = "the systemd manager needs SLICE:PREFIX:NAME";
                    return Err(Failure::text("find cgroup", path, cause));
                }
            },
        };
        let slice = match (slice, user) {
            ("", true) => "user.slice",
            ("", false) => "system.slice",
            (slice, _) => slice,
        };
        let separator = if prefix.is_empty() { "" } else { "-" };
        let scope = format!("{prefix}{separator}{name}.scope");
        if scope.contains('/') {
            return Err(Failure::text("find cgroup", scope, "is not the name of a unit"));
        }
        let unit = Self { scope, slice: slice.to_owned(), user };
        unit.path()?;
        Ok(unit)
    }

    /// Where the scope is below the manager's own root. A slice is in those that
    /// its name begins with: `a-b.slice` in `a.slice`. `-.slice` is the root.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let refuse = || Failure::text("find cgroup", &self.slice, "is not the name of a slice");
        let name = self.slice.strip_suffix(".slice").ok_or_else(refuse)?;
        let mut path = PathBuf::new();
        if name != "-" {
            let mut parts = name.split('-');
            if name.contains('/') || parts.any(str::is_empty) {
                return Err(refuse());
            }
            let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
            path.extend(ends.filter_map(|end| Some(format!("{}.slice", name.get(..end)?))));
        }
        path.push(&self.scope);
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            (None, false, "system.slice/accord-id.scope"),
            (Some(""), true, "user.slice/accord-id.scope"),
            (Some("system.slice:docker:x"), false, "system.slice/docker-x.scope"),
            (Some("machine.slice:libpod:x"), false, "machine.slice/libpod-x.scope"),
            (Some(":p:x"), false, "system.slice/p-x.scope"),
            (Some("a.slice::x"), false, "a.slice/x.scope"),
            (Some("-.slice:p:x"), false, "p-x.scope"),
            (
                Some("kubepods-burstable-pod1.slice:cri:x"),
                false,
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-x.scope",
            ),
        ];
        for (path, user, expected) in cases {
            let unit = Unit::new(path, "id", user).unwrap();
            assert_eq!(unit.path().unwrap(), PathBuf::from(expected), "{path:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let names = ["/docker/x", "a.slice:x", "a.slice:b:", "a:b:c", "a.slice:b:c:d"];
        let slices = ["a--b.slice:p:x", "-a.slice:p:x", "a-.slice:p:x", "a/b.slice:p:x"];
        for path in names.into_iter().chain(slices).chain(["a.slice:p:../x", ".slice:p:x"]) {
            assert!(Unit::new(Some(path), "id", false).is_err(), "{path}");
        }
    }
}
