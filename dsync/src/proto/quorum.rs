//! Quorums of lockers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Read or write lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// Shared with other readers.
    Read,
    /// Exclusive.
    Write,
}

/// Identifies a list of lockers, so that a holder and a locker notice that theirs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ListId {
    /// Its position in the order of all lists of the cluster.
    pub epoch: u64,
    /// Hash of the list; 0 if there is none.
    pub hash: u64,
}

impl ListId {
    /// Returns whether both are lists, and not the same one. A MinIO holder states no list.
    pub fn differs_from(self, other: Self) -> bool {
        self.hash != 0 && other.hash != 0 && self != other
    }
}

impl LockKind {
    /// Returns whether two locks of one resource exclude each other.
    pub fn excludes(self, other: Self) -> bool {
        self == Self::Write || other == Self::Write
    }
}

impl fmt::Display for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Returns how many of `lockers` must grant a lock ([B50]).
///
/// A writer needs more than half, a reader the rest plus one. So any two writers, and any writer
/// and any reader, have a locker in common, which grants to only one of them.
///
/// ```
/// use dsync::proto::quorum::{LockKind, quorum};
///
/// assert_eq!((quorum(3, LockKind::Write), quorum(3, LockKind::Read)), (2, 2));
/// assert_eq!((quorum(4, LockKind::Write), quorum(4, LockKind::Read)), (3, 2));
/// ```
///
/// [B50]: crate::rules#b50
pub const fn quorum(lockers: usize, kind: LockKind) -> usize {
    match kind {
        LockKind::Write => lockers / 2 + 1,
        LockKind::Read => lockers - lockers / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b50_quorums_of_1_to_16_lockers_overlap_and_are_minimal() {
        for n in 1..=16 {
            let (write, read) = (quorum(n, LockKind::Write), quorum(n, LockKind::Read));
            assert!(2 * write > n && write + read > n, "{n}: {write} {read}");
            assert!(2 * (write - 1) <= n && write - 1 + read <= n, "{n}: {write} {read}");
            assert!((1..=n).contains(&write) && (1..=n).contains(&read));
            assert_eq!((write, read), (n / 2 + 1, n.div_ceil(2)));
        }
    }

    #[test]
    fn only_readers_share() {
        assert!(!LockKind::Read.excludes(LockKind::Read));
        assert!(
            LockKind::Read.excludes(LockKind::Write) && LockKind::Write.excludes(LockKind::Read)
        );
        assert!(LockKind::Write.excludes(LockKind::Write));
    }
}
