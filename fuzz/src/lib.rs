//! What the targets share.

use std::cell::Cell;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use accord_fileserver::fuzz::Device;

/// A small file system in memory, which only this process sees.
const TREE: &str = "/tmp/accord-fuzz-tree";

thread_local! {
    static ROUND: Cell<u32> = const { Cell::new(0) };
}

/// A device on a tree that is made anew now and then.
pub fn device() -> Device {
    let round = ROUND.replace(ROUND.get().wrapping_add(1));
    if round == 0 {
        prepare();
    }
    if round % 256 == 0 {
        fill();
    }
    let root = fs::File::open(TREE).expect("open the tree");
    Device::new(OwnedFd::from(root)).expect("make the device")
}

/// Needs root, as the server does.
fn prepare() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    fs::create_dir_all(TREE).expect("make the mount point");
    // SAFETY: no state of other threads depends on it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("unshare");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .expect("make the mounts private");
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount("none", TREE, "tmpfs", flags, c"size=4m,nr_inodes=2048").expect("mount");
    std::env::set_current_dir("/proc/self/fd").expect("enter /proc/self/fd");
}

fn fill() {
    let tree = Path::new(TREE);
    for entry in fs::read_dir(tree).expect("read the tree").flatten() {
        let path = entry.path();
        let _removed = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
    let _made = fs::create_dir_all(tree.join("d/e"));
    let _made = fs::write(tree.join("f"), "text");
    let _made = fs::write(tree.join("d/g"), [7; 5000]);
    let _made = symlink("/", tree.join("l"));
}
