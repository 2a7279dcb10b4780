//! Takes the place of the crate `regex` in what we depend on.
//!
//! There one expression is matched (`oci_spec`, `process.execCPUAffinity`) and a logger that
//! nobody starts could match another. The full crate brings the tables of Unicode with it, half
//! of all addresses that have to be adjusted whenever the command starts. `regex_lite`, by the
//! same authors, has none.
#![forbid(unsafe_code)]

pub use regex_lite::*;
