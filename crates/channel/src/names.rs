//! The names by which the two sides find what the other has prepared.

/// What the kernel executes first: our own binary, in the shared tree or the initramfs.
pub const INIT_PROGRAM: &str = "/init";

/// Its argument where the root is one in which containers can be built.
pub const AGENT: &str = "agent";

/// The kernel modules in the order in which they are loaded, one path a line.
pub const MODULES: &str = "/modules/order";

/// The name of the virtio-console port that leads to the monitor.
pub const PORT: &str = "accord";

/// The tag of the shared file system.
pub const TAG: &str = "accord";
