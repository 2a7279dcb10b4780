//! What is wrong with the arguments, in one line.
//!
//! clap words its errors in paragraphs for a terminal and repeats arguments as
//! they are; an engine wants one line in which they are quoted.

use accord_outcome::{Failure, Quoted};
use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What the parser of a value returns.
pub(crate) type Parsed<T> = Result<T, &'static str>;

/// The failure for an error of the parser in the arguments of `verb`.
pub(crate) fn of_verb(verb: &str, error: &Error) -> Failure {
    Failure::plain(format!("{verb}: {}", words(error)))
}

/// The failure for an error of the parser before the verb.
pub(crate) fn before_verb(error: &Error) -> Failure {
    Failure::plain(words(error))
}

fn words(error: &Error) -> String {
    let argument = text(error, ContextKind::InvalidArg);
    let value = text(error, ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            format!("unknown flag {}", Quoted(argument))
        }
        ErrorKind::UnknownArgument => format!("unexpected argument {}", Quoted(argument)),
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("{} needs a value", name(&argument))
        }
        ErrorKind::InvalidValue => {
            let valid = text(error, ContextKind::ValidValue).replace(", ", " or ");
            format!("{}: {} is not {valid}", name(&argument), Quoted(value))
        }
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            let cause = cause.unwrap_or_else(|| "invalid value".to_owned());
            format!("{}: {}: {cause}", name(&argument), Quoted(value))
        }
        ErrorKind::MissingRequiredArgument => format!("{} is missing", name(&argument)),
        ErrorKind::ArgumentConflict => {
            let other = text(error, ContextKind::PriorArg);
            match other == argument {
                true => format!("{} is given twice", name(&argument)),
                false => format!("{} and {} exclude each other", name(&argument), name(&other)),
            }
        }
        ErrorKind::TooManyValues => format!("{} takes no value", name(&argument)),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        _ => "the arguments cannot be understood".to_owned(),
    }
}

/// A context of the error as text; what is not there is empty.
fn text(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

/// Our own name of an argument, without clap's placeholder for its value.
fn name(argument: &str) -> &str {
    let argument = argument.split(", ").next().unwrap_or_default();
    match argument.starts_with('-') {
        true => argument.split([' ', '=', '[']).next().unwrap_or_default(),
        false => argument.trim_matches(['<', '>', '[', ']', '.']),
    }
}
