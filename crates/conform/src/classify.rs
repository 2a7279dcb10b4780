//! What the consumers of a runtime make of its exit code and its words.
//!
//! Pure functions after the sources of podman, moby, docker/cli, containerd
//! and CRI-O (2026). None of them looks at the code of a failed verb: they
//! look for words, so that the text of a failure is an interface.

use serde::{Deserialize, Serialize};

/// What podman takes an error of the runtime for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodmanClass {
    /// "OCI permission denied".
    PermissionDenied,
    /// "OCI runtime attempted to invoke a command that was not found".
    NotFound,
    /// "unable to assign security attribute".
    SecurityAttribute,
    /// "OCI runtime error".
    Generic,
}

/// `getOCIRuntimeError`, which words every error of create, start and exec.
pub fn podman_class(text: &str) -> PodmanClass {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["permission denied", "operation not permitted"]) {
        PodmanClass::PermissionDenied
    } else if has(&["executable file not found in", "no such file or directory", "open executable"])
    {
        PodmanClass::NotFound
    } else if names_attribute(&lower) {
        PodmanClass::SecurityAttribute
    } else {
        PodmanClass::Generic
    }
}

/// A path like /proc/self/attr/exec between back quotes.
fn names_attribute(text: &str) -> bool {
    text.split('`').skip(1).step_by(2).any(|path| {
        path.starts_with("/proc/")
            && (path.contains("/attr/exec") || path.contains("/attr/current"))
    })
}

/// The exit code of `podman exec` when the runtime's `exec` failed with `code`.
pub fn podman_exec(code: u8, text: &str) -> u8 {
    match podman_class(text) {
        PodmanClass::PermissionDenied => 126,
        PodmanClass::NotFound => 127,
        PodmanClass::SecurityAttribute | PodmanClass::Generic => code,
    }
}

/// The exit code of `podman run` when `create` or `start` failed.
pub fn podman_run(text: &str) -> u8 {
    // The class's own words stand before the runtime's, and are searched with them.
    let not_found = podman_class(text) == PodmanClass::NotFound;
    let lower = text.to_lowercase();
    let words = ["not found", "executable path is empty", "no such file"];
    if not_found || words.iter().any(|word| lower.contains(word)) { 127 } else { 126 }
}

/// The exit code that the docker daemon records for a container that could not start.
pub fn docker_daemon(text: &str) -> u8 {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["permission denied", "is a directory"]) {
        126
    } else if has(&["not a directory", "executable file not found", "no such file or directory"])
        || has(&["system cannot find the file specified", "failed to run runc create/exec call"])
    {
        127
    } else {
        128
    }
}

/// The exit code of `docker run` when the daemon could not start the container.
pub fn docker_client(text: &str) -> u8 {
    let daemon = docker_daemon_text(text);
    let has = |words: &[&str]| words.iter().any(|word| daemon.contains(word));
    if has(&["executable file not found", "no such file or directory"])
        || has(&["system cannot find the file specified"])
    {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    }
}

/// What the daemon tells the client: it adds words to some of the runtime's.
fn docker_daemon_text(text: &str) -> String {
    let lower = text.to_lowercase();
    if !lower.contains("permission denied") && lower.contains("is a directory") {
        format!("{text}: permission denied")
    } else {
        text.to_owned()
    }
}

/// What a failed `kill` or `delete` says about the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// The process has ended: the engine goes on with the clean-up.
    Ended,
    /// The runtime does not know the container: likewise.
    NoContainer,
    /// Something else: the engine's stop fails, or goes on trying.
    #[default]
    Unknown,
}

/// containerd's shim, after `kill`.
pub fn containerd_kill(text: &str) -> Gone {
    if text.contains("os: process already finished")
        || text.contains("container not running")
        || text.to_lowercase().contains("no such process")
    {
        Gone::Ended
    } else if text.contains("does not exist") {
        Gone::NoContainer
    } else {
        Gone::Unknown
    }
}

/// containerd's shim, after `delete`: a task that has ended is no reason for it to fail.
pub fn containerd_delete(text: &str) -> Gone {
    if text.contains("does not exist") { Gone::NoContainer } else { Gone::Unknown }
}

/// CRI-O, after `kill`.
pub fn crio_kill(text: &str) -> Gone {
    let words = ["no such process", "container not running", "invalid process"];
    if words.iter().any(|word| text.contains(word)) { Gone::Ended } else { Gone::Unknown }
}

/// How much of a runtime's standard error conmon reads.
const CONMON_READS: usize = 8191;

/// What conmon hands to CRI-O, and to podman, of a `create` or `exec` that failed: no code, but
/// the first of the runtime's standard error. Without a word of it, nothing.
pub fn conmon_message(stderr: &str) -> Option<String> {
    let bytes = stderr.as_bytes();
    let head = bytes.get(..CONMON_READS).unwrap_or(bytes);
    (!head.is_empty()).then(|| String::from_utf8_lossy(head).into_owned())
}

/// What CRI-O answers to whoever wanted the container that `create` has not made.
pub fn crio_create(stderr: &str) -> String {
    match conmon_message(stderr) {
        Some(message) => format!("container create failed: {message}"),
        None => "error reading container (probably exited) json message: EOF".to_owned(),
    }
}

/// The exit code that CRI-O's `Exec` passes on when the runtime's `exec` failed with `code`.
/// (Its `ExecSync` answers with an error that holds [`conmon_message`].)
pub fn crio_exec(code: u8) -> u8 {
    code
}

/// What each consumer makes of one failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Classes {
    /// `podman run`.
    pub podman_run: u8,
    /// `podman exec`.
    pub podman_exec: u8,
    /// The docker daemon.
    pub docker_daemon: u8,
    /// `docker run`.
    pub docker_client: u8,
    /// containerd, after `kill`.
    pub containerd_kill: Gone,
    /// containerd, after `delete`.
    pub containerd_delete: Gone,
    /// A streamed `exec` of CRI-O's.
    pub crio_exec: u8,
    /// CRI-O, after `kill`.
    pub crio_kill: Gone,
}

/// Everything that is made of a verb's exit code and the text of its failure.
pub fn classes(code: u8, text: &str) -> Classes {
    Classes {
        podman_run: podman_run(text),
        podman_exec: podman_exec(code, text),
        docker_daemon: docker_daemon(text),
        docker_client: docker_client(text),
        containerd_kill: containerd_kill(text),
        containerd_delete: containerd_delete(text),
        crio_exec: crio_exec(code),
        crio_kill: crio_kill(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (text, podman run, podman exec after 255, docker daemon, docker client)
    const TEXTS: &[(&str, u8, u8, u8, u8)] = &[
        (
            r#"exec: "x": executable file not found in $PATH: no such file or directory"#,
            127,
            127,
            127,
            127,
        ),
        (r#"exec: "/x": permission denied"#, 126, 126, 126, 126),
        (r#"exec: "/etc": is a directory: permission denied"#, 126, 126, 126, 126),
        (r#"exec: "/x": not a directory: permission denied"#, 126, 126, 126, 126),
        (r#"mount "/src" on "/data": ENOENT"#, 126, 255, 128, 125),
        // crun: the quotes are the contract's own, so docker does not see its words.
        ("executable file `x` not found in $PATH: No such file or directory", 127, 127, 127, 125),
        ("open `/x`: Permission denied", 126, 126, 126, 125),
        // The daemon knows "operation not permitted" not, podman does.
        ("exec: operation not permitted", 126, 126, 128, 125),
        ("is a directory", 126, 255, 126, 126),
        ("not a directory", 126, 255, 127, 125),
        ("exec format error", 126, 255, 128, 125),
        ("write to `/proc/self/attr/exec`: Invalid argument", 126, 255, 128, 125),
    ];

    #[test]
    fn a_failure_becomes_what_each_engine_makes_of_its_words() {
        for (text, run, exec, daemon, client) in TEXTS {
            let got = classes(255, text);
            let got = (got.podman_run, got.podman_exec, got.docker_daemon, got.docker_client);
            assert_eq!(got, (*run, *exec, *daemon, *client), "{text}");
        }
    }

    #[test]
    fn a_quoted_attribute_is_a_security_label() {
        let class = |text| podman_class(text);
        assert_eq!(class("write `/proc/self/attr/exec`: x"), PodmanClass::SecurityAttribute);
        assert_eq!(class("`x` write /proc/self/attr/exec: x"), PodmanClass::Generic);
        assert_eq!(class("write \"/proc/self/attr/exec\": EINVAL"), PodmanClass::Generic);
    }

    #[test]
    fn a_failed_kill_tells_what_is_left() {
        use Gone::{Ended, NoContainer, Unknown};
        let told = |text| (containerd_kill(text), containerd_delete(text), crio_kill(text));
        assert_eq!(told("container not running"), (Ended, Unknown, Ended));
        assert_eq!(told("kill: No such process"), (Ended, Unknown, Unknown));
        assert_eq!(told("invalid process"), (Unknown, Unknown, Ended));
        assert_eq!(told(r#"container "x" does not exist"#), (NoContainer, NoContainer, Unknown));
        assert_eq!(told("EPERM"), (Unknown, Unknown, Unknown));
    }

    #[test]
    fn cri_o_is_told_what_conmon_reads() {
        assert_eq!(crio_create("x: EPERM\n"), "container create failed: x: EPERM\n");
        assert_eq!(crio_create(""), "error reading container (probably exited) json message: EOF");
        let long = "x".repeat(10_000);
        assert_eq!(conmon_message(&long).map(|message| message.len()), Some(8191));
    }
}
