//! The guest's first root file system: our own binary as `/init`, and the kernel's modules.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use accord_channel::names::{INIT_PROGRAM, MODULES};
use accord_outcome::{Failure, Result};
use cpio::newc::{Builder, ModeFileType, trailer};
use rustix::fs::{MemfdFlags, memfd_create};

const DIRECTORIES: [&str; 7] = ["dev", "proc", "sys", "run", "tree", "root", "modules"];

/// What the kernel opens before the agent has mounted anything.
const DEVICES: [(&str, u32, u32); 2] = [("dev/console", 5, 1), ("dev/null", 1, 3)];

/// Makes the archive (`newc`, uncompressed) in memory.
///
/// # Errors
/// An own failure for a file that cannot be read.
pub fn make(binary: &Path, modules: &[PathBuf]) -> Result<OwnedFd> {
    let failed = |error: io::Error| Failure::io("make", "initramfs", &error);
    let memory =
        memfd_create("initramfs", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let mut archive = Archive { out: File::from(memory), number: 1 };
    for name in DIRECTORIES {
        archive.node(name, ModeFileType::Directory, 0o755, (0, 0)).map_err(failed)?;
    }
    for (name, major, minor) in DEVICES {
        archive.node(name, ModeFileType::Char, 0o600, (major, minor)).map_err(failed)?;
    }
    archive.file(INIT_PROGRAM, binary)?;
    let mut order = String::new();
    for (number, module) in modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("/modules/{number:02}-{name}");
        archive.file(&name, module)?;
        order.push_str(&name);
        order.push('\n');
    }
    archive.bytes(MODULES, order.as_bytes()).map_err(failed)?;
    let mut out = trailer(archive.out).map_err(failed)?;
    out.rewind().map_err(failed)?;
    Ok(out.into())
}

struct Archive {
    out: File,
    number: u32,
}

impl Archive {
    fn builder(&mut self, name: &str, kind: ModeFileType, mode: u32) -> Builder {
        self.number = self.number.saturating_add(1);
        let name = name.trim_start_matches('/');
        Builder::new(name).ino(self.number).nlink(1).mode(mode).set_mode_file_type(kind)
    }

    fn node(
        &mut self,
        name: &str,
        kind: ModeFileType,
        mode: u32,
        (major, minor): (u32, u32),
    ) -> io::Result<()> {
        let builder = self.builder(name, kind, mode).rdev_major(major).rdev_minor(minor);
        builder.write(&mut self.out, 0).finish().map(drop)
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let builder = self.builder(name, ModeFileType::Regular, 0o644);
        let mut entry = builder.write(&mut self.out, length);
        entry.write_all(bytes)?;
        entry.finish().map(drop)
    }

    fn file(&mut self, name: &str, path: &Path) -> Result<()> {
        let failed =
            |error: io::Error| Failure::io("read", path.as_os_str().as_encoded_bytes(), &error);
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        let length = u32::try_from(read.map_err(failed)?)
            .map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?;
        let builder = self.builder(name, ModeFileType::Regular, 0o755);
        let mut entry = builder.write(&mut self.out, length);
        entry.write_all(&bytes).map_err(failed)?;
        entry.finish().map(drop).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_holds_the_binary_and_what_is_loaded() {
        let dir = tempfile::TempDir::new().unwrap();
        let (binary, module) = (dir.path().join("accord"), dir.path().join("fuse.ko"));
        std::fs::write(&binary, b"binary").unwrap();
        std::fs::write(&module, b"module").unwrap();
        let archive = make(&binary, &[module]).unwrap();
        let mut seen = Vec::new();
        let mut input = File::from(archive);
        loop {
            let mut entry = cpio::newc::Reader::new(input).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
            seen.push((name, mode, String::from_utf8(contents).unwrap()));
            input = entry.finish().unwrap();
        }
        let file = |name: &str| seen.iter().find(|(there, ..)| there == name).cloned().unwrap();
        assert_eq!(file("init"), ("init".into(), 0o100_755, "binary".into()));
        assert_eq!(file("modules/00-fuse.ko").2, "module");
        assert_eq!(file("modules/order").2, "/modules/00-fuse.ko\n");
        assert_eq!(file("dev/console").1, 0o020_600);
        assert_eq!(file("tree").1, 0o040_755);
    }
}
