//! A lock that a server holds for this tool: got, watched, let go.
//!
//! ```text
//!             Granted              Pong 0               server says Lost, stream ends,
//!   Asking ────────────► Unproven ────────► Held ─────── or silence until the certainty ends ──► lost
//!      │                    │                │ release
//!      └ Refused, silence ──┴──► error       └──────────► released when the stream has ended
//! ```
//!
//! `Unproven` exists because a grant does not tell when it was given: the answer may have been under
//! way for as long as the lease. The first ping is what that is measured with.

use std::time::Duration;

use grid::{Connection, TypedReceiver, TypedSender, TypedStreamError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};

use super::certainty::Certainty;
use crate::lock_service::wire::{HOLD_LOCK, HoldAnswer, HoldRequest, Ping, Refusal};

/// Time between two pings.
const PING_EVERY: Duration = Duration::from_secs(1);

/// What a server gets beyond the time that a lock may take, to say that it has not got it; and the
/// longest wait for a first pong, and for the end of the stream once the lock is to be released.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    /// By the server, in its words.
    #[error("{why}")]
    Refused { reason: Refusal, why: String },
    #[error("the server cannot be asked for a lock: {0}")]
    Stream(#[from] TypedStreamError),
    #[error("the server did not say within {0:?} whether there is a lock")]
    Silent(Duration),
    #[error("the server ended the stream without a word")]
    Ended,
    #[error("the server said {0:?} when that made no sense; does it run another version?")]
    Unexpected(HoldAnswer),
    #[error("the lock was got, and lost before the command could be started: {0}")]
    LostAtOnce(Lost),
}

/// Why a lock is held no more, as far as is known here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    #[error("the server says so: {0}")]
    Told(String),
    #[error("the server has not confirmed it in time")]
    Unconfirmed,
    #[error("the server has ended the stream")]
    Ended,
    #[error("{0}")]
    Failed(String),
}

/// What was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) token: u64,
    pub(crate) uid: String,
}

/// A lock that is held until it is released, dropped or lost.
pub(crate) struct Hold {
    pub(crate) grant: Grant,
    pings: TypedSender<Ping>,
    answers: TypedReceiver<HoldAnswer>,
    certainty: Certainty,
}

impl Hold {
    /// Returns once the lock is held and certain.
    ///
    /// Dropping the future gives up; a lock that was got meanwhile is released.
    pub(crate) async fn acquire(
        connection: &Connection,
        request: &HoldRequest,
    ) -> Result<Self, HoldError> {
        let patience = Duration::from_millis(request.timeout_ms).saturating_add(ANSWER_WITHIN);
        let asked = async {
            let (pings, mut answers) = HOLD_LOCK.call(connection, request).await?.split();
            let grant = match answers.next().await.ok_or(HoldError::Ended)?? {
                HoldAnswer::Granted { token, uid, valid_for_ms: _ } => Grant { token, uid },
                HoldAnswer::Refused { reason, why } => {
                    return Err(HoldError::Refused { reason, why });
                }
                answer => return Err(HoldError::Unexpected(answer)),
            };
            Ok(Self { grant, pings, answers, certainty: Certainty::default() })
        };
        let mut hold =
            timeout(patience, asked).await.map_err(|_| HoldError::Silent(patience))??;
        hold.prove().await?;
        Ok(hold)
    }

    /// Pings once.
    async fn prove(&mut self) -> Result<(), HoldError> {
        let until = Instant::now() + ANSWER_WITHIN;
        self.ping(until).await.map_err(HoldError::LostAtOnce)?;
        let answer = timeout_at(until, self.answers.next()).await;
        self.heed(answer.map_err(|_| HoldError::Silent(ANSWER_WITHIN))?)
            .map_err(HoldError::LostAtOnce)?;
        match self.certainty.is_certain(Instant::now()) {
            true => Ok(()),
            false => Err(HoldError::LostAtOnce(Lost::Unconfirmed)),
        }
    }

    /// Keeps asking the server how long the lock is certain. Returns when it is so no more, at the
    /// very moment.
    pub(crate) async fn until_lost(&mut self) -> Lost {
        let mut pace = interval(PING_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Asked of the clock itself too: this process may have been stopped for a while, and then
            // the timers are late.
            let until = match self.certainty.until() {
                Some(until) if self.certainty.is_certain(Instant::now()) => until,
                Some(_) | None => return Lost::Unconfirmed,
            };
            let heard = tokio::select! {
                biased;
                () = sleep_until(until) => Err(Lost::Unconfirmed),
                answer = self.answers.next() => self.heed(answer),
                _ = pace.tick() => self.ping(until).await,
            };
            if let Err(lost) = heard {
                return lost;
            }
        }
    }

    /// Lets go, and waits for a while until the server has.
    pub(crate) async fn release(self) {
        let Self { pings, mut answers, .. } = self;
        let released = async {
            pings.finish().await?;
            while let Some(answer) = answers.next().await {
                answer?;
            }
            Ok::<(), TypedStreamError>(())
        };
        match timeout(ANSWER_WITHIN, released).await {
            Ok(Ok(())) => {}
            // The server releases when it finds the stream gone, or else the lease ends.
            Ok(Err(error)) => tracing::warn!(%error, "the release was not confirmed"),
            Err(_) => tracing::warn!("the release was not confirmed within {ANSWER_WITHIN:?}"),
        }
    }

    /// Sends a ping, unless many have no answer yet.
    async fn ping(&mut self, until: Instant) -> Result<(), Lost> {
        let Some(number) = self.certainty.ping(Instant::now()) else { return Ok(()) };
        match timeout_at(until, self.pings.send(&Ping { number })).await {
            Ok(Ok(())) => Ok(()),
            // What ended the stream is what the receiver learns.
            Ok(Err(_)) => Err(self.answers_end().await),
            Err(_) => Err(Lost::Unconfirmed),
        }
    }

    /// How the stream ended.
    async fn answers_end(&mut self) -> Lost {
        loop {
            let answer = timeout(ANSWER_WITHIN, self.answers.next()).await;
            match answer.map(|answer| self.heed(answer)) {
                Ok(Ok(())) => {}
                Ok(Err(lost)) => return lost,
                Err(_) => return Lost::Ended,
            }
        }
    }

    fn heed(&mut self, answer: Option<Result<HoldAnswer, TypedStreamError>>) -> Result<(), Lost> {
        match answer {
            Some(Ok(HoldAnswer::Pong { number, valid_for_ms })) => {
                self.certainty.answered(number, Duration::from_millis(valid_for_ms));
                Ok(())
            }
            Some(Ok(HoldAnswer::Lost { why })) => Err(Lost::Told(why)),
            Some(Ok(answer @ (HoldAnswer::Granted { .. } | HoldAnswer::Refused { .. }))) => {
                Err(Lost::Failed(format!("the server said {answer:?} of a lock that is held")))
            }
            Some(Err(error)) => Err(Lost::Failed(error.to_string())),
            None => Err(Lost::Ended),
        }
    }
}

#[cfg(test)]
mod tests;
