//! What is wrong at a place of a document.

use std::borrow::Cow;

use accord_outcome::{Failure, Quoted};

/// The name of the bundle's document, in every text about it.
pub(crate) const CONFIG: &str = "config.json";

/// A place, by JSON pointer (RFC 6901), and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) pointer: String,
    pub(crate) cause: Cow<'static, str>,
}

/// What a check returns.
pub(crate) type Checked = Result<(), Fault>;

/// A fault, where `pointer` and `cause` are already fit to be shown.
pub(crate) fn fault<T>(
    pointer: impl Into<String>,
    cause: impl Into<Cow<'static, str>>,
) -> Result<T, Fault> {
    Err(Fault { pointer: pointer.into(), cause: cause.into() })
}

/// One reference token of a JSON pointer.
pub(crate) fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl Fault {
    /// The same fault, seen from further up.
    pub(crate) fn under(self, prefix: &str) -> Self {
        Self { pointer: format!("{prefix}{}", self.pointer), ..self }
    }

    pub(crate) fn into_failure(self, document: &'static str) -> Failure {
        Failure::text(document, self.pointer, self.cause)
    }
}

/// What is odd in a document, but no reason to refuse it.
#[derive(Debug)]
pub(crate) struct Warnings {
    document: &'static str,
    texts: Vec<String>,
}

impl Warnings {
    pub(crate) fn of(document: &'static str) -> Self {
        Self { document, texts: Vec::new() }
    }

    pub(crate) fn document(&self) -> &'static str {
        self.document
    }

    pub(crate) fn push(&mut self, pointer: &str, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.texts.push(format!("{} {}: {text}", self.document, Quoted(pointer)));
    }

    pub(crate) fn into_texts(self) -> Vec<String> {
        self.texts
    }
}
