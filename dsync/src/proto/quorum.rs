//! How many lockers must agree.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Two kinds of lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Shared with other readers.
    Read,
    /// Shared with nobody.
    Write,
}

impl Kind {
    /// Whether two locks of one resource exclude each other.
    pub fn excludes(self, other: Self) -> bool {
        self == Self::Write || other == Self::Write
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// How many of `lockers` must grant a lock (B50).
///
/// A writer needs more than half, a reader the rest and one more: any two writers, and any writer and
/// any reader, have a locker in common, which grants to one of them only.
///
/// ```
/// use dsync::proto::quorum::{Kind, quorum};
///
/// assert_eq!((quorum(3, Kind::Write), quorum(3, Kind::Read)), (2, 2));
/// assert_eq!((quorum(4, Kind::Write), quorum(4, Kind::Read)), (3, 2));
/// ```
pub const fn quorum(lockers: usize, kind: Kind) -> usize {
    match kind {
        Kind::Write => lockers / 2 + 1,
        Kind::Read => lockers - lockers / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b50_quorums_of_1_to_16_lockers_overlap_and_are_no_larger_than_that_takes() {
        for n in 1..=16 {
            let (write, read) = (quorum(n, Kind::Write), quorum(n, Kind::Read));
            assert!(2 * write > n && write + read > n, "{n}: {write} {read}");
            assert!(2 * (write - 1) <= n && write - 1 + read <= n, "{n}: {write} {read}");
            assert!((1..=n).contains(&write) && (1..=n).contains(&read));
            assert_eq!((write, read), (n / 2 + 1, n.div_ceil(2)));
        }
    }

    #[test]
    fn only_readers_share() {
        assert!(!Kind::Read.excludes(Kind::Read));
        assert!(Kind::Read.excludes(Kind::Write) && Kind::Write.excludes(Kind::Read));
        assert!(Kind::Write.excludes(Kind::Write));
    }
}
