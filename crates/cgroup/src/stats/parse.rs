//! The formats of the kernel's statistics files.

use std::collections::BTreeMap;
use std::path::Path;

use accord_outcome::Result;

use super::{BlkioEntry, Psi, PsiData};
use crate::file;

/// A number, or `max`; 0 for what is not there.
pub(super) fn number(path: &Path) -> Result<u64> {
    Ok(file::read_if_present(path)?.as_deref().map_or(0, value))
}

pub(super) fn value(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or_default(),
    }
}

/// `KEY VALUE` lines.
pub(super) fn keyed(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, number) = line.split_once(' ')?;
        Some((key.to_owned(), number.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Numbers separated by spaces.
pub(super) fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace().map(value).collect()
}

/// `0-2,5`
pub(super) fn ranges(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// v1: `MAJOR:MINOR OP VALUE` or `MAJOR:MINOR VALUE` lines, and a `Total`.
pub(super) fn blkio(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let (op, value) = match (fields.next()?, fields.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// v2: `MAJOR:MINOR rbytes=N wbytes=N rios=N ...` lines, as bytes and as operations.
pub(super) fn io(text: &str) -> (Vec<BlkioEntry>, Vec<BlkioEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let device = fields.next().and_then(|device| device.split_once(':'));
        let Some((major, minor)) = device else { continue };
        let (major, minor) = (value(major), value(minor));
        for (key, number) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                // Discards have no counterpart on v1, whose form this is.
                _ => continue,
            };
            list.push(BlkioEntry { major, minor, op: op.to_owned(), value: value(number) });
        }
    }
    (bytes, operations)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` likewise.
pub(super) fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let data = match fields.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, number) in fields.filter_map(|field| field.split_once('=')) {
            set_psi(data, key, number);
        }
    }
    psi
}

fn set_psi(data: &mut PsiData, key: &str, number: &str) {
    let share = number.parse().unwrap_or_default();
    match key {
        "avg10" => data.avg10 = share,
        "avg60" => data.avg60 = share,
        "avg300" => data.avg300 = share,
        "total" => data.total = value(number),
        _ => {}
    }
}
