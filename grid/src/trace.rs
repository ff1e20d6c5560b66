//! Every call can be seen: who called what, how long it took, how it ended (B42).
//!
//! With no subscriber a call costs one atomic load. [`log_calls`] is a ready subscriber that turns
//! each call into an event of the `tracing` crate, with the field names of OpenTelemetry's
//! conventions for remote procedure calls.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::error::{CallError, StreamError};
use crate::name::Name;
use crate::time::Instant;

/// One call, after it ended; a stream is one, with all of its messages.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallTrace {
    /// The handler's name with its subroute, or its number where it has no name here.
    pub name: Arc<str>,
    /// This server.
    pub local: Name,
    /// The other one.
    pub remote: Name,
    /// Which side of the call this is.
    pub side: CallSide,
    /// When it began, by the manager's clock.
    pub start: Instant,
    /// How long it took.
    pub duration: Duration,
    /// Bytes of the payload that this side sent.
    pub bytes_out: usize,
    /// Bytes of the payload that this side received.
    pub bytes_in: usize,
    /// How it ended.
    pub outcome: TraceOutcome,
}

/// Which side of a call is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSide {
    /// It was made here.
    Caller,
    /// It was served here.
    Callee,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceOutcome {
    /// With an answer.
    Ok,
    /// It was made here and failed.
    Failed(CallError),
    /// A stream was opened here and did not end well.
    StreamFailed(StreamError),
    /// It was served here and its handler failed, with this text.
    HandlerFailed(Arc<str>),
    /// It was given up: by its caller here, or by the other side of a call that was served here.
    Cancelled,
}

impl fmt::Display for TraceOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Failed(error) => error.fmt(f),
            Self::StreamFailed(error) => error.fmt(f),
            Self::HandlerFailed(message) => f.write_str(message),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// Gets every call of a manager. Runs on the task of the call: it must be quick.
pub type Subscriber = Arc<dyn Fn(&CallTrace) + Send + Sync>;

/// Who wants to see calls.
#[derive(Default)]
pub(crate) struct Tracer {
    is_active: AtomicBool,
    subscribers: RwLock<Vec<Subscriber>>,
}

impl Tracer {
    /// Whether anybody wants to see calls: the one atomic load.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    pub(crate) fn subscribe(&self, subscriber: Subscriber) {
        let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(subscriber);
        self.is_active.store(true, Ordering::Relaxed);
    }

    pub(crate) fn unsubscribe(&self, subscriber: &Subscriber) {
        let mut subscribers = self.subscribers.write().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|other| !Arc::ptr_eq(other, subscriber));
        self.is_active.store(!subscribers.is_empty(), Ordering::Relaxed);
    }

    pub(crate) fn emit(&self, trace: &CallTrace) {
        // Cloned out, so that no lock is held while a subscriber runs.
        let subscribers = self.subscribers.read().unwrap_or_else(PoisonError::into_inner).clone();
        for subscriber in subscribers {
            let run = std::panic::AssertUnwindSafe(|| subscriber(trace));
            if let Err(panic) = std::panic::catch_unwind(run) {
                // What was thrown may panic as well when it is dropped.
                std::mem::forget(panic);
                // It must not take the connection's task with it.
                tracing::warn!(target: "grid", call = %trace.name, "a call subscriber panicked");
            }
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("is_active", &self.is_active()).finish()
    }
}

/// A subscriber that logs each call at debug level under the target `grid::call`.
pub fn log_calls() -> Subscriber {
    Arc::new(|trace: &CallTrace| {
        let (kind, client, server) = match trace.side {
            CallSide::Caller => ("client", &trace.local, &trace.remote),
            CallSide::Callee => ("server", &trace.remote, &trace.local),
        };
        tracing::debug!(
            target: "grid::call",
            side = ?trace.side,
            otel.kind = kind,
            rpc.system = "grid",
            rpc.method = %trace.name,
            server.address = %server,
            client.address = %client,
            duration_us = u64::try_from(trace.duration.as_micros()).unwrap_or(u64::MAX),
            bytes_out = trace.bytes_out,
            bytes_in = trace.bytes_in,
            outcome = %trace.outcome,
            "call"
        );
    })
}
