//! Hooks.

use oci_spec::runtime::Spec;

use crate::fault::{Checked, fault};

use super::absolute;

pub(super) fn check(spec: &Spec) -> Checked {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let kinds = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, hooks) in kinds {
        for (index, hook) in hooks.iter().flatten().enumerate() {
            let at = || format!("/hooks/{kind}/{index}");
            absolute(hook.path(), || format!("{}/path", at()))?;
            if hook.timeout().is_some_and(|timeout| timeout <= 0) {
                return fault(format!("{}/timeout", at()), "must be above 0");
            }
        }
    }
    Ok(())
}
