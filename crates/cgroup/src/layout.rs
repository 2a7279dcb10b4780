//! Which cgroup hierarchies this process sees, and where.

use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};
use rustix::fs::statfs;

use crate::file;

const CONVENTIONAL: &str = "/sys/fs/cgroup";
const MOUNTINFO: &str = "/proc/self/mountinfo";
const TMPFS_MAGIC: i64 = 0x0102_1994;
const CGROUP_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// How the hierarchies are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One v2 hierarchy holds all controllers.
    Unified,
    /// v1 hierarchies hold controllers, and a v2 hierarchy is mounted beside them.
    Hybrid,
    /// v1 hierarchies only.
    Legacy,
    /// No cgroup filesystem is mounted.
    Absent,
}

/// A mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct V1 {
    /// Its controllers; of a named hierarchy the one entry `name=NAME`.
    pub(crate) controllers: Vec<String>,
    pub(crate) mount: PathBuf,
    /// The cgroup of this process in it, as `/proc/self/cgroup` has it.
    pub(crate) own: String,
}

/// The mounted v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct V2 {
    pub(crate) mount: PathBuf,
    /// The cgroup of this process in it, as `/proc/self/cgroup` has it.
    pub(crate) own: String,
}

/// The cgroup hierarchies that this process sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub(crate) v1: Vec<V1>,
    pub(crate) v2: Option<V2>,
}

impl Layout {
    /// Looks at this process's cgroups and at their conventional places below
    /// `/sys/fs/cgroup`.
    ///
    /// The list of mounts, which grows with every container of the host, is
    /// read only where a hierarchy is not in its conventional place.
    pub fn detect() -> Result<Self> {
        let membership = file::read(Path::new("/proc/self/cgroup"))?;
        match magic(Path::new(CONVENTIONAL)) {
            Some(CGROUP2_MAGIC) => return Ok(Self::unified(&membership)),
            Some(TMPFS_MAGIC) => {
                if let Some(layout) = Self::conventional(&membership, magic) {
                    return Ok(layout);
                }
            }
            _ => {}
        }
        Ok(Self::from_mounts(&membership, &file::read(Path::new(MOUNTINFO))?))
    }

    /// How the hierarchies are arranged.
    pub fn mode(&self) -> Mode {
        match (self.v1.is_empty(), &self.v2) {
            (true, None) => Mode::Absent,
            (true, Some(_)) => Mode::Unified,
            (false, Some(_)) => Mode::Hybrid,
            (false, None) => Mode::Legacy,
        }
    }

    fn unified(membership: &str) -> Self {
        let own = self::membership(membership, "").unwrap_or("/").to_owned();
        Self { v1: Vec::new(), v2: Some(V2 { mount: CONVENTIONAL.into(), own }) }
    }

    /// The layout where each hierarchy is mounted at `/sys/fs/cgroup/CONTROLLERS`
    /// (the v2 one at `unified`), or `None` where a v1 hierarchy is not.
    fn conventional(membership: &str, magic: impl Fn(&Path) -> Option<i64>) -> Option<Self> {
        let mut layout = Self::default();
        for entry in memberships(membership) {
            let own = entry.path.to_owned();
            let name = match entry.controllers.strip_prefix("name=") {
                Some(name) => name,
                None if entry.controllers.is_empty() => "unified",
                None => entry.controllers,
            };
            let mount = Path::new(CONVENTIONAL).join(name);
            match (entry.controllers.is_empty(), magic(&mount)) {
                (true, Some(CGROUP2_MAGIC)) => layout.v2 = Some(V2 { mount, own }),
                (true, _) => {}
                (false, Some(CGROUP_MAGIC)) => {
                    layout.v1.push(V1 { controllers: entry.list(), mount, own });
                }
                (false, _) => return None,
            }
        }
        Some(layout)
    }

    /// The layout as the list of mounts has it. Hierarchies that are not mounted are left out.
    fn from_mounts(membership: &str, mountinfo: &str) -> Self {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let mut layout = Self::default();
        for entry in memberships(membership) {
            let Some(mount) = mounts.iter().find(|mount| mount.holds(&entry)) else { continue };
            let (own, mount) = (entry.path.to_owned(), mount.point.clone());
            if entry.controllers.is_empty() {
                layout.v2 = Some(V2 { mount, own });
            } else {
                layout.v1.push(V1 { controllers: entry.list(), mount, own });
            }
        }
        layout
    }
}

/// The directory of a process's own cgroup: its path is seen from the
/// hierarchy's root, but a container's mount of it may begin below that.
pub(crate) fn own_dirs(mounts: &[(&Path, &str)]) -> Result<Vec<PathBuf>> {
    let mountinfo = file::read(Path::new(MOUNTINFO))?;
    let roots: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
    mounts.iter().map(|(mount, own)| own_dir(&roots, mount, own)).collect()
}

fn own_dir(roots: &[Mount], mount: &Path, own: &str) -> Result<PathBuf> {
    let root = roots.iter().rev().find(|root| root.point == mount).map_or("/", |m| &m.root);
    match Path::new(own).strip_prefix(root) {
        // `/..`: above the root of our cgroup namespace.
        Ok(below) if !below.starts_with("..") => Ok(mount.join(below)),
        _ => Err(Failure::text(
            "find own cgroup",
            own,
            "it is outside of the mounted part of its hierarchy",
        )),
    }
}

/// A line of `/proc/PID/cgroup`: `ID:CONTROLLERS:PATH`.
struct Membership<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl Membership<'_> {
    fn list(&self) -> Vec<String> {
        self.controllers.split(',').map(str::to_owned).collect()
    }
}

/// The cgroup that a `/proc/PID/cgroup` gives for a v1 controller, or for v2 (``).
pub(crate) fn membership<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    let mut entries = memberships(text);
    let entry = entries.find(|entry| entry.controllers.split(',').any(|name| name == controller));
    entry.map(|entry| entry.path)
}

fn memberships(text: &str) -> impl Iterator<Item = Membership<'_>> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(Membership { controllers, path })
    })
}

/// A cgroup mount of `/proc/self/mountinfo`.
struct Mount {
    root: String,
    point: PathBuf,
    v2: bool,
    options: String,
}

impl Mount {
    /// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS..] - TYPE SOURCE SUPER_OPTIONS`
    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let v2 = match filesystem.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options = filesystem.nth(1)?.to_owned();
        let mut mount = mount.split(' ').skip(3);
        Some(Self {
            root: unescape(mount.next()?),
            point: unescape(mount.next()?).into(),
            v2,
            options,
        })
    }

    fn holds(&self, entry: &Membership<'_>) -> bool {
        if entry.controllers.is_empty() || self.v2 {
            return entry.controllers.is_empty() && self.v2;
        }
        entry.controllers.split(',').all(|c| self.options.split(',').any(|option| option == c))
    }
}

/// Spaces, tabs, newlines and backslashes are octal in mountinfo.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

fn magic(path: &Path) -> Option<i64> {
    statfs(path).ok().map(|stat| stat.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
9:name=systemd:/
4:memory:/a/b
1:cpu,cpuacct:/
0::/s
";

    fn v1(layout: &Layout) -> Vec<(String, &str, &str)> {
        let v1 = layout.v1.iter();
        v1.map(|h| (h.controllers.join("+"), h.mount.to_str().unwrap(), h.own.as_str())).collect()
    }

    #[test]
    fn conventional_places_need_no_list_of_mounts() {
        let layout = Layout::conventional(HYBRID, |path| {
            Some(if path.ends_with("unified") { CGROUP2_MAGIC } else { CGROUP_MAGIC })
        })
        .unwrap();
        assert_eq!(layout.mode(), Mode::Hybrid);
        assert_eq!(
            v1(&layout),
            [
                ("name=systemd".to_owned(), "/sys/fs/cgroup/systemd", "/"),
                ("memory".to_owned(), "/sys/fs/cgroup/memory", "/a/b"),
                ("cpu+cpuacct".to_owned(), "/sys/fs/cgroup/cpu,cpuacct", "/"),
            ]
        );
        let v2 = layout.v2.unwrap();
        assert_eq!((v2.mount.to_str(), v2.own.as_str()), (Some("/sys/fs/cgroup/unified"), "/s"));
    }

    #[test]
    fn a_hierarchy_elsewhere_is_found_in_the_list_of_mounts() {
        let missing = |path: &Path| (!path.ends_with("memory")).then_some(CGROUP_MAGIC);
        assert_eq!(Layout::conventional(HYBRID, missing), None);
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /my\\040cgroups/cpu rw,relatime shared:4 - cgroup cgroup rw,cpuacct,cpu
33 31 0:30 /a /memory rw - cgroup none rw,memory
";
        let layout = Layout::from_mounts(HYBRID, mountinfo);
        assert_eq!(layout.mode(), Mode::Legacy);
        assert_eq!(
            v1(&layout),
            [
                ("memory".to_owned(), "/memory", "/a/b"),
                ("cpu+cpuacct".to_owned(), "/my cgroups/cpu", "/"),
            ]
        );
    }

    #[test]
    fn nothing_mounted_is_a_layout_too() {
        assert_eq!(Layout::from_mounts("0::/\n", "").mode(), Mode::Absent);
    }

    #[test]
    fn unified_knows_its_own_cgroup() {
        let layout = Layout::unified("1:name=systemd:/x\n0::/user.slice/s.scope\n");
        assert_eq!(layout.mode(), Mode::Unified);
        assert_eq!(layout.v2.unwrap().own, "/user.slice/s.scope");
    }

    #[test]
    fn own_directory_is_below_the_root_of_the_mount() {
        let roots = ["33 31 0:30 /docker/x /sys/fs/cgroup/memory rw - cgroup none rw,memory"]
            .map(|line| Mount::parse(line).unwrap());
        let mount = Path::new("/sys/fs/cgroup/memory");
        let own = |own| own_dir(&roots, mount, own);
        assert_eq!(own("/docker/x").unwrap(), mount.join(""));
        assert_eq!(own("/docker/x/y").unwrap(), mount.join("y"));
        assert_eq!(
            own("/other").unwrap_err().to_string(),
            r#"find own cgroup "/other": it is outside of the mounted part of its hierarchy"#
        );
        let elsewhere = own_dir(&roots, Path::new("/sys/fs/cgroup/cpu"), "/z").unwrap();
        assert_eq!(elsewhere, Path::new("/sys/fs/cgroup/cpu/z"));
    }

    #[test]
    fn this_machine_has_a_layout() {
        let layout = Layout::detect().unwrap();
        let mounts = file::read(Path::new(MOUNTINFO)).unwrap();
        let membership = file::read(Path::new("/proc/self/cgroup")).unwrap();
        // The fast way and the thorough way agree.
        assert_eq!(layout, Layout::from_mounts(&membership, &mounts));
    }
}
