//! Makes a case's bundle: the plain one, and what is different in it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::case::{Bundle, Content, File};

/// The probe.
const PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe"));

/// Where the probe is in every root filesystem.
pub const PROBE_PATH: &str = "/bin/probe";

/// What the plain container's process may do.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The names that a record's strings may use: `@rootfs@`, `@work@`, `@probe@`, `@id@`, ...
#[derive(Debug, Clone)]
pub struct Names {
    /// The name between the signs, and what it stands for.
    pub names: Vec<(&'static str, String)>,
}

impl Names {
    /// `text` with every name replaced; `@64K@` is 64 KiB of the letter x.
    pub fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            text = text.replace(&format!("@{name}@"), value);
        }
        while let Some((before, rest)) = text.split_once('@') {
            let Some((size, after)) = rest.split_once("K@") else { break };
            let Ok(size) = size.parse::<usize>() else { break };
            text = format!("{before}{}{after}", "x".repeat(size << 10));
        }
        text
    }

    /// `text` with the names in the place of what they stand for, the longest first.
    pub fn generalise(&self, text: &str, with_id: bool) -> String {
        const NAMES: [&str; 4] = ["bundle", "work", "probe", "cgroup"];
        let mut text = text.to_owned();
        let known = NAMES.iter().chain(with_id.then_some(&"id"));
        for (name, value) in known.filter_map(|name| self.names.iter().find(|(n, _)| n == name)) {
            text = text.replace(value, &format!("@{name}@"));
        }
        text
    }

    fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(list) => list.iter().map(|value| self.fill_value(value)).collect(),
            Value::Object(map) => {
                let filled =
                    map.iter().map(|(key, value)| (self.fill(key), self.fill_value(value)));
                Value::Object(filled.collect())
            }
            other => other.clone(),
        }
    }

    fn fill_all(&self, list: &[String]) -> Vec<String> {
        list.iter().map(|text| self.fill(text)).collect()
    }
}

/// What the suite adds to every bundle.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The container's cgroup.
    pub cgroup: Option<String>,
    /// Annotations (the handler of crun).
    pub annotations: Vec<(String, String)>,
    /// Whether the suite is not root: then a user namespace is needed.
    pub rootless: Option<(u32, u32)>,
}

/// A bundle in the making: config.json and process.json.
#[derive(Debug)]
pub struct Documents {
    /// The whole configuration, with the case's process.
    pub config: Value,
    /// The case's process.
    pub process: Value,
}

/// The documents of a case.
pub fn documents(bundle: &Bundle, tty: bool, setting: &Setting, names: &Names) -> Documents {
    let mut config = plain(setting);
    if bundle.user_namespace {
        map_ids(&mut config, &[(0, 100_000, 65_536)], &[(0, 100_000, 65_536)]);
    }
    if let Some(list) = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        list.retain(|entry| {
            let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default();
            !bundle.without_namespaces.iter().any(|without| without == kind)
        });
    }
    if let Some(list) = config.pointer_mut("/mounts").and_then(Value::as_array_mut) {
        list.extend(bundle.mounts.iter().cloned());
    }
    for hook in &bundle.hooks {
        let mut entry = json!({ "path": hook.path.as_deref().unwrap_or("@probe@") });
        if hook.on == "startContainer" && hook.path.is_none() {
            set(&mut entry, "/path", PROBE_PATH.into());
        }
        let mut args = vec!["probe".to_owned()];
        args.extend(hook.probe.0.iter().cloned());
        set(&mut entry, "/args", args.into());
        if let Some(timeout) = hook.timeout {
            set(&mut entry, "/timeout", timeout.into());
        }
        let pointer = format!("/hooks/{}", hook.on);
        let mut list = config.pointer(&pointer).and_then(Value::as_array).cloned();
        let list = list.get_or_insert_default();
        list.push(entry);
        set(&mut config, &pointer, list.clone().into());
    }
    if let Some(resources) = &bundle.resources {
        set(&mut config, "/linux/resources", resources.clone());
    }
    set(&mut config, "/process/args", arguments(bundle).into());
    set(&mut config, "/process/terminal", tty.into());
    if let Some(env) = &bundle.env {
        set(&mut config, "/process/env", env.clone().into());
    }
    if let Some(cwd) = &bundle.cwd {
        set(&mut config, "/process/cwd", cwd.clone().into());
    }
    if let Some(user) = &bundle.user {
        set(&mut config, "/process/user", user.clone());
    }
    if let Some(capabilities) = &bundle.capabilities {
        for name in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            let pointer = format!("/process/capabilities/{name}");
            set(&mut config, &pointer, capabilities.clone().into());
        }
    }
    for (pointer, value) in &bundle.patch {
        set(&mut config, pointer, value.clone());
    }
    for pointer in &bundle.remove {
        remove(&mut config, pointer);
    }
    let config = names.fill_value(&config);
    let process = config.get("process").cloned().unwrap_or_default();
    Documents { config, process }
}

/// The configuration of a container that only waits: for `exec`, and for verbs on states.
pub fn waiting(documents: &Documents, setting: &Setting) -> Value {
    let mut config = documents.config.clone();
    let mut process = plain(setting).get("process").cloned().unwrap_or_default();
    set(&mut process, "/args", json!([PROBE_PATH, "wait-signal"]));
    set(&mut config, "/process", process);
    config
}

fn arguments(bundle: &Bundle) -> Vec<String> {
    match (&bundle.args, &bundle.probe) {
        (Some(args), _) => args.clone(),
        (None, Some(actions)) => {
            let mut args = vec![PROBE_PATH.to_owned()];
            args.extend(actions.0.iter().cloned());
            args
        }
        (None, None) => vec![PROBE_PATH.to_owned()],
    }
}

fn plain(setting: &Setting) -> Value {
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": [PROBE_PATH],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "conform",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "nodev", "mode=1777"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "mount" },
            ],
        },
    });
    match &setting.cgroup {
        Some(path) => set(&mut config, "/linux/cgroupsPath", path.clone().into()),
        None => set(&mut config, "/linux/resources", json!({})),
    }
    if let Some((uid, gid)) = setting.rootless {
        map_ids(&mut config, &[(0, uid, 1)], &[(0, gid, 1)]);
    }
    for (name, value) in &setting.annotations {
        let annotations = config.get("annotations").and_then(Value::as_object).cloned();
        let mut annotations = annotations.unwrap_or_default();
        annotations.insert(name.clone(), value.clone().into());
        set(&mut config, "/annotations", Value::Object(annotations));
    }
    config
}

fn map_ids(config: &mut Value, uids: &[(u32, u32, u32)], gids: &[(u32, u32, u32)]) {
    let list = |ids: &[(u32, u32, u32)]| -> Value {
        ids.iter()
            .map(|(inside, outside, size)| {
                json!({ "containerID": inside, "hostID": outside, "size": size })
            })
            .collect()
    };
    set(config, "/linux/uidMappings", list(uids));
    set(config, "/linux/gidMappings", list(gids));
    if let Some(list) = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        list.push(json!({ "type": "user" }));
    }
}

/// Puts a value at a JSON pointer; objects on the way are made, `-` appends to a list.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut at = document;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if let Value::Array(list) = at {
            let index = part.parse().unwrap_or(list.len()).min(list.len());
            if index == list.len() {
                list.push(Value::Null);
            }
            let Some(next) = list.get_mut(index) else { return };
            at = next;
        } else {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(map) = at else { return };
            at = map.entry(part).or_insert(Value::Null);
        }
    }
    *at = value;
}

fn remove(document: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    match document.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(name);
        }
        Some(Value::Array(list)) => {
            let index = name.parse().ok().filter(|index: &usize| *index < list.len());
            if let Some(index) = index {
                list.remove(index);
            }
        }
        _ => {}
    }
}

/// Writes the probe for the suite; root filesystems link to it.
pub fn write_probe(path: &Path) -> std::io::Result<()> {
    write_file(path, PROBE, 0o755)
}

/// Makes a root filesystem. Files that stay open for writing are returned.
pub fn make_rootfs(
    rootfs: &Path,
    probe: &Path,
    files: &[File],
    names: &Names,
) -> std::io::Result<Vec<std::fs::File>> {
    for directory in ["", "bin", "dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir(rootfs.join(directory))?;
    }
    std::fs::hard_link(probe, rootfs.join("bin/probe"))?;
    let mut busy = Vec::new();
    for file in files {
        let path = make_file(rootfs, file, names)?;
        if file.busy {
            busy.push(OpenOptions::new().append(true).open(path)?);
        }
    }
    // Modes last: a directory that nobody may search still has to be filled.
    for file in files {
        let path = rootfs.join(file.path.trim_start_matches('/'));
        if let (Some(mode), false) = (file.mode, matches!(file.is, Content::Symlink(_))) {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(busy)
}

fn make_file(rootfs: &Path, file: &File, names: &Names) -> std::io::Result<PathBuf> {
    let path = rootfs.join(file.path.trim_start_matches('/'));
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    match &file.is {
        Content::Probe => write_file(&path, PROBE, 0o755)?,
        Content::Directory => std::fs::DirBuilder::new().recursive(true).create(&path)?,
        Content::Fifo => {
            let mode = rustix::fs::Mode::from_raw_mode(0o755);
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode)?;
        }
        Content::Text(text) => write_file(&path, names.fill(text).as_bytes(), 0o755)?,
        Content::Symlink(target) => {
            // The plain root filesystem's own file gives way.
            if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir(&path)?;
            }
            symlink(names.fill(target), &path)?;
        }
        Content::TruncatedElf => write_file(&path, PROBE.get(..32).unwrap_or_default(), 0o755)?,
        Content::ForeignElf => write_file(&path, &foreign(), 0o755)?,
        Content::ElfInterpreter(name) => write_file(&path, &interpreted(name), 0o755)?,
    }
    if let Some(owner) = file.owner {
        chown(&path, Some(owner), Some(owner))?;
    }
    Ok(path)
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// The probe, said to be for the IBM S/390.
fn foreign() -> Vec<u8> {
    const E_MACHINE: usize = 18;
    const EM_S390: u8 = 22;
    let mut elf = PROBE.to_vec();
    if let Some(machine) = elf.get_mut(E_MACHINE) {
        *machine = EM_S390;
    }
    elf
}

/// The probe with a program header that names an interpreter in place of its build id.
fn interpreted(name: &str) -> Vec<u8> {
    const HEADERS: usize = 64;
    const HEADER_SIZE: usize = 56;
    const PT_INTERP: u32 = 3;
    const PT_NOTE: u32 = 4;
    let mut elf = PROBE.to_vec();
    let offset = elf.len();
    elf.extend(name.as_bytes());
    elf.push(0);
    let header =
        elf.get_mut(HEADERS..).unwrap_or_default().chunks_exact_mut(HEADER_SIZE).find(|header| {
            header.first_chunk::<4>().is_some_and(|kind| *kind == PT_NOTE.to_le_bytes())
        });
    let Some(header) = header else { return elf };
    let word = |value: usize| u64::try_from(value).unwrap_or_default().to_le_bytes();
    let size = word(name.len() + 1);
    let fields: [(usize, &[u8]); 4] =
        [(0, &PT_INTERP.to_le_bytes()), (8, &word(offset)), (32, &size), (40, &size)];
    for (at, bytes) in fields {
        if let Some(field) = header.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }
    elf
}

/// Writes config.json and the files around it.
pub fn write_documents(
    directory: &Path,
    bundle: &Bundle,
    config: &Value,
    process: &Value,
    names: &Names,
) -> std::io::Result<()> {
    let path = directory.join("config.json");
    match bundle.config.as_deref() {
        Some("missing") => {}
        Some(text) => std::fs::write(path, names.fill(text))?,
        None => std::fs::write(path, config.to_string())?,
    }
    std::fs::write(directory.join("process.json"), process.to_string())
}

impl Names {
    /// The arguments of a verb with every name replaced.
    pub fn fill_args(&self, args: &[String]) -> Vec<String> {
        self.fill_all(args)
    }
}
