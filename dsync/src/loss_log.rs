//! The log line about lost locks, rate limited ([B41]): one cause usually affects many.
//!
//! [B41]: grid::rules#b41

use grid::Env;
use grid::log_limit::{LogDecision, LogLimiter};
use grid::sync::Mutex;

use crate::error::LossReason;
use crate::limits::LOSS_LOG_INTERVAL;

/// Logs lost locks, at most once per [`LOSS_LOG_INTERVAL`].
pub(crate) struct LossLog {
    env: Env,
    limiter: Mutex<LogLimiter>,
}

impl LossLog {
    pub(crate) fn new(env: Env) -> Self {
        Self { env, limiter: Mutex::new(LogLimiter::new(LOSS_LOG_INTERVAL)) }
    }

    /// Records that a lock was lost. The log line counts those since the line before.
    pub(crate) fn record(&self, uid: &str, reason: LossReason) {
        let decision = self.limiter.lock().record("lock lost", self.env.now());
        if let LogDecision::Log { suppressed } = decision {
            let count = suppressed.saturating_add(1);
            tracing::warn!(target: "dsync", count, uid, %reason, "lock lost");
        }
    }
}
