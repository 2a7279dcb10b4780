//! A container's cgroup on v1, hybrid and v2 systems.
//!
//! [`Layout`] says which hierarchies there are, [`Cgroup`] names a container's
//! place in them and does all that is done to it: create, enter, limit, freeze,
//! list, kill, measure, remove.
//!
//! # `linux.cgroupsPath`
//!
//! - Absolute: below the root of each hierarchy.
//! - Relative: below the caller's own cgroup on v1, beside it on v2.
//! - Absent: `/ID`; of a rootless caller `ID`.
//!
//! `..` never climbs above the start, and the root itself is refused.
//!
//! With the systemd manager: `SLICE:PREFIX:NAME`; absent `:accord:ID`.
//!
//! # How a process gets in
//!
//! On v2 by `CLONE_INTO_CGROUP` with [`Cgroup::open_for_clone`]; on v1 by
//! writing `0` itself to the files of [`Cgroup::entries`]; on hybrid by
//! both. [`Cgroup::attach`] serves whatever cannot do that, and costs a lock on
//! the whole system. With the systemd manager the first process is put in by
//! [`Cgroup::start`], any other by [`Cgroup::attach`].
#![forbid(unsafe_code)]

mod apply;
mod cgroup;
mod create;
pub mod devices;
mod enter;
mod file;
mod freezer;
mod layout;
mod name;
mod oom;
mod processes;
mod remove;
pub mod resources;
pub mod stats;
mod systemd;
mod view;

pub use cgroup::{Cgroup, Driver};
pub use layout::{Layout, Mode};
pub use oom::{Oom, OomWatch};
pub use stats::Stats;
pub use view::HierarchyView;
