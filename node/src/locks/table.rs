//! Text output of `gridwire locks`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use dsync::{ForceReport, Listing, LockInfo, LockKind, TicketState, WaiterInfo};

use crate::output::printable;

/// All locks and waiters, two lines each.
pub(super) struct LocksTable<'a>(pub(super) &'a Listing);

impl fmt::Display for LocksTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Listing { locks, waiters, unreachable, closed, is_truncated }) = self;
        match locks.len() {
            0 => f.write_str("no locks")?,
            1 => f.write_str("1 lock:")?,
            count => write!(f, "{count} locks:")?,
        }
        for lock in locks {
            write!(f, "\n{}", LockRow(lock))?;
        }
        match waiters.len() {
            0 => {}
            1 => f.write_str("\n1 waiter:")?,
            count => write!(f, "\n{count} waiters:")?,
        }
        for waiter in waiters {
            write!(f, "\n{}", WaiterRow(waiter))?;
        }
        if *is_truncated {
            f.write_str("\nthe list is truncated: lockers list the oldest only")?;
        }
        for (locker, why) in unreachable {
            write!(f, "\n{locker} did not respond: {}", printable(why))?;
        }
        for locker in closed {
            write!(f, "\n{locker} has restarted and grants nothing yet")?;
        }
        Ok(())
    }
}

struct LockRow<'a>(&'a LockInfo);

impl fmt::Display for LockRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(lock) = self;
        let (granted, needed) = (lock.granted_by.len(), lock.quorum);
        write!(
            f,
            "  {:<6}{:>10}  {granted} of {needed} needed  {}{}\n        {}, refreshed {} ago, by {}",
            kind(lock.kind),
            Age(lock.age_ms),
            resources(&lock.resources),
            states(lock),
            printable(&lock.uid),
            Age(lock.refreshed_ms),
            by(&lock.owner, &lock.source),
        )
    }
}

struct WaiterRow<'a>(&'a WaiterInfo);

impl fmt::Display for WaiterRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(waiter) = self;
        write!(
            f,
            "  {:<6}{:>10}  {}  ({})\n        by {}",
            kind(waiter.kind),
            Age(waiter.age_ms),
            resources(&waiter.resources),
            ticket_state(waiter.state),
            by(&waiter.owner, &waiter.source),
        )
    }
}

/// The result of forcing locks open.
pub(super) struct ForceResult<'a>(pub(super) &'a ForceReport);

impl fmt::Display for ForceResult<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ForceReport { forced, not_found, failed, is_effective }) = self;
        write!(f, "{} lockers had the lock, {} did not", forced.len(), not_found.len())?;
        for (locker, why) in failed {
            write!(f, "\n{locker} did not respond: {}", printable(why))?;
        }
        if *is_effective {
            f.write_str("\nit is free when its holder releases it or its lease expires")?;
        }
        Ok(())
    }
}

fn kind(kind: LockKind) -> &'static str {
    match kind {
        LockKind::Read => "read",
        LockKind::Write => "write",
    }
}

/// The most advanced state of a waiter at any locker.
fn ticket_state(state: TicketState) -> &'static str {
    match state {
        TicketState::Waiting => "waiting",
        TicketState::Notified => "notified",
        TicketState::Absent => "absent: missed its notification",
        TicketState::Granted => "granted",
    }
}

/// The states of a lock that is not simply held.
fn states(lock: &LockInfo) -> &'static str {
    match (lock.is_revoked, lock.is_stale) {
        (true, true) => "  (forced open, stale)",
        (true, false) => "  (forced open)",
        (false, true) => "  (stale)",
        (false, false) => "",
    }
}

fn resources(resources: &[String]) -> String {
    let printed: Vec<_> = resources.iter().map(|resource| printable(resource)).collect();
    printed.join(", ")
}

fn by<'a>(owner: &'a str, source: &'a str) -> Cow<'a, str> {
    match source {
        "" => printable(owner),
        source => format!("{} for {}", printable(owner), printable(source)).into(),
    }
}

/// Milliseconds, displayed in a suitable unit.
struct Age(u64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = Duration::from_millis(self.0);
        let text = match age.as_secs() {
            0 => format!("{} ms", age.as_millis()),
            1..100 => format!("{:.1} s", age.as_secs_f64()),
            seconds => format!("{seconds} s"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> LockInfo {
        LockInfo {
            uid: "the id".to_owned(),
            resources: vec!["a/b".to_owned(), "c\u{1b}[2J".to_owned()],
            kind: LockKind::Write,
            owner: "http://a:1".to_owned(),
            source: "http://g:1: backup".to_owned(),
            granted_by: vec!["http://a:1".to_owned(), "http://b:1".to_owned()],
            quorum: 3,
            age_ms: 12_345,
            refreshed_ms: 678,
            expires_ms: 59_000,
            is_revoked: false,
            is_stale: true,
        }
    }

    #[test]
    fn list_is_complete_and_has_no_control_characters() {
        let waiter = WaiterInfo {
            id: "w".to_owned(),
            resources: vec!["a/b".to_owned()],
            kind: LockKind::Read,
            owner: "http://b:1".to_owned(),
            source: String::new(),
            age_ms: 100_500,
            state: TicketState::Notified,
            misses: 0,
        };
        let listing = Listing {
            locks: vec![lock()],
            waiters: vec![waiter],
            unreachable: vec![("http://c:1".to_owned(), "not connected".to_owned())],
            closed: vec!["http://d:1".to_owned()],
            is_truncated: true,
        };
        assert_eq!(
            LocksTable(&listing).to_string(),
            "1 lock:\n\
             \x20 write     12.3 s  2 of 3 needed  a/b, c\\u{1b}[2J  (stale)\n\
             \x20       the id, refreshed 678 ms ago, by http://a:1 for http://g:1: backup\n\
             1 waiter:\n\
             \x20 read       100 s  a/b  (notified)\n\
             \x20       by http://b:1\n\
             the list is truncated: lockers list the oldest only\n\
             http://c:1 did not respond: not connected\n\
             http://d:1 has restarted and grants nothing yet"
        );
        assert_eq!(LocksTable(&Listing::default()).to_string(), "no locks");
    }

    #[test]
    fn force_result_is_printed() {
        let report = ForceReport {
            forced: vec!["a".to_owned(), "b".to_owned()],
            not_found: vec!["c".to_owned()],
            failed: vec![("http://d:1".to_owned(), "not connected".to_owned())],
            is_effective: true,
        };
        assert_eq!(
            ForceResult(&report).to_string(),
            "2 lockers had the lock, 1 did not\nhttp://d:1 did not respond: not connected\n\
             it is free when its holder releases it or its lease expires"
        );
    }
}
