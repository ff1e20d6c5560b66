//! Checks that callers assume the same number of lockers as this server. With different lists, two
//! quorums need not have a locker in common, and a lock could have two holders.

use grid::log_limit::LogLimiter;
use grid::sync::Mutex;
use grid::{Env, Name};

use crate::limits::QUORUM_LOG_INTERVAL;
use crate::proto::quorum::quorum;
use crate::proto::table::LockRequest;

/// Checks the quorum that callers state.
pub(crate) struct QuorumCheck {
    lockers: usize,
    env: Env,
    /// By the name of the caller (B41).
    log_limiter: Mutex<LogLimiter>,
}

impl QuorumCheck {
    pub(crate) fn new(lockers: usize, env: Env) -> Self {
        Self { lockers, env, log_limiter: Mutex::new(LogLimiter::new(QUORUM_LOG_INTERVAL)) }
    }

    /// Checks that a caller states the quorum of this server's locker list. MinIO holders need not
    /// state one.
    ///
    /// # Errors
    ///
    /// Message for the caller.
    pub(crate) fn check(&self, caller: &Name, request: &LockRequest) -> Result<(), String> {
        let LockRequest { kind, quorum: given, supports_leases, .. } = *request;
        let needed = quorum(self.lockers, kind);
        if !supports_leases || given == needed {
            return Ok(());
        }
        if self.log_limiter.lock().record(caller.as_str(), self.env.now()).is_log() {
            tracing::warn!(
                target: "dsync", server = %caller, lockers = self.lockers, needed,
                given,
                "lock refused: the server has another list of lockers; configure the same on all"
            );
        }
        Err(format!(
            "with {} lockers a {kind} lock needs {needed} of them, not {given}: is the list of lockers \
             the same on all servers?",
            self.lockers
        ))
    }
}
