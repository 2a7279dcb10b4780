//! Hooks that run inside the container's namespaces.

use accord_outcome::Result;
use accord_stage::{Hook as StageHook, Op, Request};
use oci_spec::runtime::Hook;

use super::{Compiler, Need, bytes};

impl Compiler<'_, '_> {
    /// The hooks of `create`: the parent's, who also writes the state for those in the
    /// container, and then `createContainer`.
    pub(super) fn hooks_of_create(&mut self) -> Result<()> {
        let Some(hooks) = self.spec.hooks() else { return Ok(()) };
        let kinds = [
            hooks.prestart(),
            hooks.create_runtime(),
            hooks.create_container(),
            hooks.start_container(),
        ];
        if kinds.into_iter().flatten().any(|hooks| !hooks.is_empty()) {
            self.push(Op::Ask { request: Request::Hooks });
        }
        self.hooks("createContainer", hooks.create_container().as_ref())
    }

    pub(crate) fn hooks(&mut self, kind: &str, hooks: Option<&Vec<Hook>>) -> Result<()> {
        for (number, hook) in hooks.into_iter().flatten().enumerate() {
            let (state, output) = (self.need(Need::State)?, self.need(Need::HookOutput)?);
            let path = self.pad.text(bytes(hook.path()))?;
            let args = match hook.args() {
                Some(args) if !args.is_empty() => self.pad.strings(args)?,
                _ => self.pad.strings(&[bytes(hook.path())])?,
            };
            let empty = Vec::new();
            let env = self.pad.strings(hook.env().as_ref().unwrap_or(&empty))?;
            let label =
                format!("{kind} hook {number} {}", accord_outcome::Quoted(bytes(hook.path())));
            let label = self.pad.text(label)?;
            let timeout = hook.timeout().and_then(|seconds| u32::try_from(seconds).ok());
            self.push(Op::Hook(StageHook { label, path, args, env, timeout, state, output }));
        }
        Ok(())
    }
}
