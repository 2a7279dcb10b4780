//! How a process ended.

use serde::{Deserialize, Serialize};

/// The end of a container's init process or of an `exec`ed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It called `exit` with this status (the low eight bits, `wait(2)`).
    Exited(u8),
    /// A signal killed it.
    Signalled {
        /// The signal's number, 1 to 64.
        signal: u8,
        /// Whether the kernel says that it dumped core (`WCOREDUMP`).
        core: bool,
    },
    /// Nobody can say: the microVM went away before it reported.
    Lost,
}

impl Outcome {
    /// The exit status that a shell would show: N, 128+n, or 255 for a lost guest.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signalled { signal, .. } => 128u8.saturating_add(signal),
            Self::Lost => 255,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn codes_follow_the_shell() {
        assert_eq!(Outcome::Exited(0).code(), 0);
        assert_eq!(Outcome::Exited(255).code(), 255);
        assert_eq!(Outcome::Signalled { signal: 9, core: false }.code(), 137);
        assert_eq!(Outcome::Signalled { signal: 64, core: true }.code(), 192);
        assert_eq!(Outcome::Lost.code(), 255);
    }
}
