//! docs/exit-status.md is made of the records.

use std::collections::BTreeSet;
use std::path::Path;

use accord_conform::contract::Contract;
use accord_conform::table;

#[test]
fn the_document_is_what_the_records_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/exit-status.md");
    let document = std::fs::read_to_string(path).unwrap();
    let made = Contract::read().unwrap().render(&table::cases().unwrap()).unwrap();
    assert!(
        document == made,
        "docs/exit-status.md is stale: accord conform --contract >docs/exit-status.md"
    );
}

#[test]
fn every_case_has_a_rule_and_every_rule_a_case() {
    let contract = Contract::read().unwrap();
    let cases = table::cases().unwrap();
    let used: BTreeSet<&str> = cases.iter().map(|case| case.rule.as_str()).collect();
    let known: BTreeSet<&str> = contract.rules().map(|rule| rule.id.as_str()).collect();
    assert_eq!(used, known);
}

#[test]
fn there_are_enough_cases() {
    let cases = table::cases().unwrap();
    let native = cases.iter().filter(|case| !case.has(accord_conform::case::Tag::Microvm));
    assert!(native.count() >= 150);
}
