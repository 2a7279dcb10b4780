//! `plan`: what `create` would do, step by step.

use std::path::Path;

use accord_bundle::Bundle;
use accord_bundle::state::Isolation;
use accord_cgroup::{Cgroup, Layout};
use accord_container::compile::{Pad, Settings, compile, compile_monitor, home_of};
use accord_container::show;
use accord_outcome::Result;
use bumpalo::Bump;
use serde_json::Value;

use crate::store::Entry;
use crate::{Runtime, build, facts, microvm};

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line a step.
    Text,
    /// A JSON object.
    Json,
}

/// The plan of a bundle on this machine. Nothing is opened or made.
///
/// # Errors
/// What would be wrong with the configuration at `create`.
pub fn plan(rt: &Runtime, bundle: &Path, format: Format) -> Result<String> {
    let bundle = Bundle::load(bundle)?;
    let process = bundle.process()?.clone();
    let linux = bundle.spec.linux().as_ref();
    let path =
        linux.and_then(|linux| linux.cgroups_path().as_ref()).map(|path| path.to_string_lossy());
    let layout = Layout::detect()?;
    let id = "ID";
    let rootless = rt.global.rootless.unwrap_or_else(facts::is_unprivileged);
    let cgroup = Cgroup::plan(&layout, path.as_deref(), id, build::driver(rt), rootless)?;
    let facts = facts::gather(&bundle, &cgroup);
    let settings = Settings {
        start_socket: true,
        id: id.into(),
        rootfs: bundle.rootfs(),
        bundle: bundle.dir.clone(),
        cgroup_entries: cgroup.entries(),
        enters_cgroup: cgroup.is_entered_by_clone(),
        ..Settings::default()
    };
    let arena = Bump::new();
    let compiled = match microvm::isolation(rt, &bundle)? {
        Isolation::Native => {
            let filter = build::filter(&bundle.spec)?;
            let home = Some(home_of(&bundle.rootfs(), process.user().uid())?);
            let settings = Settings { filter, home, ..settings };
            compile(Pad(&arena), &bundle.spec, &process, &facts, &settings)?
        }
        // What is built on the host; the guest's own plan is that of the native mode.
        Isolation::MicroVm => {
            let machine = microvm::Prepared::of(rt, id, &bundle, &process)?;
            let monitor = machine.monitor(&Entry::of(&rt.root, id)?);
            compile_monitor(Pad(&arena), &bundle.spec, &process, &facts, &settings, &monitor)?
        }
    };
    Ok(match format {
        Format::Text => show::text(&compiled),
        Format::Json => {
            let value: Value = show::json(&compiled);
            format!("{value:#}\n")
        }
    })
}
