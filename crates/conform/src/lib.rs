//! Measures any OCI runtime against the exit-status contract.
//!
//! A [`case`] is a declarative record (`cases/*.toml`). For each case and form
//! a [`worker`] makes a [`bundle`], runs the runtime as an engine would and
//! notes what it sees ([`observe`]); [`judge`] compares that with the contract.

pub mod apart;
pub mod baseline;
pub mod bundle;
pub mod case;
pub mod catalogue;
pub mod classify;
pub mod cli;
pub mod console;
pub mod contract;
pub mod diff;
pub mod engine;
pub mod expect;
pub mod fault;
pub mod format;
pub mod judge;
pub mod launch;
pub mod leftovers;
pub mod observe;
pub mod process;
pub mod report;
pub mod result;
pub mod runtime;
pub mod session;
pub mod suite;
pub mod table;
pub mod worker;
pub mod workplace;
