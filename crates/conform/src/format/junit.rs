//! JUnit's XML: a suite for each runtime, a case for each cell.

use accord_outcome::Failure;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use crate::report::Report;
use crate::result::{Cell, Verdict};

pub(super) fn render(report: &Report) -> Result<String, Failure> {
    let mut junit = quick_junit::Report::new("accord conform");
    for runtime in &report.runtimes {
        let mut suite = TestSuite::new(format!("{} ({})", runtime.name, runtime.mode));
        suite.add_property(("version", runtime.version.as_str()));
        suite.add_test_cases(report.of(runtime).map(case));
        junit.add_test_suite(suite);
    }
    junit.to_string().map_err(|error| Failure::text("write JUnit", "", error.to_string()))
}

fn case(cell: &Cell) -> TestCase {
    let status = match (cell.verdict, &cell.known) {
        (Verdict::Pass, _) => TestCaseStatus::success(),
        (Verdict::Skipped, _) => skipped(&cell.reason),
        (Verdict::Departs, Some(reason)) => skipped(&format!("known: {reason}")),
        (Verdict::Departs, None) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let check = cell.gravest().map_or("suite".to_owned(), |check| check.to_string());
            let message = format!("expected {}, got {}", cell.expected, cell.got);
            status.set_type(check).set_message(message).set_description(cell.reason.as_str());
            status
        }
    };
    let mut case = TestCase::new(format!("{} {}", cell.id, cell.form), status);
    case.set_classname(format!("conform.{:?}", cell.group)).set_time(super::seconds(cell.ms));
    case
}

fn skipped(reason: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(reason);
    status
}
