//! What is said besides the result: one place, because engines read it.
//!
//! A failure is exactly one record in the log file and exactly one line on
//! stderr. Warnings wait until the verb has succeeded, since an engine takes
//! whatever it finds for the cause of a failure. Debug records go out at once.
//!
//! The rest of the program says things with [`log::warn!`] and [`log::debug!`],
//! one line each, names quoted; errors are returned, never logged.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use accord_outcome::{Failure, Result};
use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::io::Errno;
use serde::Serialize;

/// How a record of the log file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// `time="..." level=error msg="..."`
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the command line says about the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The file; `None`: lines on stderr only.
    pub(crate) file: Option<PathBuf>,
    pub(crate) format: Format,
    pub(crate) debug: bool,
}

struct Reporter {
    log: Sink,
    format: Format,
    warnings: Mutex<Vec<String>>,
}

/// Where records go.
enum Sink {
    /// Nowhere: there is the line on stderr.
    None,
    /// To stderr (`--log /dev/stderr`), in place of that line.
    Stderr,
    /// To a file.
    File(File),
}

static REPORTER: OnceLock<Reporter> = OnceLock::new();

/// Opens the log; before this, everything goes to stderr.
pub(crate) fn open(settings: &Settings) -> Result<()> {
    let log = match settings.file.as_deref() {
        None => Sink::None,
        Some(path) if path == Path::new("/dev/stderr") => Sink::Stderr,
        Some(path) => Sink::File(open_log(path)?),
    };
    let reporter = REPORTER.get_or_init(|| Reporter {
        log,
        format: settings.format,
        warnings: Mutex::default(),
    });
    // It fails if there is a logger already; then it is this one.
    if log::set_logger(reporter).is_ok() {
        let level = if settings.debug { LevelFilter::Debug } else { LevelFilter::Warn };
        log::set_max_level(level);
    }
    Ok(())
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| Failure::io("open log", path.as_os_str().as_encoded_bytes(), &error))
}

/// Says why the verb failed.
pub(crate) fn failure(failure: &Failure) {
    say(Level::Error, &failure.to_string());
}

/// Says the warnings that were held: the verb has succeeded.
pub(crate) fn warnings() {
    let Some(reporter) = REPORTER.get() else { return };
    let held = std::mem::take(&mut *lock(&reporter.warnings));
    for text in held {
        say(Level::Warn, &text);
    }
}

/// Writes the result of a verb to stdout.
pub(crate) fn print(text: impl Display) -> Result<()> {
    if accord_sys::entry::output_is_lost() {
        return Err(Failure::errno("write to", "stdout", Errno::BADF.raw_os_error()));
    }
    let mut stdout = stdout().lock();
    let written = write!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|error| Failure::io("write to", "stdout", &error))
}

/// [`print`], as JSON for people.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::plain(format!("write JSON: {error}")))?;
    print(format_args!("{text}\n"))
}

/// An error is said in the log and on stderr, a warning in the log or else on
/// stderr: an engine may have connected that to the container's own output.
fn say(level: Level, text: &str) {
    let sink = REPORTER.get().map_or(&Sink::None, |reporter| reporter.record(level, text));
    match (sink, level) {
        (Sink::Stderr, _) | (Sink::File(_), Level::Warn) => {}
        (_, Level::Warn) => write_to(stderr().lock(), &format!("accord: warning: {text}\n")),
        _ => write_to(stderr().lock(), &format!("accord: {text}\n")),
    }
}

/// In one write, so that lines of several processes do not mix. Nobody can be told of an error.
fn write_to(mut file: impl Write, line: &str) {
    file.write_all(line.as_bytes()).ok();
}

impl Reporter {
    fn record(&self, level: Level, text: &str) -> &Sink {
        let record = || self.format.record(level, text, SystemTime::now());
        match &self.log {
            Sink::None => {}
            Sink::Stderr => write_to(stderr().lock(), &record()),
            Sink::File(file) => write_to(file, &record()),
        }
        &self.log
    }
}

impl Log for Reporter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        match record.level() {
            Level::Error | Level::Warn => lock(&self.warnings).push(text),
            Level::Info | Level::Debug | Level::Trace => {
                if matches!(self.record(Level::Debug, &text), Sink::None) {
                    write_to(stderr().lock(), &format!("accord: debug: {text}\n"));
                }
            }
        }
    }

    fn flush(&self) {}
}

impl Format {
    fn record(self, level: Level, text: &str, time: SystemTime) -> String {
        let level = match level {
            Level::Warn => "warning",
            Level::Error => "error",
            Level::Info | Level::Debug | Level::Trace => "debug",
        };
        let time = humantime::format_rfc3339_seconds(time);
        let msg = serde_json::Value::from(text);
        match self {
            Self::Text => format!("time=\"{time}\" level={level} msg={msg}\n"),
            Self::Json => {
                format!("{{\"level\":\"{level}\",\"msg\":{msg},\"time\":\"{time}\"}}\n")
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_record_is_one_line_in_both_formats() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let text = "exec: \"a\\nb\": x\ty";
        assert_eq!(
            Format::Json.record(Level::Error, text, time),
            "{\"level\":\"error\",\"msg\":\"exec: \\\"a\\\\nb\\\": x\\ty\",\"time\":\"2023-11-14T22:13:20Z\"}\n"
        );
        assert_eq!(
            Format::Text.record(Level::Warn, text, time),
            "time=\"2023-11-14T22:13:20Z\" level=warning msg=\"exec: \\\"a\\\\nb\\\": x\\ty\"\n"
        );
    }
}
