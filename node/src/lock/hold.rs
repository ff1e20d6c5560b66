//! A lock that a server holds for this tool.
//!
//! ```text
//!                Granted             Pong 0              Lost, stream ends,
//!   Acquiring ────────────► Unproven ────────► Held ──── or no pong until the validity ends ──► lost
//!      │                       │                │ release
//!      └ Refused, timeout ─────┴──► error       └──────► released when the stream has ended
//! ```
//!
//! `Unproven` exists because the age of a grant is unknown: the response may have been in flight
//! for as long as the lease. The first ping measures it.

use std::time::Duration;

use dsync::limits::ATTEMPT_TIMEOUT;
use grid::{Connection, TypedReceiver, TypedSender, TypedStreamError};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::deadlines::{Deadlines, SharedClock};
use super::validity::Validity;
use crate::lock_service::wire::{HOLD_LOCK, HoldRequest, HoldResponse, Ping, Refusal};

/// Time between two pings. Several fit into the validity of the shortest lease in use.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Time that a server gets beyond the lock's timeout to respond. Also the longest wait for the
/// first pong, and for the end of the stream on release.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the end of the stream after a loss.
const LOST_RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the lock was not acquired.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    /// Refused by the server, with its reason.
    #[error("{why}")]
    Refused { reason: Refusal, why: String },
    #[error("cannot request the lock from the server: {0}")]
    Stream(#[from] TypedStreamError),
    #[error("the server did not respond within {0:?}")]
    Timeout(Duration),
    #[error("the server ended the stream without a response")]
    StreamEnded,
    #[error("unexpected response {0:?}; does the server run another version?")]
    Unexpected(HoldResponse),
    #[error("the lock was acquired, and lost before the command was started: {0}")]
    LostBeforeStart(LossCause),
}

/// Why a lock is no longer held, as far as this tool knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LossCause {
    #[error("the server reports: {0}")]
    Reported(String),
    #[error("the server did not confirm the lock in time")]
    Unconfirmed,
    #[error("the server ended the stream")]
    StreamEnded,
    #[error("the watchdog process of this tool has ended")]
    NoWatchdog,
    #[error("{0}")]
    Failed(String),
}

/// How long a release waits for its confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleaseWait {
    /// The lock is held.
    Long,
    /// The lock is lost: most likely the server cannot confirm anything.
    Short,
}

/// An acquired lock's token and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// `None` if too few lockers have tokens.
    pub(crate) token: Option<u64>,
    pub(crate) uid: String,
}

/// A lock that is held until it is released, dropped or lost.
pub(crate) struct LockHold {
    pub(crate) grant: Grant,
    pings: TypedSender<Ping>,
    responses: TypedReceiver<HoldResponse>,
    validity: Validity,
}

impl LockHold {
    /// Returns once the lock is held and confirmed by a pong.
    ///
    /// Dropping the future cancels the request; a lock that was granted meanwhile is released.
    pub(crate) async fn acquire(
        connection: &Connection,
        request: &HoldRequest,
    ) -> Result<Self, HoldError> {
        // A single attempt, without a timeout, waits for lockers as long as any attempt.
        let deadline_after = Duration::from_millis(request.timeout_ms)
            .saturating_add(ATTEMPT_TIMEOUT + RESPONSE_TIMEOUT);
        let acquiring = async {
            let (pings, mut responses) = HOLD_LOCK.call(connection, request).await?.split();
            let grant = match responses.next().await.ok_or(HoldError::StreamEnded)?? {
                HoldResponse::Granted { token, uid, valid_for_ms: _ } => Grant { token, uid },
                HoldResponse::Refused { reason, why } => {
                    return Err(HoldError::Refused { reason, why });
                }
                response => return Err(HoldError::Unexpected(response)),
            };
            Ok(Self { grant, pings, responses, validity: Validity::default() })
        };
        let mut hold = timeout(deadline_after, acquiring)
            .await
            .map_err(|_| HoldError::Timeout(deadline_after))??;
        hold.confirm_first().await?;
        Ok(hold)
    }

    /// Sends the first ping and waits for its pong.
    async fn confirm_first(&mut self) -> Result<(), HoldError> {
        let until = SharedClock::now().after(RESPONSE_TIMEOUT);
        self.ping(until).await.map_err(HoldError::LostBeforeStart)?;
        let left = until.since(SharedClock::now());
        let response = timeout(left, self.responses.next()).await;
        self.handle_response(response.map_err(|_| HoldError::Timeout(RESPONSE_TIMEOUT))?)
            .map_err(HoldError::LostBeforeStart)?;
        match self.validity.is_valid(SharedClock::now()) {
            true => Ok(()),
            false => Err(HoldError::LostBeforeStart(LossCause::Unconfirmed)),
        }
    }

    /// When the command must end, unless the lock is confirmed again.
    pub(crate) fn deadlines(&self) -> Option<Deadlines> {
        self.validity.deadlines()
    }

    /// Keeps the lock confirmed with pings, and passes on what each pong says about its validity.
    /// Returns as soon as the command must end.
    pub(crate) async fn wait_lost(&mut self, mut confirmed: impl FnMut(Deadlines)) -> LossCause {
        let mut ping_timer = interval(PING_INTERVAL);
        ping_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = None;
        loop {
            // Checks the clock too: after this process was stopped, or the machine suspended, for a
            // while, its timers are late.
            let deadlines = match self.validity.deadlines() {
                Some(deadlines) if self.validity.is_valid(SharedClock::now()) => deadlines,
                Some(_) | None => return LossCause::Unconfirmed,
            };
            if reported.replace(deadlines) != Some(deadlines) {
                confirmed(deadlines);
            }
            let until = deadlines.terminate_at;
            let step = tokio::select! {
                biased;
                () = until.sleep_until() => Err(LossCause::Unconfirmed),
                response = self.responses.next() => self.handle_response(response),
                _ = ping_timer.tick() => self.ping(until).await,
            };
            if let Err(lost) = step {
                return lost;
            }
        }
    }

    /// Releases the lock, and waits for a while for the server's confirmation.
    pub(crate) async fn release(self, wait: ReleaseWait) {
        let longest = match wait {
            ReleaseWait::Long => RESPONSE_TIMEOUT,
            ReleaseWait::Short => LOST_RELEASE_TIMEOUT,
        };
        let Self { pings, mut responses, .. } = self;
        let released = async {
            pings.finish().await?;
            while let Some(response) = responses.next().await {
                response?;
            }
            Ok::<(), TypedStreamError>(())
        };
        match timeout(longest, released).await {
            Ok(Ok(())) => {}
            // Then the server releases it when it finds the stream ended, or the lease expires.
            Ok(Err(error)) => tracing::warn!(%error, "release not confirmed"),
            Err(_) => tracing::warn!(waited = ?longest, "release not confirmed"),
        }
    }

    /// Sends a ping, unless too many have no pong yet.
    async fn ping(&mut self, until: SharedClock) -> Result<(), LossCause> {
        let Some(number) = self.validity.ping(SharedClock::now()) else { return Ok(()) };
        let ping = Ping { number };
        let sent = tokio::select! {
            biased;
            sent = self.pings.send(&ping) => sent,
            () = until.sleep_until() => return Err(LossCause::Unconfirmed),
        };
        match sent {
            Ok(()) => Ok(()),
            // The receiver gets the cause.
            Err(_) => Err(self.wait_stream_end().await),
        }
    }

    /// Returns how the stream ended.
    async fn wait_stream_end(&mut self) -> LossCause {
        loop {
            let response = timeout(RESPONSE_TIMEOUT, self.responses.next()).await;
            match response.map(|response| self.handle_response(response)) {
                Ok(Ok(())) => {}
                Ok(Err(lost)) => return lost,
                Err(_) => return LossCause::StreamEnded,
            }
        }
    }

    fn handle_response(
        &mut self,
        response: Option<Result<HoldResponse, TypedStreamError>>,
    ) -> Result<(), LossCause> {
        match response {
            Some(Ok(HoldResponse::Pong { number, valid_for_ms })) => {
                let valid_for = Duration::from_millis(valid_for_ms);
                self.validity.handle_pong(number, valid_for, SharedClock::now());
                Ok(())
            }
            Some(Ok(HoldResponse::Lost { why })) => Err(LossCause::Reported(why)),
            Some(Ok(response @ (HoldResponse::Granted { .. } | HoldResponse::Refused { .. }))) => {
                let text = format!("unexpected response {response:?} for a held lock");
                Err(LossCause::Failed(text))
            }
            Some(Err(error)) => Err(LossCause::Failed(error.to_string())),
            None => Err(LossCause::StreamEnded),
        }
    }
}

#[cfg(test)]
mod tests;
