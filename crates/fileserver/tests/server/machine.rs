//! The host's half: boots the guest in an emulated microVM and reads what it says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use accord_sys::process::unshare;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tempfile::TempDir;

use crate::{ROLE, TREE, guest};

/// What the guest said of each check.
pub(crate) type Results = BTreeMap<String, Result<(), String>>;

const NEW_MOUNTS: u64 = 0x0002_0000;
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// The modules that a distribution's kernel needs.
const MODULES: [&str; 2] = ["virtio_mmio", "virtiofs"];

/// What a guest can be booted with.
#[derive(Debug)]
pub(crate) struct Machine {
    kernel: PathBuf,
    /// A distribution's kernel: its version, whose modules are in the initial RAM disk.
    modular: Option<String>,
}

impl Machine {
    /// `ACCORD_KERNEL`, the project's own if it is built, or Debian's cloud kernel.
    pub(crate) fn find() -> Result<Self, String> {
        if !Path::new(QEMU).exists() {
            return Err(format!("{QEMU} is not there (Debian: qemu-system-x86)"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".into());
        }
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bin/vmlinux");
        let own = std::env::var_os("ACCORD_KERNEL").map_or(own, PathBuf::from);
        if own.exists() {
            return Ok(Self { kernel: own, modular: None });
        }
        for entry in fs::read_dir("/boot").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(version) = name.strip_prefix("vmlinuz-").filter(|v| v.contains("cloud")) {
                return Ok(Self { kernel: entry.path(), modular: Some(version.to_owned()) });
            }
        }
        Err("no kernel: neither bin/vmlinux nor a linux-image-cloud-amd64 in /boot".into())
    }

    /// The files of the modules in the order in which they are loaded.
    fn modules(&self) -> Vec<PathBuf> {
        let Some(version) = &self.modular else { return Vec::new() };
        let mut modprobe = Command::new("modprobe");
        modprobe.args(["--set-version", version, "--show-depends", "--all"]).args(MODULES);
        let output = modprobe.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut files = Vec::new();
        for path in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = PathBuf::from(path.trim());
            if !files.contains(&path) {
                files.push(path);
            }
        }
        files
    }

    /// This program as the guest's init, and the modules.
    fn initrd(&self, work: &Path) -> PathBuf {
        let root = work.join("initrd");
        for name in ["dev", "proc", "mnt", "tmp", "modules"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        for (number, module) in self.modules().iter().enumerate() {
            fs::copy(module, root.join(format!("modules/{number:02}"))).unwrap();
        }
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(root.join("init")).arg(std::env::current_exe().unwrap());
        assert!(strip.status().unwrap().success(), "strip");
        let image = work.join("initrd.cpio");
        let mut cpio = Command::new("busybox")
            .args(["cpio", "-o", "-H", "newc", "-R", "0:0"])
            .current_dir(&root)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&image).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut names = cpio.stdin.take().unwrap();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(root.join(&directory)).unwrap() {
                let entry = entry.unwrap();
                let name = directory.join(entry.file_name());
                writeln!(names, "{}", name.display()).unwrap();
                if entry.file_type().unwrap().is_dir() {
                    directories.push(name);
                }
            }
        }
        drop(names);
        assert!(cpio.wait().unwrap().success(), "cpio");
        image
    }

    fn qemu(&self, initrd: &Path, front_end: &UnixStream) -> Command {
        let khz = tsc_khz();
        // ACPI is how a distribution's kernel finds devices; its own timer calibration hangs
        // under emulation now and then.
        let (acpi, tsc) = match self.modular {
            Some(_) => ("on", format!("tsc_early_khz={khz}")),
            None => ("off", String::new()),
        };
        let line = format!("console=ttyS0 quiet panic=-1 reboot=t {tsc} ROLE=guest");
        fcntl_setfd(front_end, FdFlags::empty()).unwrap();
        let mut qemu = Command::new(QEMU);
        qemu.args(["-M", &format!("microvm,acpi={acpi},memory-backend=memory")])
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512"])
            .args(["-object", "memory-backend-memfd,id=memory,size=512M,share=on"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-global", "virtio-mmio.force-legacy=false", "-serial", "stdio"])
            .args(["-chardev", &format!("socket,id=fs,fd={}", front_end.as_raw_fd())])
            .args(["-device", "vhost-user-fs-device,chardev=fs,tag=accord"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        qemu
    }
}

fn tsc_khz() -> u32 {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap();
    let line = cpus.lines().find(|line| line.starts_with("cpu MHz")).unwrap();
    let mhz = line.split(':').nth(1).unwrap().trim().split('.').next().unwrap();
    mhz.parse::<u32>().unwrap() * 1000
}

/// The server as a process, on `tree`, and the front end's end of its connection.
pub(crate) fn server(tree: &Path) -> (Child, UnixStream) {
    let (front_end, back_end) = UnixStream::pair().unwrap();
    let server = Command::new(std::env::current_exe().unwrap())
        .env(ROLE, "server")
        .env(TREE, tree)
        .stdin(OwnedFd::from(back_end))
        .spawn()
        .unwrap();
    (server, front_end)
}

/// Descriptors that the server may have.
const DESCRIPTORS: u64 = 1024;

/// In the server's process, before its jail: mounts below the tree, which nobody else sees,
/// and a small limit.
pub(crate) fn prepare(tree: &Path) {
    let limit = Rlimit { current: Some(64), maximum: Some(DESCRIPTORS) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let (submount, read_only) = (tree.join("submount"), tree.join("readonly"));
    if !submount.exists() {
        return;
    }
    unshare(NEW_MOUNTS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).unwrap();
    mount("none", &submount, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(submount.join("file"), "in the submount").unwrap();
    mount_bind(&read_only, &read_only).unwrap();
    mount_remount(&read_only, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
}

/// What the guest finds.
fn fill(tree: &Path) {
    for name in ["submount", "readonly", "many"] {
        fs::create_dir(tree.join(name)).unwrap();
    }
    fs::write(tree.join("readonly/file"), "read-only").unwrap();
    fs::write(tree.join("heard"), "before").unwrap();
    symlink("/", tree.join("escape")).unwrap();
    symlink("../..", tree.join("up")).unwrap();
    for number in 0..guest::MANY {
        fs::write(tree.join("many").join(number.to_string()), vec![b'x'; number % 10]).unwrap();
    }
}

/// Changes what the guest is to hear of when it asks.
fn speak(tree: &Path) {
    fs::write(tree.join("heard"), "AFTER.").unwrap();
    fs::write(tree.join("made-by-the-host"), "").unwrap();
    fs::remove_file(tree.join("ask")).unwrap();
}

/// What of the guest's files the host can see.
fn from_outside(tree: &Path) -> Result<(), String> {
    let made = tree.join("files_belong_to_their_maker/file");
    let meta = fs::metadata(made).map_err(|error| error.to_string())?;
    let found = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
    if found != (1000, 3000, 0o666) {
        return Err(format!("a file of 1000:3000 is {found:?} on the host"));
    }
    let device = fs::symlink_metadata(tree.join("devices/zero")).map_err(|e| e.to_string())?;
    if !device.file_type().is_char_device() {
        return Err("a device is none on the host".into());
    }
    Ok(())
}

/// Boots the guest on a fresh tree and collects what it says.
pub(crate) fn run() -> Result<Results, String> {
    let machine = Machine::find()?;
    let work = TempDir::new().unwrap();
    let tree = work.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree);
    let initrd = machine.initrd(work.path());
    let (mut server, front_end) = server(&tree);
    let mut qemu = machine.qemu(&initrd, &front_end).spawn().unwrap();
    drop(front_end);

    let (lines, said) = mpsc::channel();
    let console = BufReader::new(qemu.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        console.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let mut results = Results::new();
    let mut log = Vec::new();
    let start = Instant::now();
    loop {
        let line = match said.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => line.trim_end().to_owned(),
            Err(mpsc::RecvTimeoutError::Timeout) if start.elapsed() < PATIENCE => {
                if tree.join("ask").exists() {
                    speak(&tree);
                }
                continue;
            }
            Err(_) => break,
        };
        if let Some(name) = line.strip_prefix("check ok ") {
            results.insert(name.to_owned(), Ok(()));
        } else if let Some((name, text)) =
            line.strip_prefix("check failed ").and_then(|rest| rest.split_once(": "))
        {
            results.insert(name.to_owned(), Err(text.to_owned()));
        }
        log.push(line);
    }
    // It has ended, or hangs.
    if start.elapsed() >= PATIENCE {
        qemu.kill().unwrap();
    }
    let ended = qemu.wait().unwrap();
    let served = server.wait().unwrap();
    let _read = reader.join();
    if !ended.success() || !served.success() || !log.iter().any(|line| line == "checks done") {
        return Err(format!("QEMU: {ended}, server: {served}, console:\n{}", log.join("\n")));
    }
    results.insert(FROM_OUTSIDE.to_owned(), from_outside(&tree));
    Ok(results)
}

/// The check that is the host's.
pub(crate) const FROM_OUTSIDE: &str = "the_host_sees_owners_and_devices";
/// Far more than an emulated guest takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
