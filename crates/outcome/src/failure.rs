//! Why a verb failed: step, object, cause; and the code it exits with.

use std::borrow::Cow;
use std::fmt::{Display, Formatter, Write as _};

use serde::{Deserialize, Serialize};

use crate::{ProgramError, Quoted, errno_symbol};

/// Which of the contract's three kinds a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The program does not exist: 127.
    NotFound,
    /// The program exists and cannot be executed: 126.
    NotExecutable,
    /// The runtime itself failed, or was asked for what cannot be: 1, by `exec` 255.
    Own,
}

/// The verbs whose own failures have different codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `exec`: an own failure is 255, so that it differs from what the program may return.
    Exec,
    /// Every other verb: 1.
    Other,
}

/// What went wrong in a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A system call's errno; shown by its symbol, never by `strerror`'s words,
    /// because engines would take "No such file or directory" for a missing command.
    Errno(
        /// The errno.
        i32,
    ),
    /// A phrase of our own. Names in it that others control are [`Quoted`].
    Text(
        /// The phrase.
        Cow<'static, str>,
    ),
    /// The program cannot be executed.
    Program(
        /// Why.
        ProgramError,
    ),
}

/// A failure: the step, the object it was about, the cause.
///
/// Shown as `STEP OBJECT: CAUSE`, always one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    step: Cow<'static, str>,
    object: String,
    cause: Cause,
}

/// The result of everything that can fail in the face of a user.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A system call failed: `step` is a lower-case phrase for what was tried
    /// (`mount`, `open bundle`), `object` the name it was tried on, quoted here.
    pub fn errno(step: impl Into<Cow<'static, str>>, object: impl AsRef<[u8]>, errno: i32) -> Self {
        let object = Quoted(object).to_string();
        Self { step: step.into(), object, cause: Cause::Errno(errno) }
    }

    /// A check of our own failed. `cause` must quote names that others control.
    pub fn text(
        step: impl Into<Cow<'static, str>>,
        object: impl AsRef<[u8]>,
        cause: impl Into<Cow<'static, str>>,
    ) -> Self {
        let object = Quoted(object).to_string();
        Self { step: step.into(), object, cause: Cause::Text(cause.into()) }
    }

    /// Like [`errno`](Self::errno), for an object that is a phrase of quoted names
    /// (`"/src" on "/data"`). The caller has quoted them with [`Quoted`].
    pub fn errno_on(
        step: impl Into<Cow<'static, str>>,
        object: impl Into<String>,
        errno: i32,
    ) -> Self {
        Self { step: step.into(), object: object.into(), cause: Cause::Errno(errno) }
    }

    /// All parts as they are: `object` is a phrase whose foreign names are [`Quoted`].
    pub fn new(
        step: impl Into<Cow<'static, str>>,
        object: impl Into<String>,
        cause: Cause,
    ) -> Self {
        Self { step: step.into(), object: object.into(), cause }
    }

    /// The whole message is one phrase of the contract (`container not running`).
    pub fn plain(text: impl Into<Cow<'static, str>>) -> Self {
        Self { step: "".into(), object: String::new(), cause: Cause::Text(text.into()) }
    }

    /// The program cannot run: `exec: "NAME": ...`.
    pub fn program(name: impl AsRef<[u8]>, error: ProgramError) -> Self {
        let object = Quoted(name).to_string();
        Self { step: "exec:".into(), object, cause: Cause::Program(error) }
    }

    /// An I/O error of the standard library.
    pub fn io(
        step: impl Into<Cow<'static, str>>,
        object: impl AsRef<[u8]>,
        error: &std::io::Error,
    ) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::errno(step, object, errno),
            // The words of std are ours to word: "failed to fill whole buffer" and the like.
            None => Self::text(step, object, error.kind().to_string()),
        }
    }

    /// The same failure with one more remark behind its cause. `note` quotes foreign names.
    #[must_use]
    pub fn with_note(mut self, note: impl std::fmt::Display) -> Self {
        let mut cause = String::new();
        // Writing to a string does not fail.
        let _written = write!(cause, "{}, {note}", CauseText(&self.cause)).is_ok();
        self.cause = Cause::Text(cause.into());
        self
    }

    /// The class, which decides the exit code.
    pub fn class(&self) -> Class {
        match &self.cause {
            Cause::Program(error) => error.class(),
            Cause::Errno(_) | Cause::Text(_) => Class::Own,
        }
    }

    /// The errno behind it, where there is one.
    pub fn raw_errno(&self) -> Option<i32> {
        match self.cause {
            Cause::Errno(errno) | Cause::Program(ProgramError::Errno(errno)) => Some(errno),
            _ => None,
        }
    }

    /// The exit code of the verb that fails with this.
    pub fn code(&self, verb: Verb) -> u8 {
        match (self.class(), verb) {
            (Class::NotFound, _) => 127,
            (Class::NotExecutable, _) => 126,
            (Class::Own, Verb::Exec) => 255,
            (Class::Own, Verb::Other) => 1,
        }
    }

    /// The exit code of an init process that could not become its program: an
    /// engine that waits on the container's pid sees this.
    pub fn init_code(&self) -> u8 {
        self.code(Verb::Other)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if !self.step.is_empty() {
            write!(f, "{} {}: ", self.step, self.object)?;
        }
        CauseText(&self.cause).fmt(f)
    }
}

struct CauseText<'a>(&'a Cause);

impl Display for CauseText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Cause::Errno(errno) => f.write_str(&errno_symbol(*errno)),
            Cause::Text(text) => f.write_str(text),
            Cause::Program(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOENT: i32 = 2;
    const EACCES: i32 = 13;
    const ENOEXEC: i32 = 8;

    #[test]
    fn the_texts_of_the_contract() {
        let texts = [
            (
                Failure::program("ls", ProgramError::NotInPath),
                127,
                r#"exec: "ls": executable file not found in $PATH: no such file or directory"#,
            ),
            (
                Failure::program("/x", ProgramError::from_errno(ENOENT)),
                127,
                r#"exec: "/x": executable file not found: no such file or directory"#,
            ),
            (
                Failure::program("/x", ProgramError::InterpreterMissing("/lib/ld.so".into())),
                127,
                r#"exec: "/x": interpreter "/lib/ld.so" not found: no such file or directory"#,
            ),
            (
                Failure::program("/etc", ProgramError::Directory),
                126,
                r#"exec: "/etc": is a directory: permission denied"#,
            ),
            (
                Failure::program("/x", ProgramError::from_errno(EACCES)),
                126,
                r#"exec: "/x": permission denied"#,
            ),
            (
                Failure::program("/x", ProgramError::from_errno(ENOEXEC)),
                126,
                r#"exec: "/x": exec format error: permission denied"#,
            ),
            (Failure::plain("container not running"), 1, "container not running"),
        ];
        for (failure, code, text) in texts {
            assert_eq!((failure.code(Verb::Other), failure.to_string().as_str()), (code, text));
        }
    }

    #[test]
    fn an_own_failure_carries_no_words_of_strerror() {
        let object = format!("{} on {}", Quoted("/no such file or directory"), Quoted("/data"));
        let failure = Failure::errno_on("mount", object, ENOENT);
        assert_eq!(
            failure.to_string(),
            r#"mount "/no\x20such\x20file\x20or\x20directory" on "/data": ENOENT"#
        );
        assert_eq!((failure.code(Verb::Other), failure.code(Verb::Exec)), (1, 255));
    }

    #[test]
    fn a_failure_crosses_a_boundary_unchanged() {
        let failure = Failure::program("x", ProgramError::InterpreterMissing("/i".into()));
        let wire = serde_json::to_string(&failure).unwrap();
        assert_eq!(serde_json::from_str::<Failure>(&wire).unwrap(), failure);
    }
}
