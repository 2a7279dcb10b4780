//! The child's half of building a container: a [`Plan`] and its interpreter.
//!
//! The parent reads the bundle, decides everything and writes it down as a
//! [`Plan`]: a closed list of operations over C strings, numbers and slots of
//! open descriptors. The child, which is a clone of the parent at an unknown
//! moment of its heap, does nothing but carry the list out: there is no
//! allocator in this crate (`no_std` without `alloc`: allocating does not
//! compile), no parser, no logger and no decision. What fails is reported as
//! ([`Step`], index, [`Call`], errno), from which the parent, who has the plan,
//! makes the text.
//!
//! # Order
//!
//! The compiler (crate `container`) orders the operations; a test checks its
//! plans against these rules.
//!
//! - A user namespace is entered before all others: they belong to it, and its
//!   owner has the capabilities that the rest needs (`user_namespaces(7)`).
//! - `Ask(IdMaps)` comes before `RootIds`: until the maps are written, no id can be taken.
//! - `Ask(Setup)` (cgroup, limits), or `EnterCgroup` and `Limit`, come before
//!   `Unshare(cgroup)`, whose root is the cgroup that the process is in at that moment.
//! - Propagation is cut before the first mount, so that none reaches the host.
//! - Masks, read-only paths and devices are made before `Pivot`, while the
//!   host's `/dev/null` can still be opened: the image's could be a link
//!   (CVE-2025-31133).
//! - Sysctls and labels are written through a procfs of our own, never through
//!   the container's `/proc`, which the image may have prepared (CVE-2025-52881).
//! - The terminal is opened by `TIOCGPTPEER`, not by a path (CVE-2025-52565).
//! - Groups, then gid, then uid: each needs the privilege that the next gives up.
//! - The bounding set is cut before the uid changes (it needs CAP_SETPCAP).
//! - The program is resolved after the ids and the effective capabilities are
//!   final: only then do permissions say what they will say at `execve(2)`.
//! - With no_new_privs the filter is loaded last. Without, it is loaded while
//!   CAP_SYS_ADMIN is still permitted, and only then are the capabilities final.
//! - `CloseFds` precedes `Exec`, so that nothing of the host leaks into the
//!   program (CVE-2024-21626), and the working directory is checked to be inside.
#![no_std]
#![deny(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod copy_up;
mod credentials;
mod exec;
mod hook;
mod interpreter;
mod mounts;
mod plan;
mod protocol;
mod target;
mod terminal;

pub use interpreter::{Start, bootstrap, run};
pub use plan::*;
pub use protocol::*;
