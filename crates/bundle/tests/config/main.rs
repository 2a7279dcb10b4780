//! Every check of a configuration, as a table: what is changed in the default
//! configuration, and what is said to it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use accord_bundle::{Bundle, SpecFor, default_document};
use serde_json::{Value, json};

mod document;
mod fields;
mod ids;

/// Words by which engines classify an error: none may stand in an error that is
/// not about the program.
const MATCHED_BY_ENGINES: &[&str] = &[
    "permission denied",
    "operation not permitted",
    "not found",
    "no such file",
    "open executable",
    "executable path is empty",
    "is a directory",
    "not a directory",
    "failed to run runc",
    "does not exist",
    "no such process",
    "container not running",
    "process already finished",
    "invalid process",
    "`",
    "\n",
];

fn default() -> Value {
    default_document(SpecFor::default()).unwrap()
}

/// Puts `value` at `pointer`, making the objects on the way; `null` takes the member away.
fn put(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut at = document;
    for token in parent.split('/').skip(1) {
        at = match at {
            Value::Array(items) => &mut items[token.parse::<usize>().unwrap()],
            object => &mut object[token.replace("~1", "/")],
        };
    }
    match (at, value) {
        (Value::Object(object), Value::Null) => {
            object.shift_remove(key);
        }
        (Value::Array(items), value) if key == "-" => items.push(value),
        (Value::Array(items), value) => items[key.parse::<usize>().unwrap()] = value,
        (object, value) => object[key.replace("~1", "/")] = value,
    }
}

fn load(changes: &[(&str, Value)]) -> accord_outcome::Result<Bundle> {
    let mut document = default();
    for (pointer, value) in changes {
        put(&mut document, pointer, value.clone());
    }
    Bundle::from_json("/b".into(), &serde_json::to_vec(&document).unwrap())
}

/// One change and the text that it earns; without a text it must be accepted, silently.
fn check(cases: &[(&[(&str, Value)], &str)]) {
    for (changes, text) in cases {
        match (load(changes), *text) {
            (Ok(bundle), "") => assert_eq!(bundle.warnings, [""; 0], "{changes:?}"),
            (Ok(_), text) => panic!("accepted {changes:?}, not refused with {text}"),
            (Err(failure), text) => {
                let said = failure.to_string();
                assert_eq!(said, text, "{changes:?}");
                assert_eq!(failure.code(accord_outcome::Verb::Other), 1);
                for word in MATCHED_BY_ENGINES {
                    assert!(!said.to_lowercase().contains(word), "{said:?} holds {word:?}");
                }
            }
        }
    }
}

fn namespace(kind: &str) -> (&'static str, Value) {
    ("/linux/namespaces/-", json!({ "type": kind }))
}

fn joined(kind: &str) -> (&'static str, Value) {
    ("/linux/namespaces/-", json!({ "type": kind, "path": "/proc/1/ns/x" }))
}

fn host_namespaces() -> (&'static str, Value) {
    ("/linux/namespaces", json!([{ "type": "mount" }]))
}

fn root_map() -> Value {
    json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }])
}

fn user_namespace() -> [(&'static str, Value); 3] {
    [namespace("user"), ("/linux/uidMappings", root_map()), ("/linux/gidMappings", root_map())]
}
