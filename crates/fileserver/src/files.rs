//! The file system: `virtiofsd`'s pass-through, with what differs from its defaults.

use std::time::Duration;

use accord_outcome::{Failure, Result};
use virtiofsd::passthrough::{CachePolicy, Config, NegotiationMode, PassthroughFs};

use crate::jail::Inside;

/// For how long the guest believes names and attributes; a file's data until it is opened
/// again. It is the time after which a change on the host is seen.
const VALID: Duration = Duration::from_secs(1);

/// Descriptors that the guest may not use up: the connection, the memory, one request's.
const RESERVE: u64 = 64;

pub(crate) fn passthrough(jail: Inside) -> Result<PassthroughFs> {
    PassthroughFs::new(Config {
        entry_timeout: VALID,
        attr_timeout: VALID,
        cache_policy: CachePolicy::Auto,
        root_dir: "/".to_owned(),
        xattr: true,
        proc_sfd_rawfd: Some(jail.open_files),
        announce_submounts: true,
        readdirplus: true,
        posix_acl: NegotiationMode::Auto,
        guest_fd_limit: jail.descriptors.saturating_sub(RESERVE),
        ..Config::default()
    })
    .map_err(|error| Failure::io("serve", "/", &error))
}
