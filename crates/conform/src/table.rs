//! Reads the tables of cases: defaults, expansion of `each`, validation.
//!
//! A table is a TOML file with a head (`group`, `topic`, `rule`), `defaults`
//! for all its cases, and `[[case]]` entries. `each = { n = [1, 2] }` makes a
//! case for each value - for each combination, if several lists are given - in
//! which `{n}` stands for the value; a value may be a table (`{n.code}`).

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::case::Case;

/// The tables, in the order of the report.
const TABLES: &[(&str, &str)] = &[
    ("a-exit.toml", include_str!("../cases/a-exit.toml")),
    ("a-signals.toml", include_str!("../cases/a-signals.toml")),
    ("a-limits.toml", include_str!("../cases/a-limits.toml")),
    ("a-microvm.toml", include_str!("../cases/a-microvm.toml")),
    ("a-streams.toml", include_str!("../cases/a-streams.toml")),
    ("a-process.toml", include_str!("../cases/a-process.toml")),
    ("b-missing.toml", include_str!("../cases/b-missing.toml")),
    ("b-forbidden.toml", include_str!("../cases/b-forbidden.toml")),
    ("b-lookup.toml", include_str!("../cases/b-lookup.toml")),
    ("b-setting.toml", include_str!("../cases/b-setting.toml")),
    ("c-config.toml", include_str!("../cases/c-config.toml")),
    ("c-mounts.toml", include_str!("../cases/c-mounts.toml")),
    ("c-security.toml", include_str!("../cases/c-security.toml")),
    ("c-resources.toml", include_str!("../cases/c-resources.toml")),
    ("c-hooks.toml", include_str!("../cases/c-hooks.toml")),
    ("d-states.toml", include_str!("../cases/d-states.toml")),
    ("d-crash.toml", include_str!("../cases/d-crash.toml")),
];

/// A table that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("cases/{table}: {what}")]
pub struct TableError {
    table: &'static str,
    what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    defaults: Map<String, Value>,
    group: Value,
    topic: Value,
    rule: Value,
    #[serde(default)]
    case: Vec<Map<String, Value>>,
}

/// Every case of the suite.
pub fn cases() -> Result<Vec<Case>, TableError> {
    let mut cases = Vec::new();
    for (table, text) in TABLES {
        let wrong = |what: String| TableError { table, what };
        read(text, &mut cases).map_err(wrong)?;
    }
    let mut ids = BTreeSet::new();
    match cases.iter().find(|case| !ids.insert(case.id.as_str())) {
        Some(twice) => Err(TableError { table: "*", what: format!("{} is there twice", twice.id) }),
        None => Ok(cases),
    }
}

fn read(text: &str, cases: &mut Vec<Case>) -> Result<(), String> {
    let table: Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut common = table.defaults;
    common.insert("group".into(), table.group);
    common.insert("topic".into(), table.topic);
    common.entry("rule").or_insert(table.rule);
    for record in table.case {
        for record in expand(record)? {
            let mut whole = common.clone();
            whole.extend(record);
            let id = whole.get("id").map(Value::to_string).unwrap_or_default();
            check_fields(&whole).map_err(|what| format!("{id}: {what}"))?;
            let case: Case = serde_json::from_value(Value::Object(whole))
                .map_err(|error| format!("{id}: {error}"))?;
            for form in case.forms() {
                case.expect(form).map_err(|error| format!("{id} {form}: {error}"))?;
            }
            cases.push(case);
        }
    }
    Ok(())
}

/// `flatten` and `deny_unknown_fields` do not go together, so the names of fields are checked here.
fn check_fields(record: &Map<String, Value>) -> Result<(), String> {
    const FIELDS: &[&str] = &[
        "id",
        "title",
        "group",
        "topic",
        "rule",
        "reason",
        "source",
        "tags",
        "expect",
        "on",
        // bundle
        "probe",
        "args",
        "env",
        "cwd",
        "user",
        "capabilities",
        "without_namespaces",
        "user_namespace",
        "files",
        "mounts",
        "hooks",
        "resources",
        "patch",
        "remove",
        "config",
        // manner
        "ways",
        "tty",
        "send",
        "streams",
        "caller",
        "times",
        "deadline",
        "state",
        "steps",
    ];
    match record.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        Some(unknown) => Err(format!("there is no field {unknown:?}")),
        None => Ok(()),
    }
}

/// The records that a record with `each` stands for.
fn expand(mut record: Map<String, Value>) -> Result<Vec<Map<String, Value>>, String> {
    let Some(each) = record.remove("each") else { return Ok(vec![record]) };
    let Value::Object(lists) = each else { return Err("`each` is not a table".into()) };
    let mut combinations = vec![Map::new()];
    for (name, list) in lists {
        let Value::Array(values) = list else { return Err(format!("`each.{name}` is no list")) };
        combinations = combinations
            .iter()
            .flat_map(|row| {
                values.iter().map(|value| {
                    let mut row = row.clone();
                    row.insert(name.clone(), value.clone());
                    row
                })
            })
            .collect();
    }
    let record = Value::Object(record);
    combinations
        .iter()
        .map(|row| match substitute(&record, row)? {
            Value::Object(record) => Ok(record),
            _ => Err("a case is not a table".into()),
        })
        .collect()
}

/// `value` with every `{name}` replaced. A string that is nothing but one takes the value's type.
fn substitute(value: &Value, row: &Map<String, Value>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => substitute_text(text, row)?,
        Value::Array(list) => {
            Value::Array(list.iter().map(|v| substitute(v, row)).collect::<Result<_, _>>()?)
        }
        Value::Object(map) => {
            let mut result = Map::new();
            for (key, value) in map {
                let key = match substitute_text(key, row)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                result.insert(key, substitute(value, row)?);
            }
            Value::Object(result)
        }
        other => other.clone(),
    })
}

fn substitute_text(text: &str, row: &Map<String, Value>) -> Result<Value, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        let value = name.split('.').try_fold(None, |value: Option<&Value>, part| {
            Some(Some(match value {
                None => row.get(part)?,
                Some(value) => value.get(part)?,
            }))
        });
        let Some(Some(value)) = value else { return Err(format!("`each` has no {name:?}")) };
        if before.is_empty() && after.is_empty() && result.is_empty() {
            return Ok(value.clone());
        }
        result.push_str(before);
        match value {
            Value::String(text) => result.push_str(text),
            other => result.push_str(&other.to_string()),
        }
        rest = after;
    }
    result.push_str(rest);
    Ok(Value::String(result))
}
