//! The documents as files: a bundle's, `exec`'s and `update`'s.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs;
use std::path::Path;

use accord_bundle::{Bundle, SpecFor, default_document, load_process, read_resources};

fn bundle(json: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), json).unwrap();
    dir
}

#[test]
fn a_bundle_is_loaded_from_its_directory() {
    let dir = bundle(&default_document(SpecFor::default()).unwrap().to_string());
    let bundle = Bundle::load(dir.path()).unwrap();
    assert_eq!(bundle.dir, dir.path());
    assert_eq!(bundle.rootfs(), dir.path().join("rootfs"));
    assert!(bundle.process().is_ok());
}

#[test]
fn what_cannot_be_read_is_named_with_its_errno() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let text = || Bundle::load(dir.path()).unwrap_err().to_string();
    assert_eq!(text(), format!("read {:?}: ENOENT", path));
    fs::create_dir(&path).unwrap();
    assert_eq!(text(), format!("read {:?}: EISDIR", path));
    let missing = load_process(Path::new("/nowhere/process.json")).unwrap_err();
    assert_eq!(missing.to_string(), r#"read "/nowhere/process.json": ENOENT"#);
    assert_eq!(missing.code(accord_outcome::Verb::Exec), 255);
}

#[test]
fn a_process_is_loaded_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.json");
    let load = |json: &str| {
        fs::write(&path, json).unwrap();
        load_process(&path)
    };
    let (process, warnings) = load(
        r#"{ "cwd": "/", "args": ["true"], "capabilities": { "bounding": ["CAP_X", "CAP_KILL"] } }"#,
    )
    .unwrap();
    assert_eq!(process.args().as_deref(), Some(["true".to_owned()].as_slice()));
    assert_eq!(
        warnings,
        [r#"process.json "/capabilities/bounding": unknown capability "CAP_X" is ignored"#]
    );
    let cases = [
        (r#"{ "cwd": "/", "args": [] }"#, r#"process.json "/args": must not be empty"#),
        (r#"{ "cwd": "x", "args": ["a"] }"#, r#"process.json "/cwd": "x" is not an absolute path"#),
        (
            r#"{ "cwd": "/", "args": ["a"], "user": { "uid": 4294967295 } }"#,
            r#"process.json "/user/uid": 4294967295 is not a user or group"#,
        ),
        ("{", "process.json is not JSON: EOF while parsing an object at line 1 column 1"),
    ];
    for (json, text) in cases {
        assert_eq!(load(json).unwrap_err().to_string(), text);
    }
}

#[test]
fn resources_are_loaded_from_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    fs::write(&path, r#"{ "memory": { "limit": 5, "swap": null }, "devices": null }"#).unwrap();
    let resources = read_resources(&path).unwrap();
    assert_eq!(resources.memory().unwrap().limit(), Some(5));
    fs::write(&path, r#"{ "unified": { "a/b": "1" } }"#).unwrap();
    assert_eq!(
        read_resources(&path).unwrap_err().to_string(),
        r#"resources "/unified/a~1b": must be the name of a file, CONTROLLER.PARAMETER"#
    );
}
