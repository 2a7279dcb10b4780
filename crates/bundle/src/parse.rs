//! From bytes to the types of [`oci_spec`].
//!
//! The common case is one direct parse. Only a document that it refuses is read
//! again as a plain JSON value: what the specification allows and the types do not
//! is put right there, and what remains wrong is worded with its place.

use std::path::PathBuf;

use accord_outcome::{Failure, Quoted, Result};
use oci_spec::runtime::{Capability, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

use crate::fault::{Fault, Warnings, token};

/// The hardware of a virtual machine (runtime-spec 1.3 `vm.hwConfig`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HwConfig {
    /// The path of a device tree to pass to the machine.
    pub device_tree: Option<PathBuf>,
    /// The number of virtual CPUs.
    pub vcpus: Option<u32>,
    /// The memory in bytes.
    pub memory: Option<u64>,
    /// Nodes of the host's device tree to pass through.
    #[serde(rename = "dtdevs")]
    pub dt_devs: Vec<String>,
    /// Pages of hardware I/O memory to give access to.
    #[serde(rename = "iomems")]
    pub io_mems: Vec<IoMem>,
    /// Physical interrupts to give access to.
    pub irqs: Vec<u32>,
}

/// A range of hardware I/O memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct IoMem {
    /// The first guest frame; unset: that of the machine.
    #[serde(rename = "firstGFN")]
    pub first_gfn: Option<u64>,
    /// The first machine frame.
    #[serde(rename = "firstMFN")]
    pub first_mfn: u64,
    /// How many frames.
    #[serde(rename = "nrMFNs")]
    pub nr_mfns: u64,
}

/// What `config.json` may say and [`Spec`] has no field for, in the same nesting.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Extra {
    pub(crate) vm: Option<ExtraVm>,
    pub(crate) linux: Option<ExtraLinux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ExtraVm {
    pub(crate) hw_config: Option<HwConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ExtraLinux {
    pub(crate) intel_rdt: Option<ExtraRdt>,
}

/// `oci-spec` spells these two `enableCmt` and `enableMbm`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ExtraRdt {
    #[serde(rename = "enableCMT")]
    pub(crate) enable_cmt: bool,
    #[serde(rename = "enableMBM")]
    pub(crate) enable_mbm: bool,
}

/// Parses `json`; `repair` puts right what the types refuse and the specification allows.
pub(crate) fn parse<T: DeserializeOwned>(
    json: &[u8],
    warnings: &mut Warnings,
    repair: impl FnOnce(&mut Value, &mut Warnings),
) -> Result<T> {
    if !holds_nul(json)
        && let Ok(parsed) = serde_json::from_slice(json)
    {
        return Ok(parsed);
    }
    let document = warnings.document();
    let mut value: Value =
        serde_json::from_slice(json).map_err(|error| not_json(document, &error))?;
    refuse_nul(&value, "").map_err(|fault| fault.into_failure(document))?;
    drop_nulls(&mut value);
    repair(&mut value, warnings);
    typed(&value).map_err(|fault| fault.into_failure(document))
}

/// Reads what [`Spec`] has no field for; `None` when the document cannot hold any.
pub(crate) fn parse_extra(spec: &Spec, json: &[u8], warnings: &mut Warnings) -> Result<Extra> {
    let rdt = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    if spec.vm().is_none() && rdt.is_none() {
        return Ok(Extra::default());
    }
    parse(json, warnings, |_, _| ())
}

/// What `config.json` needs before its types accept it.
pub(crate) fn repair_config(value: &mut Value, warnings: &mut Warnings) {
    if let Some(process) = value.get_mut("process") {
        repair_process(process, "/process", warnings);
    }
    // `vm` may say `hwConfig` alone.
    if let Some(vm) = value.get_mut("vm").and_then(Value::as_object_mut) {
        vm.entry("kernel").or_insert_with(|| json!({ "path": "" }));
    }
}

/// What a process needs before its types accept it.
pub(crate) fn repair_process(process: &mut Value, at: &str, warnings: &mut Warnings) {
    let Some(process) = process.as_object_mut() else { return };
    process.entry("user").or_insert_with(|| json!({}));
    if let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) {
        for (set, names) in sets {
            drop_unknown_capabilities(
                names,
                &format!("{at}/capabilities/{}", token(set)),
                warnings,
            );
        }
    }
    // `oci-spec` spells this one with a further underscore.
    let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        if flag == "SCHED_FLAG_DL_OVERRUN" {
            *flag = json!("SCHED_FLAG_D_L_OVERRUN");
        }
    }
}

/// The specification asks for a warning, not for an error: engines name capabilities
/// that this kernel or this program is too old for.
fn drop_unknown_capabilities(names: &mut Value, at: &str, warnings: &mut Warnings) {
    let Some(names) = names.as_array_mut() else { return };
    names.retain(|name| {
        let Some(name) = name.as_str() else { return true };
        let known = Capability::deserialize(&json!(name)).is_ok();
        if !known {
            warnings.push(at, format!("unknown capability {} is ignored", Quoted(name)));
        }
        known
    });
}

/// Whether a string may hold a NUL byte, which no string of the kernel can.
fn holds_nul(json: &[u8]) -> bool {
    // What is not UTF-8 is no JSON either, and fails as that.
    std::str::from_utf8(json).is_ok_and(|json| json.contains(r"\u0000"))
}

fn refuse_nul(value: &Value, at: &str) -> std::result::Result<(), Fault> {
    let refuse = |text: &str, at: &str| match text.contains('\0') {
        true => {
            Err(Fault { pointer: at.to_owned(), cause: "must not hold a NUL character".into() })
        }
        false => Ok(()),
    };
    match value {
        Value::String(text) => refuse(text, at),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| refuse_nul(item, &format!("{at}/{index}"))),
        Value::Object(members) => members.iter().try_for_each(|(key, member)| {
            let at = format!("{at}/{}", token(key));
            refuse(key, &at)?;
            refuse_nul(member, &at)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// `null` is an unset member to the engines, which are written in Go.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> std::result::Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer(error.path());
        let found = value.pointer(&pointer);
        let cause = reason(&error.inner().to_string(), found);
        Fault { pointer, cause: cause.into() }
    })
}

fn pointer(path: &Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", token(key))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// The words of serde without those of the document, which it repeats unquoted.
fn reason(message: &str, found: Option<&Value>) -> String {
    // The expectation is a name of our types and stands last.
    if let Some((_, expected)) = message.rsplit_once("expected ") {
        return format!("expected {}, found {}", expected.replace('`', ""), described(found));
    }
    match message.strip_prefix("missing field ") {
        Some(field) => format!("{} must be set", field.replace('`', "\"")),
        None => format!("invalid value: {}", described(found)),
    }
}

fn described(found: Option<&Value>) -> String {
    match found {
        None => "nothing".to_owned(),
        Some(Value::Null) => "null".to_owned(),
        Some(Value::Bool(value)) => value.to_string(),
        Some(Value::Number(value)) => value.to_string(),
        Some(Value::String(value)) => format!("the string {}", Quoted(value)),
        Some(Value::Array(_)) => "an array".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
    }
}

/// The words of `serde_json` about syntax are its own, none is the document's.
fn not_json(document: &'static str, error: &serde_json::Error) -> Failure {
    let cause = error.to_string().replace('`', "'");
    Failure::plain(format!("{document} is not JSON: {cause}"))
}
