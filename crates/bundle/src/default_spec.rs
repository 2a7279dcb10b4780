//! The configuration to start from: what `spec` writes and `run --rootfs` runs.

use accord_outcome::{Failure, Result};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// The newest version of the runtime specification that this program follows.
pub const SPEC_VERSION: &str = "1.3.0";

/// The configuration, as a document.
const DEFAULT: &str = include_str!("default_spec.json");

/// Whom and what the configuration is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecFor {
    /// An ordinary user's ids on the host: the container gets a user namespace in
    /// which they are root, and nothing that would need a right on the host.
    pub rootless: Option<(u32, u32)>,
    /// The host has cgroup v2: the container gets a cgroup namespace.
    pub cgroup_v2: bool,
}

/// A shell in a container of its own: the same as `runc spec` writes.
pub fn default_spec(of: SpecFor) -> Result<Spec> {
    serde_json::from_value(default_document(of)?).map_err(impossible)
}

/// The same as a document, in the usual order.
pub fn default_document(of: SpecFor) -> Result<Value> {
    let mut spec: Value = serde_json::from_str(DEFAULT).map_err(impossible)?;
    let namespaces = &mut spec["linux"]["namespaces"];
    if of.cgroup_v2 {
        push(namespaces, json!({ "type": "cgroup" }));
    }
    if let Some((uid, gid)) = of.rootless {
        remove(namespaces, |namespace| namespace["type"] == "network");
        push(namespaces, json!({ "type": "user" }));
        rootless(&mut spec, uid, gid);
    }
    Ok(spec)
}

fn rootless(spec: &mut Value, uid: u32, gid: u32) {
    let root_is = |id| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    spec["linux"]["uidMappings"] = root_is(uid);
    spec["linux"]["gidMappings"] = root_is(gid);
    // Nothing is delegated to an ordinary user on every host.
    spec["linux"].as_object_mut().map(|linux| linux.shift_remove("resources"));
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        // No other group is mapped.
        if let Some(options) = mount.get_mut("options") {
            remove(options, |option| option == "gid=5");
        }
        // A new sysfs can be mounted only with a network namespace of one's own.
        if mount["destination"] == "/sys" {
            *mount = json!({
                "destination": "/sys",
                "type": "none",
                "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
            });
        }
    }
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

fn remove(list: &mut Value, unwanted: impl Fn(&Value) -> bool) {
    if let Some(list) = list.as_array_mut() {
        list.retain(|item| !unwanted(item));
    }
}

/// The document is a constant, which the tests below have read.
fn impossible(error: serde_json::Error) -> Failure {
    Failure::plain(format!("the default configuration: {error}"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::Bundle;

    #[test]
    fn it_passes_its_own_checks() {
        for rootless in [None, Some((1000, 1000))] {
            for cgroup_v2 in [false, true] {
                let spec = default_spec(SpecFor { rootless, cgroup_v2 }).unwrap();
                assert_eq!(spec.version(), SPEC_VERSION);
                let bundle = Bundle::from_spec("/b".into(), spec).unwrap();
                assert_eq!(bundle.warnings, [""; 0]);
            }
        }
    }

    /// `runc spec` of the machine, as JSON; the version and the hostname are its own.
    fn runc(args: &[&str]) -> Option<Value> {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("runc").arg("spec").args(args).current_dir(&dir).status().ok()?;
        assert!(status.success());
        let json = std::fs::read(dir.path().join("config.json")).unwrap();
        let mut spec: Value = serde_json::from_slice(&json).unwrap();
        spec["ociVersion"] = SPEC_VERSION.into();
        spec["hostname"] = "accord".into();
        Some(spec)
    }

    #[test]
    fn it_is_what_runc_writes() {
        let Some(root) = runc(&[]) else {
            eprintln!("skipped: no runc here to compare with");
            return;
        };
        let namespaces = root["linux"]["namespaces"].as_array().unwrap();
        let cgroup_v2 = namespaces.iter().any(|namespace| namespace["type"] == "cgroup");
        let ours = |rootless| default_document(SpecFor { rootless, cgroup_v2 }).unwrap();
        assert_eq!(ours(None), root);

        let rootless = runc(&["--rootless"]).unwrap();
        let host = |map: &str| {
            u32::try_from(rootless["linux"][map][0]["hostID"].as_u64().unwrap()).unwrap()
        };
        assert_eq!(ours(Some((host("uidMappings"), host("gidMappings")))), rootless);
    }

    #[test]
    fn the_document_keeps_its_order() {
        let document = default_document(SpecFor::default()).unwrap();
        let keys: Vec<_> = document.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["ociVersion", "process", "root", "hostname", "mounts", "linux"]);
    }
}
