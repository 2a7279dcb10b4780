//! The verbs of the runtime, as the command line calls them.
//!
//! This stands in for `accord_runtime` until it has them: each says that this
//! build cannot do it.

use accord_bundle::state::OciState;
use accord_outcome::{Failure, Outcome, Result};
use accord_runtime::options;

/// What the verbs work on.
#[derive(Debug)]
pub(crate) struct Runtime;

impl Runtime {
    pub(crate) fn new(_global: options::Global) -> Result<Self> {
        Ok(Self)
    }
}

fn missing<T>(verb: &str) -> Result<T> {
    Err(Failure::plain(format!("{verb}: not part of this build")))
}

pub(crate) fn create(_rt: &Runtime, _o: options::Create) -> Result<()> {
    missing("create")
}

pub(crate) fn start(_rt: &Runtime, _id: &str) -> Result<()> {
    missing("start")
}

/// `None`: detached.
pub(crate) fn run(_rt: &Runtime, _o: options::Run) -> Result<Option<Outcome>> {
    missing("run")
}

/// `None`: detached.
pub(crate) fn exec(_rt: &Runtime, _o: options::Exec) -> Result<Option<Outcome>> {
    missing("exec")
}

pub(crate) fn kill(_rt: &Runtime, _o: options::Kill) -> Result<()> {
    missing("kill")
}

pub(crate) fn delete(_rt: &Runtime, _o: options::Delete) -> Result<()> {
    missing("delete")
}

pub(crate) fn state(_rt: &Runtime, _id: &str) -> Result<OciState> {
    missing("state")
}

pub(crate) fn list(_rt: &Runtime) -> Result<Vec<OciState>> {
    missing("list")
}

pub(crate) fn ps(_rt: &Runtime, _id: &str) -> Result<Vec<i32>> {
    missing("ps")
}

pub(crate) fn pause(_rt: &Runtime, _id: &str) -> Result<()> {
    missing("pause")
}

pub(crate) fn resume(_rt: &Runtime, _id: &str) -> Result<()> {
    missing("resume")
}

pub(crate) fn update(_rt: &Runtime, _o: options::Update) -> Result<()> {
    missing("update")
}

/// Each event is given to `sink` as soon as it happens.
pub(crate) fn events(
    _rt: &Runtime,
    _o: options::Events,
    _sink: &mut dyn FnMut(&serde_json::Value) -> Result<()>,
) -> Result<()> {
    missing("events")
}

/// The plan of a bundle, as text or as JSON.
pub(crate) fn plan(_rt: &Runtime, _bundle: &std::path::Path, _json: bool) -> Result<String> {
    missing("plan")
}
