//! Checks that callers assume the same number of lockers as this server. With different lists, two
//! quorums need not have a locker in common, and a lock could have two holders.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grid::Name;
use grid::time::{Clock, Instant};

use crate::proto::quorum::{LockKind, quorum};
use crate::wire::LockArgs;

/// Minimum time between two warnings about one server (B41).
const LOG_INTERVAL: Duration = Duration::from_secs(3_600);

/// Checks the quorum that callers state.
pub(crate) struct QuorumCheck {
    lockers: usize,
    clock: Arc<dyn Clock>,
    /// Mismatching servers and the time of their last warning: at most one entry per server.
    last_logged: Mutex<BTreeMap<Name, Instant>>,
}

impl QuorumCheck {
    pub(crate) fn new(lockers: usize, clock: Arc<dyn Clock>) -> Self {
        Self { lockers, clock, last_logged: Mutex::default() }
    }

    /// Checks that a caller states the quorum of this server's locker list. MinIO holders need not
    /// state one.
    ///
    /// # Errors
    ///
    /// Message for the caller.
    pub(crate) fn check(
        &self,
        caller: &Name,
        args: &LockArgs,
        kind: LockKind,
    ) -> Result<(), String> {
        let needed = quorum(self.lockers, kind);
        if !args.leased || args.quorum == i64::try_from(needed).ok() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut last_logged = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = last_logged.get(caller).is_some_and(|at| now.since(*at) < LOG_INTERVAL);
        if !is_recent {
            last_logged.insert(caller.clone(), now);
            tracing::warn!(
                target: "dsync", server = %caller, lockers = self.lockers, needed,
                given = args.quorum,
                "lock refused: the server has another list of lockers; configure the same on all"
            );
        }
        Err(format!(
            "with {} lockers a {kind} lock needs {needed} of them, not {}: is the list of lockers \
             the same on all servers?",
            self.lockers,
            args.quorum.unwrap_or_default()
        ))
    }
}
