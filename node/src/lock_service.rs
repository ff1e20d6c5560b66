//! Locks for clients: a server acquires and holds them on behalf of clients, lists them, and forces
//! them open.
//!
//! A client is not on the lock grid. It sends requests to a server on the main grid, and the server
//! holds the lock as its own. `wire` has the messages.
//!
//! ```text
//!              granted          client ends the stream, or disconnects
//!   Acquiring ─────────► Held ────────────────────────────────────────► released
//!     │ refused,          │ lost, or this server shuts down: the client is notified. No other holder
//!     │ disconnected      ▼ gets the lock before the client's command ends or its lease expires.
//!     └──► end          LossReported ─────────────────────────────────► released
//! ```

pub(crate) mod wire;

use std::time::Duration;

use dsync::{DRWMutex, Dsync, Guard, LockError, LockOptions, LossReason, Token};
use grid::{HandlerError, RegisterError, RequestContext, TypedOutput, TypedReceiver};
use tokio::sync::watch;

use self::wire::{
    FORCE_UNLOCK, ForceRequest, GET_LOCKS, GetLocksRequest, HOLD_LOCK, HoldRequest, HoldResponse,
    Ping, Refusal,
};
use crate::grids::Grids;

/// Longest wait for lockers, whatever the client asks for.
const LOCKER_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Serves lock requests of clients until it is stopped.
#[derive(Debug)]
pub(crate) struct LockService {
    is_stopping: watch::Sender<bool>,
}

impl LockService {
    /// Registers all handlers with the main grid.
    pub(crate) fn register(grids: &Grids) -> Result<Self, RegisterError> {
        let is_stopping = watch::Sender::new(false);
        let (dsync, stopping) = (grids.dsync.clone(), is_stopping.subscribe());
        HOLD_LOCK.register(&grids.main, move |context, request, input, output| {
            let session =
                HoldSession { dsync: dsync.clone(), stopping: stopping.clone(), input, output };
            session.serve(context, request)
        })?;
        let dsync = grids.dsync.clone();
        GET_LOCKS.register(&grids.main, move |_context, request: GetLocksRequest| {
            let dsync = dsync.clone();
            async move { Ok(dsync.locks(locker_timeout(request.timeout_ms)).await) }
        })?;
        let dsync = grids.dsync.clone();
        FORCE_UNLOCK.register(&grids.main, move |context, request: ForceRequest| {
            let dsync = dsync.clone();
            async move {
                tracing::warn!(
                    client = %context.caller(), what = ?request.what, "lock forced open by an operator"
                );
                Ok(dsync.force_unlock(&request.what, locker_timeout(request.timeout_ms)).await)
            }
        })?;
        Ok(Self { is_stopping })
    }

    /// Notifies all clients that hold locks that the server shuts down.
    pub(crate) fn stop(&self) {
        self.is_stopping.send_replace(true);
    }
}

fn locker_timeout(timeout_ms: u64) -> Duration {
    Duration::from_millis(timeout_ms).min(LOCKER_TIMEOUT_MAX)
}

/// One client's request for a lock, and the lock while it is held.
struct HoldSession {
    dsync: Dsync,
    stopping: watch::Receiver<bool>,
    input: TypedReceiver<Ping>,
    output: TypedOutput<HoldResponse>,
}

/// Why a lock was not acquired.
enum NotAcquired {
    Refused(Refusal, String),
    /// The client has ended the stream.
    Cancelled,
}

impl HoldSession {
    async fn serve(
        mut self,
        context: RequestContext,
        request: HoldRequest,
    ) -> Result<(), HandlerError> {
        let guard = match self.acquire(&context, &request).await {
            Ok(guard) => guard,
            Err(NotAcquired::Refused(reason, why)) => {
                return Ok(self.output.send(&HoldResponse::Refused { reason, why }).await?);
            }
            Err(NotAcquired::Cancelled) => return Ok(()),
        };
        let granted = HoldResponse::Granted {
            token: guard.token().map_or(0, Token::get),
            uid: guard.uid().to_owned(),
            valid_for_ms: valid_for_ms(&guard),
        };
        self.output.send(&granted).await?;
        self.hold(guard).await
    }

    /// Acquires the lock. Dropping the future, as with the stream, cancels the request.
    async fn acquire(
        &mut self,
        context: &RequestContext,
        request: &HoldRequest,
    ) -> Result<Guard, NotAcquired> {
        let mutex = DRWMutex::new(&self.dsync, &request.resources);
        let options = LockOptions::default()
            .timeout(Duration::from_millis(request.timeout_ms))
            .source(&format!("{}: {}", context.caller(), request.source));
        let acquiring = async {
            match request.read {
                true => mutex.read_lock(options).await,
                false => mutex.lock(options).await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(self.stopping.clone()) => Err(refusal(&LockError::ShuttingDown)),
            // Pings begin after the grant, so this is the end of the stream or a protocol error.
            _ = self.input.next() => Err(NotAcquired::Cancelled),
            acquired = acquiring => acquired.map_err(|error| refusal(&error)),
        }
    }

    async fn hold(&mut self, guard: Guard) -> Result<(), HandlerError> {
        let (lost, stopped) = (guard.lost(), stopped(self.stopping.clone()));
        let ended = async {
            tokio::select! {
                biased;
                lost = lost => loss_text(lost),
                () = stopped => LockError::ShuttingDown.to_string(),
            }
        };
        tokio::pin!(ended);
        let mut is_loss_reported = false;
        loop {
            tokio::select! {
                biased;
                why = &mut ended, if !is_loss_reported => {
                    is_loss_reported = true;
                    self.output.send(&HoldResponse::Lost { why }).await?;
                }
                ping = self.input.next() => match ping {
                    Some(ping) => {
                        let number = ping?.number;
                        let valid_for_ms = valid_for_ms(&guard);
                        self.output.send(&HoldResponse::Pong { number, valid_for_ms }).await?;
                    }
                    None => {
                        guard.unlock();
                        return Ok(());
                    }
                },
            }
        }
    }
}

fn valid_for_ms(guard: &Guard) -> u64 {
    u64::try_from(guard.time_left().as_millis()).unwrap_or(u64::MAX)
}

/// Completes when the service is stopped.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender is dropped only with the service.
    let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
}

fn refusal(error: &LockError) -> NotAcquired {
    let reason = match error {
        LockError::TimedOut { .. } => Refusal::TimedOut,
        LockError::Resources(_) | LockError::SourceTooLong { .. } => Refusal::Invalid,
        _ => Refusal::Unavailable,
    };
    NotAcquired::Refused(reason, error.to_string())
}

/// Returns the text of a loss, which the tool prints after "the server reports: ".
fn loss_text(lost: LossReason) -> String {
    match lost {
        LossReason::Released => LockError::ShuttingDown.to_string(),
        lost => lost.to_string(),
    }
}
