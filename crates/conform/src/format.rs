//! The forms of a report: one file each.

mod html;
mod junit;
mod markdown;
mod matrix;
mod tap;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use accord_outcome::Failure;
use clap::ValueEnum;
use rustix::fs::{Access, access};
use rustix::io::Errno;

use crate::report::Report;

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal.
    Matrix,
    /// Everything, for programs.
    Json,
    /// JUnit's XML, for continuous integration.
    Junit,
    /// The Test Anything Protocol, version 14.
    Tap,
    /// Tables for a page or a comment.
    Markdown,
    /// One page for a browser, which needs nothing else.
    Html,
}

/// A form, and where it goes: `html=report.html`, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The form.
    pub format: Format,
    /// The file.
    pub file: Option<PathBuf>,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, file) = match text.split_once('=') {
            Some((_, "")) => return Err("without a file after =".to_owned()),
            Some((name, file)) => (name, Some(PathBuf::from(file))),
            None => (text, None),
        };
        let names: Vec<_> =
            Format::value_variants().iter().filter_map(Format::to_possible_value).collect();
        let known = names.iter().map(clap::builder::PossibleValue::get_name).collect::<Vec<_>>();
        let format =
            Format::from_str(name, false).map_err(|_| format!("not {}", known.join(" or ")))?;
        Ok(Self { format, file })
    }
}

impl Format {
    /// The report in this form, for a screen of that width. It ends with a newline.
    pub fn render(self, report: &Report, width: usize) -> Result<String, Failure> {
        match self {
            Self::Matrix => Ok(matrix::render(report, width)),
            Self::Json => json(report),
            Self::Junit => junit::render(report),
            Self::Tap => Ok(tap::render(report)),
            Self::Markdown => Ok(markdown::render(report)),
            Self::Html => html::render(report),
        }
    }
}

impl Destination {
    /// Fails where the report could not be written: better before the work than after it.
    pub fn check(&self) -> Result<(), Failure> {
        let Some(file) = &self.file else { return Ok(()) };
        let result = match file.metadata() {
            Ok(data) if data.is_dir() => Err(Errno::ISDIR),
            Ok(_) => access(file, Access::WRITE_OK),
            Err(_) => {
                let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
                access(parent.unwrap_or(Path::new(".")), Access::WRITE_OK)
            }
        };
        result.map_err(|errno| report_failure(file, &errno.into()))
    }

    /// Writes the report to where it goes.
    pub fn write(&self, report: &Report) -> Result<(), Failure> {
        let text = self.format.render(report, width())?;
        match &self.file {
            Some(file) => write_file(file, &text),
            None => {
                // The stream takes the colours out where nobody can see them.
                let mut output = anstream::stdout().lock();
                let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
                written.map_err(|error| Failure::io("write to", "stdout", &error))
            }
        }
    }
}

fn write_file(file: &Path, text: &str) -> Result<(), Failure> {
    // A matrix in a file has no colours.
    let text = anstream::adapter::strip_str(text).to_string();
    std::fs::write(file, text).map_err(|error| report_failure(file, &error))
}

fn report_failure(file: &Path, error: &std::io::Error) -> Failure {
    Failure::io("write report", file.as_os_str().as_encoded_bytes(), error)
}

/// The width of the screen; a pipe has none, but somebody will read it on one.
fn width() -> usize {
    const UNKNOWN: usize = 120;
    console::Term::stdout().size_checked().map_or(UNKNOWN, |(_, columns)| usize::from(columns))
}

fn json(report: &Report) -> Result<String, Failure> {
    let mut text = serde_json::to_string(report)
        .map_err(|error| Failure::text("write JSON", "", error.to_string()))?;
    text.push('\n');
    Ok(text)
}

/// Milliseconds as seconds.
fn seconds(ms: u64) -> std::time::Duration {
    std::time::Duration::from_millis(ms)
}
