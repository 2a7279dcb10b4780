//! Builds a container.
#![deny(unsafe_code)]

pub mod seccomp;
