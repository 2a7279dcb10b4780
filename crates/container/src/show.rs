//! A plan for people and programs: `accord plan`.

use std::fmt::Write as _;

use accord_stage::Plan;
use serde_json::{Map, Value, json};

use crate::compile::{Compiled, Need};

/// The plan as JSON: what is opened first, then every operation by number.
pub fn json(compiled: &Compiled<'_>) -> Value {
    let number = |(index, op)| {
        let mut fields = Map::new();
        let _none = fields.insert("step".into(), json!(index));
        if let Value::Object(op) = op {
            fields.extend(op);
        }
        Value::Object(fields)
    };
    let steps: Vec<Value> = operations(&compiled.plan).into_iter().map(number).collect();
    json!({
        "schema": 1,
        "opens": compiled.needs.iter().map(need).collect::<Vec<_>>(),
        "bootstrap": compiled.plan.bootstrap.len(),
        "beside": compiled.plan.beside,
        "clone": compiled.plan.clone,
        "steps": steps,
    })
}

fn operations(plan: &Plan<'_>) -> Vec<(usize, Value)> {
    let value = |op| serde_json::to_value(op).unwrap_or(Value::Null);
    plan.numbered().map(|(index, op)| (index, value(op))).collect()
}

fn need(need: &Need) -> String {
    match need {
        Need::Namespace(path) => format!("namespace {}", path.display()),
        Need::Tree { path, .. } => format!("mount tree {}", path.display()),
        Need::UserNamespace { .. } => "user namespace of an id-mapped mount".into(),
        Need::CgroupEntry(path) => format!("cgroup {}", path.display()),
        Need::State => "state for hooks".into(),
        Need::HookOutput => "file for the output of hooks".into(),
        Need::StartSocket => "start socket".into(),
        Need::Target => "process of the container".into(),
        Need::Binary => "our own binary".into(),
        Need::Passed(name) => (*name).into(),
    }
}

/// The plan as text, one line an operation: `NUMBER NAME KEY=VALUE ...`.
pub fn text(compiled: &Compiled<'_>) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for (slot, thing) in compiled.needs.iter().enumerate() {
        line(format!("open {slot}: {}", need(thing)));
    }
    let beside = compiled.plan.beside;
    let beside = beside.map(|slot| format!(" in pid namespace of {}", slot.0)).unwrap_or_default();
    let clone = format!("clone{beside} {}", compiled.plan.clone);
    let clone = clone.trim_end().to_owned();
    let bootstrap = compiled.plan.bootstrap.len();
    if bootstrap == 0 {
        line(clone.clone());
    }
    for (index, op) in operations(&compiled.plan) {
        if bootstrap > 0 && index == bootstrap {
            line(clone.clone());
        }
        line(operation(index, op));
    }
    text
}

fn operation(index: usize, op: Value) -> String {
    let mut text = format!("{index:3}");
    let Value::Object(fields) = op else { return text };
    for (key, value) in fields {
        let written = match value {
            Value::String(name) if key == "op" => write!(text, " {name}"),
            // A flag that is off says nothing.
            Value::Bool(false) => Ok(()),
            value => write!(text, " {key}={value}"),
        };
        let _always = written.is_ok();
    }
    text
}
