//! The guest's kernel: where it is found, and what it needs to find its devices.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};

/// What a distribution's kernel needs as modules; one that is built in is passed over.
const MODULES: [&str; 6] =
    ["virtio_mmio", "virtio_console", "virtio_net", "virtio_rng", "virtiofs", "overlay"];

/// Where Accord's own kernel is installed, newest place first.
const PLACES: [&str; 2] = ["/usr/local/lib/accord/vmlinux", "/usr/lib/accord/vmlinux"];

/// A kernel that a guest can boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The file: an ELF with a PVH note, or a bzImage.
    pub path: PathBuf,
    /// Its modules, in the order in which they are loaded.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// The kernel at `asked`, else one at a well-known place: beside our binary
    /// (`vmlinux`), installed with it, or the distribution's for virtual machines.
    ///
    /// # Errors
    /// An own failure that names where it was looked for.
    pub fn find(asked: Option<&Path>) -> Result<Self> {
        if let Some(path) = asked {
            return Self::at(path.to_owned());
        }
        let own = beside_binary().into_iter().chain(PLACES.map(PathBuf::from));
        match own.chain(distribution()).find(|path| path.is_file()) {
            Some(path) => Self::at(path),
            None => {
                let cause = "there is none beside the binary, in /usr/lib/accord, or in /boot for \
                             virtual machines (Debian: linux-image-cloud-amd64); --kernel names one";
                Err(Failure::text("find", "guest kernel", cause))
            }
        }
    }

    fn at(path: PathBuf) -> Result<Self> {
        let path = std::path::absolute(&path).map_err(|error| unreadable(&path, &error))?;
        let modules = match release(&path).map_err(|error| unreadable(&path, &error))? {
            Some(release) => modules(&Path::new("/lib/modules").join(release)),
            None => Vec::new(),
        };
        Ok(Self { path, modules })
    }

    /// Whether it finds devices by ACPI only: a distribution's kernel does not take
    /// them from its command line, ours does.
    pub fn wants_acpi(&self) -> bool {
        !self.modules.is_empty()
    }
}

/// The kernel beside our binary.
fn beside_binary() -> Option<PathBuf> {
    Some(called()?.with_file_name("vmlinux"))
}

/// Our binary as a file of the host, if it can be found.
pub fn binary() -> Option<PathBuf> {
    let (called, runs) = (called()?, fs::metadata("/proc/self/exe").ok()?);
    let there = fs::metadata(&called).ok()?;
    let same = (there.dev(), there.ino()) == (runs.dev(), runs.ino());
    if same { std::path::absolute(called).ok() } else { None }
}

/// Where our binary is, the name says by which it was called: what runs may be a mount or
/// a copy out of everybody's reach.
fn called() -> Option<PathBuf> {
    let called = PathBuf::from(std::env::args_os().next()?);
    match called.components().count() {
        0 => None,
        1 => {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|dir| dir.join(&called)).find(|file| file.is_file())
        }
        _ => Some(called),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::io("read guest kernel", path.as_os_str().as_encoded_bytes(), error)
}

/// The newest kernel of a distribution that is made for virtual machines.
fn distribution() -> Option<PathBuf> {
    let mut all: Vec<(Vec<u32>, PathBuf)> = fs::read_dir("/boot")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("vmlinuz-")?;
            version.contains("cloud").then(|| (numbers(version), entry.path()))
        })
        .collect();
    all.sort();
    all.pop().map(|(_, path)| path)
}

/// The numbers in a version, so that 6.10 is newer than 6.9.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The release of a bzImage (x86 boot protocol, `kernel_version`); an ELF has no such header.
fn release(path: &Path) -> std::io::Result<Option<String>> {
    const MAGIC_AT: u64 = 0x202;
    const VERSION_AT: u64 = 0x20e;
    let file = File::open(path)?;
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, MAGIC_AT)?;
    if &magic != b"HdrS" {
        return Ok(None);
    }
    let mut offset = [0; 2];
    file.read_exact_at(&mut offset, VERSION_AT)?;
    let mut text = [0; 128];
    let at = u64::from(u16::from_le_bytes(offset)).saturating_add(0x200);
    let length = file.read_at(&mut text, at)?;
    let text = text.get(..length).unwrap_or_default();
    let word = text.split(|byte| matches!(byte, b' ' | 0)).next().unwrap_or_default();
    Ok(std::str::from_utf8(word).ok().filter(|word| !word.is_empty()).map(str::to_owned))
}

/// The files of [`MODULES`] with what they depend on, dependencies first
/// (`modules.dep(5)`). A kernel without the directory has everything built in.
fn modules(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(dir.join("modules.dep")).unwrap_or_default();
    let mut order = Vec::new();
    for name in MODULES {
        let line = text.lines().filter_map(|line| line.split_once(':'));
        let Some((path, dependencies)) = line.into_iter().find(|(path, _)| is_module(path, name))
        else {
            continue;
        };
        // They are listed from the nearest to the farthest.
        let chain = dependencies.split_ascii_whitespace().rev().chain([path]);
        for path in chain.map(|path| dir.join(path)) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    order
}

fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().is_some_and(|stem| stem.replace('-', "_") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let text = "kernel/drivers/virtio/virtio_mmio.ko: kernel/a/virtio.ko kernel/a/virtio_ring.ko\n\
                    kernel/drivers/char/virtio-console.ko.xz: kernel/a/virtio.ko kernel/a/virtio_ring.ko\n\
                    kernel/x/not_virtiofs.ko:\n";
        fs::write(dir.path().join("modules.dep"), text).unwrap();
        let names: Vec<_> = modules(dir.path())
            .iter()
            .map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        let expected = [
            "kernel/a/virtio_ring.ko",
            "kernel/a/virtio.ko",
            "kernel/drivers/virtio/virtio_mmio.ko",
            "kernel/drivers/char/virtio-console.ko.xz",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_later_version_is_newer() {
        assert!(numbers("6.10.0-1-cloud-amd64") > numbers("6.9.12-3-cloud-amd64"));
    }

    #[test]
    fn a_kernel_that_is_not_there_is_named() {
        let failure = Kernel::find(Some(Path::new("/no/such/kernel"))).unwrap_err();
        assert_eq!(failure.to_string(), r#"read guest kernel "/no/such/kernel": ENOENT"#);
    }
}
