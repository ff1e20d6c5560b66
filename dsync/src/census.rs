//! Whether those who ask for locks count the same lockers as this one: with two lists, two quorums need
//! not have a locker in common, and a lock would have two holders.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grid::Name;
use grid::time::{Clock, Instant};

use crate::proto::quorum::{Kind, quorum};
use crate::wire::LockArgs;

/// How often the same server is complained about in the log (B41).
const COMPLAIN_EVERY: Duration = Duration::from_secs(3_600);

/// See the module.
pub(crate) struct Census {
    lockers: usize,
    clock: Arc<dyn Clock>,
    /// Servers that count otherwise, and when that was logged: no more than there are servers.
    complained: Mutex<BTreeMap<Name, Instant>>,
}

impl Census {
    pub(crate) fn new(lockers: usize, clock: Arc<dyn Clock>) -> Self {
        Self { lockers, clock, complained: Mutex::default() }
    }

    /// Whether the server that asks needs as many lockers as it should. Holders of existing clusters
    /// need not say.
    ///
    /// # Errors
    ///
    /// A text for that server.
    pub(crate) fn check(&self, caller: &Name, args: &LockArgs, kind: Kind) -> Result<(), String> {
        let needs = quorum(self.lockers, kind);
        if !args.leased || args.quorum == i64::try_from(needs).ok() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = complained.get(caller).is_some_and(|at| now.since(*at) < COMPLAIN_EVERY);
        if !is_known {
            complained.insert(caller.clone(), now);
            tracing::warn!(
                target: "dsync", server = %caller, lockers = self.lockers, needs, given = args.quorum,
                "a server counts other lockers than this one, and gets no locks here: all must be \
                 configured with the same list"
            );
        }
        Err(format!(
            "with {} lockers a {kind} lock needs {needs} of them, not {}: is the list of lockers the \
             same on all servers?",
            self.lockers,
            args.quorum.unwrap_or_default()
        ))
    }
}
