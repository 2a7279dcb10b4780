//! The cases for people: the list, and the explanation of one.

use std::fmt::Write;

use accord_outcome::Failure;
use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::case::{Case, Form, Way};
use crate::contract::Contract;
use crate::result::{expected, step_expected};

const HEAD: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// Every case with its title, under its topic.
pub fn list(cases: &[Case]) -> String {
    let mut text = String::new();
    let width = cases.iter().map(|case| case.id.len()).max().unwrap_or_default();
    let mut topic = "";
    for case in cases {
        if topic != case.topic {
            topic = &case.topic;
            let group = case.group;
            put(&mut text, format_args!("{HEAD}{group:?} {}: {topic}{HEAD:#}\n", group.title()));
        }
        let tags: Vec<String> =
            case.tags.iter().map(|tag| format!("{tag:?}").to_lowercase()).collect();
        let tags = if tags.is_empty() { String::new() } else { format!(" [{}]", tags.join(" ")) };
        put(&mut text, format_args!("  {:width$}  {}{DIM}{tags}{DIM:#}\n", case.id, case.title));
    }
    let forms: usize = cases.iter().map(|case| case.forms().len()).sum();
    put(&mut text, format_args!("{} cases, {forms} with all their forms\n", cases.len()));
    text
}

/// What a case is about, what is run, and what must come of it.
pub fn explain(case: &Case) -> Result<String, Failure> {
    let wrong = |error: String| Failure::text("explain", &case.id, error);
    let mut text = String::new();
    put(&mut text, format_args!("{HEAD}{}{HEAD:#}: {}\n", case.id, case.title));
    let group = case.group.title();
    put(&mut text, format_args!("{group}: {}\n", case.topic));
    if let Some(rule) = Contract::read().map_err(wrong)?.rule(&case.rule) {
        put(&mut text, format_args!("{}: {}\n", rule.title, rule.text));
    }
    for line in [&case.reason, &case.source].into_iter().filter(|line| !line.is_empty()) {
        put(&mut text, format_args!("{line}\n"));
    }
    put(&mut text, format_args!("\n{HEAD}what must come of it{HEAD:#}\n"));
    for form in case.forms() {
        let expect = case.expect(form).map_err(|error| wrong(error.to_string()))?;
        let outcome = if form.way == Way::Verbs { steps(case) } else { expected(&expect, form) };
        put(&mut text, format_args!("  {:12}  {outcome}\n", form.to_string()));
        let words = expect.text.iter().chain(&expect.text_holds);
        for word in words {
            put(&mut text, format_args!("  {:12}  text: {word}\n", ""));
        }
    }
    put(&mut text, format_args!("\n{HEAD}the record{HEAD:#}\n"));
    text.push_str(&record(case).map_err(wrong)?);
    Ok(text)
}

fn steps(case: &Case) -> String {
    let told = |step: &crate::case::Step| match (step.wait, step.killed_after_us) {
        (true, _) => match case.expect(Form { way: Way::Create, tty: false }) {
            Ok(expect) => {
                format!("then {}", expected(&expect, Form { way: Way::Create, tty: false }))
            }
            Err(_) => "then the process ends".to_owned(),
        },
        (_, Some(time)) => format!("{} is killed after {time} µs", step.verb.0.join(" ")),
        _ => format!("{}: {}", step.verb.0.join(" "), step_expected(step)),
    };
    case.manner.steps.iter().map(told).collect::<Vec<_>>().join("; ")
}

/// The record as TOML, without what is as ever.
fn record(case: &Case) -> Result<String, String> {
    let mut value = serde_json::to_value(case).map_err(|error| error.to_string())?;
    if let Value::Object(fields) = &mut value {
        for told in ["id", "title", "group", "topic", "rule", "reason", "source"] {
            fields.remove(told);
        }
        // An empty list of arguments is what some cases are about.
        fields.iter_mut().filter(|(name, _)| *name != "args").for_each(|(_, value)| prune(value));
        fields.retain(|name, value| name == "args" || !is_nothing(value));
    }
    toml::to_string_pretty(&value).map_err(|error| error.to_string())
}

/// Takes away what is null, false, zero or empty: TOML has no null, and the reader no need.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|name, value| !is_nothing(value) && (name != "at" || value != "create"));
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(value) => !value,
        _ => false,
    }
}

fn put(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _written = text.write_fmt(words).is_ok();
}
