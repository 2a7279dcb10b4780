//! `accord list`.

use accord_bundle::state::OciState;
use accord_outcome::Result;
use accord_runtime::Runtime;
use clap::{Parser, ValueEnum};

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::report::print;

/// List the containers
#[derive(Debug, Parser)]
#[command(name = "list")]
pub(super) struct Args {
    /// How
    #[arg(short, long, default_value = "table")]
    format: Format,

    /// Print only their names
    #[arg(short, long)]
    quiet: bool,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        let list = accord_runtime::list(&runtime)?;
        let text = match (self.quiet, self.format) {
            (true, _) => list.iter().map(|state| format!("{}\n", state.id)).collect(),
            (false, Format::Json) => format!("{}\n", json(&list)),
            (false, Format::Table) => table(&list),
        };
        print(text).map(|()| 0)
    }
}

fn json(list: &[OciState]) -> String {
    // Paths that are not UTF-8 are the one thing that cannot be written; none gets into a record.
    serde_json::to_string(list).unwrap_or_default()
}

fn table(list: &[OciState]) -> String {
    const HEAD: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let rows: Vec<[String; 6]> = list
        .iter()
        .map(|state| {
            [
                state.id.clone(),
                state.pid.to_string(),
                state.status.to_string(),
                state.bundle.display().to_string(),
                state.created.clone(),
                state.owner.clone(),
            ]
        })
        .collect();
    columns(&HEAD.map(str::to_owned), &rows)
}

/// Columns as runc has them: at least twelve wide, three apart, the last one open.
fn columns<const N: usize>(head: &[String; N], rows: &[[String; N]]) -> String {
    let mut widths = [9; N];
    for row in std::iter::once(head).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in std::iter::once(head).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use accord_bundle::state::Status;

    use super::*;

    #[test]
    fn the_table_is_aligned() {
        let state = OciState {
            oci_version: "1.3.0".into(),
            id: "a-long-container-name".into(),
            pid: 7,
            status: Status::Running,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00.000000000Z".into(),
            annotations: BTreeMap::new(),
            owner: "root".into(),
        };
        assert_eq!(
            table(&[state]),
            "ID                      PID         STATUS      BUNDLE      CREATED                          OWNER\n\
             a-long-container-name   7           running     /b          2026-01-01T00:00:00.000000000Z   root\n"
        );
    }
}
