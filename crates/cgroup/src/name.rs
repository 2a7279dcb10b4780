//! Where a container's cgroup lies: the rules for `linux.cgroupsPath`.

use std::path::{Component, Path, PathBuf};

use accord_outcome::{Failure, Result};

/// A cgroup's path by the configuration, before it is found in a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// Below the root of each hierarchy.
    Absolute(PathBuf),
    /// Below this process's own cgroup; on v2 beside it, because a cgroup that
    /// holds processes cannot hand its controllers on to children.
    Relative(PathBuf),
}

impl Name {
    /// An absolute `cgroupsPath` counts from the root, a relative one from the
    /// own cgroup. Without one it is `/ID`, or for a rootless caller, who may
    /// at best write near its own cgroup, `ID`.
    pub(crate) fn new(cgroups_path: Option<&str>, id: &str, rootless: bool) -> Result<Self> {
        let given = cgroups_path.filter(|path| !path.is_empty());
        let path = clean(given.unwrap_or(id));
        if path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().contains(&0) {
            // The root's processes would be taken for the container's, and killed with it.
            let name = given.unwrap_or(id);
            return Err(Failure::text(
                "find cgroup",
                name,
                "does not name a cgroup below the root",
            ));
        }
        let absolute = given.map_or(!rootless, |path| path.starts_with('/'));
        Ok(if absolute { Self::Absolute(path) } else { Self::Relative(path) })
    }
}

/// The path without `.`, without `..`, which never climbs above the start, and without root.
pub(crate) fn clean(path: &str) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::Name::{Absolute, Relative};
    use super::*;

    #[test]
    fn the_rules() {
        let cases = [
            (Some("/docker/x"), false, Absolute("docker/x".into())),
            (Some("/docker/x"), true, Absolute("docker/x".into())),
            (Some("a//./b/"), false, Relative("a/b".into())),
            (None, false, Absolute("id".into())),
            (Some(""), false, Absolute("id".into())),
            (None, true, Relative("id".into())),
            (Some("/../../x"), false, Absolute("x".into())),
            (Some("../x"), false, Relative("x".into())),
            (Some("/a/../../b"), false, Absolute("b".into())),
        ];
        for (path, rootless, name) in cases {
            assert_eq!(Name::new(path, "id", rootless).unwrap(), name, "{path:?}");
        }
    }

    #[test]
    fn the_root_is_nobodys_cgroup() {
        for path in ["/", "/..", ".", "a/..", "a\0b"] {
            assert!(Name::new(Some(path), "id", false).is_err(), "{path:?}");
        }
        assert_eq!(
            Name::new(Some("/"), "id", false).unwrap_err().to_string(),
            r#"find cgroup "/": does not name a cgroup below the root"#
        );
    }
}
