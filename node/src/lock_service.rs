//! What a server does about locks for clients: takes and holds them, lists them, forces them open.
//!
//! A client is no member of the grid of the locks. It asks a server on the main grid, and the server
//! takes the lock as its own. `wire` is what they say to each other.
//!
//! ```text
//!            granted           client ends the stream, or is gone
//!   Taking ──────────► Held ────────────────────────────────────► released
//!     │ refused,        │ lost, or this server stops: the client is told, and nobody else gets it
//!     │ client gone      ▼ while the client's command ends, or before its lease has
//!     └──► nothing    Told ─────────────────────────────────────► released
//! ```

pub(crate) mod wire;

use std::time::Duration;

use dsync::{DRWMutex, Dsync, Guard, LockError, LockOptions, Lost};
use grid::{HandlerError, RegisterError, RequestContext, TypedOutput, TypedReceiver};
use tokio::sync::watch;

use self::wire::{
    FORCE_UNLOCK, ForceRequest, GET_LOCKS, GetLocksRequest, HOLD_LOCK, HoldAnswer, HoldRequest,
    Ping, Refusal,
};
use crate::grids::Grids;

/// Longest time that lockers are asked for an answer, whatever the client says.
const ASK_WITHIN_MAX: Duration = Duration::from_secs(60);

/// Serves clients until it is told to stop.
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
            let serving =
                Serving { dsync: dsync.clone(), stopping: stopping.clone(), input, output };
            serving.serve(context, request)
        })?;
        let dsync = grids.dsync.clone();
        GET_LOCKS.register(&grids.main, move |_context, request: GetLocksRequest| {
            let dsync = dsync.clone();
            async move { Ok(dsync.locks(ask_within(request.timeout_ms)).await) }
        })?;
        let dsync = grids.dsync.clone();
        FORCE_UNLOCK.register(&grids.main, move |context, request: ForceRequest| {
            let dsync = dsync.clone();
            async move {
                tracing::warn!(client = %context.caller(), what = ?request.what, "forced to unlock");
                Ok(dsync.force_unlock(&request.what, ask_within(request.timeout_ms)).await)
            }
        })?;
        Ok(Self { is_stopping })
    }

    /// Tells the clients who hold locks to come to an end.
    pub(crate) fn stop(&self) {
        self.is_stopping.send_replace(true);
    }
}

fn ask_within(timeout_ms: u64) -> Duration {
    Duration::from_millis(timeout_ms).min(ASK_WITHIN_MAX)
}

/// One client that wants a lock.
struct Serving {
    dsync: Dsync,
    stopping: watch::Receiver<bool>,
    input: TypedReceiver<Ping>,
    output: TypedOutput<HoldAnswer>,
}

/// Why a client gets no lock.
enum NotTaken {
    Refused(Refusal, String),
    /// It has ended the stream.
    GivenUp,
}

impl Serving {
    async fn serve(
        mut self,
        context: RequestContext,
        request: HoldRequest,
    ) -> Result<(), HandlerError> {
        let guard = match self.take(&context, &request).await {
            Ok(guard) => guard,
            Err(NotTaken::Refused(reason, why)) => {
                return Ok(self.output.send(&HoldAnswer::Refused { reason, why }).await?);
            }
            Err(NotTaken::GivenUp) => return Ok(()),
        };
        let granted = HoldAnswer::Granted {
            token: guard.token().get(),
            uid: guard.uid().to_owned(),
            valid_for_ms: valid_for_ms(&guard),
        };
        self.output.send(&granted).await?;
        self.hold(guard).await
    }

    /// Dropped with the stream, it gives up too.
    async fn take(
        &mut self,
        context: &RequestContext,
        request: &HoldRequest,
    ) -> Result<Guard, NotTaken> {
        let mutex = DRWMutex::new(&self.dsync, &request.resources);
        let options = LockOptions::default()
            .timeout(Duration::from_millis(request.timeout_ms))
            .source(&format!("{}: {}", context.caller(), request.source));
        let taking = async {
            match request.read {
                true => mutex.read_lock(options).await,
                false => mutex.lock(options).await,
            }
        };
        tokio::select! {
            biased;
            () = stopped(self.stopping.clone()) => Err(refusal(&LockError::ShuttingDown)),
            // Pings begin after the grant: whatever comes now, it is not one.
            _ = self.input.next() => Err(NotTaken::GivenUp),
            taken = taking => taken.map_err(|error| refusal(&error)),
        }
    }

    async fn hold(&mut self, guard: Guard) -> Result<(), HandlerError> {
        let (lost, stopped) = (guard.lost(), stopped(self.stopping.clone()));
        let over = async {
            tokio::select! {
                biased;
                lost = lost => why_lost(lost),
                () = stopped => LockError::ShuttingDown.to_string(),
            }
        };
        tokio::pin!(over);
        let mut is_told = false;
        loop {
            tokio::select! {
                biased;
                why = &mut over, if !is_told => {
                    is_told = true;
                    self.output.send(&HoldAnswer::Lost { why }).await?;
                }
                ping = self.input.next() => match ping {
                    Some(ping) => {
                        let number = ping?.number;
                        let valid_for_ms = valid_for_ms(&guard);
                        self.output.send(&HoldAnswer::Pong { number, valid_for_ms }).await?;
                    }
                    None => {
                        guard.unlock().await;
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

/// Resolves when clients are to come to an end.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender is gone only when nobody can say so any more.
    let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
}

fn refusal(error: &LockError) -> NotTaken {
    let reason = match error {
        LockError::TimedOut { .. } => Refusal::TimedOut,
        LockError::Names(_) | LockError::SourceTooLong { .. } => Refusal::Invalid,
        _ => Refusal::Unavailable,
    };
    NotTaken::Refused(reason, error.to_string())
}

/// In words that fit after "the server says so".
fn why_lost(lost: Lost) -> String {
    match lost {
        Lost::Released => LockError::ShuttingDown.to_string(),
        lost => lost.to_string(),
    }
}
