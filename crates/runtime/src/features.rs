//! What this runtime implements: the verb `features`.

use accord_bundle::features::{self, Implemented};
use oci_spec::runtime::Features;

/// The features document; `annotations` are what the program says of itself.
pub fn features(annotations: &[(&str, String)]) -> Features {
    let implemented = Implemented {
        seccomp: Some(accord_container::seccomp::knowledge()),
        apparmor: true,
        selinux: true,
        memory_policy: true,
        idmap: true,
        rdma: true,
        ..Implemented::default()
    };
    features::features(implemented, annotations)
}

/// The version of the seccomp library, for `--version`.
pub fn seccomp_version() -> String {
    accord_container::seccomp::knowledge().version
}
