//! The guest's half: PID 1, which mounts what is served and checks that it is a file system.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

const MOUNT: &str = "/mnt";

/// A check, in a directory of its own.
type Check = fn(&Path);

pub(crate) const CHECKS: &[(&str, Check)] =
    &[("a_file_is_what_was_written", a_file_is_what_was_written)];

/// Does all checks and powers off.
pub(crate) fn main() -> ! {
    mount("none", "/dev", "devtmpfs", MountFlags::empty(), None).unwrap();
    mount("none", "/proc", "proc", MountFlags::empty(), None).unwrap();
    let mut modules: Vec<PathBuf> =
        fs::read_dir("/modules").unwrap().map(|entry| entry.unwrap().path()).collect();
    modules.sort();
    for module in modules {
        finit_module(File::open(module).unwrap(), c"", 0).unwrap();
    }
    mount("accord", MOUNT, "virtiofs", MountFlags::empty(), None).unwrap();
    for (name, check) in CHECKS {
        let directory = Path::new(MOUNT).join(name);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            fs::create_dir_all(&directory).unwrap();
            check(&directory);
        }));
        match outcome {
            Ok(()) => println!("check ok {name}"),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or(payload.downcast_ref::<&str>().map(ToString::to_string));
                let text = text.unwrap_or_default().replace('\n', " ");
                println!("check failed {name}: {text}");
            }
        }
    }
    println!("checks done");
    rustix::fs::sync();
    reboot(RebootCommand::Restart).unwrap();
    unreachable!("the machine is off")
}

fn a_file_is_what_was_written(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, "text").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "text");
}
