//! How locks are shown to people.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use dsync::{ForceReport, Kind, Listing, LockInfo, WaiterInfo};

/// All locks, one or two lines each.
pub(super) struct Table<'a>(pub(super) &'a Listing);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Listing { locks, waiters, silent, closed, is_cut }) = self;
        match locks.len() {
            0 => f.write_str("no locks")?,
            1 => f.write_str("1 lock:")?,
            count => write!(f, "{count} locks:")?,
        }
        for lock in locks {
            write!(f, "\n{}", Held(lock))?;
        }
        match waiters.len() {
            0 => {}
            1 => f.write_str("\n1 waits:")?,
            count => write!(f, "\n{count} wait:")?,
        }
        for waiter in waiters {
            write!(f, "\n{}", Waiting(waiter))?;
        }
        if *is_cut {
            f.write_str("\nthere are more: lockers list the oldest only")?;
        }
        for (locker, why) in silent {
            write!(f, "\n{locker} did not answer: {}", printable(why))?;
        }
        for locker in closed {
            write!(f, "\n{locker} has restarted and grants nothing yet")?;
        }
        Ok(())
    }
}

struct Held<'a>(&'a LockInfo);

impl fmt::Display for Held<'_> {
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

struct Waiting<'a>(&'a WaiterInfo);

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(waiter) = self;
        write!(
            f,
            "  {:<6}{:>10}  {}\n        by {}",
            kind(waiter.kind),
            Age(waiter.age_ms),
            resources(&waiter.resources),
            by(&waiter.owner, &waiter.source),
        )
    }
}

/// What came of taking locks away.
pub(super) struct Forcing<'a>(pub(super) &'a ForceReport);

impl fmt::Display for Forcing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ForceReport { forced, not_found, failed, is_effective }) = self;
        write!(f, "{} lockers had it, {} had not", forced.len(), not_found.len())?;
        for (locker, why) in failed {
            write!(f, "\n{locker} did not answer: {}", printable(why))?;
        }
        if *is_effective {
            f.write_str("\nit is free when its holder has let go, or its lease has ended")?;
        }
        Ok(())
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "read",
        Kind::Write => "write",
    }
}

/// Of a lock that is not simply held.
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

/// What somebody else has chosen must not move the cursor.
fn printable(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_control) {
        true => text.escape_debug().to_string().into(),
        false => text.into(),
    }
}

/// Milliseconds, with as many digits as matter.
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
            kind: Kind::Write,
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
    fn a_list_shows_all_that_is_known_and_no_escapes() {
        let waiter = WaiterInfo {
            id: "w".to_owned(),
            resources: vec!["a/b".to_owned()],
            kind: Kind::Read,
            owner: "http://b:1".to_owned(),
            source: String::new(),
            age_ms: 100_500,
        };
        let listing = Listing {
            locks: vec![lock()],
            waiters: vec![waiter],
            silent: vec![("http://c:1".to_owned(), "not connected".to_owned())],
            closed: vec!["http://d:1".to_owned()],
            is_cut: true,
        };
        assert_eq!(
            Table(&listing).to_string(),
            "1 lock:\n\
             \x20 write     12.3 s  2 of 3 needed  a/b, c\\u{1b}[2J  (stale)\n\
             \x20       the id, refreshed 678 ms ago, by http://a:1 for http://g:1: backup\n\
             1 waits:\n\
             \x20 read       100 s  a/b\n\
             \x20       by http://b:1\n\
             there are more: lockers list the oldest only\n\
             http://c:1 did not answer: not connected\n\
             http://d:1 has restarted and grants nothing yet"
        );
        assert_eq!(Table(&Listing::default()).to_string(), "no locks");
    }

    #[test]
    fn what_came_of_forcing_is_told() {
        let report = ForceReport {
            forced: vec!["a".to_owned(), "b".to_owned()],
            not_found: vec!["c".to_owned()],
            failed: vec![("http://d:1".to_owned(), "not connected".to_owned())],
            is_effective: true,
        };
        assert_eq!(
            Forcing(&report).to_string(),
            "2 lockers had it, 1 had not\nhttp://d:1 did not answer: not connected\n\
             it is free when its holder has let go, or its lease has ended"
        );
    }
}
