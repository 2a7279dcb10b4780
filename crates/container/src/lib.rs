//! Builds a container: compiles the plan, spawns the child, answers it.
//!
//! [`compile`] turns a configuration into a plan, [`needs`] opens what the plan
//! asks for, [`spawn`] clones the child that carries it out and answers it, and
//! [`explain`] puts its failures into words.
#![deny(unsafe_code)]

pub mod compile;
pub mod explain;
pub mod id_maps;
pub mod limits;
pub mod needs;
mod passwd;
pub mod seccomp;
pub mod show;
pub mod spawn;
