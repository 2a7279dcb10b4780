//! The id maps of a user namespace (`user_namespaces(7)`).

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use accord_outcome::{Failure, Result};
use oci_spec::runtime::LinuxIdMapping;

/// Writes the maps of the process's user namespace. Root writes them itself; an
/// ordinary user may write only his own id and leaves ranges of `/etc/subuid`
/// to `newuidmap(1)` and `newgidmap(1)`.
///
/// # Errors
/// An own failure that names the file, or says how the helper ended.
pub fn write(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    let own_uid = rustix::process::geteuid().as_raw();
    let own_gid = rustix::process::getegid().as_raw();
    if own_uid == 0 {
        write_file(pid, "uid_map", &lines(uids))?;
        return write_file(pid, "gid_map", &lines(gids));
    }
    if is_only(uids, own_uid) {
        write_file(pid, "uid_map", &lines(uids))?;
    } else {
        helper("newuidmap", pid, uids)?;
    }
    if is_only(gids, own_gid) {
        // Else a user could get rid of a group that takes rights away (CVE-2014-8989).
        write_file(pid, "setgroups", "deny")?;
        write_file(pid, "gid_map", &lines(gids))
    } else {
        helper("newgidmap", pid, gids)
    }
}

fn is_only(map: &[LinuxIdMapping], id: u32) -> bool {
    matches!(map, [one] if one.size() == 1 && one.host_id() == id)
}

fn lines(map: &[LinuxIdMapping]) -> String {
    let mut text = String::new();
    for line in map {
        let (inside, outside, size) = (line.container_id(), line.host_id(), line.size());
        let _written = writeln!(text, "{inside} {outside} {size}").is_ok();
    }
    text
}

fn write_file(pid: i32, name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{name}");
    fs::write(&path, text).map_err(|error| Failure::io("write", &path, &error))
}

fn helper(name: &'static str, pid: i32, map: &[LinuxIdMapping]) -> Result<()> {
    let mut command = Command::new(name);
    command.arg(pid.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    for line in map {
        let numbers = [line.container_id(), line.host_id(), line.size()];
        command.args(numbers.map(|number| number.to_string()));
    }
    let output = command.output().map_err(|error| Failure::io("run", name, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = accord_outcome::Quoted(output.stderr.trim_ascii()).to_string();
    Err(Failure::text("run", name, format!("it failed and printed {said}")))
}
