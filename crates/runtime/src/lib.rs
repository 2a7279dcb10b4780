//! The life of a container: its state on disk and one function a verb.
#![forbid(unsafe_code)]

pub mod options;
